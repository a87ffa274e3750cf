//! Checked views of IP packets, checksums, rewriting in place and reassembly: what connection tracking needs of a packet.
//!
//! - [`Packet`] is an IP packet whose headers have been checked down to the transport header.
//! - [`tcp`], [`udp`], [`icmp`], [`sctp`] and [`gre`] parse the transport header and what follows it; [`InnerPacket`] is the packet
//!   inside an ICMP error. [`link`] strips the link layer header of a captured frame.
//! - [`rewrite`] changes addresses, ports and other fields in place, with incremental checksums ([`checksum`]).
//! - [`reassembly`] puts fragments together, as Linux does. [`gso`] cuts and merges large TCP packets.
//!
//! Only [`reassembly`], [`gso`] and [`rewrite::mangle_tcp_payload`] allocate. Nothing reads a clock. No input makes it panic: every
//! malformed packet is a [`ParseError`].
//!
//! The crate is `no_std` (with `alloc`). The feature `serde`, off by default, derives `Serialize` and `Deserialize` for plain value
//! types.
//!
//! ```
//! use keepstate_wire::{Addresses, Packet, ParseError, udp::UdpHeader};
//!
//! let bytes = [
//!     0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xbf, 10, 1, 0, 2, 10, 2, 0, 9, // IPv4, 10.1.0.2 to 10.2.0.9
//!     0x9c, 0x40, 0, 53, 0, 12, 0, 0, b'd', b'a', b't', b'a', // UDP, 40000 to 53, no checksum
//! ];
//! let packet = Packet::parse(&bytes)?;
//! assert_eq!(packet.addresses(), Addresses::V4 { source: [10, 1, 0, 2], destination: [10, 2, 0, 9] });
//! let header = UdpHeader::parse(packet.transport(), packet.transport_len())?;
//! assert_eq!((header.source, header.destination), (40000, 53));
//!
//! assert_eq!(Packet::parse(&bytes[..31]).unwrap_err(), ParseError::Truncated);
//! assert_eq!(packet.to_string(), "IPv4 UDP 10.1.0.2:40000 > 10.2.0.9:53 length 32");
//! # Ok::<(), ParseError>(())
//! ```
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod addresses;
pub mod checksum;
mod error;
pub mod gre;
pub mod gso;
pub mod icmp;
mod icmp_inner;
pub mod ipv4_options;
mod ipv6_ext;
pub mod jhash;
pub mod keyed_hash;
pub mod link;
mod packet;
pub mod protocol;
pub mod reassembly;
pub mod rewrite;
pub mod sctp;
pub mod tcp;
pub mod udp;

pub use addresses::{Addresses, Family};
pub use error::{LinuxAction, ParseError};
pub use icmp_inner::InnerPacket;
pub use packet::{FragmentHeader, Layout, Packet, PlainTcp, PlainUdp};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
