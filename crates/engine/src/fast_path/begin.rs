//! The short way of a connection's first packet where no rules are asked: a plain SYN or a datagram, whose record is written into the table at once.
//!
//! The result must equal that of `init_conntrack` and `confirm`; a property test checks this. A packet begins its connection completely or not at all: if the short
//! way does not apply, nothing is changed.
use super::hints::LookupHint;
use crate::protocol::Tcp;
use crate::protocol::stateless::Stateless;
use crate::table::NewRecord;
use crate::table::key::{PackedAddrs, TupleKey};
use crate::table::record::{HotRecord, RecordKind};
use crate::time::Ticks;
use crate::{CtInfo, Direction, Engine, EventKind, Instant, Outcome, Status, Sysctl, Zone, ZoneDirection};
use keepstate_types::ipproto;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::{Packet, udp};

impl Engine {
    /// Begins a connection with `packet`. `None` if the packet may belong to a known connection, is not ordinary, or finds the table full.
    #[inline(always)]
    pub(super) fn begin_plain(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<Outcome> {
        let limit = self.sysctls[Sysctl::Max] as usize;
        let is_full = limit != 0 && self.entries_in_use() >= limit || self.admission.is_some();
        // Others of the same group may have begun connections since the hint was made: ask again.
        if is_full || zone.direction != ZoneDirection::Both || self.table.candidate(hint.hash).is_some() {
            return None;
        }
        // Without NAT the reply tuple is free if the original is.
        let is_simple = !self.nat.in_use && self.expectations.is_empty() && self.auto_helpers.is_empty();
        if !is_simple || !packet.ipv4_options_ok() {
            return None;
        }
        let addresses = match packet.flow_key_v4() {
            Some((word, _)) => PackedAddrs::V4(word),
            None => PackedAddrs::V6(packet.flow_key_v6()?.0),
        };
        let original = TupleKey { addresses, keys: hint.keys(), protocol: packet.protocol() };
        let reply = original.invert()?;
        if reply == original || !self.shard.owns(&original) {
            return None;
        }
        let tick = now.tick();
        let mut hot = HotRecord { status: Status::CONFIRMED.bits() as u16, ..HotRecord::default() };
        let timeout = match packet.protocol() {
            ipproto::TCP => {
                let segment = TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
                let (tcp, timeout) = Tcp::from_plain_syn(&segment, &self.sysctls)?;
                tcp.store(&mut hot);
                timeout
            }
            ipproto::UDP => {
                udp::UdpHeader::parse(packet.transport(), packet.transport_len()).ok()?;
                Stateless::first_udp(tick).store(&mut hot);
                self.fast_timeouts.udp
            }
            _ => return None,
        };
        if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
            return None;
        }
        hot.deadline = tick.wrapping_add(timeout);
        let record = NewRecord {
            original: &original,
            reply: &reply,
            zone,
            mark: 0,
            hot,
            kind: RecordKind::UNTRANSLATED,
            counts: self.sysctls.is_enabled(Sysctl::Acct).then_some([1, packet.total_len() as u64, 0, 0]),
            hashes: hint.hashes(),
            start: if self.sysctls.is_enabled(Sysctl::Timestamp) { now.to_unix(self.wall_clock_offset).0 } else { 0 },
        };
        if !self.shard.take_entry(limit) {
            return None;
        }
        let Some(slot) = self.table.insert(&record, tick) else {
            self.shard.give_entry_back();
            return None;
        };
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        Some(Outcome::tracked(CtInfo::New, Direction::Original, self.conn_id(slot)))
    }
}
