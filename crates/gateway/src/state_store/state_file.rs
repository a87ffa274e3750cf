//! The format of the state file, byte by byte; reading it.
//!
//! ```text
//! header  96  magic 8 │ version 4 │ kind 4 │ boot id 16 │ since boot 8 │ wall clock 8 │ 0 12 │ checksum 4
//!             heartbeat: since boot 8 │ wall clock 8 │ clean shutdown 4 │ 0 8 │ checksum 4         rewritten in place
//! frames      length 4 │ checksum 4 │ since boot 8 │ wall clock 8 │ records …
//! records     as keepstate_cluster::records says; snapshot end: every connection that existed when this file was started has been put; what follows is the journal
//! ```
//! All numbers are little-endian, all times nanoseconds, every checksum is a CRC-32 of what precedes it in its block (of what follows it in a frame). The last
//! record of a slot counts. Lengths are not trusted: memory is only allocated for records that are there. A damaged frame before `snapshot end` makes the file
//! unusable; after it, that frame and what follows are ignored, because that is what a crash leaves.
use keepstate_cluster::records::{self, Record, parse_record};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"keepstat";
const VERSION: u32 = 1;
/// The only kind: a connection table.
const KIND: u32 = 1;
pub(super) const HEADER_LEN: usize = 96;
/// Where the heartbeat is in the header.
pub(super) const HEARTBEAT_OFFSET: usize = 64;
const FRAME_HEADER_LEN: usize = 24;
/// The longest frame.
const MAX_FRAME_LEN: usize = 1 << 23;

/// A point in time by both clocks: the monotonic one, and the wall clock, which survives a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockPair {
    /// The boot id.
    pub boot: [u8; 16],
    /// Nanoseconds since boot.
    pub since_boot: u64,
    /// Nanoseconds since 1970.
    pub wall: u64,
}

/// The time between two points, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockGap {
    /// Both are of the same boot.
    SameBoot(Duration),
    /// There was a reboot in between; the time is by the wall clock.
    Rebooted(Duration),
    /// There was a reboot, and the wall clock was set back.
    Unknown,
}

impl ClockPair {
    /// The time from `self` to `later`.
    pub fn gap_to(&self, later: &ClockPair) -> ClockGap {
        if self.boot == later.boot {
            return ClockGap::SameBoot(Duration::from_nanos(later.since_boot.saturating_sub(self.since_boot)));
        }
        later.wall.checked_sub(self.wall).map_or(ClockGap::Unknown, |gap| ClockGap::Rebooted(Duration::from_nanos(gap)))
    }
}

impl ClockGap {
    /// What to subtract from the timeouts.
    pub fn duration(self) -> Duration {
        match self {
            ClockGap::SameBoot(length) | ClockGap::Rebooted(length) => length,
            ClockGap::Unknown => Duration::ZERO,
        }
    }
}

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFileError {
    /// Another format.
    #[error("not a state file of keepstate gateway")]
    NotStateFile,
    /// Of another version.
    #[error("format version {0}, this program reads version {VERSION}: it was written by another version of keepstate")]
    Version(u32),
    /// Another kind of content.
    #[error("it does not hold connections (kind {0})")]
    Kind(u32),
    /// Not as it was written.
    #[error("damaged at byte {0}")]
    Damaged(usize),
    /// Its snapshot was never completed.
    #[error("incomplete: its end is missing")]
    Incomplete,
}

/// The content of a file.
#[derive(Debug)]
pub struct Snapshot<'a> {
    bytes: &'a [u8],
    /// By slot, the byte range of the last record.
    records_by_slot: HashMap<u32, Range<usize>>,
    /// When its writer was last alive.
    pub last_alive: ClockPair,
    /// It was closed: nothing has changed since.
    pub clean_shutdown: bool,
    /// Bytes at the end that are ignored.
    pub truncated_bytes: usize,
}

impl<'a> Snapshot<'a> {
    /// Parses a file, completely or not at all.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn parse(bytes: &'a [u8]) -> Result<Snapshot<'a>, StateFileError> {
        let (mut last_alive, clean) = parse_header(bytes)?;
        let mut latest = HashMap::new();
        let mut is_complete = false;
        let mut at = HEADER_LEN;
        while let Some((frame, end)) = parse_frame(bytes, at) {
            last_alive.since_boot = last_alive.since_boot.max(frame.since_boot);
            last_alive.wall = last_alive.wall.max(frame.wall);
            let mut rest = frame.records;
            while !rest.is_empty() {
                let (record, length) = parse_record(bytes, rest.clone()).ok_or(StateFileError::Damaged(rest.start))?;
                match record {
                    Record::Put(slot, record) => drop(latest.insert(slot, record)),
                    Record::Delete(slot) => drop(latest.remove(&slot)),
                    Record::SnapshotEnd => is_complete = true,
                }
                rest.start += length;
            }
            at = end;
        }
        match (is_complete, bytes.len() - at) {
            (true, truncated_bytes) => {
                Ok(Snapshot { bytes, records_by_slot: latest, last_alive, clean_shutdown: clean, truncated_bytes })
            }
            (false, 0) => Err(StateFileError::Incomplete),
            (false, _) => Err(StateFileError::Damaged(at)),
        }
    }

    /// The encoded connections, in the order in which they were written.
    pub fn connections(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let mut ranges: Vec<&Range<usize>> = self.records_by_slot.values().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.into_iter().filter_map(|range| self.bytes.get(range.clone()))
    }
}

/// When the writer was last alive by the header, and whether it was a clean shutdown.
fn parse_header(bytes: &[u8]) -> Result<(ClockPair, bool), StateFileError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(StateFileError::NotStateFile);
    }
    let damaged = StateFileError::Damaged(0);
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let long = |at: usize| bytes.get(at..at + 8).and_then(|long| long.try_into().ok()).map(u64::from_le_bytes);
    match word(8).ok_or(damaged)? {
        VERSION => (),
        other => return Err(StateFileError::Version(other)),
    }
    match word(12).ok_or(damaged)? {
        KIND => (),
        other => return Err(StateFileError::Kind(other)),
    }
    let is_valid =
        |at: Range<usize>| bytes.get(at.clone()).is_some_and(|part| word(at.end) == Some(crc32fast::hash(part)));
    if !is_valid(0..HEARTBEAT_OFFSET - 4) || bytes.len() < HEADER_LEN {
        return Err(damaged);
    }
    let boot = bytes.get(16..32).and_then(|boot| boot.try_into().ok()).ok_or(damaged)?;
    let created = ClockPair { boot, since_boot: long(32).ok_or(damaged)?, wall: long(40).ok_or(damaged)? };
    // A heartbeat of which only a part was written is ignored; the frames have times too.
    if !is_valid(HEARTBEAT_OFFSET..HEADER_LEN - 4) {
        return Ok((created, false));
    }
    let heartbeat = ClockPair {
        boot,
        since_boot: long(HEARTBEAT_OFFSET).ok_or(damaged)?,
        wall: long(HEARTBEAT_OFFSET + 8).ok_or(damaged)?,
    };
    Ok((heartbeat, word(HEARTBEAT_OFFSET + 16) == Some(1)))
}

/// A valid frame.
struct Frame {
    since_boot: u64,
    wall: u64,
    records: Range<usize>,
}

/// The frame at `at`, and the start of the next one.
fn parse_frame(bytes: &[u8], at: usize) -> Option<(Frame, usize)> {
    let header: &[u8; FRAME_HEADER_LEN] = bytes.get(at..)?.first_chunk()?;
    let [a, b, c, d, e, f, g, h, stamps @ ..] = header;
    let length =
        usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok().filter(|length| *length <= MAX_FRAME_LEN)?;
    let end = (at + FRAME_HEADER_LEN).checked_add(length)?;
    let covered = bytes.get(at + 8..end)?;
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

/// The header of a new file.
pub(super) fn new_header(now: &ClockPair) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&KIND.to_le_bytes());
    header[16..32].copy_from_slice(&now.boot);
    header[32..40].copy_from_slice(&now.since_boot.to_le_bytes());
    header[40..48].copy_from_slice(&now.wall.to_le_bytes());
    let check = crc32fast::hash(&header[..HEARTBEAT_OFFSET - 4]).to_le_bytes();
    header[HEARTBEAT_OFFSET - 4..HEARTBEAT_OFFSET].copy_from_slice(&check);
    header[HEARTBEAT_OFFSET..].copy_from_slice(&heartbeat_bytes(now, false));
    header
}

/// The heartbeat block.
pub(super) fn heartbeat_bytes(now: &ClockPair, clean: bool) -> [u8; HEADER_LEN - HEARTBEAT_OFFSET] {
    let mut block = [0; HEADER_LEN - HEARTBEAT_OFFSET];
    block[..8].copy_from_slice(&now.since_boot.to_le_bytes());
    block[8..16].copy_from_slice(&now.wall.to_le_bytes());
    block[16..20].copy_from_slice(&u32::from(clean).to_le_bytes());
    let check = crc32fast::hash(&block[..28]).to_le_bytes();
    block[28..].copy_from_slice(&check);
    block
}

/// Collects the records of one frame.
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

    /// Adds a record for the connection in `slot`, which `encode` writes.
    pub(super) fn put(&mut self, slot: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        records::write_put(self.buffer(), slot, encode);
    }

    pub(super) fn delete(&mut self, slot: u32) {
        records::write_delete(self.buffer(), slot);
    }

    pub(super) fn end_snapshot(&mut self) {
        records::write_snapshot_end(self.buffer());
    }

    /// Completes the frame; it stays until [`FrameWriter::clear`].
    pub(super) fn finish(&mut self, now: &ClockPair) -> &[u8] {
        let out = self.buffer();
        // A frame holds one turn's records: far below 4 GiB.
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
