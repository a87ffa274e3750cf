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
        OtherFlow { ends, protocol: random.pick(&[50, 51, 253, 254, 33, 89, 103, 2, 59]) }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = random.weighted(&[(7, Toward::Server), (3, Toward::Client)]);
        let transport = vec![b'o'; random.pick(&[0, 1, 4, 8, 40])];
        // Protocol 51 is an extension header in IPv6, and must be complete.
        let protocol = if self.protocol == 51 && self.ends.is_ipv6() { 50 } else { self.protocol };
        GeneratedPacket { toward, ends: endpoints_toward(self.ends, toward), protocol, transport }
    }
}

/// Adds options (IPv4) or extension headers (IPv6), some of them malformed.
pub fn add_ip_options(envelope: &mut IpHeaderSpec, v6: bool, random: &mut OracleRng) {
    if !v6 {
        envelope.options = ipv4_options(random);
        return;
    }
    for _ in 0..1 + random.below(2) {
        let first = envelope.extensions.is_empty();
        let pad = vec![0, 1, 4, 0, 0, 0, 0];
        let header = match random.below(3) {
            0 if first => (0, hop_by_hop_options(random)),
            1 => (43, vec![0, 4, 0, 0, 0, 0, 0]),
            _ => (60, pad),
        };
        envelope.extensions.push(header);
    }
}

fn ipv4_options(random: &mut OracleRng) -> Vec<u8> {
    let usual: [&[u8]; 4] = [&[1, 1, 1, 0], &[7, 7, 4, 0, 0, 0, 0, 0], &[0x88, 4, 0, 1], &[0x94, 4, 0, 0]];
    if random.percent(60) {
        return random.pick(&usual).to_vec();
    }
    // A few options with any length, pointer and flags; no source route, which decides where the packet goes.
    let mut options = Vec::new();
    while options.len() < 36 && (options.is_empty() || random.percent(50)) {
        let kind = random.pick(&[0u8, 1, 7, 7, 68, 68, 68, 0x82, 0x86, 0x88, 0x94, 0x94, 30, 0xde]);
        options.push(kind);
        if kind > 1 {
            let length = random.pick(&[0, 1, 2, 3, 4, 4, 4, 7, 8, 8, 11, 12]);
            options.push(length);
            options.push(random.pick(&[0, 1, 3, 4, 5, 5, 6, 8, 9, 12, 13, 255]));
            options.push(random.pick(&[0, 0, 1, 2, 3, 0x10, 0xf0, 0xf1, 0xf3]));
            options.resize(options.len() + usize::from(length).saturating_sub(4), 0);
        }
    }
    options.truncate(40);
    options
}

/// A hop-by-hop header, except its first byte.
fn hop_by_hop_options(random: &mut OracleRng) -> Vec<u8> {
    let mut options = Vec::new();
    while options.is_empty() || random.percent(60) {
        match random.below(9) {
            0 | 1 => options.push(0),
            2 => {
                let length = random.below(8);
                options.extend([1, length as u8]);
                options.resize(options.len() + length, 0);
                let damaged = length > 0 && random.percent(10);
                options.last_mut().into_iter().for_each(|last| *last += u8::from(damaged));
            }
            3 => options.extend([5, 2, 0, random.pick(&[0, 1])]),
            4 => options.extend([5, random.pick(&[0, 1, 3]), 0, 0]),
            5 => options.extend([194, 4, 0, random.pick(&[0, 1]), 0, 60]),
            6 => options.extend([random.pick(&[7, 49]), random.pick(&[0, 2, 8, 10]), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            _ => options.extend([random.pick(&[0x1e, 0x1e, 0x1e, 0x3e, 0x5e, 0x9e, 0xde]), 0]),
        }
    }
    if random.percent(90) {
        let missing = (options.len() + 2).next_multiple_of(8) - options.len() - 2;
        match missing {
            0 => (),
            1 => options.push(0),
            _ => {
                options.extend([1, missing as u8 - 2]);
                options.resize(options.len() + missing - 2, 0);
            }
        }
    }
    options.resize((options.len() + 2).next_multiple_of(8) - 2, random.pick(&[0, 0x1e]));
    [vec![((options.len() + 2) / 8 - 1) as u8], options].concat()
}

/// Makes the IP header malformed: such a packet never reaches conntrack.
pub fn corrupt_ip_header(whole: &mut Vec<u8>, random: &mut OracleRng) {
    let v4 = whole[0] >> 4 == 4;
    match random.below(5) {
        // The length is then the frame's, if hop-by-hop options follow.
        0 if !v4 => whole[4..6].fill(0),
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
