//! Adjusts the sequence numbers of outgoing packets whose connection's payload changed in length.
use crate::extension::Extension;
use crate::table::record::RecordKind;
use crate::{Direction, Engine, Status};
use keepstate_wire::rewrite::PacketMut;

/// How far the acknowledgement `ack`, sent in `direction`, is ahead of the sender's own number it acknowledges.
#[cold]
pub(crate) fn ack_offset(extra: Option<&Extension>, direction: Direction, ack: u32) -> u32 {
    let shifts = extra.and_then(|extra| extra.seqadj);
    shifts.map_or(0, |shifts| shifts.direction(direction.opposite()).seq_offset(ack.wrapping_sub(1)))
}

impl Engine {
    /// Adjusts the sequence and acknowledgement numbers of an outgoing segment. False if it cannot be parsed: it must not be sent.
    pub(crate) fn seq_adjust(&self, slot: u32, direction: Direction, datagram: &mut [u8]) -> bool {
        let Some((shifts, synproxy)) =
            self.extensions.find(slot).and_then(|extra| Some((extra.seqadj?, extra.synproxy)))
        else {
            return true;
        };
        let (own, other) = (*shifts.direction(direction), *shifts.direction(direction.opposite()));
        let Ok(mut rewrite) = PacketMut::new(datagram) else { return false };
        synproxy.is_none_or(|synproxy| synproxy.adjust_timestamps(direction, &mut rewrite))
            && rewrite.adjust_seq(|seq| seq.wrapping_add(own.seq_offset(seq)), |ack| other.unadjust_ack(ack))
    }

    /// Records that the segment `seq` of `direction` grew by `by` bytes, modulo 2³².
    pub(crate) fn seqadj_set(&mut self, slot: u32, direction: Direction, seq: u32, by: u32) {
        if by == 0 {
            return;
        }
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.add_status(Status::SEQ_ADJUST);
            hot.kind.set(RecordKind::HAS_EXTENSION);
            self.extensions.find_or_insert(slot).seqadj.get_or_insert_default().set_offset(direction, seq, by);
        }
    }
}
