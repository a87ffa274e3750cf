//! Large TCP packets that stand for many segments: cutting them (GSO) and building them (GRO), as Linux does at the device.
//!
//! [`GsoPacket`] describes a large packet and yields its segments; [`GroAggregator`] merges consecutive segments of one flow into a
//! large packet. Merging happens only if cutting gives back the same segments, byte for byte.
mod gro;
mod gso_packet;

pub use gro::GroAggregator;
pub use gso_packet::GsoPacket;
