//! NAT: it changes a connection's reply tuple while the connection is unconfirmed; all else follows from the two tuples.
//!
//! A rule gives a [`NatRange`], [`Engine::translate`] selects a tuple in it that no other connection uses for its replies, and the connection is confirmed with it. After
//! that nothing is decided again: the changes to a packet ([`Engine::nat_rewrite`]) are derived from the connection's tuples, for both directions and
//! for ICMP errors. If NAT rules exist and none matches, [`Engine::nat_null_binding`] records that the end stays as it is, so that port clashes are still
//! resolved, as Linux does. This module must never look at rules, interface addresses, or the clock.
mod best_ip;
mod bysource;
mod deterministic;
mod eim;
mod eim_table;
mod exhaustion;
mod expect_nat;
mod filtering;
mod manip_pkt;
mod own_address;
mod own_sources;
mod port_bitmap;
mod port_block;
mod port_part;
mod range;
mod seq_adjust;
pub(crate) mod seqadj;
pub(crate) mod state;
mod unique_tuple;

pub use deterministic::DeterministicNat;
pub use eim_table::{FilteringBehaviour, MappingBehaviour, NatPolicy};
pub use exhaustion::{ExhaustionKey, ExhaustionStats};
pub use manip_pkt::NatRewrite;
pub use own_sources::OwnSources;
pub use port_block::PortBlockEvent;
pub use port_part::{PartUse, PortPart};
pub use range::{Manip, NatRange, PortSelection};
pub(crate) use seq_adjust::ack_offset;
pub(crate) use seqadj::SeqAdj;

use crate::packet_ctx::Pending;
use crate::protocol::Tracker;
use crate::table::TupleRef;
use crate::table::key::TupleKey;
use crate::{Connection, Direction, Engine, Instant, PacketCtx, Status, Tuple, Unconfirmed};
use alloc::boxed::Box;
use bysource::BysourceKey;
use range::nat_status_bits;
use unique_tuple::{NatBinding, NatRequest};

/// The result of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatResult {
    /// The connection is already known, or this end is already initialized: nothing is changed.
    AlreadyDone,
    /// The end is initialized and stays as it is.
    Unchanged,
    /// The end was changed.
    Changed,
    /// No tuple in the range is free: the packet is dropped when the connection is confirmed.
    Exhausted,
}

impl Engine {
    /// Translates one end of the new connection in `ctx` into `range`. A connection that is already known is not changed.
    ///
    /// ```
    /// use keepstate_engine::{Direction, Engine, Instant, Sysctls, Manip, NatRange, Secret, NatResult, Zone};
    /// use keepstate_wire::Packet;
    /// // A UDP packet from 10.1.0.2:4000 to 10.2.0.9:53.
    /// let query = [
    ///     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xc3, 10, 1, 0, 2, 10, 2, 0, 9, //
    ///     0x0f, 0xa0, 0, 53, 0, 8, 0, 0,
    /// ];
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let packet = Packet::parse(&query).unwrap();
    /// let mut ctx = engine.track(&packet, Zone::default(), Instant(0));
    /// let range = NatRange::to([192, 0, 2, 1].into());
    /// assert_eq!(engine.translate(&mut ctx, Manip::Source, &range, Instant(0)), NatResult::Changed);
    /// let rewrite = engine.nat_rewrite(&ctx, Manip::Source);
    /// engine.confirm(ctx, Instant(0));
    /// // The packet leaves with the translated address and updated checksums …
    /// let mut sent = query;
    /// assert!(rewrite.apply(&mut sent));
    /// assert_eq!(sent[12..16], [192, 0, 2, 1]);
    /// // … and the connection's reply tuple has the translated address.
    /// let entry = engine.entries(Instant(0)).next().unwrap();
    /// assert_eq!(entry.reply.destination, std::net::IpAddr::from([192, 0, 2, 1]));
    /// ```
    pub fn translate(&mut self, ctx: &mut PacketCtx, manip: Manip, range: &NatRange, now: Instant) -> NatResult {
        self.setup_nat(ctx, (manip, NatBinding::Rule), range, now)
    }

    fn setup_nat(
        &mut self,
        ctx: &mut PacketCtx,
        (manip, cause): (Manip, NatBinding),
        range: &NatRange,
        now: Instant,
    ) -> NatResult {
        let Pending::Unconfirmed(fresh) = &mut ctx.pending else { return NatResult::AlreadyDone };
        let (changed, done) = nat_status_bits(manip);
        if fresh.status.contains(done) {
            return NatResult::AlreadyDone;
        }
        if cause == NatBinding::Rule
            && let Some((reply, hash)) = self.unique_reply_plain(fresh, manip, range)
        {
            fresh.reply = reply;
            fresh.untranslated = false;
            fresh.hashes[1] = hash;
            fresh.reply_free_epoch = self.table.epoch();
            fresh.masqueraded |= range.masquerade;
            fresh.status |= done | changed;
            self.nat.in_use = true;
            return NatResult::Changed;
        }
        self.search_nat_tuple(fresh, (manip, cause), range, now)
    }

    /// As [`Engine::setup_nat`], of an end that is not initialized.
    #[inline(never)]
    fn search_nat_tuple(
        &mut self,
        fresh: &mut Unconfirmed,
        (manip, cause): (Manip, NatBinding),
        range: &NatRange,
        now: Instant,
    ) -> NatResult {
        let (changed, done) = nat_status_bits(manip);
        let Some(present) = fresh.reply.tuple().invert() else { return NatResult::Unchanged };
        let opening = match &fresh.tracker {
            Tracker::Tcp(tcp) => tcp.syn_end_seq(),
            _ => None,
        };
        let wanted =
            NatRequest { current: present, manip, range, binding: cause, zone: fresh.zone, syn_end_seq: opening, now };
        self.nat.looked_for = None;
        let (chosen, free) = self.unique_tuple(&wanted);
        fresh.status |= done;
        fresh.masqueraded |= range.masquerade;
        let looked_for = self.nat.looked_for.take();
        if chosen != present {
            fresh.set_reply_tuple(&chosen);
            if let Some((_, hash)) = looked_for.filter(|(reply, _)| *reply == fresh.reply) {
                fresh.hashes[1] = hash;
            }
            self.nat.in_use = true;
            fresh.status |= changed;
        }
        // A mapping's tuple may be chosen without a lookup.
        fresh.reply_free_epoch = if free && !self.nat.eim.in_use() { self.table.epoch() } else { u64::MAX };
        match (free, chosen == present) {
            (false, _) => {
                fresh.nat_exhausted = true;
                fresh.nat_refused |= self.nat.eim.in_use() && (manip, cause) == (Manip::Source, NatBinding::Rule);
                self.nat.exhaustion.record(&chosen, manip, now);
                NatResult::Exhausted
            }
            (true, true) => NatResult::Unchanged,
            (true, false) => NatResult::Changed,
        }
    }

    /// Records that one end stays as it is, for use when NAT rules exist and none matched. Port clashes with other connections are still resolved.
    pub fn nat_null_binding(&mut self, ctx: &mut PacketCtx, manip: Manip, now: Instant) -> NatResult {
        let Pending::Unconfirmed(fresh) = &mut ctx.pending else { return NatResult::AlreadyDone };
        let (_, done) = nat_status_bits(manip);
        if !fresh.status.contains(done) && self.keeps_reply(fresh) {
            fresh.reply_free_epoch = self.table.epoch();
            fresh.status |= done;
            return NatResult::Unchanged;
        }
        let Some(present) = fresh.reply.tuple().invert() else { return NatResult::Unchanged };
        if self.nat.eim.in_use()
            && let Some(translated) = self.translate_by_mapping(ctx, &present, manip, now)
        {
            return translated;
        }
        self.setup_nat(ctx, (manip, NatBinding::Null), &NatRange::to(range::end_address(&present, manip)), now)
    }

    /// The changes to the packet in `ctx` at the end `manip`: the destination in prerouting, the source in postrouting.
    pub fn nat_rewrite(&self, ctx: &PacketCtx, manip: Manip) -> NatRewrite {
        let outcome = &ctx.outcome;
        let Some(direction) = outcome.direction else { return NatRewrite::NONE };
        let (status, opposite) = match (&ctx.pending, outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => (fresh.status, fresh.reply),
            (_, Some(conn_id)) => {
                let Some(hot) = self.table.records.hot(conn_id.slot) else { return NatRewrite::NONE };
                if !hot.status().intersects(Status::SRC_NAT | Status::DST_NAT) {
                    return NatRewrite::NONE;
                }
                let opposite = self.table.records.key(TupleRef::new(conn_id.slot, direction.opposite()));
                let Some(opposite) = opposite else { return NatRewrite::NONE };
                (hot.status(), opposite)
            }
            _ => match &ctx.ended {
                Some(ended) => {
                    let opposite = if direction == Direction::Original { &ended.reply } else { &ended.original };
                    (ended.status, TupleKey::from(opposite))
                }
                None => return NatRewrite::NONE,
            },
        };
        manip_pkt::nat_rewrite(status, &opposite.tuple(), direction, manip, ctx.is_icmp_error)
    }

    /// Connections that found no free port, by translated address and peer.
    pub fn exhaustion_stats(&self) -> impl Iterator<Item = (&ExhaustionKey, &ExhaustionStats)> {
        self.nat.exhaustion.iter()
    }

    /// A shortage that was not reported yet.
    pub fn poll_exhaustion(&mut self) -> Option<ExhaustionKey> {
        self.nat.exhaustion.pop_unreported()
    }

    /// The current packet ends this connection: stores what rules may ask about it.
    #[cold]
    pub(crate) fn save_ended_connection(&mut self, slot: u32, now: Instant) {
        if self.nat.keep_ended {
            let synproxy = self.extensions.find(slot).and_then(|extra| extra.synproxy);
            let remembered = |entry| Box::new(Connection { synproxy, ..Connection::from(&entry) });
            self.nat.ended = self.dump_entry(slot, now).map(remembered);
        }
    }

    /// Adds a connection whose source NAT is initialized to the by-source table.
    #[inline(always)]
    pub(crate) fn insert_bysource(&mut self, fresh: &Unconfirmed, slot: u32, now: Instant) {
        if fresh.status.contains(Status::SRC_NAT_DONE) {
            let source = BysourceKey::from_key(&fresh.original, fresh.zone.id_for(Direction::Original));
            self.nat.bysource.insert(slot, &source, &self.table.records);
            if self.nat.eim.in_use() && fresh.status.contains(Status::SRC_NAT) {
                self.insert_mapping(&fresh.original(), &fresh.reply(), fresh.zone, now);
            }
        }
    }

    /// Removes a connection that has ended.
    #[cold]
    pub(crate) fn remove_bysource(&mut self, slot: u32, now: Instant) {
        if self.nat.eim.in_use()
            && let Some((original, reply, zone)) = self.snat_tuples(slot)
        {
            self.remove_mapping(&original, &reply, zone, now);
        }
        self.nat.bysource.remove(slot, &self.table.records);
    }
}

impl Unconfirmed {
    /// Is NAT initialized for this end?
    pub fn is_nat_initialized(&self, manip: Manip) -> bool {
        self.status.contains(nat_status_bits(manip).1)
    }

    /// Sets the reply tuple to the inverse of `chosen`, the tuple of the first packet after translation.
    fn set_reply_tuple(&mut self, chosen: &Tuple) {
        if let Some(reply) = chosen.invert() {
            self.reply = TupleKey::from(&reply);
            self.untranslated = false;
            self.hashes[1] = 0;
            self.reply_free_epoch = u64::MAX;
        }
    }
}

/// The changes at one end of a connection's packets, as [`Engine::nat_rewrite`] gives them for one packet.
pub(crate) fn nat_rewrite_for(status: Status, opposite: &Tuple, direction: Direction, manip: Manip) -> NatRewrite {
    manip_pkt::nat_rewrite(status, opposite, direction, manip, false)
}

#[cfg(test)]
mod tests;
