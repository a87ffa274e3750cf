//! The lines of one family in memory, and which of them are in use: what [`FlowTable`](super::FlowTable) does with each, down to the byte.
use super::flow_line::{EncodedLine, LINES_PER_BUCKET, LIVE, LIVE_BYTE, LineLayout, OPENING, STALE, WITHOUT_FIN};
use crate::mapped_memory::MappedMemory;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::Ordering;

/// What a line has counted since it was entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Packets; a GSO packet is one, as for netfilter.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
    /// When the last packet came, in milliseconds of the monotonic clock, modulo 2³².
    pub seen_ms: u32,
}

impl FlowCounts {
    /// Milliseconds since the last packet came.
    pub fn age_ms(&self) -> u32 {
        now_ms().wrapping_sub(self.seen_ms)
    }
}

/// The lines of one family.
#[derive(Debug)]
pub(super) struct LineMemory {
    pub(super) memory: MappedMemory,
    pub(super) layout: &'static LineLayout,
    pub(super) lines: Vec<LineState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineState {
    Free,
    Live,
    Parked,
    Leaving,
}

impl LineMemory {
    /// As many as the memory has room for, with what is live in it already.
    pub(super) fn new(memory: MappedMemory, layout: &'static LineLayout) -> LineMemory {
        let is_live = |number: usize| {
            let state = memory.atomic_u32(number * layout.line_len + layout.state()).load(Ordering::Acquire);
            state.to_ne_bytes()[LIVE_BYTE] & LIVE != 0
        };
        let state = |number| if is_live(number) { LineState::Live } else { LineState::Free };
        let lines = (0..memory.len() / layout.line_len).map(state).collect();
        LineMemory { memory, layout, lines }
    }

    /// Writes a line, which no packet finds before [`LineMemory::go_live`]; `None` if all its buckets are full.
    pub(super) fn write(&mut self, line: &EncodedLine, hash: u64, generation: u32) -> Option<u32> {
        let mask = (self.lines.len() / LINES_PER_BUCKET).checked_sub(1)?;
        // As the programs look for it.
        let buckets = [0, 32, 16].map(|bits| (hash >> bits) as usize & mask).map(|at| at * LINES_PER_BUCKET);
        let free = |from: &usize| {
            let lines = self.lines.get(*from..*from + LINES_PER_BUCKET).unwrap_or_default();
            lines.iter().filter(|line| **line == LineState::Free).count()
        };
        // The emptiest; among equals the first, which the programs look at first.
        let from = buckets.into_iter().rev().max_by_key(free)?;
        let index = (from..from + LINES_PER_BUCKET).find(|at| self.lines.get(*at) == Some(&LineState::Free))?;
        let at = index * self.layout.line_len;
        for (number, word) in line.bytes().as_chunks().0.iter().enumerate() {
            self.memory.atomic_u32(at + number * 4).store(u32::from_ne_bytes(*word), Ordering::Relaxed);
        }
        self.memory.atomic_u32(at + self.layout.generation()).store(generation, Ordering::Relaxed);
        self.memory.atomic_u32(at + self.layout.seen()).store(now_ms(), Ordering::Relaxed);
        *self.lines.get_mut(index)? = LineState::Live;
        u32::try_from(index).ok()
    }

    /// Packets find a line from now on. Whoever sees that it is live sees all that was written before.
    pub(super) fn go_live(&self, number: u32, is_opening: bool, without_fin: bool) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        self.set_live(self.at(number), LIVE | flag(is_opening, OPENING) | flag(without_fin, WITHOUT_FIN));
    }

    /// Takes a line out. Returns what it was, if it was live or parked.
    pub(super) fn remove(&mut self, number: u32) -> Option<LineState> {
        let in_use = |state: &&mut LineState| matches!(state, LineState::Live | LineState::Parked);
        let before = std::mem::replace(self.lines.get_mut(number as usize).filter(in_use)?, LineState::Leaving);
        self.set_live(self.at(number), 0);
        Some(before)
    }

    /// No packet finds a line any more; false if it was not live.
    pub(super) fn park(&mut self, number: u32) -> bool {
        let Some(state) = self.lines.get_mut(number as usize).filter(|state| **state == LineState::Live) else {
            return false;
        };
        *state = LineState::Parked;
        self.memory.atomic_u32(self.at(number) + self.layout.generation()).store(STALE, Ordering::Relaxed);
        true
    }

    /// Begins to count anew, and as seen now.
    pub(super) fn restart_counts(&self, number: u32) {
        let at = self.at(number);
        self.memory.atomic_u64(at + self.layout.packets()).store(0, Ordering::Relaxed);
        self.memory.atomic_u64(at + self.layout.bytes()).store(0, Ordering::Relaxed);
        self.memory.atomic_u32(at + self.layout.seen()).store(now_ms(), Ordering::Relaxed);
    }

    /// Is a line's key this one, as far as it goes?
    pub(super) fn has_key(&self, number: u32, key: &[u8]) -> bool {
        let at = self.at(number);
        let word = |(index, word): (usize, &[u8; 4])| {
            self.memory.atomic_u32(at + index * 4).load(Ordering::Relaxed) == u32::from_ne_bytes(*word)
        };
        (number as usize) < self.lines.len() && key.as_chunks().0.iter().enumerate().all(word)
    }

    /// Only this byte changes: a program may still be reading the others.
    fn set_live(&self, at: usize, live: u8) {
        let state = self.memory.atomic_u32(at + self.layout.state());
        let mut bytes = state.load(Ordering::Relaxed).to_ne_bytes();
        bytes[LIVE_BYTE] = live;
        state.store(u32::from_ne_bytes(bytes), Ordering::Release);
    }

    pub(super) fn counts(&self, number: u32) -> FlowCounts {
        let at = self.at(number);
        FlowCounts {
            packets: self.memory.atomic_u64(at + self.layout.packets()).load(Ordering::Relaxed),
            bytes: self.memory.atomic_u64(at + self.layout.bytes()).load(Ordering::Relaxed),
            seen_ms: self.memory.atomic_u32(at + self.layout.seen()).load(Ordering::Relaxed),
        }
    }

    pub(super) fn free(&mut self, number: u32) {
        if let Some(state) = self.lines.get_mut(number as usize) {
            *state = LineState::Free;
        }
    }

    pub(super) fn at(&self, number: u32) -> usize {
        number as usize * self.layout.line_len
    }
}

/// Milliseconds of the monotonic clock, modulo 2³².
fn now_ms() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000) as u32
}
