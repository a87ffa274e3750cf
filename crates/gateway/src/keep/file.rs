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
pub(super) const HEAD: usize = 96;
/// Where the beat stands in the head.
pub(super) const BEAT: usize = 64;
const FRAME: usize = 24;
/// No frame is longer.
const LONGEST: usize = 1 << 23;

const PUT: u8 = 1;
const GONE: u8 = 2;
const WHOLE: u8 = 3;

/// A point in time by both clocks: the one that nobody sets, and the one that outlives a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Which boot.
    pub boot: [u8; 16],
    /// Nanoseconds since then.
    pub since_boot: u64,
    /// Nanoseconds since 1970.
    pub wall: u64,
}

/// Time between two moments, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Both are of one boot.
    Sure(Duration),
    /// The machine was started again in between; the wall clock says so much.
    Rebooted(Duration),
    /// It was, and the wall clock was set back: nobody knows.
    Unknown,
}

impl Moment {
    /// Time from here to `later`.
    pub fn until(&self, later: &Moment) -> Gap {
        if self.boot == later.boot {
            return Gap::Sure(Duration::from_nanos(later.since_boot.saturating_sub(self.since_boot)));
        }
        later.wall.checked_sub(self.wall).map_or(Gap::Unknown, |gap| Gap::Rebooted(Duration::from_nanos(gap)))
    }
}

impl Gap {
    /// What is to be taken off the timeouts.
    pub fn length(self) -> Duration {
        match self {
            Gap::Sure(length) | Gap::Rebooted(length) => length,
            Gap::Unknown => Duration::ZERO,
        }
    }
}

/// Why a file is not used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something else altogether.
    #[error("it is no table that a gateway has kept")]
    Foreign,
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
    Unfinished,
}

/// What a file holds.
#[derive(Debug)]
pub struct Image<'a> {
    octets: &'a [u8],
    /// By place, where the description is that counts.
    latest: HashMap<u32, Range<usize>>,
    /// When its writer was last known to live.
    pub died: Moment,
    /// It was ended in order: nothing has happened since.
    pub in_order: bool,
    /// Octets at the end that are left out.
    pub cut: usize,
}

impl<'a> Image<'a> {
    /// Reads a file, all of it or nothing.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn read(octets: &'a [u8]) -> Result<Image<'a>, Refusal> {
        let (mut died, in_order) = head(octets)?;
        let mut latest = HashMap::new();
        let mut whole = false;
        let mut at = HEAD;
        while let Some((frame, end)) = frame(octets, at) {
            died.since_boot = died.since_boot.max(frame.since_boot);
            died.wall = died.wall.max(frame.wall);
            let mut rest = frame.records;
            while !rest.is_empty() {
                let (record, length) = record(octets, rest.clone()).ok_or(Refusal::Damaged(rest.start))?;
                match record {
                    Record::Put(place, description) => drop(latest.insert(place, description)),
                    Record::Gone(place) => drop(latest.remove(&place)),
                    Record::Whole => whole = true,
                }
                rest.start += length;
            }
            at = end;
        }
        match (whole, octets.len() - at) {
            (true, cut) => Ok(Image { octets, latest, died, in_order, cut }),
            (false, 0) => Err(Refusal::Unfinished),
            (false, _) => Err(Refusal::Damaged(at)),
        }
    }

    /// The connections' descriptions, those first that were written first.
    pub fn descriptions(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let mut places: Vec<&Range<usize>> = self.latest.values().collect();
        places.sort_unstable_by_key(|place| place.start);
        places.into_iter().filter_map(|place| self.octets.get(place.clone()))
    }
}

/// When the writer last lived, as far as the head tells, and whether it ended in order.
fn head(octets: &[u8]) -> Result<(Moment, bool), Refusal> {
    if !octets.starts_with(&MAGIC) {
        return Err(Refusal::Foreign);
    }
    let damaged = Refusal::Damaged(0);
    let word = |at: usize| octets.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let long = |at: usize| octets.get(at..at + 8).and_then(|long| long.try_into().ok()).map(u64::from_le_bytes);
    match word(8).ok_or(damaged)? {
        VERSION => (),
        other => return Err(Refusal::Version(other)),
    }
    match word(12).ok_or(damaged)? {
        KIND => (),
        other => return Err(Refusal::Kind(other)),
    }
    let sound =
        |at: Range<usize>| octets.get(at.clone()).is_some_and(|part| word(at.end) == Some(crc32fast::hash(part)));
    if !sound(0..BEAT - 4) || octets.len() < HEAD {
        return Err(damaged);
    }
    let boot = octets.get(16..32).and_then(|boot| boot.try_into().ok()).ok_or(damaged)?;
    let begun = Moment { boot, since_boot: long(32).ok_or(damaged)?, wall: long(40).ok_or(damaged)? };
    // A beat that was cut in two says nothing; the one before it is gone, but the frames tell too.
    if !sound(BEAT..HEAD - 4) {
        return Ok((begun, false));
    }
    let beat = Moment { boot, since_boot: long(BEAT).ok_or(damaged)?, wall: long(BEAT + 8).ok_or(damaged)? };
    Ok((beat, word(BEAT + 16) == Some(1)))
}

/// A frame that is right.
struct Frame {
    since_boot: u64,
    wall: u64,
    records: Range<usize>,
}

/// The frame at `at`, and where the next one begins.
fn frame(octets: &[u8], at: usize) -> Option<(Frame, usize)> {
    let header: &[u8; FRAME] = octets.get(at..)?.first_chunk()?;
    let [a, b, c, d, e, f, g, h, stamps @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok().filter(|length| *length <= LONGEST)?;
    let end = (at + FRAME).checked_add(length)?;
    let covered = octets.get(at + 8..end)?;
    if crc32fast::hash(covered) != u32::from_le_bytes([*e, *f, *g, *h]) {
        return None;
    }
    let (since_boot, wall) = stamps.split_first_chunk::<8>()?;
    let wall: [u8; 8] = wall.try_into().ok()?;
    let frame =
        Frame { since_boot: u64::from_le_bytes(*since_boot), wall: u64::from_le_bytes(wall), records: at + FRAME..end };
    Some((frame, end))
}

enum Record {
    Put(u32, Range<usize>),
    Gone(u32),
    Whole,
}

/// The record that `within` begins with, and its length.
fn record(octets: &[u8], within: Range<usize>) -> Option<(Record, usize)> {
    let start = within.start;
    let (kind, rest) = octets.get(within)?.split_first()?;
    if *kind == WHOLE {
        return Some((Record::Whole, 1));
    }
    let (place, rest) = rest.split_first_chunk::<4>()?;
    let place = u32::from_le_bytes(*place);
    match *kind {
        GONE => Some((Record::Gone(place), 5)),
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
pub(super) fn begin(now: &Moment) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&KIND.to_le_bytes());
    head[16..32].copy_from_slice(&now.boot);
    head[32..40].copy_from_slice(&now.since_boot.to_le_bytes());
    head[40..48].copy_from_slice(&now.wall.to_le_bytes());
    let check = crc32fast::hash(&head[..BEAT - 4]).to_le_bytes();
    head[BEAT - 4..BEAT].copy_from_slice(&check);
    head[BEAT..].copy_from_slice(&beat(now, false));
    head
}

/// The word that the writer lives.
pub(super) fn beat(now: &Moment, in_order: bool) -> [u8; HEAD - BEAT] {
    let mut beat = [0; HEAD - BEAT];
    beat[..8].copy_from_slice(&now.since_boot.to_le_bytes());
    beat[8..16].copy_from_slice(&now.wall.to_le_bytes());
    beat[16..20].copy_from_slice(&u32::from(in_order).to_le_bytes());
    let check = crc32fast::hash(&beat[..28]).to_le_bytes();
    beat[28..].copy_from_slice(&check);
    beat
}

/// Records on their way into one frame.
#[derive(Default)]
pub(super) struct Writing(Vec<u8>);

impl Writing {
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() <= FRAME
    }

    fn open(&mut self) -> &mut Vec<u8> {
        if self.0.is_empty() {
            self.0.resize(FRAME, 0);
        }
        &mut self.0
    }

    /// The connection in `place` is what `describe` writes.
    pub(super) fn put(&mut self, place: u32, describe: impl FnOnce(&mut Vec<u8>)) {
        let out = self.open();
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

    pub(super) fn gone(&mut self, place: u32) {
        let out = self.open();
        out.push(GONE);
        out.extend_from_slice(&place.to_le_bytes());
    }

    pub(super) fn whole(&mut self) {
        self.open().push(WHOLE);
    }

    /// Closes the frame; it is there until [`Writing::clear`].
    pub(super) fn close(&mut self, now: &Moment) -> &[u8] {
        let out = self.open();
        // Frames hold one turn's records: far below 4 GiB.
        let length = u32::try_from(out.len() - FRAME).unwrap_or(u32::MAX);
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
