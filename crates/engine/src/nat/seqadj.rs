//! Sequence number offsets of a connection whose payload a helper changed: one offset up to the last change, another after it.
//!
//! A [`SeqAdj`] belongs to one connection and is created by the first change of a segment's length (Linux's `nf_conntrack_seqadj`). Tracking uses
//! the sender's original numbers; they are adjusted only when a packet leaves. The offset before the last change must never be forgotten: older segments may be retransmitted.
use crate::Direction;

/// The offsets of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqAdj([DirectionSeqAdj; 2]);

/// The offsets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DirectionSeqAdj {
    /// Sequence number of the last changed segment, as the sender numbered it.
    correction_pos: u32,
    /// Offset modulo 2³² up to that segment.
    offset_before: u32,
    /// Offset modulo 2³² after that segment.
    offset_after: u32,
}

impl DirectionSeqAdj {
    /// The offset for one of the sender's own sequence numbers.
    pub(super) fn seq_offset(&self, seq: u32) -> u32 {
        if seq_after(seq, self.correction_pos) { self.offset_after } else { self.offset_before }
    }

    /// The receiver's acknowledgement, converted to the sender's own numbers.
    pub(super) fn unadjust_ack(&self, ack: u32) -> u32 {
        let old = ack.wrapping_sub(self.offset_before);
        if seq_after(old, self.correction_pos) { ack.wrapping_sub(self.offset_after) } else { old }
    }
}

impl SeqAdj {
    /// The segment `seq` of `direction` grew by `by` bytes, modulo 2³². A retransmission is not counted again.
    pub(crate) fn set_offset(&mut self, direction: Direction, seq: u32, by: u32) {
        let [original, reply] = &mut self.0;
        let shift = if direction == Direction::Original { original } else { reply };
        if shift.offset_before == shift.offset_after || seq_after(seq, shift.correction_pos) {
            *shift = DirectionSeqAdj {
                correction_pos: seq,
                offset_before: shift.offset_after,
                offset_after: shift.offset_after.wrapping_add(by),
            };
        }
    }

    /// Sets one offset, modulo 2³², for all of `direction`.
    pub(crate) fn init(&mut self, direction: Direction, by: u32) {
        let [original, reply] = &mut self.0;
        let shift = if direction == Direction::Original { original } else { reply };
        *shift = DirectionSeqAdj { offset_before: by, offset_after: by, ..*shift };
    }

    /// The fields as exported: position, before, after; original, then reply.
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = self.0.iter().flat_map(|shift| [shift.correction_pos, shift.offset_before, shift.offset_after]);
        bytes.as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
        bytes
    }

    /// The reverse: from the exported fields.
    pub(crate) fn from_bytes(bytes: &[u8; 24]) -> SeqAdj {
        let word = |at: usize| bytes.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_be_bytes(*word));
        SeqAdj([0, 3].map(|at| DirectionSeqAdj {
            correction_pos: word(at),
            offset_before: word(at + 1),
            offset_after: word(at + 2),
        }))
    }

    pub(super) fn direction(&self, direction: Direction) -> &DirectionSeqAdj {
        let [original, reply] = &self.0;
        if direction == Direction::Original { original } else { reply }
    }
}

/// Is `a` after `b`, modulo 2³²?
const fn seq_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_before_and_after_the_correction_position() {
        let mut shifts = SeqAdj::default();
        shifts.set_offset(Direction::Original, 1000, 4);
        shifts.set_offset(Direction::Original, 1000, 4);
        let shift = *shifts.direction(Direction::Original);
        assert_eq!(
            [999, 1000, 1001, 5000].map(|seq| shift.seq_offset(seq)),
            [0, 0, 4, 4],
            "the changed segment begins where it began"
        );
        // One byte shorter, later.
        shifts.set_offset(Direction::Original, 2000, u32::MAX);
        let shift = *shifts.direction(Direction::Original);
        assert_eq!([1500, 2000, 2001].map(|seq| shift.seq_offset(seq)), [4, 4, 3]);
        for seq in [1900, 2000, 2010, 2100] {
            assert_eq!(shift.unadjust_ack(seq + shift.seq_offset(seq)), seq);
        }
        assert_eq!(shifts.direction(Direction::Reply), &DirectionSeqAdj::default());
        assert_eq!(SeqAdj::from_bytes(&shifts.to_bytes()), shifts);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut shifts = SeqAdj::default();
        shifts.set_offset(Direction::Reply, u32::MAX - 2, 6);
        let shift = *shifts.direction(Direction::Reply);
        assert_eq!((shift.seq_offset(u32::MAX - 2), shift.seq_offset(5)), (0, 6));
        assert_eq!(shift.unadjust_ack(11), 5);
    }
}
