//! The fragments of one packet that have arrived.
//!
//! Data is kept as runs. A fragment that begins at the end of the last run extends it; any other begins a run of its own, and
//! runs that come to touch are not joined. A fragment within one run is a duplicate and is ignored; any other intersection
//! with a run is an overlap, and the packet is dropped (RFC 5722; Linux does so for IPv4 too).
use super::fragment::{FragmentInfo, FragmentView};
use super::rebuild::{self, HeaderBuilder};
use crate::{Family, ParseError};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What is dropped because of a bad fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    /// The fragment alone.
    DropFragment(ParseError),
    /// The whole queue.
    DropQueue(ParseError),
}

impl QueueError {
    pub fn reason(self) -> ParseError {
        match self {
            QueueError::DropFragment(error) | QueueError::DropQueue(error) => error,
        }
    }
}

#[derive(Debug)]
pub(super) struct FragmentQueue {
    serial: u64,
    /// The fragment count of its source when the last fragment arrived (IPv4).
    rid: u32,
    family: Family,
    /// Runs by the offset of their first byte.
    runs: BTreeMap<usize, Vec<u8>>,
    /// Sum of the lengths of all runs.
    received_len: usize,
    /// The highest end of any fragment; the length of the payload once `last_received`.
    end: usize,
    /// The fragment without "more fragments" has arrived.
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

    /// Whether it holds neither data nor a known end.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.end == 0 && !self.last_received
    }

    /// Adds a fragment. True if the packet is now complete.
    pub fn add(&mut self, fragment: &FragmentView<'_, '_>) -> Result<bool, QueueError> {
        let data = self.check_bounds(fragment)?;
        self.insert_run(fragment.offset, data)?;
        self.received_len += data.len();
        self.memory += self.header_builder.add_fragment(fragment, data.len());
        Ok(self.last_received && self.received_len == self.end)
    }

    /// Checks the fragment's end against the known end of the packet. Returns the bytes to keep.
    fn check_bounds<'a>(&mut self, fragment: &FragmentView<'_, 'a>) -> Result<&'a [u8], QueueError> {
        // On a contradiction, IPv4 drops the packet and IPv6 the fragment.
        let contradiction = match self.family {
            Family::V4 => QueueError::DropQueue,
            Family::V6 => QueueError::DropFragment,
        };
        let mut data = fragment.packet.transport();
        let mut end = fragment.offset + data.len();
        if self.family == Family::V6 && end > MAX_PACKET_LEN {
            return Err(QueueError::DropFragment(ParseError::FragmentTooBig));
        }
        if fragment.more {
            if !end.is_multiple_of(8) {
                if self.family == Family::V6 {
                    return Err(QueueError::DropQueue(ParseError::FragmentLength));
                }
                // IPv4 cuts off the bytes after the last multiple of eight.
                end -= end % 8;
                data = data.get(..end.saturating_sub(fragment.offset)).unwrap_or(&[]);
            }
            if end > self.end {
                if self.last_received {
                    return Err(contradiction(ParseError::FragmentEnd));
                }
                self.end = end;
            }
        } else {
            if end < self.end || (self.last_received && end != self.end) {
                return Err(contradiction(ParseError::FragmentEnd));
            }
            self.end = end;
            self.last_received = true;
        }
        if data.is_empty() { Err(contradiction(ParseError::FragmentEmpty)) } else { Ok(data) }
    }

    /// Adds `data` to the runs.
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
        // The runs on both sides decide whether it is a duplicate or an overlap.
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

    /// Writes the reassembled packet to `out`.
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

/// The maximum of a 16-bit length field.
const MAX_PACKET_LEN: usize = 65_535;
/// Memory of a queue without its runs, and of a run without its bytes: rounded up.
const QUEUE_OVERHEAD: usize = 384;
const RUN_OVERHEAD: usize = 96;
