//! The file that a table is kept in, octet by octet; reading it back.
//!
//! ```text
//! head   96  magic 8 │ version 4 │ kind 4 │ boot id 16 │ since boot 8 │ wall clock 8 │ 0 12 │ checksum 4
//!            beat: since boot 8 │ wall clock 8 │ ended in order 4 │ 0 8 │ checksum 4         written again and again in place
//! frames     length 4 │ checksum 4 │ since boot 8 │ wall clock 8 │ records …
//! records    1 put:   place 4 │ length 2 │ a Description's octets
//!            2 gone:  place 4
//!            3 whole: every connection there was when this file was begun has been put; what follows is the journal
//! ```
//! All numbers are little end first, all times nanoseconds, every checksum a CRC-32 of what it stands behind or before. The last record of a place is the
//! one that counts. Octets are not believed: memory is only taken for records that are there. A frame that is not right before `whole` makes the file
//! unusable; behind it, that frame and what follows is left out, because that is what a sudden end leaves behind.
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"keepstat";
const VERSION: u32 = 1;
/// The one kind there is: a table of connections.
const KIND: u32 = 1;
pub(super) const HEADER_LEN: usize = 96;
/// Where the beat stands in the head.
pub(super) const HEARTBEAT_OFFSET: usize = 64;
const FRAME_HEADER_LEN: usize = 24;
/// No frame is longer.
const MAX_FRAME_LEN: usize = 1 << 23;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const SNAPSHOT_END: u8 = 3;

/// A point in time by both clocks: the one that nobody sets, and the one that outlives a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockPair {
    /// Which boot.
    pub boot: [u8; 16],
    /// Nanoseconds since then.
    pub since_boot: u64,
    /// Nanoseconds since 1970.
    pub wall: u64,
}

/// Time between two moments, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockGap {
    /// Both are of one boot.
    SameBoot(Duration),
    /// The machine was started again in between; the wall clock says so much.
    Rebooted(Duration),
    /// It was, and the wall clock was set back: nobody knows.
    Unknown,
}

impl ClockPair {
    /// Time from here to `later`.
    pub fn gap_to(&self, later: &ClockPair) -> ClockGap {
        if self.boot == later.boot {
            return ClockGap::SameBoot(Duration::from_nanos(later.since_boot.saturating_sub(self.since_boot)));
        }
        later.wall.checked_sub(self.wall).map_or(ClockGap::Unknown, |gap| ClockGap::Rebooted(Duration::from_nanos(gap)))
    }
}

impl ClockGap {
    /// What is to be taken off the timeouts.
    pub fn duration(self) -> Duration {
        match self {
            ClockGap::SameBoot(length) | ClockGap::Rebooted(length) => length,
            ClockGap::Unknown => Duration::ZERO,
        }
    }
}

/// Why a file is not used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFileError {
    /// Something else altogether.
    #[error("it is no table that a gateway has kept")]
    NotStateFile,
    /// Of another keepstate.
    #[error("it is of version {0}, and this program reads version {VERSION}: it was written by another keepstate")]
    Version(u32),
    /// Something else of ours.
    #[error("it holds something else than connections (kind {0})")]
    Kind(u32),
    /// Not as it was written.
    #[error("it is damaged at octet {0}")]
    Damaged(usize),
    /// It was never finished.
    #[error("it is not whole: its end is missing")]
    Incomplete,
}

/// What a file holds.
#[derive(Debug)]
pub struct Snapshot<'a> {
    bytes: &'a [u8],
    /// By place, where the description is that counts.
    records_by_slot: HashMap<u32, Range<usize>>,
    /// When its writer was last known to live.
    pub last_alive: ClockPair,
    /// It was ended in order: nothing has happened since.
    pub clean_shutdown: bool,
    /// Octets at the end that are left out.
    pub truncated_bytes: usize,
}

impl<'a> Snapshot<'a> {
    /// Reads a file, all of it or nothing.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn parse(octets: &'a [u8]) -> Result<Snapshot<'a>, StateFileError> {
        let (mut died, in_order) = parse_header(octets)?;
        let mut latest = HashMap::new();
        let mut whole = false;
        let mut at = HEADER_LEN;
        while let Some((frame, end)) = parse_frame(octets, at) {
            died.since_boot = died.since_boot.max(frame.since_boot);
            died.wall = died.wall.max(frame.wall);
            let mut rest = frame.records;
            while !rest.is_empty() {
                let (record, length) = parse_record(octets, rest.clone()).ok_or(StateFileError::Damaged(rest.start))?;
                match record {
                    Record::Put(place, description) => drop(latest.insert(place, description)),
                    Record::Delete(place) => drop(latest.remove(&place)),
                    Record::SnapshotEnd => whole = true,
                }
                rest.start += length;
            }
            at = end;
        }
        match (whole, octets.len() - at) {
            (true, cut) => Ok(Snapshot {
                bytes: octets,
                records_by_slot: latest,
                last_alive: died,
                clean_shutdown: in_order,
                truncated_bytes: cut,
            }),
            (false, 0) => Err(StateFileError::Incomplete),
            (false, _) => Err(StateFileError::Damaged(at)),
        }
    }

    /// The connections' descriptions, those first that were written first.
    pub fn connections(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let mut places: Vec<&Range<usize>> = self.records_by_slot.values().collect();
        places.sort_unstable_by_key(|place| place.start);
        places.into_iter().filter_map(|place| self.bytes.get(place.clone()))
    }
}

/// When the writer last lived, as far as the head tells, and whether it ended in order.
fn parse_header(octets: &[u8]) -> Result<(ClockPair, bool), StateFileError> {
    if !octets.starts_with(&MAGIC) {
        return Err(StateFileError::NotStateFile);
    }
    let damaged = StateFileError::Damaged(0);
    let word = |at: usize| octets.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let long = |at: usize| octets.get(at..at + 8).and_then(|long| long.try_into().ok()).map(u64::from_le_bytes);
    match word(8).ok_or(damaged)? {
        VERSION => (),
        other => return Err(StateFileError::Version(other)),
    }
    match word(12).ok_or(damaged)? {
        KIND => (),
        other => return Err(StateFileError::Kind(other)),
    }
    let sound =
        |at: Range<usize>| octets.get(at.clone()).is_some_and(|part| word(at.end) == Some(crc32fast::hash(part)));
    if !sound(0..HEARTBEAT_OFFSET - 4) || octets.len() < HEADER_LEN {
        return Err(damaged);
    }
    let boot = octets.get(16..32).and_then(|boot| boot.try_into().ok()).ok_or(damaged)?;
    let begun = ClockPair { boot, since_boot: long(32).ok_or(damaged)?, wall: long(40).ok_or(damaged)? };
    // A beat that was cut in two says nothing; the one before it is gone, but the frames tell too.
    if !sound(HEARTBEAT_OFFSET..HEADER_LEN - 4) {
        return Ok((begun, false));
    }
    let beat = ClockPair {
        boot,
        since_boot: long(HEARTBEAT_OFFSET).ok_or(damaged)?,
        wall: long(HEARTBEAT_OFFSET + 8).ok_or(damaged)?,
    };
    Ok((beat, word(HEARTBEAT_OFFSET + 16) == Some(1)))
}

/// A frame that is right.
struct Frame {
    since_boot: u64,
    wall: u64,
    records: Range<usize>,
}

/// The frame at `at`, and where the next one begins.
fn parse_frame(octets: &[u8], at: usize) -> Option<(Frame, usize)> {
    let header: &[u8; FRAME_HEADER_LEN] = octets.get(at..)?.first_chunk()?;
    let [a, b, c, d, e, f, g, h, stamps @ ..] = header;
    let length =
        usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok().filter(|length| *length <= MAX_FRAME_LEN)?;
    let end = (at + FRAME_HEADER_LEN).checked_add(length)?;
    let covered = octets.get(at + 8..end)?;
    if crc32fast::hash(covered) != u32::from_le_bytes([*e, *f, *g, *h]) {
        return None;
    }
    let (since_boot, wall) = stamps.split_first_chunk::<8>()?;
    let wall: [u8; 8] = wall.try_into().ok()?;
    let frame = Frame {
        since_boot: u64::from_le_bytes(*since_boot),
        wall: u64::from_le_bytes(wall),
        records: at + FRAME_HEADER_LEN..end,
    };
    Some((frame, end))
}

enum Record {
    Put(u32, Range<usize>),
    Delete(u32),
    SnapshotEnd,
}

/// The record that `within` begins with, and its length.
fn parse_record(octets: &[u8], within: Range<usize>) -> Option<(Record, usize)> {
    let start = within.start;
    let (kind, rest) = octets.get(within)?.split_first()?;
    if *kind == SNAPSHOT_END {
        return Some((Record::SnapshotEnd, 1));
    }
    let (place, rest) = rest.split_first_chunk::<4>()?;
    let place = u32::from_le_bytes(*place);
    match *kind {
        DELETE => Some((Record::Delete(place), 5)),
        PUT => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_le_bytes(*length));
            rest.get(..length)?;
            Some((Record::Put(place, start + 7..start + 7 + length), 7 + length))
        }
        _ => None,
    }
}

/// The head of a file that is begun now.
pub(super) fn new_header(now: &ClockPair) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&KIND.to_le_bytes());
    head[16..32].copy_from_slice(&now.boot);
    head[32..40].copy_from_slice(&now.since_boot.to_le_bytes());
    head[40..48].copy_from_slice(&now.wall.to_le_bytes());
    let check = crc32fast::hash(&head[..HEARTBEAT_OFFSET - 4]).to_le_bytes();
    head[HEARTBEAT_OFFSET - 4..HEARTBEAT_OFFSET].copy_from_slice(&check);
    head[HEARTBEAT_OFFSET..].copy_from_slice(&heartbeat_bytes(now, false));
    head
}

/// The word that the writer lives.
pub(super) fn heartbeat_bytes(now: &ClockPair, in_order: bool) -> [u8; HEADER_LEN - HEARTBEAT_OFFSET] {
    let mut beat = [0; HEADER_LEN - HEARTBEAT_OFFSET];
    beat[..8].copy_from_slice(&now.since_boot.to_le_bytes());
    beat[8..16].copy_from_slice(&now.wall.to_le_bytes());
    beat[16..20].copy_from_slice(&u32::from(in_order).to_le_bytes());
    let check = crc32fast::hash(&beat[..28]).to_le_bytes();
    beat[28..].copy_from_slice(&check);
    beat
}

/// Records on their way into one frame.
#[derive(Default)]
pub(super) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() <= FRAME_HEADER_LEN
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.0.is_empty() {
            self.0.resize(FRAME_HEADER_LEN, 0);
        }
        &mut self.0
    }

    /// The connection in `place` is what `describe` writes.
    pub(super) fn put(&mut self, place: u32, describe: impl FnOnce(&mut Vec<u8>)) {
        let out = self.buffer();
        let at = out.len();
        out.push(PUT);
        out.extend_from_slice(&place.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        let begin = out.len();
        describe(out);
        match u16::try_from(out.len() - begin) {
            Ok(length) => out[begin - 2..begin].copy_from_slice(&length.to_le_bytes()),
            // No description is that long; one that were could not be kept.
            Err(_) => out.truncate(at),
        }
    }

    pub(super) fn delete(&mut self, place: u32) {
        let out = self.buffer();
        out.push(DELETE);
        out.extend_from_slice(&place.to_le_bytes());
    }

    pub(super) fn end_snapshot(&mut self) {
        self.buffer().push(SNAPSHOT_END);
    }

    /// Closes the frame; it is there until [`Writing::clear`].
    pub(super) fn finish(&mut self, now: &ClockPair) -> &[u8] {
        let out = self.buffer();
        // Frames hold one turn's records: far below 4 GiB.
        let length = u32::try_from(out.len() - FRAME_HEADER_LEN).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[8..16].copy_from_slice(&now.since_boot.to_le_bytes());
        out[16..24].copy_from_slice(&now.wall.to_le_bytes());
        let check = crc32fast::hash(&out[8..]).to_le_bytes();
        out[4..8].copy_from_slice(&check);
        out
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;
