//! Checked views of packets: parse once, or say why not.
//!
//! [`Packet`] is one IP datagram whose headers have been checked down to the transport header; the modules named after
//! protocols ([`tcp`], [`udp`], [`icmp`], [`sctp`], [`gre`]) are views of what follows it. [`link`] strips what precedes it.
//! When a datagram is a fragment, [`reassembly`] makes it whole; [`edit`] changes it in place.
//! Nothing here allocates except [`reassembly`], nothing reads a clock, nothing panics on any input.
//!
//! ```
//! use keepstate_wire::{Addresses, Packet, ParseError, udp};
//!
//! let bytes = [
//!     0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xbf, 10, 1, 0, 2, 10, 2, 0, 9, // IPv4, 10.1.0.2 to 10.2.0.9
//!     0x9c, 0x40, 0, 53, 0, 12, 0, 0, b'd', b'a', b't', b'a', // UDP, 40000 to 53, no checksum
//! ];
//! let packet = Packet::parse(&bytes)?;
//! assert_eq!(packet.addresses(), Addresses::V4 { source: [10, 1, 0, 2], destination: [10, 2, 0, 9] });
//! let header = udp::Header::parse(packet.transport(), packet.transport_len())?;
//! assert_eq!((header.source, header.destination), (40000, 53));
//!
//! assert_eq!(Packet::parse(&bytes[..31]).unwrap_err(), ParseError::Truncated);
//! # Ok::<(), ParseError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
mod error;
pub mod gre;
pub mod gso;
pub mod icmp;
mod icmp_inner;
pub mod ipv4_options;
mod ipv6_ext;
pub mod link;
mod packet;
pub mod reassembly;
pub mod rewrite;
pub mod sctp;
pub mod tcp;
pub mod udp;

pub use error::{LinuxAction, ParseError};
pub use icmp_inner::InnerPacket;
pub use packet::{Addresses, Family, FragmentHeader, Layout, Packet};
