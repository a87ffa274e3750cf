//! The lines of one family in memory, and which of them are in use: what [`FlowTable`](super::FlowTable) does with each, down to the byte.
use super::carrier::TcHook;
use super::flow_line::{
    CLAIMED, EncodedLine, GONE, LINES_PER_BUCKET, LIVE, LIVE_BYTE, LineLayout, OPENING, STALE, WITHOUT_FIN,
};
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
    /// Milliseconds from the last packet to a time of [`now_ms`].
    pub fn age_ms_at(&self, now_ms: u32) -> u32 {
        now_ms.wrapping_sub(self.seen_ms)
    }
}

/// Two thirds of the lines of three buckets.
const TWO_THIRDS_OF_THREE: usize = 2 * LINES_PER_BUCKET;

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
        let state = |number: usize| {
            let state = memory.atomic_u32(number * layout.line_len + layout.state());
            let word = state.load(Ordering::Acquire);
            match live_of(word) {
                live if live & LIVE != 0 => LineState::Live,
                // The programs that have read it have ended long ago; one that is claimed a program is writing now.
                live if live & GONE != 0 => {
                    state.store(with_live(word, 0), Ordering::Release);
                    LineState::Free
                }
                _ => LineState::Free,
            }
        };
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
        // The first, which the programs look at first, while there is room to spare; else the emptiest, so that none is full while others are not.
        let [first, ..] = buckets;
        let is_roomy =
            free(&first) >= LINES_PER_BUCKET / 2 && buckets.iter().map(free).sum::<usize>() >= TWO_THIRDS_OF_THREE;
        let from = if is_roomy { first } else { buckets.into_iter().rev().max_by_key(free)? };
        let is_mine = |index: &usize| {
            self.lines.get(*index) == Some(&LineState::Free) && self.claim(index * self.layout.line_len)
        };
        // As the programs look for it: most are in the line of the bucket that they look at first.
        let start = (hash >> 62) as usize;
        let index = (0..LINES_PER_BUCKET).map(|nth| from + (nth ^ start)).find(is_mine)?;
        let at = index * self.layout.line_len;
        for (number, word) in line.bytes().as_chunks().0.iter().enumerate() {
            let (place, word) = (number * 4, u32::from_ne_bytes(*word));
            let word = if place == self.layout.state() { with_live(word, CLAIMED) } else { word };
            self.memory.atomic_u32(at + place).store(word, Ordering::Relaxed);
        }
        self.memory.atomic_u32(at + self.layout.generation()).store(generation, Ordering::Relaxed);
        self.memory.atomic_u32(at + self.layout.seen()).store(now_ms(), Ordering::Relaxed);
        *self.lines.get_mut(index)? = LineState::Live;
        u32::try_from(index).ok()
    }

    /// Takes a line that is free; false if a program has it.
    fn claim(&self, at: usize) -> bool {
        let state = self.memory.atomic_u32(at + self.layout.state());
        let before = state.load(Ordering::Relaxed);
        let claimed = with_live(before, CLAIMED);
        live_of(before) == 0 && state.compare_exchange(before, claimed, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// A program has made this line, and told so.
    pub(super) fn take_over(&mut self, number: u32) -> bool {
        let is_live = (number as usize) < self.lines.len() && live_of(self.state_of(number)) & LIVE != 0;
        match self.lines.get_mut(number as usize).filter(|state| is_live && **state == LineState::Free) {
            Some(state) => *state = LineState::Live,
            None => return false,
        }
        true
    }

    /// The hook and the interface in a line's key.
    pub(super) fn source(&self, number: u32) -> (TcHook, u16) {
        let word = self.memory.atomic_u32(self.at(number) + self.layout.key_len() - 4).load(Ordering::Relaxed);
        let [_, hook, low, high] = word.to_ne_bytes();
        (if hook == 0 { TcHook::Ingress } else { TcHook::Egress }, u16::from_ne_bytes([low, high]))
    }

    /// Is a line as this one would be written, but for what programs change?
    pub(super) fn is_line(&self, number: u32, line: &EncodedLine, without_fin: bool) -> bool {
        let [target, _, oif @ ..] = self.state_of(number).to_ne_bytes();
        let live = live_of(self.state_of(number));
        let has = |at: usize, bytes: &[u8]| {
            let from = self.at(number) + at;
            let word = |(index, word): (usize, &[u8; 4])| {
                self.memory.atomic_u32(from + index * 4).load(Ordering::Relaxed) == u32::from_ne_bytes(*word)
            };
            bytes.as_chunks().0.iter().enumerate().all(word)
        };
        let (generation, state) = (self.layout.generation(), self.layout.state());
        let wanted = line.bytes();
        let part = |from: usize, to: usize| wanted.get(from..to).unwrap_or_default();
        has(0, part(0, generation))
            && has(generation + 4, part(generation + 4, state))
            && part(state, state + 1) == [target]
            && part(state + 2, state + 4) == oif
            && (live & WITHOUT_FIN != 0) == without_fin
    }

    fn state_of(&self, number: u32) -> u32 {
        self.memory.atomic_u32(self.at(number) + self.layout.state()).load(Ordering::Acquire)
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
        self.set_live(self.at(number), GONE);
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
        state.store(with_live(state.load(Ordering::Relaxed), live), Ordering::Release);
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
        if (number as usize) < self.lines.len() {
            self.set_live(self.at(number), 0);
        }
        if let Some(state) = self.lines.get_mut(number as usize) {
            *state = LineState::Free;
        }
    }

    pub(super) fn at(&self, number: u32) -> usize {
        number as usize * self.layout.line_len
    }
}

/// `live` in a line's state.
fn live_of(state: u32) -> u8 {
    state.to_ne_bytes()[LIVE_BYTE]
}

fn with_live(state: u32, live: u8) -> u32 {
    let mut bytes = state.to_ne_bytes();
    bytes[LIVE_BYTE] = live;
    u32::from_ne_bytes(bytes)
}

/// Milliseconds of the monotonic clock, modulo 2³².
pub fn now_ms() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000) as u32
}
