//! Tracks and confirms in one call, for use without a ruleset: one packet, or a batch with prefetching; and the same short way for [`Engine::track`].
//!
//! Each packet is read once for its [`LookupHint`](hints::LookupHint): the hash, and the part of its key that a hot record holds. A group of packets goes
//! through three stages (bucket, record, tracking), so that cache misses of one packet overlap with work for others. A hint lives for one group. It
//! must never be trusted: the record it names may have ended or belong to another connection, and is checked again before use.
mod begin;
pub(crate) mod hash_memo;
mod hints;
mod known;
#[cfg(test)]
mod tests;

use crate::{Engine, Instant, Outcome, PacketCtx, Reason, Status, Zone, ZoneDirection};
use alloc::vec::Vec;
use hints::{GROUP, LookupHint, LookupHints};
use keepstate_wire::Packet;

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
        let hint = self.find_hint(packet, zone);
        match self.track_known(packet, zone, &hint, now) {
            Some(outcome) => outcome,
            None => self.slow_path(packet, zone, &hint, now),
        }
    }

    /// As [`Engine::handle`] for each of `packets`, in order. Their cache lines are prefetched, so that cache misses overlap.
    /// `outcomes` is cleared first; afterwards it has one outcome per packet.
    pub fn handle_batch(&mut self, packets: &[Packet<'_>], zone: Zone, now: Instant, outcomes: &mut Vec<Outcome>) {
        outcomes.clear();
        outcomes.reserve(packets.len());
        let mut hints = LookupHints::EMPTY;
        for group in packets.chunks(GROUP) {
            self.look_ahead(group, zone, &mut hints);
            for (at, packet) in group.iter().enumerate() {
                // The outcome is built in place: building it elsewhere and copying it causes a store-forwarding stall.
                match self.track_known(packet, zone, &hints.get(at), now) {
                    Some(outcome) => outcomes.push(outcome),
                    None => self.push_slow_path(packet, zone, (&hints, at), now, outcomes),
                }
            }
        }
    }

    /// A separate function, so that the compiler does not merge this push with the one of the short way, which would copy the outcome through memory.
    #[inline(never)]
    fn push_slow_path(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        (hints, at): (&LookupHints, usize),
        now: Instant,
        outcomes: &mut Vec<Outcome>,
    ) {
        outcomes.push(self.slow_path(packet, zone, &hints.get(at), now));
    }

    /// Tracks one packet. A connection it begins is only inserted by [`Engine::confirm`]. If a rule drops the packet, drop the [`PacketCtx`].
    #[inline]
    pub fn track(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> PacketCtx {
        let hint = self.memo_hint(packet, zone);
        match self.track_known(packet, zone, &hint, now) {
            Some(outcome) => PacketCtx::finished(outcome),
            None => self.track_slowly(packet, zone, &hint, now),
        }
    }

    /// Prefetches what [`Engine::track`] will read of each of `packets`, so that their cache misses overlap: for a driver that has several packets at hand and passes
    /// them to its rules one by one. Their hashes are kept for [`Engine::track`]. Nothing depends on it but speed.
    pub fn prefetch(&mut self, packets: &[Packet<'_>], zone: Zone) {
        let mut hints = LookupHints::EMPTY;
        for group in packets.chunks(GROUP) {
            self.look_ahead(group, zone, &mut hints);
            if zone.direction == ZoneDirection::Both {
                self.remember_hashes(group, &hints);
            }
        }
    }

    #[inline(never)]
    fn slow_path(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> Outcome {
        if hint.candidate.is_none()
            && let Some(outcome) = self.begin_plain(packet, zone, hint, now)
        {
            return outcome;
        }
        self.full_path(packet, zone, hint, now)
    }

    #[inline(never)]
    fn full_path(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> Outcome {
        let (identity, key) = self.classify(packet);
        let mut ctx = self.lookup_or_create(packet, identity, &hint.lookup_key(key, zone), now);
        if !packet.ipv4_options_ok() {
            // Linux tracks it, and its IP layer drops it before it is confirmed (`ip_rcv_options`).
            self.count_reason(Reason::Ipv4Options);
            return Outcome::dropped(Reason::Ipv4Options);
        }
        let has_helper = ctx.unconfirmed().is_some_and(|fresh| fresh.status.contains(Status::HELPER));
        let outcome = self.confirm(ctx, now);
        if has_helper { self.run_helper_on_first(outcome, Some(packet.bytes()), now) } else { outcome }
    }

    #[inline(never)]
    fn track_slowly(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> PacketCtx {
        if let Some((probe, opened)) = self.open_plain(packet, zone, hint, now)
            && let Some(reply) = probe.key.invert()
        {
            return self.unconfirmed_ctx(packet, &probe, reply, &opened);
        }
        self.track_fully(packet, zone, hint, now)
    }

    #[inline(never)]
    fn track_fully(&mut self, packet: &Packet<'_>, zone: Zone, hint: &LookupHint, now: Instant) -> PacketCtx {
        let (identity, key) = self.classify(packet);
        // A caller of `track` has a ruleset, which may read the connection that this packet ends: keep a copy.
        self.nat.keep_ended = true;
        let ctx = self.lookup_or_create(packet, identity, &hint.lookup_key(key, zone), now);
        self.nat.keep_ended = false;
        ctx
    }
}
