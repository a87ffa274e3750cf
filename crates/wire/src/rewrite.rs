//! Changes in place: new addresses, ports, identifiers or payload, with every checksum updated.
//!
//! Checksums are updated incrementally (RFC 1624), not recomputed: a checksum that was wrong stays wrong, so that NAT does not hide
//! corruption. SCTP's CRC32c is the exception: it is recomputed over the packet. Lengths and positions never change, except
//! in [`mangle_tcp_payload`].
//!
//! ```
//! use keepstate_wire::{Packet, rewrite::PacketMut};
//! let mut bytes = [
//!     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xc3, 10, 1, 0, 2, 10, 2, 0, 9, // IPv4, 10.1.0.2 to 10.2.0.9
//!     0x9c, 0x40, 0, 53, 0, 8, 0x4f, 0x5b, // UDP, 40000 to 53
//! ];
//! assert!(Packet::parse(&bytes)?.transport_checksum_ok());
//! let mut packet = PacketMut::new(&mut bytes)?;
//! packet.set_source([192, 0, 2, 1].into());
//! packet.set_source_port(1024);
//! let packet = Packet::parse(&bytes)?;
//! assert_eq!(packet.to_string(), "IPv4 UDP 192.0.2.1:1024 > 10.2.0.9:53 length 28");
//! assert!(packet.transport_checksum_ok());
//! # Ok::<(), keepstate_wire::ParseError>(())
//! ```
mod csum_offload;
mod packet_mut;
mod tcp_options;
mod tcp_payload;

pub use csum_offload::{finish_partial_checksum, set_partial_checksum};
pub use packet_mut::{ChecksumMode, HeaderBase, PacketMut};
pub use tcp_options::{find_mss_option, find_tcp_option};
pub use tcp_payload::mangle_tcp_payload;

#[cfg(test)]
mod tests;
