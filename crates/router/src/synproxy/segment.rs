//! TCP segments that a synproxy reads and sends: their ends, numbers and options.
use keepstate_wire::tcp::{TcpOption, TcpSegment};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

/// TCP options that synproxy reads and sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SynproxyOptions {
    pub(crate) mss: Option<u16>,
    pub(crate) wscale: Option<u8>,
    pub(crate) sack: bool,
    /// Value and echo reply.
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

    /// The encoded options, padded to 32-bit words.
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        if let Some(size) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(size.to_be_bytes());
        }
        match (self.timestamps, self.sack) {
            (Some((value, echo)), sack) => {
                bytes.extend(if sack { [4, 2, 8, 10] } else { [1, 1, 8, 10] });
                bytes.extend(value.to_be_bytes());
                bytes.extend(echo.to_be_bytes());
            }
            (None, true) => bytes.extend([1, 1, 4, 2]),
            (None, false) => (),
        }
        bytes.extend(self.wscale.iter().flat_map(|scale| [1, 3, 3, *scale]));
        bytes
    }
}

/// A segment to send.
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
    /// The TCP header with options; the checksum is 0.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let options = self.options.to_bytes();
        let mut bytes = Vec::with_capacity(20 + options.len());
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend(self.to.1.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        // At most 40 bytes of options.
        bytes.extend([((5 + options.len() / 4) as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes
    }
}

/// Source and destination of a segment, address and port each.
pub(crate) fn endpoints(packet: &Packet<'_>, segment: &TcpSegment<'_>) -> [(IpAddr, u16); 2] {
    let (source, destination) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    [(source, segment.source), (destination, segment.destination)]
}
