//! Protocols without a tracker, IP options and extension headers before any protocol, and malformed headers.
use super::generated_packet::{GeneratedPacket, endpoints_toward};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, IpHeaderSpec, PacketEndpoints};
use crate::oracle::rng::OracleRng;

/// Two hosts and a protocol number.
pub struct OtherFlow {
    ends: PacketEndpoints,
    protocol: u8,
}

impl OtherFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> OtherFlow {
        OtherFlow { ends, protocol: random.pick(&[50, 51, 253, 254, 33, 89, 103, 2]) }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = random.weighted(&[(7, Toward::Server), (3, Toward::Client)]);
        let transport = vec![b'o'; random.pick(&[0, 1, 4, 8, 40])];
        // Protocol 51 is an extension header in IPv6, and must be complete.
        let protocol = if self.protocol == 51 && self.ends.is_ipv6() { 50 } else { self.protocol };
        GeneratedPacket { toward, ends: endpoints_toward(self.ends, toward), protocol, transport }
    }
}

/// Adds options (IPv4) or extension headers (IPv6).
pub fn add_ip_options(envelope: &mut IpHeaderSpec, v6: bool, random: &mut OracleRng) {
    if !v6 {
        envelope.options =
            random.pick(&[&[1u8, 1, 1, 0][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[0x88, 4, 0, 1], &[0x94, 4, 0, 0]]).to_vec();
        return;
    }
    for _ in 0..1 + random.below(2) {
        let first = envelope.extensions.is_empty();
        let pad = vec![0, 1, 4, 0, 0, 0, 0];
        let header = match random.below(3) {
            0 if first => (0, pad),
            1 => (43, vec![0, 4, 0, 0, 0, 0, 0]),
            _ => (60, pad),
        };
        envelope.extensions.push(header);
    }
}

/// Makes the IP header malformed: such a packet never reaches conntrack.
pub fn corrupt_ip_header(whole: &mut Vec<u8>, random: &mut OracleRng) {
    let v4 = whole[0] >> 4 == 4;
    match random.below(4) {
        0 if v4 => whole[10] ^= 0x55,
        1 if v4 => {
            whole[0] = 0x44;
            packet_builder::update_header_checksum(whole);
        }
        2 => {
            let shorter = whole.len() - random.below(whole.len().min(12));
            whole.truncate(shorter);
        }
        _ => whole.extend([0; 7]),
    }
}
