//! One datagram on its way to being whole.
//!
//! Pieces are kept as runs. A piece that begins where the last run ends makes that run longer; any other begins a run of
//! its own, and runs that come to touch are not joined. A piece that lies within one run is a copy and is ignored; one that
//! shares octets with runs in any other way is an overlap, and the datagram is lost (RFC 5722; Linux does so for IPv4 too).
use super::FragmentInfo;
use super::rebuild::{self, HeaderBuilder};
use crate::{Family, Packet, ParseError};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// One fragment and where it belongs.
pub(super) struct FragmentView<'p, 'a> {
    pub packet: &'p Packet<'a>,
    pub offset: usize,
    pub more: bool,
}

/// What a refused piece takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    /// Nothing: the queue waits on.
    DropFragment(ParseError),
    /// The whole queue.
    DropQueue(ParseError),
}

impl QueueError {
    pub fn reason(self) -> ParseError {
        match self {
            QueueError::DropFragment(refusal) | QueueError::DropQueue(refusal) => refusal,
        }
    }
}

#[derive(Debug)]
pub(super) struct FragmentQueue {
    serial: u64,
    /// Its source's count of fragments at the last piece (IPv4).
    rid: u32,
    family: Family,
    /// Runs by their first octet.
    runs: BTreeMap<usize, Vec<u8>>,
    /// Octets in all runs.
    received_len: usize,
    /// The highest end any piece spoke of; the datagram's length once `ended`.
    end: usize,
    /// The piece without "more fragments" has come.
    last_received: bool,
    header_builder: HeaderBuilder,
    memory: usize,
}

impl FragmentQueue {
    pub fn new(family: Family, serial: u64) -> Self {
        FragmentQueue {
            serial,
            rid: 0,
            family,
            runs: BTreeMap::new(),
            received_len: 0,
            end: 0,
            last_received: false,
            header_builder: HeaderBuilder::default(),
            memory: QUEUE_OVERHEAD,
        }
    }

    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub fn rid_mut(&mut self) -> &mut u32 {
        &mut self.rid
    }

    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether it holds nothing, not even knowledge of an end.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.end == 0 && !self.last_received
    }

    /// Takes a piece, or says why not. True if that was the last.
    pub fn add(&mut self, piece: &FragmentView<'_, '_>) -> Result<bool, QueueError> {
        let data = self.check_bounds(piece)?;
        self.insert_run(piece.offset, data)?;
        self.received_len += data.len();
        self.memory += self.header_builder.add_fragment(piece, data.len());
        Ok(self.last_received && self.received_len == self.end)
    }

    /// Holds the piece's end against what is known of the datagram's, and gives the octets to keep.
    fn check_bounds<'a>(&mut self, piece: &FragmentView<'_, 'a>) -> Result<&'a [u8], QueueError> {
        // IPv4 gives up the datagram for a piece that contradicts; IPv6 gives up the piece.
        let contradicts = match self.family {
            Family::V4 => QueueError::DropQueue,
            Family::V6 => QueueError::DropFragment,
        };
        let mut data = piece.packet.transport();
        let mut end = piece.offset + data.len();
        if self.family == Family::V6 && end > MAX_PACKET_LEN {
            return Err(QueueError::DropFragment(ParseError::FragmentTooBig));
        }
        if piece.more {
            if !end.is_multiple_of(8) {
                if self.family == Family::V6 {
                    return Err(QueueError::DropQueue(ParseError::FragmentLength));
                }
                // In IPv4 the octets past the last multiple of eight are cut off.
                end -= end % 8;
                data = data.get(..end.saturating_sub(piece.offset)).unwrap_or(&[]);
            }
            if end > self.end {
                if self.last_received {
                    return Err(contradicts(ParseError::FragmentEnd));
                }
                self.end = end;
            }
        } else {
            if end < self.end || (self.last_received && end != self.end) {
                return Err(contradicts(ParseError::FragmentEnd));
            }
            self.end = end;
            self.last_received = true;
        }
        if data.is_empty() { Err(contradicts(ParseError::FragmentEmpty)) } else { Ok(data) }
    }

    /// Puts `data` among the runs.
    fn insert_run(&mut self, offset: usize, data: &[u8]) -> Result<(), QueueError> {
        let end = offset + data.len();
        let last_end = self.runs.last_key_value().map_or(0, |(start, run)| start + run.len());
        if end > last_end
            && offset == last_end
            && let Some(mut last) = self.runs.last_entry()
        {
            let before = last.get().capacity();
            last.get_mut().extend_from_slice(data);
            self.memory += last.get().capacity() - before;
            return Ok(());
        }
        // Past the last run's end there is nothing to meet but that run; else the neighbours decide.
        let before = self.runs.range(..=offset).next_back().map(|(start, run)| start + run.len());
        let after = self.runs.range(offset + 1..).next().map(|(start, _)| *start);
        match before {
            Some(before_end) if end <= before_end => {
                return Err(QueueError::DropFragment(ParseError::FragmentDuplicate));
            }
            Some(before_end) if offset < before_end => return Err(QueueError::DropQueue(ParseError::FragmentOverlap)),
            _ => {}
        }
        if after.is_some_and(|start| start < end) {
            return Err(QueueError::DropQueue(ParseError::FragmentOverlap));
        }
        self.memory += RUN_OVERHEAD + data.len();
        self.runs.insert(offset, data.to_vec());
        Ok(())
    }

    /// Writes the whole datagram to `out`.
    pub fn rebuild(self, out: &mut Vec<u8>) -> Result<FragmentInfo, ParseError> {
        rebuild::build_packet(
            self.family,
            &self.header_builder,
            self.runs.values().map(Vec::as_slice),
            self.received_len,
            out,
        )
    }
}

/// The most that a length field of 16 bits can say.
const MAX_PACKET_LEN: usize = 65_535;
/// What a queue takes in its table, beside its runs, and what a run takes beside its octets: rounded up.
const QUEUE_OVERHEAD: usize = 384;
const RUN_OVERHEAD: usize = 96;
