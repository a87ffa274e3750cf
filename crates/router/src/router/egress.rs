//! What a router gives out: packets, and their counts.
use std::net::{IpAddr, SocketAddr};

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Send it by an interface.
    Forward {
        /// The index of the interface.
        oif: u32,
        /// The neighbour to send it to: the next router, or the destination itself.
        next_hop: IpAddr,
        /// The packet, from its IP header on.
        packet: Vec<u8>,
    },
    /// Deliver it to the machine itself: the packet, from its IP header on.
    LocalDeliver(Vec<u8>),
    /// Deliver it to the machine itself, to the socket of a transparent proxy (`tproxy`).
    ToProxy {
        /// The number of its protocol: TCP (6) or UDP (17).
        protocol: u8,
        /// Where the socket listens; of the packet's family.
        listens_at: SocketAddr,
        /// The packet, from its IP header on.
        packet: Vec<u8>,
    },
    /// Let it leave as it was about to: a packet of [`Router::handle_output`](crate::Router::handle_output), by the interface that it was given for.
    LetOut(Vec<u8>),
    /// Deliver what the machine itself has sent to the machine itself, as if it came in by this interface: a packet of [`Router::handle_output`](crate::Router::handle_output), or an answer to one that was translated to another host.
    Loop {
        /// The index of the interface.
        iif: u32,
        /// The packet, from its IP header on.
        packet: Vec<u8>,
    },
}

impl Egress {
    /// The packet.
    pub fn packet(&self) -> &[u8] {
        match self {
            Egress::Forward { packet, .. }
            | Egress::LocalDeliver(packet)
            | Egress::LetOut(packet)
            | Egress::ToProxy { packet, .. }
            | Egress::Loop { packet, .. } => packet,
        }
    }

    /// The packet's buffer.
    pub fn into_packet(self) -> Vec<u8> {
        match self {
            Egress::Forward { packet, .. }
            | Egress::LocalDeliver(packet)
            | Egress::LetOut(packet)
            | Egress::ToProxy { packet, .. }
            | Egress::Loop { packet, .. } => packet,
        }
    }
}

/// A packet to send, and its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedEgress {
    /// The packet.
    pub egress: Egress,
    /// The mark that it came with, or that rules have set.
    pub mark: u32,
}

/// Counts of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterCounters {
    /// Packets received.
    pub received: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets delivered to the machine itself.
    pub delivered: u64,
    /// Packets of the router's own: ICMP errors, resets, synproxy segments.
    pub generated: u64,
    /// Packets dropped.
    pub dropped: u64,
}

impl std::fmt::Display for RouterCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RouterCounters { received, forwarded, delivered, generated, dropped } = self;
        write!(f, "rx {received} forwarded {forwarded} delivered {delivered} generated {generated} dropped {dropped}")
    }
}
