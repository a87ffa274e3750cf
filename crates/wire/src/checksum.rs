//! The Internet checksum (RFC 1071), CRC32c for SCTP, and incremental updates (RFC 1624).
