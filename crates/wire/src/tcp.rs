//! TCP segments (RFC 9293) and the options that connection tracking reads.
use crate::ParseError;
use core::fmt;
use core::ops::BitOr;

/// The flag byte: CWR ECE URG ACK PSH RST SYN FIN.
///
/// ```
/// use keepstate_wire::tcp::TcpFlags;
/// let flags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
/// assert!(flags.any(TcpFlags::ACK | TcpFlags::RST) && !flags.all(TcpFlags::ACK | TcpFlags::RST));
/// assert_eq!(flags.to_string(), "SYN ACK");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Finish: no more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;

    /// Whether any of `bits` is set.
    pub const fn any(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Whether all of `bits` are set.
    pub const fn all(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

impl BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

impl fmt::Display for TcpFlags {
    /// The names of the set flags, lowest bit first, separated by spaces; `none` without any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.any(1 << bit) {
                write!(f, "{separator}{name}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

/// A segment whose header is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpSegment<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flags.
    pub flags: TcpFlags,
    /// The window field, not scaled.
    pub window: u16,
    /// Length of the data by the IP header, in bytes; more than `data.len()` only in a truncated capture.
    pub data_len: usize,
    /// The bytes of the options.
    pub options: &'a [u8],
    /// The capture has only the first part of the options.
    pub options_cut: bool,
    /// The captured data.
    pub data: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// Parses the segment in `transport`, whose length by the IP header is `transport_len`.
    ///
    /// # Errors
    /// [`ParseError::TcpTruncated`], [`ParseError::TcpOffsetSmall`], [`ParseError::TcpOffsetBeyond`] or [`ParseError::NotCaptured`].
    #[inline(always)]
    pub fn parse(transport: &'a [u8], transport_len: usize) -> Result<Self, ParseError> {
        let Some((h, rest)) = transport.split_first_chunk::<MIN_HEADER_LEN>() else {
            return Err(if transport_len < MIN_HEADER_LEN {
                ParseError::TcpTruncated
            } else {
                ParseError::NotCaptured
            });
        };
        let offset = usize::from(h[12] >> 4) * 4;
        if offset < MIN_HEADER_LEN {
            return Err(ParseError::TcpOffsetSmall);
        }
        let Some(data_len) = transport_len.checked_sub(offset) else {
            return Err(ParseError::TcpOffsetBeyond);
        };
        // Only in a truncated capture are there fewer bytes than the options take.
        let split = rest.split_at_checked(offset - MIN_HEADER_LEN);
        let (options, data) = split.unwrap_or((rest, &[]));
        Ok(TcpSegment {
            source: u16::from_be_bytes([h[0], h[1]]),
            destination: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: TcpFlags(h[13]),
            window: u16::from_be_bytes([h[14], h[15]]),
            data_len,
            options,
            options_cut: split.is_none(),
            data,
        })
    }

    /// Iterates over the options, to the end-of-list option or a malformed one.
    #[inline]
    pub fn options(&self) -> TcpOptions<'a> {
        TcpOptions { rest: self.options }
    }

    /// The options of a SYN, as Linux reads them: an option of a wrong size is skipped, and reading ends at a malformed one.
    pub fn syn_options(&self) -> SynOptions {
        SynOptions::read(self.options)
    }

    /// The highest right edge of the SACK blocks that is after `ack` (modulo 2³²), else `ack`. As in Linux, only the first SACK
    /// option is read.
    #[inline]
    pub fn highest_sack(&self, ack: u32) -> u32 {
        if self.options.is_empty() || is_timestamp_only(self.options) {
            return ack;
        }
        let blocks =
            self.options().find_map(|option| if let TcpOption::Sack(blocks) = option { Some(blocks) } else { None });
        let mut highest = ack;
        for (_, right) in blocks.into_iter().flatten() {
            // As in Linux, a distance of exactly 2³¹ counts as after.
            if highest.wrapping_sub(right).cast_signed() < 0 {
                highest = right;
            }
        }
        highest
    }
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcpOption<'a> {
    /// Maximum segment size (RFC 9293).
    Mss(u16),
    /// Window scale as sent (RFC 7323).
    WindowScale(u8),
    /// SACK permitted (RFC 2018).
    SackPermitted,
    /// SACK blocks (RFC 2018), at least one.
    Sack(SackBlocks<'a>),
    /// Timestamps: value and echo reply (RFC 7323).
    Timestamps(u32, u32),
    /// Any other option, and one of the above with a wrong size: kind and value.
    Other(u8, &'a [u8]),
}

/// Iterator over a segment's options. No-operation options are skipped.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = TcpOption<'a>;

    #[inline]
    fn next(&mut self) -> Option<TcpOption<'a>> {
        loop {
            let (&kind, after) = self.rest.split_first()?;
            match kind {
                0 => {
                    self.rest = &[];
                    return None;
                }
                1 => self.rest = after,
                _ => {
                    let value_len = after.first().and_then(|&length| usize::from(length).checked_sub(2));
                    let split = value_len.and_then(|n| after.get(1..)?.split_at_checked(n));
                    let Some((value, rest)) = split else {
                        self.rest = &[];
                        return None;
                    };
                    self.rest = rest;
                    return Some(TcpOption::parse(kind, value));
                }
            }
        }
    }
}

impl<'a> TcpOption<'a> {
    #[inline]
    fn parse(kind: u8, value: &'a [u8]) -> Self {
        match (kind, value) {
            (2, &[a, b]) => TcpOption::Mss(u16::from_be_bytes([a, b])),
            (3, &[shift]) => TcpOption::WindowScale(shift),
            (4, &[]) => TcpOption::SackPermitted,
            (5, blocks) if !blocks.is_empty() && blocks.len().is_multiple_of(8) => {
                TcpOption::Sack(SackBlocks { rest: blocks })
            }
            (8, &[a, b, c, d, e, f, g, h]) => {
                TcpOption::Timestamps(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            }
            _ => TcpOption::Other(kind, value),
        }
    }
}

/// Iterator over SACK blocks: left edge, right edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SackBlocks<'a> {
    rest: &'a [u8],
}

impl Iterator for SackBlocks<'_> {
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        let (&[a, b, c, d, e, f, g, h], rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
    }
}

/// The usual options of a segment after the handshake: two no-operations and timestamps.
#[inline]
fn is_timestamp_only(options: &[u8]) -> bool {
    matches!(options, [1, 1, 8, 10, _, _, _, _, _, _, _, _])
}

/// Length of the fixed part of the header.
const MIN_HEADER_LEN: usize = 20;
/// RFC 7323, section 2.3.
const MAX_WINDOW_SCALE: u8 = 14;

/// The options of a SYN that connection tracking needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SynOptions {
    /// Window scale, capped at 14 (RFC 7323, section 2.3); `None` without the option.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Maximum segment size.
    pub mss: Option<u16>,
}

impl SynOptions {
    /// Reads them as [`TcpSegment::syn_options`] does.
    pub fn read(options: &[u8]) -> SynOptions {
        let mut found = SynOptions::default();
        for option in (TcpOptions { rest: options }) {
            match option {
                TcpOption::WindowScale(shift) => found.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
                TcpOption::SackPermitted => found.sack_permitted = true,
                TcpOption::Mss(mss) => found.mss = Some(mss),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
