//! GRE: plain, and the enhanced form that PPTP uses, with its call ids.
use super::Emission;
use crate::oracle::craft::{self, Ends};
use crate::oracle::kernel::Toward;
use crate::oracle::random::Random;

/// A tunnel.
pub struct Flow {
    ends: Ends,
    enhanced: bool,
}

impl Flow {
    pub fn new(ends: Ends, random: &mut Random) -> Flow {
        Flow { ends, enhanced: random.percent(30) }
    }

    pub fn next(&mut self, random: &mut Random) -> Emission {
        let toward = random.weighted(&[(6, Toward::Server), (4, Toward::Client)]);
        let mut bytes = if self.enhanced {
            let call = random.below(3) as u8;
            vec![0x30, 0x01, 0x88, 0x0b, 0, 4, 0, call, 0, 0, 0, 1]
        } else {
            vec![0, 0, 8, 0]
        };
        bytes.resize(bytes.len() + random.pick(&[0, 4, 40]), b'g');
        if random.percent(5) {
            bytes[random.below(4)] = random.octet();
        }
        if random.percent(3) {
            bytes.truncate(random.below(13));
        }
        Emission { toward, ends: super::facing(self.ends, toward), protocol: craft::GRE, transport: bytes }
    }
}
