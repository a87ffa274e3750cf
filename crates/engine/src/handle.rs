//! Tracking and confirming in one, for who has no rules: a packet at a time, or a batch whose memory is fetched ahead.
//!
//! A packet is read once for its [`Glimpse`]: the hash, and what of its key the hot part of a record holds. A batch is a pipeline of three
//! stages, a few packets apart: bucket, record, tracking, so that memory is waited for while other packets are computed. A glimpse promises nothing: the record it names may have ended,
//! or be another's, and is looked at again.
use crate::identity::Identity;
use crate::protocol::Tcp;
use crate::table::key::{Addresses, Key};
use crate::table::record::{Hot, Kind};
use crate::table::{Probe, Reference};
use crate::time::Clock;
use crate::track::{count, segment};
use crate::tuple::protocol;
use crate::{Direction, Engine, Handle, Info, Instant, Outcome, Status, Zone};
use alloc::vec::Vec;
use keepstate_wire::{Family, Packet};

/// Packets whose memory is fetched together.
const GROUP: usize = 32;

/// What is known of a packet ahead of its turn.
#[derive(Clone, Copy)]
struct Glimpse {
    /// 0 for a packet without a tuple.
    hash: u64,
    /// The hash of the answer's key, if the packet seems to begin a connection; 0 if not known.
    answer_hash: u64,
    /// What the hot part of a record has of the key.
    word: u64,
    keys: u32,
    /// Whose packet it is, by its fingerprint.
    likely: Option<Reference>,
}

impl Glimpse {
    const NONE: Glimpse = Glimpse { hash: 0, answer_hash: 0, word: 0, keys: 0, likely: None };
}

impl Engine {
    /// Tracks one packet and confirms its connection at once: for who has no rules.
    ///
    /// ```
    /// use keepstate_engine::{Engine, Info, Instant, Knobs, Secret, Zone};
    /// use keepstate_wire::Packet;
    /// // An echo request from 10.1.0.2 to 10.2.0.9.
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), Instant(0));
    /// let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), Instant(0));
    /// assert_eq!(outcome.info, Info::New);
    /// assert_eq!(engine.count(), 1);
    /// ```
    #[inline]
    pub fn handle(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Outcome {
        let mut glimpse = self.glimpse(packet, zone);
        glimpse.likely = self.table.likely(glimpse.hash);
        match self.handle_shortly(packet, zone, &glimpse, now) {
            Some((handle, direction)) => Outcome::of(Info::Established, direction, handle),
            None => self.handle_at_length(packet, zone, &glimpse, now),
        }
    }

    /// As [`Engine::handle`] in the default zone for each of `packets`, in order, with their cache lines fetched ahead, so that their misses overlap.
    /// `outcomes` is cleared first.
    pub fn handle_batch(&mut self, packets: &[Packet<'_>], now: Instant, outcomes: &mut Vec<Outcome>) {
        outcomes.clear();
        outcomes.reserve(packets.len());
        let zone = Zone::default();
        let mut glimpses = [Glimpse::NONE; GROUP];
        for group in packets.chunks(GROUP) {
            self.glance(group, zone, &mut glimpses);
            self.fetch_records(group, zone, &mut glimpses);
            for (packet, glimpse) in group.iter().zip(&glimpses) {
                // Made where it is to stay: put together elsewhere and moved, its parts would have to be waited for.
                match self.handle_shortly(packet, zone, glimpse, now) {
                    Some((handle, direction)) => outcomes.push(Outcome::of(Info::Established, direction, handle)),
                    None => self.push_at_length(packet, zone, glimpse, now, outcomes),
                }
            }
        }
    }

    /// First stage: who is it? The buckets that will tell are fetched together, so that the processor translates their addresses together too.
    #[inline(always)]
    fn glance(&self, packets: &[Packet<'_>], zone: Zone, glimpses: &mut [Glimpse; GROUP]) {
        for (packet, glimpse) in packets.iter().zip(glimpses.iter_mut()) {
            *glimpse = self.glimpse(packet, zone);
        }
        for glimpse in &glimpses[..packets.len()] {
            self.table.prefetch_bucket(glimpse.hash);
        }
    }

    /// Second stage: the records that the buckets name.
    #[inline(always)]
    fn fetch_records(&self, packets: &[Packet<'_>], zone: Zone, glimpses: &mut [Glimpse; GROUP]) {
        for (packet, glimpse) in packets.iter().zip(glimpses) {
            glimpse.likely = self.table.likely(glimpse.hash);
            match glimpse.likely {
                Some(reference) => self.table.prefetch_record(reference, packet.family()),
                None => self.prefetch_answer(packet, zone, glimpse),
            }
        }
    }

    #[inline(always)]
    fn glimpse(&self, packet: &Packet<'_>, zone: Zone) -> Glimpse {
        match packet.flow_v4() {
            Some((word, keys)) => {
                let key = Key { addresses: Addresses::V4(word), keys, protocol: packet.protocol() };
                Glimpse { hash: self.table.hash(&key, zone), word, keys, ..Glimpse::NONE }
            }
            None => self.glimpse_at_length(packet, zone),
        }
    }

    #[inline(never)]
    fn glimpse_at_length(&self, packet: &Packet<'_>, zone: Zone) -> Glimpse {
        match self.identify(packet) {
            (Identity::Tuple, key) => {
                Glimpse { hash: self.table.hash(&key, zone), word: key.word(), keys: key.keys, ..Glimpse::NONE }
            }
            _ => Glimpse::NONE,
        }
    }

    /// The packet begins a connection, it seems: its answer will be entered too.
    #[inline(never)]
    fn prefetch_answer(&self, packet: &Packet<'_>, zone: Zone, glimpse: &mut Glimpse) {
        if let (Identity::Tuple, key) = self.identify(packet) {
            glimpse.answer_hash = self.table.prefetch_answer(&key, zone);
        }
    }

    /// The short way for nearly every packet: an ordinary segment of an established TCP connection. `None` if it is another; then nothing
    /// was changed, and [`Engine::handle_at_length`] says what becomes of it. What it passes is ESTABLISHED.
    #[inline(always)]
    fn handle_shortly(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        glimpse: &Glimpse,
        now: Instant,
    ) -> Option<(Handle, Direction)> {
        const OPEN: u16 = Status::SEEN_REPLY.0 | Status::ASSURED.0 | Status::CONFIRMED.0;
        const CLOSED: u16 = Status::FIXED_TIMEOUT.0 | Status::HELPER.0;
        let reference = glimpse.likely?;
        if packet.protocol() != protocol::TCP || packet.fragment().is_some() {
            return None;
        }
        let (slot, direction, tick) = (reference.slot(), reference.direction(), now.tick());
        let hot = self.table.records.hot(slot)?;
        let plain = packet.family() == Family::V4 && zone.id == 0 && glimpse.is_of(hot, direction);
        if !plain && !self.fits(packet, reference, zone) {
            return None;
        }
        let hot = self.table.records.hot_mut(slot)?;
        if hot.status & (OPEN | CLOSED) != OPEN || hot.expired(tick) {
            return None;
        }
        // It may have timeouts of its own.
        if !self.policies.is_empty() && hot.kind.is(Kind::EXTRAS) {
            return None;
        }
        let segment = segment(packet, &self.knobs).ok()?;
        let knobs = (&self.pace, &self.knobs);
        let timeout = Tcp::of(hot).advance_established(&segment, direction, knobs, self.secret)?;
        let deadline = tick.wrapping_add(timeout);
        let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        let handle = Handle { slot, stamp: hot.stamp(self.secret.0) };
        let counted = hot.kind.is(Kind::COUNTED);
        if earlier {
            self.table.lower_deadline(slot, deadline);
        }
        if counted {
            count(&mut self.table.records, slot, direction, packet);
        }
        Some((handle, direction))
    }

    /// Apart, so that the compiler does not make one push of two, through memory.
    #[inline(never)]
    fn push_at_length(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        glimpse: &Glimpse,
        now: Instant,
        outcomes: &mut Vec<Outcome>,
    ) {
        outcomes.push(self.handle_at_length(packet, zone, glimpse, now));
    }

    /// Is `reference` the packet's connection? Asked where the hot part of the record does not tell.
    #[inline(never)]
    fn fits(&self, packet: &Packet<'_>, reference: Reference, zone: Zone) -> bool {
        let (identity, key) = self.identify(packet);
        identity == Identity::Tuple && self.table.records.fits(reference, &key, zone)
    }

    #[inline(never)]
    fn handle_at_length(&mut self, packet: &Packet<'_>, zone: Zone, glimpse: &Glimpse, now: Instant) -> Outcome {
        let (identity, key) = self.identify(packet);
        let passage = self.pass(packet, identity, &glimpse.probe(key, zone), now);
        self.confirm(passage, now)
    }
}

impl Glimpse {
    /// Is it a packet of that direction of this IPv4 connection, whose tuples are each other's inverse, in the default zone?
    #[inline(always)]
    fn is_of(&self, hot: &Hot, direction: Direction) -> bool {
        let (word, keys) = match direction {
            Direction::Original => (self.word, self.keys),
            Direction::Reply => (self.word.rotate_left(32), self.keys.rotate_left(16)),
        };
        hot.addresses == word && hot.keys == keys && hot.kind.is_plain_ports(protocol::TCP)
    }

    /// With the key that it is the glimpse of.
    fn probe(&self, key: Key, zone: Zone) -> Probe {
        Probe { key, zone, hash: self.hash, likely: self.likely, answer_hash: self.answer_hash }
    }
}
