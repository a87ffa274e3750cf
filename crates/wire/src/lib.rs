//! Checked views of packets: parse once, or say why not.
//!
//! [`Packet`] is one IP datagram whose headers have been checked down to the transport header; the modules named after
//! protocols ([`tcp`], [`udp`], [`icmp`], [`sctp`], [`gre`]) are views of what follows it. [`link`] strips what precedes it.
//! Nothing here allocates except [`reassembly`], nothing reads a clock, nothing panics on any input.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
mod extension;
pub mod gre;
pub mod icmp;
pub mod link;
mod packet;
mod quote;
pub mod reassembly;
mod refusal;
pub mod sctp;
pub mod tcp;
pub mod udp;

pub use packet::{Addresses, Family, Fragment, Packet};
pub use quote::Quote;
pub use refusal::Refusal;
