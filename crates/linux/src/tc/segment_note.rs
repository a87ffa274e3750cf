//! What the programs tell of segments that they have let go on (`struct note`), and what they need for it beside each line (`struct side`).
use super::flow_line::FlowLine;
use crate::mapped_memory::MappedMemory;
use aya::maps::{MapData, RingBuf};
use rustix::event::{Timespec, epoll};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// It is the first SYN of a connection of a class, whose lines the programs have made: the line of the other direction.
    pub opens: Option<FlowLine>,
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
        let [l0, l1, l2, l3, is_v6, length, opens @ .., _, _, _, _] = bytes.first_chunk::<12>()?;
        let [_, _, _, _, _, _, _, _, p0, p1, p2, p3, rest @ ..] = bytes else { return None };
        let headers = *rest.first_chunk()?;
        let line_of = |number| FlowLine { is_v6: *is_v6 != 0, number: u32::from_ne_bytes(number) };
        let opens = (*opens != [0; 2]).then(|| line_of([*p0, *p1, *p2, *p3]));
        Some(SegmentNote { line: line_of([*l0, *l1, *l2, *l3]), opens, headers, length: usize::from(*length) })
    }
}

/// The sides of both families, and the ring that notes come by.
pub(super) struct SegmentNotes {
    sides: [MappedMemory; 2],
    /// `None` in tests without programs.
    ring: Option<RingBuf<MapData>>,
    /// Rings once each time that a program asks for it, not for each note that waits.
    bell: Option<OwnedFd>,
}

impl SegmentNotes {
    pub(super) fn new(sides: [MappedMemory; 2], ring: Option<RingBuf<MapData>>) -> SegmentNotes {
        // Without it they are read when the caller's time is up.
        let bell = ring.as_ref().and_then(|ring| edges_of(ring.as_fd()).ok());
        SegmentNotes { sides, ring, bell }
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

    /// Readable when a program has asked for it since [`SegmentNotes::hear`].
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// The bell is silent until it is asked for again.
    pub(super) fn hear(&self) {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 1];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.bell.iter().for_each(|bell| _ = epoll::wait(bell, &mut events, Some(&at_once)));
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

/// A descriptor that becomes readable with each wake-up of another one.
fn edges_of(descriptor: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&edges, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
    Ok(edges)
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
        let mut bytes = [0; 112];
        bytes[..4].copy_from_slice(&77_u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&78_u32.to_ne_bytes());
        (bytes[4], bytes[5], bytes[12], bytes[51]) = (1, 40, 0x60, 9);
        let note = SegmentNote::decode(&bytes).unwrap();
        assert_eq!((note.line, note.opens), (FlowLine { is_v6: true, number: 77 }, None));
        assert_eq!((note.headers().len(), note.headers()[0], note.headers()[39]), (40, 0x60, 9));
        assert_eq!(SegmentNote::decode(&bytes[..111]), None);
        bytes[6..8].copy_from_slice(&1_u16.to_ne_bytes());
        let opened = SegmentNote::decode(&bytes).unwrap();
        assert_eq!(opened.opens, Some(FlowLine { is_v6: true, number: 78 }));
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
