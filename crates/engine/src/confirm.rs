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
            // By reference: it is large, and copying it is expensive.
            Pending::Unconfirmed(ref fresh) => {
                let outcome = self.insert_unconfirmed(fresh, ctx.outcome, now);
                match fresh.status.contains(Status::HELPER) {
                    true => self.run_helper_on_first(outcome, datagram.as_deref().map(Vec::as_slice), now),
                    false => outcome,
                }
            }
            Pending::HelperPacket(ref packet_data) => self.run_helper(packet_data, ctx.outcome, datagram, now),
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
        // Another shard may have taken the last entry since.
        if !self.shard.take_entry(self.sysctls[Sysctl::Max] as usize) {
            return self.drop_table_full(now).outcome;
        }
        let needs_more = fresh.mark != 0
            || fresh.zone.id != 0
            || self.sysctls.is_enabled(Sysctl::Acct)
            || self.sysctls.is_enabled(Sysctl::Timestamp);
        let slot = match needs_more {
            true => self.insert_with_all(fresh, hot, now),
            false => {
                hot.addresses = fresh.original.packed_addresses();
                hot.keys = fresh.original.keys;
                hot.kind =
                    RecordKind::new(fresh.original.protocol, fresh.kind_flags() | RecordKind::family(&fresh.original));
                let reply = (!fresh.untranslated).then_some(&fresh.reply);
                let hashes = self.table.both_hashes([&fresh.original, &fresh.reply], fresh.hashes);
                self.table.insert_plain(hot, (&fresh.original, reply), hashes, tick)
            }
        };
        let Some(slot) = slot else {
            self.shard.give_entry_back();
            return self.drop_insert_failed(Reason::NoMemory);
        };
        self.admission_added(&fresh.original, true, now);
        if fresh.has_extension() {
            self.insert_extension(slot, fresh);
            if fresh.expected.is_some() {
                self.insert_expectations(fresh, self.conn_id(slot), now);
            }
        }
        self.insert_bysource(fresh, slot, now);
        self.dirty.mark_dirty(slot);
        if let Some(told) = fresh.event_bits {
            self.events.choose(slot, told);
        }
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        outcome.connection = Some(self.conn_id(slot));
        outcome
    }

    /// Inserts a connection that has a mark, a zone, counters or a start time. `hot` has neither addresses nor keys nor kind.
    #[inline(never)]
    fn insert_with_all(&mut self, fresh: &Unconfirmed, hot: HotRecord, now: Instant) -> Option<u32> {
        let bytes = fresh.counted_bytes.map_or([0; 4], |bytes| [1, bytes, 0, 0]);
        let record = NewRecord {
            original: &fresh.original,
            reply: &fresh.reply,
            zone: fresh.zone,
            mark: fresh.mark,
            hot,
            kind: fresh.kind_flags(),
            counts: self.sysctls.is_enabled(Sysctl::Acct).then_some(bytes),
            hashes: fresh.hashes,
            start: if self.sysctls.is_enabled(Sysctl::Timestamp) { now.to_unix(self.wall_clock_offset).0 } else { 0 },
        };
        self.table.insert(&record, now.tick())
    }

    /// Stores the parts of a connection that its record has no room for, and counts it as a child of its master.
    #[cold]
    fn insert_extension(&mut self, slot: u32, fresh: &Unconfirmed) {
        let extension = fresh.extension.as_deref().copied().unwrap_or_default();
        *self.extensions.find_or_insert(slot) =
            Extension { labels: fresh.labels, expects: fresh.expected.is_some(), ..extension };
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

impl Unconfirmed {
    /// The flags of its record that do not follow from its tuple.
    #[inline(always)]
    const fn kind_flags(&self) -> u8 {
        (if self.has_extension() { RecordKind::HAS_EXTENSION } else { 0 })
            | (if self.untranslated { RecordKind::UNTRANSLATED } else { 0 })
    }
}
