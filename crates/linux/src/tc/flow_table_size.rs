//! How many connections the table of known flows has room for.
use super::flow_line::{LINES_PER_BUCKET, LineLayout};
use super::flow_record::{RECORD_LEN, RECORD_LEN_V6};
use super::segment_note::SIDE_LEN;
use std::fmt;

/// Connections that the programs at tc's hooks can know: so many of IPv4, and half as many of IPv6. A power of two. Every one takes [`BYTES`](FlowTableSize::BYTES) of the kernel's memory, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowTableSize(u32);

impl FlowTableSize {
    /// The smallest table.
    pub const MIN: FlowTableSize = FlowTableSize(1 << 10);
    /// The largest table.
    pub const MAX: FlowTableSize = FlowTableSize(1 << 22);
    /// Bytes a connection of IPv4, with its share of IPv6's: two lines, what belongs to each of them, and a record for the next gateway.
    pub const BYTES: usize = 2 * (LineLayout::V4.line_len + SIDE_LEN)
        + RECORD_LEN
        + (2 * (LineLayout::V6.line_len + SIDE_LEN) + RECORD_LEN_V6) / 2;

    /// Room for so many connections of IPv4 at least, within [`MIN`](FlowTableSize::MIN) and [`MAX`](FlowTableSize::MAX).
    pub fn of_connections(connections: u32) -> FlowTableSize {
        FlowTableSize(connections.clamp(Self::MIN.0, Self::MAX.0).next_power_of_two())
    }

    /// That of a table with so many buckets of IPv4.
    pub(super) fn of_buckets(buckets: u32) -> FlowTableSize {
        FlowTableSize::of_connections(buckets.saturating_mul(CONNECTIONS_PER_BUCKET))
    }

    /// Connections of IPv4; of IPv6 half as many.
    pub fn connections(self) -> u32 {
        self.0
    }

    /// Connections of one family.
    pub(super) fn connections_of(self, is_v6: bool) -> u32 {
        if is_v6 { self.0 / 2 } else { self.0 }
    }

    /// Bytes of the ring by which the programs tell of segments, one of every second connection: 256 KiB at least and 8 MiB at most.
    pub(super) fn ring_bytes(self) -> u32 {
        self.0.saturating_mul(64).clamp(1 << 18, 1 << 23)
    }

    /// Buckets of one family's lines.
    pub(super) fn buckets(self, is_v6: bool) -> u32 {
        self.connections_of(is_v6) / CONNECTIONS_PER_BUCKET
    }
}

/// A connection has two lines.
const CONNECTIONS_PER_BUCKET: u32 = LINES_PER_BUCKET as u32 / 2;

impl Default for FlowTableSize {
    /// 131,072 connections of IPv4: 77 MiB.
    fn default() -> FlowTableSize {
        FlowTableSize(1 << 17)
    }
}

impl fmt::Display for FlowTableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_was_asked_for() {
        for (asked, room) in
            [(0, 1024), (1024, 1024), (70_000, 131_072), (131_072, 131_072), (131_073, 262_144), (u32::MAX, 4_194_304)]
        {
            assert_eq!(FlowTableSize::of_connections(asked).connections(), room);
        }
    }

    #[test]
    fn buckets_tell_the_size() {
        for size in [FlowTableSize::MIN, FlowTableSize::default(), FlowTableSize::MAX] {
            assert_eq!(FlowTableSize::of_buckets(size.buckets(false)), size);
            assert_eq!(size.buckets(true) * 2, size.buckets(false));
        }
        assert_eq!(FlowTableSize::default().buckets(false), 65_536);
        // As the manual says.
        assert_eq!(FlowTableSize::BYTES, 616);
    }
}
