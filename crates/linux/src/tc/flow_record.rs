//! What the next gateway has to know of each known connection, beside its lines: one record a connection (`struct record`), in memory that outlives the process as the lines do.
//!
//! A record is written when a connection becomes known, and removed with its lines. A process may die in the middle of any of that: a record counts only with its checksum.
use super::flow_line::FlowLine;
use super::line_memory::now_ms;
use crate::mapped_memory::MappedMemory;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// A record in the table.
#[derive(Debug, PartialEq, Eq)]
pub struct FlowRecord {
    pub(super) is_v6: bool,
    pub(super) number: u32,
}

/// A connection that an earlier gateway has left in the table.
#[derive(Debug)]
pub struct AdoptedFlow {
    /// Its lines: original, reply. Whether they are those of the snapshot's tuples, [`FlowTable::has_ends`](super::FlowTable::has_ends) says.
    pub lines: [FlowLine; 2],
    /// Its record.
    pub record: FlowRecord,
    /// What was written down of it.
    pub snapshot: Vec<u8>,
    /// When that was, in milliseconds of the monotonic clock, modulo 2³².
    pub written_ms: u32,
}

/// A record as an earlier process has left it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftRecord {
    pub(super) lines: [u32; 2],
    pub(super) number: u32,
    pub(super) snapshot: Vec<u8>,
    pub(super) written_ms: u32,
}

/// The records of one family.
#[derive(Debug)]
pub(super) struct RecordMemory {
    memory: MappedMemory,
    record_len: usize,
    free: Vec<u32>,
}

/// Bytes of `struct record` and `struct record_v6`.
pub(super) const RECORD_LEN: usize = 192;
pub(super) const RECORD_LEN_V6: usize = 240;
/// A checksum, two lines, a length; then the snapshot; and at the end of its room, when it was written.
pub(super) const HEADER_LEN: usize = 14;
const TIME_LEN: usize = 4;

/// The longest snapshot that a record of this length has room for.
pub(super) const fn room_of(record_len: usize) -> usize {
    record_len - HEADER_LEN - TIME_LEN
}

impl RecordMemory {
    /// Those in this memory, none of which is taken yet.
    pub(super) fn new(memory: MappedMemory, record_len: usize) -> RecordMemory {
        let count = u32::try_from(memory.len() / record_len).unwrap_or(u32::MAX);
        RecordMemory { memory, record_len, free: (0..count).rev().collect() }
    }

    /// Takes over the valid records for which `take` gives something; the others are free.
    pub(super) fn take_left<T>(&mut self, mut take: impl FnMut(LeftRecord) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        let mut free = std::mem::take(&mut self.free);
        free.retain(|number| {
            let read = self.read(*number).and_then(&mut take);
            let is_free = read.is_none();
            taken.extend(read);
            is_free
        });
        self.free = free;
        for number in self.free.clone() {
            self.clear(number);
        }
        taken
    }

    /// Writes a record; `None` if it does not fit, or all are in use.
    pub(super) fn add(&mut self, lines: [u32; 2], snapshot: &[u8]) -> Option<u32> {
        if snapshot.len() > room_of(self.record_len) {
            return None;
        }
        let number = self.free.pop()?;
        self.write(number, lines, snapshot);
        Some(number)
    }

    /// Writes a record anew; one that does not fit is cleared.
    pub(super) fn write(&mut self, number: u32, lines: [u32; 2], snapshot: &[u8]) {
        let [a, b] = lines.map(u32::to_ne_bytes);
        let length = u16::try_from(snapshot.len()).unwrap_or(u16::MAX).to_ne_bytes();
        self.clear(number);
        if let Some(to) = self.memory.slice_mut(self.at(number) + 4, self.record_len - 4)
            && let Some((to, time)) = to.split_last_chunk_mut()
            && let Some(to) = to.get_mut(..HEADER_LEN - 4 + snapshot.len())
        {
            let parts = a.iter().chain(&b).chain(&length).chain(snapshot);
            to.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
            *time = now_ms().to_ne_bytes();
            let checksum = checksum(to);
            self.memory.write(self.at(number), &checksum);
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.clear(number);
        self.free.push(number);
    }

    #[cfg(test)]
    pub(super) fn into_memory(self) -> MappedMemory {
        self.memory
    }

    fn read(&self, number: u32) -> Option<LeftRecord> {
        let (stored, record) = self.memory.slice(self.at(number), self.record_len)?.split_first_chunk()?;
        let (record, time) = record.split_last_chunk()?;
        let (lines, rest) = record.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let snapshot = rest.get(..usize::from(u16::from_ne_bytes(*length)))?;
        let stored = u32::from_ne_bytes(*stored);
        let is_valid = stored != 0 && stored == checksum(record.get(..HEADER_LEN - 4 + snapshot.len())?);
        let [a, b, c, d, e, f, g, h] = *lines;
        let lines = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
        let written_ms = u32::from_ne_bytes(*time);
        is_valid.then(|| LeftRecord { lines, number, snapshot: snapshot.to_vec(), written_ms })
    }

    fn clear(&mut self, number: u32) {
        self.memory.write(self.at(number), &0_u32);
    }

    fn at(&self, number: u32) -> usize {
        number as usize * self.record_len
    }
}

/// Never zero, which is that of no record.
fn checksum(body: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write(body);
    (hasher.finish() as u32) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 32;

    fn left(memory: &mut RecordMemory) -> Vec<([u32; 2], u32, Vec<u8>)> {
        // As the next process finds it.
        memory.free = (0..4).rev().collect();
        memory.take_left(|left| {
            assert!(now_ms().wrapping_sub(left.written_ms) < 60_000, "it was written just now");
            Some((left.lines, left.number, left.snapshot))
        })
    }

    #[test]
    fn records_outlive_their_process_whole_or_not_at_all() {
        let mut records = RecordMemory::new(MappedMemory::anonymous(4 * LEN).unwrap(), LEN);
        assert_eq!(records.add([1, 2], &[7; room_of(LEN) + 1]), None, "too long");
        let [first, second, third] = [[9; 14], [8; 14], [7; 14]].map(|bytes| records.add([5, 6], &bytes).unwrap());
        records.write(second, [7, 8], &[1, 2]);
        records.remove(third);
        assert_eq!(left(&mut records), [([7, 8], second, vec![1, 2]), ([5, 6], first, vec![9; 14])]);
        assert_eq!(records.free.len(), 2);
        // It died while it wrote.
        records.memory.write(records.at(first) + 20, &3_u8);
        assert_eq!(left(&mut records).len(), 1);
        assert!((0..3).all(|_| records.add([1, 2], &[]).is_some()) && records.add([1, 2], &[]).is_none(), "all in use");
    }
}
