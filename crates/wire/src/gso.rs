//! Large TCP packets that stand for many segments (GSO), as Linux cuts them at the device: [`GsoPacket`] describes one and yields its segments.
mod gso_packet;

pub use gso_packet::GsoPacket;
