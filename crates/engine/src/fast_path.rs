//! Tracking and confirming in one, for who has no rules: a packet at a time, or a batch whose memory is fetched ahead.
//!
//! A packet is read once for its [`LookupHint`]: the hash, and what of its key the hot part of a record holds. A batch is a pipeline of three
//! stages, a few packets apart: bucket, record, tracking, so that memory is waited for while other packets are computed. A hint promises nothing: the record it names may have ended,
//! or be another's, and is looked at again.
use crate::classify::Classification;
use crate::protocol::Tcp;
use crate::table::key::{PackedAddrs, TupleKey};
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{LookupKey, TupleRef};
use crate::time::Ticks;
use crate::track::{account_packet, parse_tcp_segment};
use crate::{ConnId, CtInfo, Direction, Engine, Instant, Outcome, Status, Zone};
use alloc::vec::Vec;
use keepstate_types::ipproto;
use keepstate_wire::{Family, Packet};

/// Packets whose memory is fetched together.
const PREFETCH_GROUP: usize = 32;

/// What is known of a packet ahead of its turn.
#[derive(Clone, Copy)]
struct LookupHint {
    /// 0 for a packet without a tuple.
    hash: u64,
    /// The hash of the answer's key, if the packet seems to begin a connection; 0 if not known.
    reply_hash: u64,
    /// What the hot part of a record has of the key.
    addresses: u64,
    keys: u32,
    /// Whose packet it is, by its fingerprint.
    candidate: Option<TupleRef>,
}

impl LookupHint {
    const NONE: LookupHint = LookupHint { hash: 0, reply_hash: 0, addresses: 0, keys: 0, candidate: None };
}

impl Engine {
    /// Tracks one packet and confirms its connection at once: for who has no rules.
    ///
    /// ```
    /// use keepstate_engine::{Engine, CtInfo, Instant, Sysctls, Secret, Zone};
    /// use keepstate_wire::Packet;
    /// // An echo request from 10.1.0.2 to 10.2.0.9.
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]), Instant(0));
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

    /// As [`Engine::handle`] for each of `packets`, in order, with their cache lines fetched ahead, so that their misses overlap.
    /// `outcomes` is cleared first.
    pub fn handle_batch(&mut self, packets: &[Packet<'_>], zone: Zone, now: Instant, outcomes: &mut Vec<Outcome>) {
        outcomes.clear();
        outcomes.reserve(packets.len());
        let mut hints = [LookupHint::NONE; PREFETCH_GROUP];
        for group in packets.chunks(PREFETCH_GROUP) {
            self.hash_batch(group, zone, &mut hints);
            self.prefetch_records(group, zone, &mut hints);
            for (packet, hint) in group.iter().zip(&hints) {
                // Made where it is to stay: put together elsewhere and moved, its parts would have to be waited for.
                match self.fast_path(packet, zone, hint, now) {
                    Some((conn_id, direction)) => {
                        outcomes.push(Outcome::tracked(CtInfo::Established, direction, conn_id))
                    }
                    None => self.push_slow_path(packet, zone, hint, now, outcomes),
                }
            }
        }
    }

    /// First stage: who is it? The buckets that will tell are fetched together, so that the processor translates their addresses together too.
    #[inline(always)]
    fn hash_batch(&self, packets: &[Packet<'_>], zone: Zone, hints: &mut [LookupHint; PREFETCH_GROUP]) {
        for (packet, hint) in packets.iter().zip(hints.iter_mut()) {
            *hint = self.lookup_hint(packet, zone);
        }
        for hint in &hints[..packets.len()] {
            self.table.prefetch_bucket(hint.hash);
        }
    }

    /// Second stage: the records that the buckets name.
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

    /// The packet begins a connection, it seems: its answer will be entered too.
    #[inline(never)]
    fn prefetch_reply_bucket(&self, packet: &Packet<'_>, zone: Zone, hint: &mut LookupHint) {
        if let (Classification::Tuple, key) = self.classify(packet) {
            hint.reply_hash = self.table.prefetch_reply_bucket(&key, zone);
        }
    }

    /// The short way for nearly every packet: an ordinary segment of an established TCP connection. `None` if it is another; then nothing
    /// was changed, and [`Engine::slow_path`] says what becomes of it. What it passes is ESTABLISHED.
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
        if packet.protocol() != ipproto::TCP || packet.fragment().is_some() {
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
        // It may have timeouts of its own.
        if !self.timeout_policies.is_empty() && hot.kind.has(RecordKind::HAS_EXTENSION) {
            return None;
        }
        let segment = parse_tcp_segment(packet, &self.sysctls).ok()?;
        let sysctls = (&self.tcp_fast_timeouts, &self.sysctls);
        let timeout = Tcp::from_record_mut(hot).track_established(&segment, direction, sysctls, self.secret)?;
        let deadline = tick.wrapping_add(timeout);
        let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        let conn_id = ConnId { slot, tuple_hash: hot.tuple_hash(self.secret.0) };
        let counted = hot.kind.has(RecordKind::COUNTED);
        if earlier {
            self.table.lower_timer_bound(slot, deadline);
        }
        if counted {
            account_packet(&mut self.table.records, slot, direction, packet);
        }
        Some((conn_id, direction))
    }

    /// Apart, so that the compiler does not make one push of two, through memory.
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

    /// Is `reference` the packet's connection? Asked where the hot part of the record does not tell.
    #[inline(never)]
    fn tuple_matches(&self, packet: &Packet<'_>, reference: TupleRef, zone: Zone) -> bool {
        let (identity, key) = self.classify(packet);
        identity == Classification::Tuple && self.table.records.matches(reference, &key, zone)
    }

    #[inline(never)]
    fn slow_path(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> Outcome {
        let (identity, key) = self.classify(packet);
        let ctx = self.lookup_or_create(packet, identity, &hint.lookup_key(key, zone), now);
        self.confirm(ctx, now)
    }
}

impl LookupHint {
    /// Is it a packet of that direction of this IPv4 connection, whose tuples are each other's inverse, in the default zone?
    #[inline(always)]
    fn matches(&self, hot: &HotRecord, direction: Direction) -> bool {
        let (word, keys) = match direction {
            Direction::Original => (self.addresses, self.keys),
            Direction::Reply => (self.addresses.rotate_left(32), self.keys.rotate_left(16)),
        };
        hot.addresses == word && hot.keys == keys && hot.kind.is_untranslated_v4(ipproto::TCP)
    }

    /// With the key that it is the hint of.
    fn lookup_key(&self, key: TupleKey, zone: Zone) -> LookupKey {
        LookupKey { key, zone, hash: self.hash, candidate: self.candidate, reply_hash: self.reply_hash }
    }
}
