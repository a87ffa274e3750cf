//! Protocols without a tracker, the IP options and extension headers that may precede any protocol, and headers that are broken.
use super::Emission;
use crate::oracle::craft::{self, Ends, Envelope};
use crate::oracle::kernel::Toward;
use crate::oracle::random::Random;

/// Two hosts and a protocol number.
pub struct Flow {
    ends: Ends,
    protocol: u8,
}

impl Flow {
    pub fn new(ends: Ends, random: &mut Random) -> Flow {
        Flow { ends, protocol: random.pick(&[50, 51, 253, 254, 33, 89, 103, 2]) }
    }

    pub fn next(&mut self, random: &mut Random) -> Emission {
        let toward = random.weighted(&[(7, Toward::Server), (3, Toward::Client)]);
        let transport = vec![b'o'; random.pick(&[0, 1, 4, 8, 40])];
        // Protocol 51 is an extension header in IPv6, and must be a whole one.
        let protocol = if self.protocol == 51 && self.ends.is_ipv6() { 50 } else { self.protocol };
        Emission { toward, ends: super::facing(self.ends, toward), protocol, transport }
    }
}

/// Adds options (IPv4) or extension headers (IPv6).
pub fn dress(envelope: &mut Envelope, v6: bool, random: &mut Random) {
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

/// Breaks the IP header itself: such a packet never reaches conntrack.
pub fn spoil(whole: &mut Vec<u8>, random: &mut Random) {
    let v4 = whole[0] >> 4 == 4;
    match random.below(4) {
        0 if v4 => whole[10] ^= 0x55,
        1 if v4 => {
            whole[0] = 0x44;
            craft::seal(whole);
        }
        2 => {
            let shorter = whole.len() - random.below(whole.len().min(12));
            whole.truncate(shorter);
        }
        _ => whole.extend([0; 7]),
    }
}
