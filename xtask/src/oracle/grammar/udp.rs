//! UDP and UDP-Lite: packets in both directions; lengths, coverages and checksums may be wrong.
use super::generated_packet::{GeneratedPacket, endpoints_toward, ports_between};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, PacketEndpoints};
use crate::oracle::rng::OracleRng;

/// A UDP or UDP-Lite flow.
pub struct UdpFlow {
    ends: PacketEndpoints,
    ports: (u16, u16),
    lite: bool,
    /// Percentage of packets that are replies.
    reply_percent: usize,
}

impl UdpFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> UdpFlow {
        let ports = ports_between(ends, (40000 + random.below(8) as u16, random.pick(&[53, 123, 40001, 0])));
        UdpFlow { ends, ports, lite: random.percent(25), reply_percent: random.pick(&[0, 20, 50]) }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = if random.percent(self.reply_percent) { Toward::Client } else { Toward::Server };
        let ends = endpoints_toward(self.ends, toward);
        let (source, destination) = if toward == Toward::Server { self.ports } else { (self.ports.1, self.ports.0) };
        let protocol = if self.lite { packet_builder::UDPLITE } else { packet_builder::UDP };
        let data = random.pick(&[0, 1, 9, 100, 500]);
        let mut bytes = Vec::with_capacity(8 + data);
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend((8 + data as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.resize(8 + data, b'u');
        let odd = random.percent(6);
        if odd && random.percent(40) {
            let length = random.pick(&[0, 1, 7, 8, 9, 8 + data as u16 - 1, 9 + data as u16, 0xffff]);
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
        }
        if self.lite {
            write_udplite_checksum(&mut bytes, ends, random);
        } else {
            packet_builder::write_checksum(&mut bytes, 6, ends, protocol, odd && random.percent(30));
        }
        if odd && random.percent(30) {
            bytes[6..8].fill(0);
        }
        if odd && random.percent(10) {
            bytes.truncate(random.below(9));
        }
        GeneratedPacket { toward, ends, protocol, transport: bytes }
    }
}

/// UDP-Lite's checksum covers as many bytes as its header says; zero means all. Linux 6.18 was observed to sum UDP's protocol number into it, and over IPv4 only
/// the low byte of the length; most of these packets do the same.
fn write_udplite_checksum(bytes: &mut [u8], ends: PacketEndpoints, random: &mut OracleRng) {
    if random.percent(50) {
        bytes[4..6].copy_from_slice(&random.pick(&[0u16, 8, 8]).to_be_bytes());
    }
    let field = usize::from(bytes[4]) << 8 | usize::from(bytes[5]);
    let covered = bytes.get(..field).filter(|covered| !covered.is_empty()).unwrap_or(bytes);
    let seen_length = if ends.is_ipv6() { bytes.len() } else { bytes.len() & 0xff };
    let protocol = random.weighted(&[(9, packet_builder::UDP), (1, packet_builder::UDPLITE)]);
    let length = random.weighted(&[(9, seen_length), (1, bytes.len())]);
    let check = packet_builder::checksum_over(ends, protocol, length, covered);
    let wrong = u16::from(random.percent(4));
    let check = if check == 0 { 0xffff } else { check } ^ wrong;
    bytes[6..8].copy_from_slice(&check.to_be_bytes());
}
