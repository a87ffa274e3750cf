//! What a capture says of one interface: its link type, and how its times are counted.
use keepstate_wire::link::LinkType;
use pcap_parser::{InterfaceDescriptionBlock, PcapHeader};

/// One interface of a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    pub(super) link: LinkType,
    /// Parts of a second that its times count.
    per_second: u64,
    /// Seconds to add to its times.
    offset: i64,
    /// Octets kept of each frame; 0 for all.
    snap: usize,
}

const NANOS: u128 = 1_000_000_000;

impl Interface {
    /// The one interface of a pcap file. The upper bits of the link type field say something else (FCS length).
    pub(super) fn of_pcap(header: &PcapHeader) -> Interface {
        let per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
        let link = LinkType(header.network.0.cast_unsigned() & 0xffff);
        Interface { link, per_second, offset: 0, snap: header.snaplen as usize }
    }

    /// As a pcapng block describes it.
    pub(super) fn of_pcapng(description: &InterfaceDescriptionBlock<'_>) -> Interface {
        Interface {
            link: LinkType(description.linktype.0.cast_unsigned() & 0xffff),
            per_second: description.ts_resolution().filter(|parts| *parts > 0).unwrap_or(1_000_000),
            offset: description.ts_offset(),
            snap: description.snaplen as usize,
        }
    }

    /// Nanoseconds of a time in seconds and parts of a second.
    pub(super) fn time(&self, seconds: u64, parts: u64) -> u64 {
        let parts = u128::from(parts) * NANOS / u128::from(self.per_second);
        u64::try_from(u128::from(seconds) * NANOS + parts).unwrap_or(u64::MAX)
    }

    /// Nanoseconds of a time in parts of a second.
    pub(super) fn ticks(&self, ticks: u64) -> u64 {
        let seconds = (ticks / self.per_second).saturating_add_signed(self.offset);
        self.time(seconds, ticks % self.per_second)
    }

    /// Octets kept of a frame of `wire_len`.
    pub(super) fn kept(&self, wire_len: usize) -> usize {
        if self.snap == 0 { wire_len } else { wire_len.min(self.snap) }
    }
}
