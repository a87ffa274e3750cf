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
use keepstate_wire::{Packet, PlainTcp, udp};

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
        if !is_simple {
            return None;
        }
        if zone.id == 0
            && let Some(plain) = packet.plain_tcp()
        {
            return self.begin_plain_segment(packet, &plain, hint, limit, now);
        }
        self.begin_other(packet, zone, hint, limit, now)
    }

    /// Begins a connection with a SYN in an ordinary IPv4 packet, in the default zone.
    #[inline(always)]
    fn begin_plain_segment(
        &mut self,
        packet: &Packet<'_>,
        plain: &PlainTcp<'_>,
        hint: &LookupHint,
        limit: usize,
        now: Instant,
    ) -> Option<Outcome> {
        let (word, keys) = (hint.addresses, hint.keys());
        let (answer, answer_keys) = (word.rotate_left(32), keys.rotate_left(16));
        if answer == word && answer_keys == keys {
            return None;
        }
        let key = |addresses, keys| TupleKey { addresses: PackedAddrs::V4(addresses), keys, protocol: ipproto::TCP };
        let needs_more = self.sysctls.is_enabled(Sysctl::Acct) || self.sysctls.is_enabled(Sysctl::Timestamp);
        if needs_more || !self.shard.owns(&key(word, keys)) {
            return self.begin_other(packet, Zone::default(), hint, limit, now);
        }
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return None;
        }
        let [hash, reply_hash] = match hint.hashes() {
            [hash, 0] => [hash, self.table.reply_hash(&key(answer, answer_keys))],
            known => known,
        };
        let tick = now.tick();
        let (tcp, timeout) = Tcp::from_plain_syn(&plain.segment()?, &self.sysctls)?;
        let mut hot = HotRecord {
            addresses: word,
            keys,
            deadline: tick.wrapping_add(timeout),
            status: Status::CONFIRMED.bits() as u16,
            kind: RecordKind::new(ipproto::TCP, RecordKind::UNTRANSLATED),
            ..HotRecord::default()
        };
        tcp.store(&mut hot);
        if !self.shard.take_entry(limit) {
            return None;
        }
        let slot = self.table.insert_plain(hot, [hash, reply_hash], tick);
        self.begun(slot, now)
    }

    /// The end of every short beginning. `slot` is `None` if there was no memory.
    #[inline(always)]
    fn begun(&mut self, slot: Option<u32>, now: Instant) -> Option<Outcome> {
        let Some(slot) = slot else {
            self.shard.give_entry_back();
            return None;
        };
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        Some(Outcome::tracked(CtInfo::New, Direction::Original, self.conn_id(slot)))
    }

    /// Begins a connection with any other first packet: UDP, IPv6, in a zone, with counters.
    #[inline(never)]
    fn begin_other(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        limit: usize,
        now: Instant,
    ) -> Option<Outcome> {
        if !matches!(packet.protocol(), ipproto::TCP | ipproto::UDP) || !packet.ipv4_options_ok() {
            return None;
        }
        let (addresses, answer) = match packet.flow_key_v4() {
            Some((word, _)) => (PackedAddrs::V4(word), PackedAddrs::V4(word.rotate_left(32))),
            None => {
                let ([source, destination], _) = packet.flow_key_v6()?;
                (PackedAddrs::V6([source, destination]), PackedAddrs::V6([destination, source]))
            }
        };
        let (keys, protocol) = (hint.keys(), packet.protocol());
        let original = TupleKey { addresses, keys, protocol };
        let reply = TupleKey { addresses: answer, keys: keys.rotate_left(16), protocol };
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
            _ => {
                udp::UdpHeader::parse(packet.transport(), packet.transport_len()).ok()?;
                Stateless::first_udp(tick).store(&mut hot);
                self.fast_timeouts.udp
            }
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
        let slot = self.table.insert(&record, tick);
        self.begun(slot, now)
    }
}
