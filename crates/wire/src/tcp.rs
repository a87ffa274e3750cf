//! TCP segments (RFC 9293) and the options tracking reads.
use crate::Refusal;

/// The flag octet: CWR ECE URG ACK PSH RST SYN FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field is meant.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
    /// Any of `bits` set?
    pub const fn any(self, bits: u8) -> bool { self.0 & bits != 0 }
}

/// A segment whose header fits the data present.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flag octet.
    pub flags: Flags,
    /// Window as sent, not scaled.
    pub window: u16,
    /// Length of the data by the IP header, in octets (not only what a snapped capture kept).
    pub data_len: usize,
    /// The options' octets as they are.
    pub options: &'a [u8],
    /// The data present.
    pub data: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads the segment in `transport`, whose length by the IP header is `transport_len`.
    pub fn parse(_transport: &'a [u8], _transport_len: usize) -> Result<Self, Refusal> { unimplemented!() }
    /// The options a handshake carries, read as Linux reads them.
    pub fn handshake(&self) -> Handshake { unimplemented!() }
    /// The highest right edge of the SACK blocks that lies after `ack` (modulo 2³²), else `ack` itself.
    pub fn highest_sack(&self, _ack: u32) -> u32 { unimplemented!() }
}

/// What a SYN says of the connection to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Window scale, at most 14 as Linux caps it; `None` without the option.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Maximum segment size.
    pub mss: Option<u16>,
}
