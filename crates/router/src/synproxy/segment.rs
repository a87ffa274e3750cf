//! TCP segments that a synproxy reads and sends: their ends, numbers and options.
use keepstate_wire::tcp::{TcpOption, TcpSegment};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

/// What a segment says in its options, and what an answer is to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SynproxyOptions {
    pub(crate) mss: Option<u16>,
    pub(crate) wscale: Option<u8>,
    pub(crate) sack: bool,
    /// Value and echo.
    pub(crate) timestamps: Option<(u32, u32)>,
}

impl SynproxyOptions {
    pub(crate) fn parse(segment: &TcpSegment<'_>) -> SynproxyOptions {
        let mut options = SynproxyOptions::default();
        for choice in segment.options() {
            match choice {
                TcpOption::Mss(size) => options.mss = Some(size),
                TcpOption::WindowScale(scale) => options.wscale = Some(scale.min(14)),
                TcpOption::SackPermitted => options.sack = true,
                TcpOption::Timestamps(value, echo) => options.timestamps = Some((value, echo)),
                _ => (),
            }
        }
        options
    }

    /// As the header has them, padded to words.
    fn to_bytes(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(40);
        if let Some(size) = self.mss {
            octets.extend([2, 4]);
            octets.extend(size.to_be_bytes());
        }
        match (self.timestamps, self.sack) {
            (Some((value, echo)), sack) => {
                octets.extend(if sack { [4, 2, 8, 10] } else { [1, 1, 8, 10] });
                octets.extend(value.to_be_bytes());
                octets.extend(echo.to_be_bytes());
            }
            (None, true) => octets.extend([1, 1, 4, 2]),
            (None, false) => (),
        }
        octets.extend(self.wscale.iter().flat_map(|scale| [1, 3, 3, *scale]));
        octets
    }
}

/// One segment to be sent: its ends, its numbers, what it says.
pub(crate) struct OutgoingSegment {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: SynproxyOptions,
}

impl OutgoingSegment {
    /// The segment, from the first port to the checksum left open.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let options = self.options.to_bytes();
        let mut octets = Vec::with_capacity(20 + options.len());
        octets.extend(self.from.1.to_be_bytes());
        octets.extend(self.to.1.to_be_bytes());
        octets.extend(self.seq.to_be_bytes());
        octets.extend(self.ack.to_be_bytes());
        // At most ten words of options.
        octets.extend([((5 + options.len() / 4) as u8) << 4, self.flags]);
        octets.extend(self.window.to_be_bytes());
        octets.extend([0; 4]);
        octets.extend(options);
        octets
    }
}

/// Both ends of a segment: address and port of its source and its destination.
pub(crate) fn endpoints(packet: &Packet<'_>, segment: &TcpSegment<'_>) -> [(IpAddr, u16); 2] {
    let (source, destination) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    [(source, segment.source), (destination, segment.destination)]
}
