//! UDP and UDP-Lite: datagrams to and fro, with lengths, coverages and checksums that may be wrong.
use super::Emission;
use crate::oracle::craft::{self, Ends};
use crate::oracle::kernel::Toward;
use crate::oracle::random::Random;

/// A conversation.
pub struct Flow {
    ends: Ends,
    ports: (u16, u16),
    lite: bool,
    /// Out of a hundred datagrams, how many answer.
    answers: usize,
}

impl Flow {
    pub fn new(ends: Ends, random: &mut Random) -> Flow {
        let ports = (40000 + random.below(8) as u16, random.pick(&[53, 123, 40001, 0]));
        Flow { ends, ports, lite: random.percent(25), answers: random.pick(&[0, 20, 50]) }
    }

    pub fn next(&mut self, random: &mut Random) -> Emission {
        let toward = if random.percent(self.answers) { Toward::Client } else { Toward::Server };
        let ends = super::facing(self.ends, toward);
        let (source, destination) = if toward == Toward::Server { self.ports } else { (self.ports.1, self.ports.0) };
        let protocol = if self.lite { craft::UDPLITE } else { craft::UDP };
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
            lite_checksum(&mut bytes, ends, random);
        } else {
            craft::put_checksum(&mut bytes, 6, ends, protocol, odd && random.percent(30));
        }
        if odd && random.percent(30) {
            bytes[6..8].fill(0);
        }
        if odd && random.percent(10) {
            bytes.truncate(random.below(9));
        }
        Emission { toward, ends, protocol, transport: bytes }
    }
}

/// UDP-Lite's checksum covers as much as its header says: all, if that is zero.
fn lite_checksum(bytes: &mut [u8], ends: Ends, random: &mut Random) {
    if random.percent(50) {
        bytes[4..6].copy_from_slice(&random.pick(&[0u16, 8, 8]).to_be_bytes());
    }
    let field = usize::from(bytes[4]) << 8 | usize::from(bytes[5]);
    let covered = if field == 0 { bytes.len() } else { field };
    let check = craft::checksum(ends, craft::UDPLITE, bytes, covered);
    let wrong = u16::from(random.percent(4));
    bytes[6..8].copy_from_slice(&(if check == 0 { 0xffff } else { check } ^ wrong).to_be_bytes());
}
