//! Tracks and confirms in one call, for use without a ruleset: one packet, or a batch with prefetching.
//!
//! Each packet is parsed once for its [`LookupHint`]: the hash, and the part of its key that a hot record holds. A group of packets goes
//! through three stages (bucket, record, tracking), so that cache misses of one packet overlap with work for others. A hint lives for one group. It
//! must never be trusted: the record it names may have ended or belong to another connection, and is checked again before use.
use crate::classify::Classification;
use crate::protocol::Tcp;
use crate::table::key::{PackedAddrs, TupleKey};
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{LookupKey, TupleRef};
use crate::time::Ticks;
use crate::track::{account_packet, parse_tcp_segment};
use crate::{ConnId, CtInfo, Direction, Engine, Instant, Outcome, Reason, Status, Zone};
use alloc::vec::Vec;
use keepstate_types::ipproto;
use keepstate_wire::{Family, Packet};

/// Packets that are prefetched together.
const PREFETCH_GROUP: usize = 32;

/// What the first stages compute of a packet before it is tracked.
#[derive(Clone, Copy)]
struct LookupHint {
    /// 0 for a packet without a tuple.
    hash: u64,
    /// The hash of the reply key, if the packet probably begins a connection; 0 if unknown.
    reply_hash: u64,
    /// The part of the key that a hot record holds.
    addresses: u64,
    keys: u32,
    /// The probable connection, found by fingerprint only.
    candidate: Option<TupleRef>,
}

impl LookupHint {
    const NONE: LookupHint = LookupHint { hash: 0, reply_hash: 0, addresses: 0, keys: 0, candidate: None };
}

impl Engine {
    /// Tracks one packet and immediately confirms its connection: for use without a ruleset.
    ///
    /// ```
    /// use keepstate_engine::{Engine, CtInfo, Instant, Sysctls, Secret, Zone};
    /// use keepstate_wire::Packet;
    /// // An echo request from 10.1.0.2 to 10.2.0.9.
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), Instant(0));
    /// assert_eq!(outcome.info, CtInfo::New);
    /// assert_eq!(engine.count(), 1);
    /// ```
    #[inline]
    pub fn handle(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Outcome {
        let mut hint = self.lookup_hint(packet, zone);
        hint.candidate = self.table.candidate(hint.hash);
        match self.fast_path(packet, zone, &hint, now) {
            Some((conn_id, direction)) => Outcome::tracked(CtInfo::Established, direction, conn_id),
            None => self.slow_path(packet, zone, &hint, now),
        }
    }

    /// As [`Engine::handle`] for each of `packets`, in order. Their cache lines are prefetched, so that cache misses overlap.
    /// `outcomes` is cleared first; afterwards it has one outcome per packet.
    pub fn handle_batch(&mut self, packets: &[Packet<'_>], zone: Zone, now: Instant, outcomes: &mut Vec<Outcome>) {
        outcomes.clear();
        outcomes.reserve(packets.len());
        let mut hints = [LookupHint::NONE; PREFETCH_GROUP];
        for group in packets.chunks(PREFETCH_GROUP) {
            self.hash_batch(group, zone, &mut hints);
            self.prefetch_records(group, zone, &mut hints);
            for (packet, hint) in group.iter().zip(&hints) {
                // The outcome is built in place: building it elsewhere and copying it causes a store-forwarding stall.
                match self.fast_path(packet, zone, hint, now) {
                    Some((conn_id, direction)) => {
                        outcomes.push(Outcome::tracked(CtInfo::Established, direction, conn_id))
                    }
                    None => self.push_slow_path(packet, zone, hint, now, outcomes),
                }
            }
        }
    }

    /// First stage: hash each packet, then prefetch all buckets together, so that the TLB misses overlap too.
    #[inline(always)]
    fn hash_batch(&self, packets: &[Packet<'_>], zone: Zone, hints: &mut [LookupHint; PREFETCH_GROUP]) {
        for (packet, hint) in packets.iter().zip(hints.iter_mut()) {
            *hint = self.lookup_hint(packet, zone);
        }
        for hint in &hints[..packets.len()] {
            self.table.prefetch_bucket(hint.hash);
        }
    }

    /// Second stage: prefetch the records that the buckets refer to.
    #[inline(always)]
    fn prefetch_records(&self, packets: &[Packet<'_>], zone: Zone, hints: &mut [LookupHint; PREFETCH_GROUP]) {
        for (packet, hint) in packets.iter().zip(hints) {
            hint.candidate = self.table.candidate(hint.hash);
            match hint.candidate {
                Some(reference) => self.table.prefetch_record(reference, packet.family()),
                None => self.prefetch_reply_bucket(packet, zone, hint),
            }
        }
    }

    #[inline(always)]
    fn lookup_hint(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        match packet.flow_key_v4() {
            Some((word, keys)) => {
                let key = TupleKey { addresses: PackedAddrs::V4(word), keys, protocol: packet.protocol() };
                LookupHint { hash: self.table.hash(&key, zone), addresses: word, keys, ..LookupHint::NONE }
            }
            None => self.lookup_hint_slow(packet, zone),
        }
    }

    #[inline(never)]
    fn lookup_hint_slow(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        match self.classify(packet) {
            (Classification::Tuple, key) => LookupHint {
                hash: self.table.hash(&key, zone),
                addresses: key.packed_addresses(),
                keys: key.keys,
                ..LookupHint::NONE
            },
            _ => LookupHint::NONE,
        }
    }

    /// The packet probably begins a connection: prefetches the bucket where the reply tuple will be inserted.
    #[inline(never)]
    fn prefetch_reply_bucket(&self, packet: &Packet<'_>, zone: Zone, hint: &mut LookupHint) {
        if let (Classification::Tuple, key) = self.classify(packet) {
            hint.reply_hash = self.table.prefetch_reply_bucket(&key, zone);
        }
    }

    /// Handles the most common packet: an ordinary segment of an established TCP connection. Such a packet is ESTABLISHED. `None` for any
    /// other packet; then nothing was changed and [`Engine::slow_path`] handles it.
    #[inline(always)]
    fn fast_path(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<(ConnId, Direction)> {
        const OPEN: Status = Status::SEEN_REPLY.union(Status::ASSURED).union(Status::CONFIRMED);
        const CLOSED: Status = Status::FIXED_TIMEOUT.union(Status::HELPER);
        let reference = hint.candidate?;
        if packet.protocol() != ipproto::TCP || packet.fragment().is_some() || !packet.ipv4_options_ok() {
            return None;
        }
        let (slot, direction, tick) = (reference.slot(), reference.direction(), now.tick());
        let hot = self.table.records.hot(slot)?;
        let plain = packet.family() == Family::V4 && zone.id == 0 && hint.matches(hot, direction);
        if !plain && !self.tuple_matches(packet, reference, zone) {
            return None;
        }
        let hot = self.table.records.hot_mut(slot)?;
        if hot.status() & OPEN.union(CLOSED) != OPEN || hot.is_expired(tick) {
            return None;
        }
        // It may have its own timeout policy.
        if !self.timeout_policies.is_empty() && hot.kind.has(RecordKind::HAS_EXTENSION) {
            return None;
        }
        let segment = parse_tcp_segment(packet, &self.sysctls).ok()?;
        let sysctls = (&self.tcp_fast_timeouts, &self.sysctls);
        let timeout = Tcp::from_record_mut(hot).track_established(&segment, direction, sysctls, self.secret)?;
        let deadline = tick.wrapping_add(timeout);
        let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        let counted = hot.kind.has(RecordKind::COUNTED);
        let conn_id = self.conn_id(slot);
        if earlier {
            self.table.lower_timer_bound(slot, deadline);
        }
        if counted {
            account_packet(&mut self.table.records, slot, direction, packet);
        }
        Some((conn_id, direction))
    }

    /// A separate function, so that the compiler does not merge this push with the one of the fast path, which would copy the outcome through memory.
    #[inline(never)]
    fn push_slow_path(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
        outcomes: &mut Vec<Outcome>,
    ) {
        outcomes.push(self.slow_path(packet, zone, hint, now));
    }

    /// Is `reference` the packet's connection? Full comparison, for records that the hot part alone does not decide.
    #[inline(never)]
    fn tuple_matches(&self, packet: &Packet<'_>, reference: TupleRef, zone: Zone) -> bool {
        let (identity, key) = self.classify(packet);
        identity == Classification::Tuple && !key.is_own_reply() && self.table.records.matches(reference, &key, zone)
    }

    #[inline(never)]
    fn slow_path(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> Outcome {
        let (identity, key) = self.classify(packet);
        let ctx = self.lookup_or_create(packet, identity, &hint.lookup_key(key, zone), now);
        if !packet.ipv4_options_ok() {
            // Linux tracks it, and its IP layer drops it before it is confirmed (`ip_rcv_options`).
            self.count_reason(Reason::Ipv4Options);
            return Outcome::dropped(Reason::Ipv4Options);
        }
        self.confirm(ctx, now)
    }
}

impl LookupHint {
    /// Does the packet belong to `direction` of this connection? Only true for untranslated IPv4 connections in the default zone.
    #[inline(always)]
    fn matches(&self, hot: &HotRecord, direction: Direction) -> bool {
        let (word, keys) = match direction {
            Direction::Original => (self.addresses, self.keys),
            Direction::Reply => (self.addresses.rotate_left(32), self.keys.rotate_left(16)),
        };
        // A tuple that is its own reply has no direction here: see `Table::find`.
        let own_reply = word.rotate_left(32) == word && keys.rotate_left(16) == keys;
        hot.addresses == word && hot.keys == keys && !own_reply && hot.kind.is_untranslated_v4(ipproto::TCP)
    }

    /// The lookup key of the packet with `key`, with this hint's hashes and candidate.
    fn lookup_key(&self, key: TupleKey, zone: Zone) -> LookupKey {
        LookupKey { key, zone, hash: self.hash, candidate: self.candidate, reply_hash: self.reply_hash }
    }
}
