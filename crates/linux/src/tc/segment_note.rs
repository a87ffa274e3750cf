//! What the programs tell of segments that they have let go on (`struct note`), and what they need for it beside each line (`struct side`).
use super::flow_line::FlowLine;
use crate::mapped_memory::MappedMemory;
use aya::maps::{MapData, RingBuf};
use std::fmt;
use std::sync::atomic::Ordering;

/// Bytes of `struct side`.
pub(super) const SIDE_LEN: usize = 16;
/// `is_reply`, and that the server has not answered yet, as a word.
const IS_REPLY: [u8; 2] = 1_u16.to_ne_bytes();

/// A segment of a known flow that belongs to its connection's handshake or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNote {
    /// The line that it has gone by.
    pub line: FlowLine,
    headers: [u8; MAX_HEADERS],
    length: usize,
}

/// The longest that are told: of IPv6 without extension headers, and TCP with all options.
const MAX_HEADERS: usize = 100;

impl SegmentNote {
    /// Its IP header and its TCP header, as it came.
    pub fn headers(&self) -> &[u8] {
        self.headers.get(..self.length).unwrap_or_default()
    }

    /// A `struct note`.
    fn decode(bytes: &[u8]) -> Option<SegmentNote> {
        let [l0, l1, l2, l3, is_v6, length, _, _, rest @ ..] = bytes else { return None };
        let headers = *rest.first_chunk()?;
        let line = FlowLine { is_v6: *is_v6 != 0, number: u32::from_ne_bytes([*l0, *l1, *l2, *l3]) };
        Some(SegmentNote { line, headers, length: usize::from(*length) })
    }
}

/// The sides of both families, and the ring that notes come by.
pub(super) struct SegmentNotes {
    sides: [MappedMemory; 2],
    /// `None` in tests without programs.
    ring: Option<RingBuf<MapData>>,
}

impl SegmentNotes {
    pub(super) fn new(sides: [MappedMemory; 2], ring: Option<RingBuf<MapData>>) -> SegmentNotes {
        SegmentNotes { sides, ring }
    }

    /// Makes two lines, original and reply, those of one connection. With `opening` its handshake goes on: the sequence number of the client's next segment.
    pub(super) fn pair(&self, is_v6: bool, [original, reply]: [u32; 2], opening: Option<u32>) {
        let sides = &self.sides[usize::from(is_v6)];
        let [yes_low, yes_high] = IS_REPLY;
        for (number, peer, next_seq, role) in
            [(original, reply, opening.unwrap_or(0), [0; 4]), (reply, original, 0, [yes_low, yes_high, 0, 0])]
        {
            let at = number as usize * SIDE_LEN;
            for (word, value) in [peer, next_seq, u32::from_ne_bytes(role)].into_iter().enumerate() {
                sides.atomic_u32(at + word * 4).store(value, Ordering::Relaxed);
            }
        }
    }

    /// The next note.
    pub(super) fn next(&mut self) -> Option<SegmentNote> {
        let ring = self.ring.as_mut()?;
        loop {
            // One that cannot be read is none of these programs'.
            if let Some(note) = SegmentNote::decode(&ring.next()?) {
                return Some(note);
            }
        }
    }
}

impl fmt::Debug for SegmentNotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentNotes").field("sides", &self.sides).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_the_layout_of_the_programs() {
        let mut bytes = [0; 108];
        bytes[..4].copy_from_slice(&77_u32.to_ne_bytes());
        (bytes[4], bytes[5], bytes[8], bytes[47]) = (1, 40, 0x60, 9);
        let note = SegmentNote::decode(&bytes).unwrap();
        assert_eq!(note.line, FlowLine { is_v6: true, number: 77 });
        assert_eq!((note.headers().len(), note.headers()[0], note.headers()[39]), (40, 0x60, 9));
        assert_eq!(SegmentNote::decode(&bytes[..107]), None);
    }

    #[test]
    fn sides_name_each_other() {
        let memory = || MappedMemory::anonymous(4096).unwrap();
        let notes = SegmentNotes::new([memory(), memory()], None);
        notes.pair(false, [3, 9], Some(0x0102_0304));
        let word = |number: usize, word: usize| {
            notes.sides[0].atomic_u32(number * SIDE_LEN + word * 4).load(Ordering::Relaxed)
        };
        assert_eq!([word(3, 0), word(3, 1), word(3, 2)], [9, 0x0102_0304, 0]);
        assert_eq!([word(9, 0), word(9, 1), word(9, 2)], [3, 0, u32::from_ne_bytes([1, 0, 0, 0])]);
    }
}
