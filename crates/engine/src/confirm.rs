//! Confirmation, the second half of a packet's processing (`nf_conntrack_confirm`): a new connection is inserted into the table.
//!
//! It takes the [`PacketCtx`] that [`Engine::track`] returned and consumes it. It must never insert only one of a connection's two tuples.
use crate::extension::Extension;
use crate::packet_ctx::Pending;
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{NewRecord, TupleRef};
use crate::time::Ticks;
use crate::{
    CtVerdict, Direction, Engine, EventKind, Instant, Outcome, PacketCtx, Reason, Status, Sysctl, Unconfirmed,
    ZoneDirection,
};
use alloc::vec::Vec;
use keepstate_types::ipproto;

impl Engine {
    /// Confirms a packet that has passed the last rule: inserts its new connection, or runs the helper on its payload. The outcome has
    /// verdict Drop if the table is full, the tuples clash, or the helper rejects the packet.
    #[inline(always)]
    pub fn confirm(&mut self, ctx: PacketCtx, now: Instant) -> Outcome {
        self.confirm_into(ctx, None, now)
    }

    /// As [`Engine::confirm`], with NAT. `datagram` is the packet as it is about to be sent, from the IP header on: a helper's rewrite of the payload
    /// is written into it, and sequence numbers of later segments are adjusted (Linux's `nf_nat_helper` and `nf_conntrack_seqadj`).
    /// The packet may become longer or shorter.
    #[inline(always)]
    pub fn confirm_and_rewrite(&mut self, ctx: PacketCtx, datagram: &mut Vec<u8>, now: Instant) -> Outcome {
        self.confirm_into(ctx, Some(datagram), now)
    }

    /// What has passed is also what events tell of.
    #[inline(always)]
    fn confirm_into(&mut self, ctx: PacketCtx, datagram: Option<&mut Vec<u8>>, now: Instant) -> Outcome {
        let outcome = match ctx.pending {
            Pending::Nothing => ctx.outcome,
            Pending::Unconfirmed(fresh) => self.insert_unconfirmed(&fresh, ctx.outcome, now),
            Pending::HelperPacket(packet_data) => self.run_helper(&packet_data, ctx.outcome, datagram, now),
        };
        if self.events.has_undelivered()
            && outcome.verdict == CtVerdict::Accept
            && let Some(conn_id) = outcome.connection
        {
            self.deliver_change(conn_id.slot, now);
        }
        outcome
    }

    fn insert_unconfirmed(&mut self, fresh: &Unconfirmed, mut outcome: Outcome, now: Instant) -> Outcome {
        if fresh.nat_refused {
            return self.drop_insert_failed(Reason::NatExhausted);
        }
        if !fresh.untranslated && !self.shard.owns(&fresh.reply) {
            return self.drop_insert_failed(Reason::WrongShard);
        }
        if let Some(taken) = self.tuple_taken(fresh) {
            return self.resolve_clash(fresh, taken, outcome);
        }
        // Other packets may have taken the last slot, or what their source was allowed, since this one was tracked.
        if let Err(reason) = self.check_source(&fresh.original, now) {
            return self.drop_new(reason).outcome;
        }
        if !self.has_room(&fresh.original) {
            return self.drop_table_full(now).outcome;
        }
        let tick = now.tick();
        let mut hot = HotRecord {
            deadline: tick.wrapping_add(fresh.timeout),
            status: (fresh.status | Status::CONFIRMED).bits() as u16,
            ..HotRecord::default()
        };
        hot.set_masqueraded(fresh.masqueraded);
        fresh.tracker.store(&mut hot);
        let bytes = fresh.counted_bytes.map_or([0; 4], |bytes| [1, bytes, 0, 0]);
        let record = NewRecord {
            original: &fresh.original,
            reply: &fresh.reply,
            zone: fresh.zone,
            mark: fresh.mark,
            hot,
            kind: if fresh.has_extension() { RecordKind::HAS_EXTENSION } else { 0 }
                | if fresh.untranslated { RecordKind::UNTRANSLATED } else { 0 },
            counts: self.sysctls.is_enabled(Sysctl::Acct).then_some(bytes),
            hashes: fresh.hashes,
            start: if self.sysctls.is_enabled(Sysctl::Timestamp) { now.to_unix(self.wall_clock_offset).0 } else { 0 },
        };
        // Another shard may have taken the last entry since.
        if !self.shard.take_entry(self.sysctls[Sysctl::Max] as usize) {
            return self.drop_table_full(now).outcome;
        }
        let Some(slot) = self.table.insert(&record, tick) else {
            self.shard.give_entry_back();
            return self.drop_insert_failed(Reason::NoMemory);
        };
        self.admission_added(&fresh.original, true, now);
        if fresh.has_extension() {
            self.insert_extension(slot, fresh);
        }
        self.insert_bysource(fresh, slot, now);
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        outcome.connection = Some(self.conn_id(slot));
        outcome
    }

    /// Stores the parts of a connection that its record has no room for, and counts it as a child of its master.
    #[cold]
    fn insert_extension(&mut self, slot: u32, fresh: &Unconfirmed) {
        let extension = fresh.extension.as_deref().copied().unwrap_or_default();
        *self.extensions.find_or_insert(slot) = Extension { labels: fresh.labels, ..extension };
        if let Some(master) = &extension.master {
            self.add_child(master);
        }
    }

    /// The entry that has taken one of the connection's tuples since the lookup, if any.
    #[inline(always)]
    fn tuple_taken(&self, fresh: &Unconfirmed) -> Option<TupleRef> {
        // Nothing was inserted since the lookup, and the reply tuple is the inverse of the one looked up. Both are free, unless NAT is in use:
        // a translated connection may own one tuple without owning its inverse. Then NAT has looked for the reply tuple by itself.
        let epoch = self.table.epoch();
        let has_free_reply = fresh.untranslated && !self.nat.in_use || fresh.reply_free_epoch == epoch;
        if has_free_reply && fresh.zone.direction == ZoneDirection::Both && fresh.table_epoch == epoch {
            return None;
        }
        let owner = |key, direction| self.table.tuple_owner(key, fresh.zone, direction);
        owner(&fresh.original, Direction::Original).or_else(|| owner(&fresh.reply, Direction::Reply))
    }

    /// Resolves a clash (`nf_ct_resolve_clash`): if two packets of one flow raced, the later one takes the earlier one's connection, for
    /// protocols that allow it. Otherwise the packet is dropped.
    #[cold]
    fn resolve_clash(&mut self, fresh: &Unconfirmed, taken: TupleRef, mut outcome: Outcome) -> Outcome {
        let records = &self.table.records;
        let same = taken.direction() == Direction::Original
            && records.key(taken) == Some(fresh.original)
            && records.key(TupleRef::new(taken.slot(), Direction::Reply)) == Some(fresh.reply);
        let resolvable =
            !matches!(fresh.original.protocol, ipproto::TCP | ipproto::SCTP | ipproto::ICMP | ipproto::ICMPV6);
        if same && resolvable {
            self.counters.clash_resolve += 1;
            outcome.connection = Some(self.conn_id(taken.slot()));
            return outcome;
        }
        self.drop_insert_failed(if fresh.nat_exhausted { Reason::NatExhausted } else { Reason::Clash })
    }

    #[cold]
    fn drop_insert_failed(&mut self, reason: Reason) -> Outcome {
        self.counters.insert_failed += 1;
        self.counters.drop += 1;
        self.count_reason(reason);
        Outcome::dropped(reason)
    }
}
