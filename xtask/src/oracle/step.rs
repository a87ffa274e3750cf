//! One packet of a scenario: its direction, its bytes, and its flow.
use super::kernel::Toward;
use super::packet_builder;
use keepstate_engine::Tuple;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One packet or fragment.
#[derive(Clone, Debug)]
pub struct OracleStep {
    /// The earliest time it is sent, in milliseconds since the scenario began.
    pub not_before: u64,
    pub toward: Toward,
    pub bytes: Vec<u8>,
    /// Its flow, if known.
    pub flow: Option<FlowHash>,
}

impl OracleStep {
    /// A packet sent unfragmented.
    pub fn from_packet(toward: Toward, bytes: Vec<u8>) -> OracleStep {
        let flow = FlowHash::from_packet(&bytes);
        OracleStep { not_before: 0, toward, bytes, flow }
    }
}

/// Identifies a flow: the same in both directions, and for an ICMP error about a packet of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowHash(u64);

impl FlowHash {
    fn new(one: (IpAddr, u16), other: (IpAddr, u16), protocol: u8) -> FlowHash {
        let mut hasher = DefaultHasher::new();
        (one.min(other), one.max(other), protocol).hash(&mut hasher);
        FlowHash(hasher.finish())
    }

    /// The flow of a tuple.
    pub fn from_tuple(tuple: &Tuple) -> FlowHash {
        let (first, second) = match tuple.protocol {
            packet_builder::ICMP | packet_builder::ICMPV6 => (tuple.source_key, tuple.source_key),
            packet_builder::GRE => (0, 0),
            _ => (tuple.source_key, tuple.destination_key),
        };
        FlowHash::new((tuple.source, first), (tuple.destination, second), tuple.protocol)
    }

    /// The flow of a packet, as far as it can be parsed.
    pub fn from_packet(packet: &[u8]) -> Option<FlowHash> {
        let view = RawPacketView::parse(packet)?;
        if let Some(quoted) = view.inner_packet() {
            return FlowHash::from_packet(quoted).or(Some(FlowHash::new(
                (view.source, 0),
                (view.destination, 0),
                view.protocol,
            )));
        }
        let word =
            |at: usize| view.transport.get(at..at + 2).map_or(0, |pair| u16::from(pair[0]) << 8 | u16::from(pair[1]));
        let (source, destination) = match view.protocol {
            packet_builder::TCP | packet_builder::UDP | packet_builder::UDPLITE | packet_builder::SCTP => {
                (word(0), word(2))
            }
            packet_builder::ICMP | packet_builder::ICMPV6 => (word(4), word(4)),
            _ => (0, 0),
        };
        Some(FlowHash::new((view.source, source), (view.destination, destination), view.protocol))
    }
}

/// A packet parsed by the oracle itself, without the crates under test.
pub struct RawPacketView<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub transport: &'a [u8],
}

impl<'a> RawPacketView<'a> {
    /// Parses the IP header and IPv6 extension headers.
    pub fn parse(packet: &'a [u8]) -> Option<RawPacketView<'a>> {
        if packet.first()? >> 4 == 4 {
            let address =
                |at: usize| packet.get(at..at + 4)?.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes)));
            let transport = packet.get(usize::from(packet[0] & 15) * 4..)?;
            return Some(RawPacketView {
                source: address(12)?,
                destination: address(16)?,
                protocol: *packet.get(9)?,
                transport,
            });
        }
        let address =
            |at: usize| packet.get(at..at + 16)?.first_chunk::<16>().map(|bytes| IpAddr::V6(Ipv6Addr::from(*bytes)));
        let (mut protocol, mut at) = (*packet.get(6)?, 40);
        while let 0 | 43 | 44 | 60 = protocol {
            let length =
                if protocol == packet_builder::FRAGMENT { 8 } else { usize::from(*packet.get(at + 1)?) * 8 + 8 };
            (protocol, at) = (*packet.get(at)?, at + length);
        }
        Some(RawPacketView { source: address(8)?, destination: address(24)?, protocol, transport: packet.get(at..)? })
    }

    /// The packet inside an ICMP error.
    pub fn inner_packet(&self) -> Option<&'a [u8]> {
        let kind = *self.transport.first()?;
        let error = match self.protocol {
            packet_builder::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
            packet_builder::ICMPV6 => kind < 128,
            _ => false,
        };
        if error { self.transport.get(8..) } else { None }
    }
}
