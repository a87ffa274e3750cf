//! ICMP and ICMPv6: queries and replies, messages that create no connection, and errors about packets that were sent, or similar ones.
use super::generated_packet::{GeneratedPacket, endpoints_toward};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, PacketEndpoints};
use crate::oracle::rng::OracleRng;
use crate::oracle::step::RawPacketView;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Queries with one identifier between two hosts.
pub struct IcmpFlow {
    ends: PacketEndpoints,
    id: u16,
    kind: u8,
}

const QUERIES: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
const QUERIES_V6: [(u8, u8); 2] = [(128, 129), (139, 140)];

impl IcmpFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> IcmpFlow {
        let kind = if ends.is_ipv6() { random.below(QUERIES_V6.len()) } else { random.below(QUERIES.len()) };
        IcmpFlow { ends, id: random.below(12) as u16, kind: kind as u8 }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let v6 = self.ends.is_ipv6();
        let (query, answer) = if v6 { QUERIES_V6[usize::from(self.kind)] } else { QUERIES[usize::from(self.kind)] };
        let asks = random.percent(55);
        let mut kind = if asks { query } else { answer };
        let mut toward = if asks { Toward::Server } else { Toward::Client };
        if random.percent(6) {
            toward = random.pick(&[Toward::Server, Toward::Client]);
        }
        if random.percent(8) {
            kind = if v6 {
                random.pick(&[130, 131, 132, 133, 134, 135, 136, 137, 143, 144, 200, 255, 127, 100])
            } else {
                random.next_u8()
            };
        }
        let code = if random.percent(5) { random.next_u8() } else { 0 };
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.resize(8 + random.pick(&[0, 4, 12, 56]), b'i');
        if random.percent(2) {
            bytes.truncate(random.below(9));
        }
        let ends = endpoints_toward(self.ends, toward);
        let mut protocol = if v6 { packet_builder::ICMPV6 } else { packet_builder::ICMP };
        packet_builder::write_checksum(&mut bytes, 2, ends, protocol, random.percent(2));
        if random.permille(5) {
            protocol = if v6 { packet_builder::ICMP } else { packet_builder::ICMPV6 };
        }
        GeneratedPacket { toward, ends, protocol, transport: bytes }
    }
}

/// An error about `packet`, which was sent `toward`: from its destination or a router on the path, to its source; or with an error in one of these.
pub fn icmp_error(packet: &[u8], toward: Toward, random: &mut OracleRng) -> Option<GeneratedPacket> {
    let view = RawPacketView::parse(packet)?;
    let v6 = view.source.is_ipv6();
    let mut quote = packet.to_vec();
    if random.percent(60) {
        let header = packet.len() - view.transport.len();
        quote.truncate(header + random.pick(&[8, 8, 8, 20, 28, 7, 4, 3, 2, 0, 64]));
    } else if random.percent(5) {
        quote.truncate(random.below(quote.len()));
    }
    if random.percent(8) && quote.len() > 24 {
        let at = random.below(quote.len().min(64));
        quote[at] ^= 1 << random.below(8);
    }
    let kinds: &[(u8, u8)] = if v6 {
        &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1), (1, 9)]
    } else {
        &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0), (5, 0), (5, 1)]
    };
    let (kind, code) = random.pick(kinds);
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 5, 0];
    bytes.extend(quote);
    // An error is sent in the opposite direction of its packet; one that is not is forged, or is about a reply.
    let against = random.percent(92);
    let way = match (toward, against) {
        (Toward::Server, true) | (Toward::Client, false) => Toward::Client,
        _ => Toward::Server,
    };
    let mut ends = PacketEndpoints { source: view.destination, destination: view.source };
    if way == toward {
        ends = ends.reverse();
    }
    if random.percent(40) {
        ends.source = sibling_address(ends.source, 9);
    }
    if random.percent(6) {
        ends.destination = sibling_address(ends.destination, 1 + random.below(4) as u8);
    }
    let protocol = if v6 { packet_builder::ICMPV6 } else { packet_builder::ICMP };
    packet_builder::write_checksum(&mut bytes, 2, ends, protocol, random.percent(3));
    if random.permille(10) {
        bytes.truncate(random.below(12));
    }
    Some(GeneratedPacket { toward: way, ends, protocol, transport: bytes })
}

/// Another host of the same network.
fn sibling_address(address: IpAddr, host: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            Ipv4Addr::new(first, second, third, host).into()
        }
        IpAddr::V6(address) => {
            let mut bytes = address.octets();
            bytes[15] = host;
            Ipv6Addr::from(bytes).into()
        }
    }
}
