//! Numbers of Linux that findings, sizes and plans share. Sizes are those of 64-bit kernels.

/// Bytes of one connection in the slab of a recent kernel (5.15 and later).
pub const OBJECT_BYTES: u64 = 256;
/// Bytes of the extension of a connection with NAT, accounting, events or timestamps.
pub const EXTENSION_BYTES: u64 = 128;
/// Bytes of one connection with its extension.
pub const ENTRY_BYTES: u64 = OBJECT_BYTES + EXTENSION_BYTES;
/// Bytes of a bucket: one pointer.
pub const BUCKET_BYTES: u64 = 8;
/// Buckets in a page of 4 KiB; the kernel rounds up to whole pages.
pub const BUCKETS_PER_PAGE: u64 = 512;
/// The least timeout of an idle established connection, in seconds: 2 h 4 min (RFC 5382, REQ-5).
pub const MIN_ESTABLISHED_TIMEOUT: u64 = 7440;
