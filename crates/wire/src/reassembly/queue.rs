//! One datagram on its way to being whole.
//!
//! Pieces are kept as runs. A piece that begins where the last run ends makes that run longer; any other begins a run of
//! its own, and runs that come to touch are not joined. A piece that lies within one run is a copy and is ignored; one that
//! shares octets with runs in any other way is an overlap, and the datagram is lost (RFC 5722; Linux does so for IPv4 too).
use super::Pieces;
use super::rebuild::{self, Sketch};
use crate::{Family, Packet, Refusal};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// One fragment and where it belongs.
pub(super) struct Piece<'p, 'a> {
    pub packet: &'p Packet<'a>,
    pub offset: usize,
    pub more: bool,
}

/// What a refused piece takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: the queue waits on.
    Piece(Refusal),
    /// The whole queue.
    Queue(Refusal),
}

impl Fault {
    pub fn refusal(self) -> Refusal {
        match self {
            Fault::Piece(refusal) | Fault::Queue(refusal) => refusal,
        }
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    serial: u64,
    /// Its source's count of fragments at the last piece (IPv4).
    mark: u32,
    family: Family,
    /// Runs by their first octet.
    runs: BTreeMap<usize, Vec<u8>>,
    /// Octets in all runs.
    held: usize,
    /// The highest end any piece spoke of; the datagram's length once `ended`.
    end: usize,
    /// The piece without "more fragments" has come.
    ended: bool,
    sketch: Sketch,
    memory: usize,
}

impl Queue {
    pub fn new(family: Family, serial: u64) -> Self {
        Queue {
            serial,
            mark: 0,
            family,
            runs: BTreeMap::new(),
            held: 0,
            end: 0,
            ended: false,
            sketch: Sketch::default(),
            memory: QUEUE_COST,
        }
    }

    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub fn mark_mut(&mut self) -> &mut u32 {
        &mut self.mark
    }

    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether it holds nothing, not even knowledge of an end.
    pub fn is_blank(&self) -> bool {
        self.runs.is_empty() && self.end == 0 && !self.ended
    }

    /// Takes a piece, or says why not. True if that was the last.
    pub fn add(&mut self, piece: &Piece<'_, '_>) -> Result<bool, Fault> {
        let data = self.fit(piece)?;
        self.place(piece.offset, data)?;
        self.held += data.len();
        self.memory += self.sketch.note(piece, data.len());
        Ok(self.ended && self.held == self.end)
    }

    /// Holds the piece's end against what is known of the datagram's, and gives the octets to keep.
    fn fit<'a>(&mut self, piece: &Piece<'_, 'a>) -> Result<&'a [u8], Fault> {
        // IPv4 gives up the datagram for a piece that contradicts; IPv6 gives up the piece.
        let contradicts = match self.family {
            Family::V4 => Fault::Queue,
            Family::V6 => Fault::Piece,
        };
        let mut data = piece.packet.transport();
        let mut end = piece.offset + data.len();
        if self.family == Family::V6 && end > MAX {
            return Err(Fault::Piece(Refusal::FragmentTooBig));
        }
        if piece.more {
            if !end.is_multiple_of(8) {
                if self.family == Family::V6 {
                    return Err(Fault::Queue(Refusal::FragmentLength));
                }
                // In IPv4 the octets past the last multiple of eight are cut off.
                end -= end % 8;
                data = data.get(..end.saturating_sub(piece.offset)).unwrap_or(&[]);
            }
            if end > self.end {
                if self.ended {
                    return Err(contradicts(Refusal::FragmentEnd));
                }
                self.end = end;
            }
        } else {
            if end < self.end || (self.ended && end != self.end) {
                return Err(contradicts(Refusal::FragmentEnd));
            }
            self.end = end;
            self.ended = true;
        }
        if data.is_empty() { Err(contradicts(Refusal::FragmentEmpty)) } else { Ok(data) }
    }

    /// Puts `data` among the runs.
    fn place(&mut self, offset: usize, data: &[u8]) -> Result<(), Fault> {
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
            Some(before_end) if end <= before_end => return Err(Fault::Piece(Refusal::FragmentDuplicate)),
            Some(before_end) if offset < before_end => return Err(Fault::Queue(Refusal::FragmentOverlap)),
            _ => {}
        }
        if after.is_some_and(|start| start < end) {
            return Err(Fault::Queue(Refusal::FragmentOverlap));
        }
        self.memory += RUN_COST + data.len();
        self.runs.insert(offset, data.to_vec());
        Ok(())
    }

    /// Writes the whole datagram to `out`.
    pub fn rebuild(self, out: &mut Vec<u8>) -> Result<Pieces, Refusal> {
        rebuild::whole(self.family, &self.sketch, self.runs.values().map(Vec::as_slice), self.held, out)
    }
}

/// The most that a length field of 16 bits can say.
const MAX: usize = 65_535;
/// What a queue takes in its table, beside its runs, and what a run takes beside its octets: rounded up.
const QUEUE_COST: usize = 384;
const RUN_COST: usize = 96;
