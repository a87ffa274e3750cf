//! One interface of a capture: its link type and its clock.
use crate::framing::ByteOrder;
use keepstate_wire::link::LinkType;
use pcap_parser::{InterfaceDescriptionBlock, OptionCode, PcapHeader};

/// One interface of a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct CaptureInterface {
    pub(super) link_type: LinkType,
    /// Ticks per second of its timestamps.
    ticks_per_second: u64,
    /// Seconds to add to its timestamps.
    offset: i64,
    /// Captured bytes per frame at most; 0 for no limit.
    snaplen: usize,
}

const NANOS: u128 = 1_000_000_000;

impl CaptureInterface {
    /// The one interface of a pcap file. The upper bits of the link type field mean something else (FCS length).
    pub(super) fn from_pcap(header: &PcapHeader) -> CaptureInterface {
        let ticks_per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
        let link_type = LinkType(header.network.0.cast_unsigned() & 0xffff);
        CaptureInterface { link_type, ticks_per_second, offset: 0, snaplen: header.snaplen as usize }
    }

    /// The interface that a pcapng block describes. Invalid options are ignored, except the clock's resolution: times would be wrong.
    ///
    /// # Errors
    /// The resolution does not fit 64 bits.
    pub(super) fn from_pcapng(
        description: &InterfaceDescriptionBlock<'_>,
        order: ByteOrder,
    ) -> Result<CaptureInterface, String> {
        let link = LinkType(description.linktype.0.cast_unsigned() & 0xffff);
        let mut interface = CaptureInterface {
            link_type: link,
            ticks_per_second: 1_000_000,
            offset: 0,
            snaplen: description.snaplen as usize,
        };
        for option in description.options.iter().take_while(|option| option.code != OptionCode::EndOfOpt) {
            match (option.code, option.len, option.value.first()) {
                (OptionCode::IfTsresol, 1, Some(unit)) => {
                    interface.ticks_per_second = tsresol_ticks(*unit)
                        .ok_or_else(|| format!("an interface's clock has an unsupported resolution ({unit:#04x})"))?;
                }
                (OptionCode::IfTsoffset, 8, _) => {
                    interface.offset = order.read_u64(&option.value).map_or(0, u64::cast_signed);
                }
                _ => (),
            }
        }
        Ok(interface)
    }

    /// Nanoseconds of a time in seconds and parts of a second.
    pub(super) fn to_nanos(self, seconds: u64, parts: u64) -> u64 {
        let parts = u128::from(parts) * NANOS / u128::from(self.ticks_per_second);
        u64::try_from(u128::from(seconds) * NANOS + parts).unwrap_or(u64::MAX)
    }

    /// Nanoseconds of a time in parts of a second.
    pub(super) fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        let seconds = (ticks / self.ticks_per_second).saturating_add_signed(self.offset);
        self.to_nanos(seconds, ticks % self.ticks_per_second)
    }

    /// Octets kept of a frame of `wire_len`.
    pub(super) fn captured_len(&self, wire_len: usize) -> usize {
        if self.snaplen == 0 { wire_len } else { wire_len.min(self.snaplen) }
    }
}

/// Parts of a second, from the option `if_tsresol`: a negative power of 10, or of 2 if the highest bit is set.
fn tsresol_ticks(unit: u8) -> Option<u64> {
    let base = if unit & 0x80 == 0 { 10u64 } else { 2 };
    base.checked_pow(u32::from(unit & 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_if_tsresol() {
        assert_eq!([0, 3, 6, 9, 19].map(tsresol_ticks), [1, 1000, 1_000_000, 1_000_000_000, 10u64.pow(19)].map(Some));
        assert_eq!([0x80, 0x8a, 0xbf].map(tsresol_ticks), [1, 1024, 1 << 63].map(Some));
        assert_eq!([20, 0x7f, 0xc0, 0xff].map(tsresol_ticks), [None; 4]);
    }
}
