//! Sequence numbers of a connection into whose stream a helper wrote: what was sent before its last change counts by one difference, what comes after by another.
//!
//! A [`Shifts`] belongs to one connection and begins with the first change that made a segment longer or shorter (Linux's `nf_conntrack_seqadj`). What is tracked
//! are the sender's own numbers; they are shifted only where a packet leaves. It must never forget the difference before the last change: segments from before are sent again.
use crate::extras::Extra;
use crate::table::record::Kind;
use crate::{Direction, Engine, Status};
use keepstate_wire::edit::Rewrite;

/// Of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shifts([Shift; 2]);

/// How much longer one direction's stream has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shift {
    /// The segment that was changed last, by the sender's number.
    position: u32,
    /// Modulo 2³², up to that segment.
    before: u32,
    /// The same, behind it.
    after: u32,
}

impl Shift {
    /// The difference of a sender's own number.
    fn of(&self, seq: u32) -> u32 {
        if is_after(seq, self.position) { self.after } else { self.before }
    }

    /// What the receiver acknowledges, in the sender's own numbers.
    fn back(&self, ack: u32) -> u32 {
        let old = ack.wrapping_sub(self.before);
        if is_after(old, self.position) { ack.wrapping_sub(self.after) } else { old }
    }
}

impl Shifts {
    /// The segment `seq` of `direction` has become longer by `by`, modulo 2³². One that is sent again was counted before.
    pub(crate) fn lengthen(&mut self, direction: Direction, seq: u32, by: u32) {
        let [original, reply] = &mut self.0;
        let shift = if direction == Direction::Original { original } else { reply };
        if shift.before == shift.after || is_after(seq, shift.position) {
            *shift = Shift { position: seq, before: shift.after, after: shift.after.wrapping_add(by) };
        }
    }

    /// Everything of `direction` counts by this difference, modulo 2³².
    pub(crate) fn begin(&mut self, direction: Direction, by: u32) {
        let [original, reply] = &mut self.0;
        let shift = if direction == Direction::Original { original } else { reply };
        *shift = Shift { before: by, after: by, ..*shift };
    }

    /// For a description: position, before, after; original, then reply.
    pub(crate) fn octets(&self) -> [u8; 24] {
        let mut octets = [0; 24];
        let words = self.0.iter().flat_map(|shift| [shift.position, shift.before, shift.after]);
        octets.as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
        octets
    }

    /// The same, read.
    pub(crate) fn from_octets(octets: &[u8; 24]) -> Shifts {
        let word = |at: usize| octets.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_be_bytes(*word));
        Shifts([0, 3].map(|at| Shift { position: word(at), before: word(at + 1), after: word(at + 2) }))
    }

    fn of(&self, direction: Direction) -> &Shift {
        let [original, reply] = &self.0;
        if direction == Direction::Original { original } else { reply }
    }
}

/// Is `a` after `b`, modulo 2³²?
const fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// By how much the acknowledgement `ack` from `direction` is ahead of the number that it is about.
#[cold]
pub(crate) fn ahead(extra: Option<&Extra>, direction: Direction, ack: u32) -> u32 {
    let shifts = extra.and_then(|extra| extra.shifts);
    shifts.map_or(0, |shifts| shifts.of(direction.opposite()).of(ack.wrapping_sub(1)))
}

impl Engine {
    /// Brings the numbers of a segment that leaves up to what was written into its connection's streams. False where it cannot be read: it must not be sent on.
    pub(crate) fn renumber(&self, slot: u32, direction: Direction, datagram: &mut [u8]) -> bool {
        let Some((shifts, promise)) = self.extras.of(slot).and_then(|extra| Some((extra.shifts?, extra.promise)))
        else {
            return true;
        };
        let (own, other) = (*shifts.of(direction), *shifts.of(direction.opposite()));
        let Ok(mut rewrite) = Rewrite::new(datagram) else { return false };
        promise.is_none_or(|promise| promise.keep(direction, &mut rewrite))
            && rewrite.renumber(|seq| seq.wrapping_add(own.of(seq)), |ack| other.back(ack))
    }

    /// A segment of `direction` was made longer by `by`, modulo 2³².
    pub(crate) fn lengthen(&mut self, slot: u32, direction: Direction, seq: u32, by: u32) {
        if by == 0 {
            return;
        }
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.status |= Status::SEQ_ADJUST.0;
            hot.kind.set(Kind::EXTRAS);
            self.extras.make(slot).shifts.get_or_insert_default().lengthen(direction, seq, by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_and_behind_a_change_is_told_apart() {
        let mut shifts = Shifts::default();
        shifts.lengthen(Direction::Original, 1000, 4);
        shifts.lengthen(Direction::Original, 1000, 4);
        let shift = *shifts.of(Direction::Original);
        assert_eq!(
            [999, 1000, 1001, 5000].map(|seq| shift.of(seq)),
            [0, 0, 4, 4],
            "the changed segment begins where it began"
        );
        // Shortened by one, later.
        shifts.lengthen(Direction::Original, 2000, u32::MAX);
        let shift = *shifts.of(Direction::Original);
        assert_eq!([1500, 2000, 2001].map(|seq| shift.of(seq)), [4, 4, 3]);
        for seq in [1900, 2000, 2010, 2100] {
            assert_eq!(shift.back(seq + shift.of(seq)), seq);
        }
        assert_eq!(shifts.of(Direction::Reply), &Shift::default());
        assert_eq!(Shifts::from_octets(&shifts.octets()), shifts);
    }

    #[test]
    fn numbers_wrap() {
        let mut shifts = Shifts::default();
        shifts.lengthen(Direction::Reply, u32::MAX - 2, 6);
        let shift = *shifts.of(Direction::Reply);
        assert_eq!((shift.of(u32::MAX - 2), shift.of(5)), (0, 6));
        assert_eq!(shift.back(11), 5);
    }
}
