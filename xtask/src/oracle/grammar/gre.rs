//! GRE: plain, and the enhanced form used by PPTP, with call ids.
use super::generated_packet::{GeneratedPacket, endpoints_toward};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, PacketEndpoints};
use crate::oracle::rng::OracleRng;

/// A tunnel.
pub struct GreFlow {
    ends: PacketEndpoints,
    enhanced: bool,
}

impl GreFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> GreFlow {
        GreFlow { ends, enhanced: random.percent(30) }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = random.weighted(&[(6, Toward::Server), (4, Toward::Client)]);
        let mut bytes = if self.enhanced {
            let call = random.below(3) as u8;
            vec![0x30, 0x01, 0x88, 0x0b, 0, 4, 0, call, 0, 0, 0, 1]
        } else {
            vec![0, 0, 8, 0]
        };
        bytes.resize(bytes.len() + random.pick(&[0, 4, 40]), b'g');
        if random.percent(5) {
            bytes[random.below(4)] = random.next_u8();
        }
        if random.percent(3) {
            bytes.truncate(random.below(13));
        }
        GeneratedPacket {
            toward,
            ends: endpoints_toward(self.ends, toward),
            protocol: packet_builder::GRE,
            transport: bytes,
        }
    }
}
