//! Translation: a connection's reply tuple is changed while it is unconfirmed, and everything else follows from the two tuples.
//!
//! A rule gives a [`Range`], [`Engine::translate`] chooses a tuple in it that nobody's answers have, and the connection is confirmed under it. From
//! then on nothing is decided any more: what to change in a packet ([`Engine::edits`]) is read off the connection's tuples, for both directions and
//! for ICMP errors. Where rules of NAT exist and none matches, [`Engine::keep`] settles that the end stays as it is, so that a clash of ports is still
//! resolved, as Linux does it. Nothing here looks at rules, addresses of devices, or the clock.
mod blocks;
mod choose;
mod deterministic;
mod edits;
mod exhaustion;
mod filtering;
mod follow;
mod mapping;
mod ports;
mod range;
mod sequence;
mod sources;

pub use blocks::BlockChange;
pub use deterministic::Deterministic;
pub use edits::Edits;
pub use exhaustion::{Shortage, Shortfall};
pub(crate) use follow::Follow;
pub use mapping::{Behaviour, Filtering, Mapping};
pub use range::{Choice, Manip, Range};
pub(crate) use sequence::{Shifts, ahead};

use crate::passage::Pending;
use crate::protocol::Tracker;
use crate::table::Reference;
use crate::table::key::{HashKeys, Key};
use crate::{Connection, Direction, Engine, Instant, Passage, Secret, Status, Tuple, Unconfirmed};
use alloc::boxed::Box;
use choose::{Cause, Wanted};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use exhaustion::Exhaustion;
use mapping::Mappings;
use sources::{Source, Sources};

/// What a translation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Translated {
    /// The connection is known already, or this end of it was decided before: nothing is changed.
    Before,
    /// The end stays as it is.
    Kept,
    /// The end was changed.
    Changed,
    /// No tuple in the range is free: when the connection is confirmed, its packet is dropped.
    Exhausted,
}

/// What translation keeps beside the table.
pub(crate) struct Nat {
    keys: HashKeys,
    draws: u64,
    pub(crate) sources: Sources,
    pub(crate) exhaustion: Exhaustion,
    pub(crate) mappings: Mappings,
    /// Some connection was translated, ever.
    pub(crate) in_use: bool,
    /// Is what a packet ends to be kept for its rules?
    pub(crate) remembers: bool,
    /// The connection that the packet at hand has ended.
    pub(crate) ended: Option<Box<Connection>>,
}

impl Nat {
    pub(crate) fn new(secret: &Secret) -> Nat {
        Nat {
            keys: HashKeys::derive(secret, 4),
            draws: 0,
            sources: Sources::default(),
            exhaustion: Exhaustion::default(),
            mappings: Mappings::default(),
            in_use: false,
            remembers: false,
            ended: None,
        }
    }

    /// A number that nobody can guess who does not know the secret.
    pub(crate) fn draw(&mut self) -> u16 {
        self.draws += 1;
        self.keys.hash([self.draws]) as u16
    }

    /// An address of `first..=last`, always the same for the same `seed`.
    fn spread(&self, seed: &Key, first: IpAddr, last: IpAddr) -> IpAddr {
        let [high, low] = [0, 1].map(|half| seed.hash(half, &self.keys));
        let hash = u128::from(high) << 64 | u128::from(low);
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let size = u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1;
                IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + (high % size) as u32))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let size = last.to_bits().saturating_sub(first.to_bits()).checked_add(1);
                let step = size.map_or(hash, |size| hash % size);
                IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(step)))
            }
            (first, _) => first,
        }
    }
}

impl Engine {
    /// Translates one end of the connection that `passage` begins, to something in `range`. A connection that is known already stays as it is.
    ///
    /// ```
    /// use keepstate_engine::{Direction, Engine, Instant, Knobs, Manip, Range, Secret, Translated, Zone};
    /// use keepstate_wire::Packet;
    /// // A datagram from 10.1.0.2:4000 to 10.2.0.9:53.
    /// let query = [
    ///     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xc3, 10, 1, 0, 2, 10, 2, 0, 9, //
    ///     0x0f, 0xa0, 0, 53, 0, 8, 0, 0,
    /// ];
    /// let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), Instant(0));
    /// let packet = Packet::parse(&query).unwrap();
    /// let mut passage = engine.track(&packet, Zone::default(), Instant(0));
    /// let range = Range::to([192, 0, 2, 1].into());
    /// assert_eq!(engine.translate(&mut passage, Manip::Source, &range, Instant(0)), Translated::Changed);
    /// let edits = engine.edits(&passage, Manip::Source);
    /// engine.confirm(passage, Instant(0));
    /// // The packet leaves under the translated address, with its checksums brought along …
    /// let mut sent = query;
    /// assert!(edits.apply(&mut sent));
    /// assert_eq!(sent[12..16], [192, 0, 2, 1]);
    /// // … and the table knows what the answer will look like.
    /// let entry = engine.entries(Instant(0)).next().unwrap();
    /// assert_eq!(entry.reply.destination, std::net::IpAddr::from([192, 0, 2, 1]));
    /// ```
    pub fn translate(&mut self, passage: &mut Passage, manip: Manip, range: &Range, now: Instant) -> Translated {
        self.decide(passage, (manip, Cause::Rule), range, now)
    }

    fn decide(
        &mut self,
        passage: &mut Passage,
        (manip, cause): (Manip, Cause),
        range: &Range,
        now: Instant,
    ) -> Translated {
        let Pending::Begun(fresh) = &mut passage.pending else { return Translated::Before };
        let (changed, done) = bits(manip);
        if fresh.status.has(done) {
            return Translated::Before;
        }
        let Some(present) = fresh.reply.tuple().invert() else { return Translated::Kept };
        let opening = match &fresh.tracker {
            Tracker::Tcp(tcp) => tcp.opening(),
            _ => None,
        };
        let wanted = Wanted { present, manip, range, cause, zone: fresh.zone, opening, now };
        let (chosen, free) = self.choose(&wanted);
        fresh.status |= done;
        if chosen != present {
            fresh.turn(&chosen);
            self.nat.in_use = true;
            fresh.status |= changed;
        }
        match (free, chosen == present) {
            (false, _) => {
                fresh.exhausted = true;
                fresh.refused |= self.nat.mappings.in_use() && (manip, cause) == (Manip::Source, Cause::Rule);
                self.nat.exhaustion.note(&chosen, manip, now);
                Translated::Exhausted
            }
            (true, true) => Translated::Kept,
            (true, false) => Translated::Changed,
        }
    }

    /// Settles that one end stays as it is, where rules of NAT exist and none matched; another connection's ports are still kept clear of.
    pub fn keep(&mut self, passage: &mut Passage, manip: Manip, now: Instant) -> Translated {
        let Pending::Begun(fresh) = &passage.pending else { return Translated::Before };
        let Some(present) = fresh.reply.tuple().invert() else { return Translated::Kept };
        if self.nat.mappings.in_use()
            && let Some(translated) = self.by_mapping(passage, &present, manip, now)
        {
            return translated;
        }
        self.decide(passage, (manip, Cause::NoRule), &Range::to(range::end(&present, manip)), now)
    }

    /// What is to be changed in the packet of `passage`, at the end `manip`: of the destination where it comes in, of the source where it leaves.
    pub fn edits(&self, passage: &Passage, manip: Manip) -> Edits {
        let outcome = &passage.outcome;
        let Some(direction) = outcome.direction else { return Edits::NONE };
        let (status, opposite) = match (&passage.pending, outcome.connection) {
            (Pending::Begun(fresh), _) => (fresh.status, fresh.reply),
            (_, Some(handle)) => {
                let Some(hot) = self.table.records.hot(handle.slot) else { return Edits::NONE };
                if hot.status & (Status::SRC_NAT.0 | Status::DST_NAT.0) == 0 {
                    return Edits::NONE;
                }
                let opposite = self.table.records.key(Reference::new(handle.slot, direction.opposite()));
                let Some(opposite) = opposite else { return Edits::NONE };
                (hot.status(), opposite)
            }
            _ => match &passage.ended {
                Some(ended) => {
                    let opposite = if direction == Direction::Original { &ended.reply } else { &ended.original };
                    (ended.status, Key::from(opposite))
                }
                None => return Edits::NONE,
            },
        };
        edits::edits(status, &opposite.tuple(), direction, manip, passage.about)
    }

    /// Connections that found no free port, by translated address and peer.
    pub fn shortages(&self) -> impl Iterator<Item = (&Shortage, &Shortfall)> {
        self.nat.exhaustion.iter()
    }

    /// A shortage that was not told yet.
    pub fn poll_shortage(&mut self) -> Option<Shortage> {
        self.nat.exhaustion.take_fresh()
    }

    /// The packet at hand ends this connection: what rules may ask of it is kept.
    #[cold]
    pub(crate) fn remember_end(&mut self, slot: u32, now: Instant) {
        if self.nat.remembers {
            let promise = self.extras.of(slot).and_then(|extra| extra.promise);
            let remembered = |entry| Box::new(Connection { promise, ..Connection::from(&entry) });
            self.nat.ended = self.show(slot, now).map(remembered);
        }
    }

    /// A connection with a decided source is entered under it.
    pub(crate) fn enter_source(&mut self, fresh: &Unconfirmed, slot: u32, now: Instant) {
        if fresh.status.has(Status::SRC_NAT_DONE) {
            let source = Source::of(&fresh.original.tuple(), fresh.zone.of(Direction::Original));
            self.nat.sources.insert(source, slot);
            if self.nat.mappings.in_use() && fresh.status.has(Status::SRC_NAT) {
                self.enter_mapping(&fresh.original(), &fresh.reply(), fresh.zone, now);
            }
        }
    }

    /// A connection ends.
    #[cold]
    pub(crate) fn leave_source(&mut self, slot: u32, now: Instant) {
        if self.nat.mappings.in_use()
            && let Some((original, reply, zone)) = self.mapped(slot)
        {
            self.leave_mapping(&original, &reply, zone, now);
        }
        let zone = self.table.records.zone(slot).of(Direction::Original);
        if let Some(original) = self.table.records.key(Reference::new(slot, Direction::Original)) {
            self.nat.sources.remove(&Source::of(&original.tuple(), zone), slot);
        }
    }
}

impl Unconfirmed {
    /// Was it decided how this end is translated, or that it is not?
    pub fn is_decided(&self, manip: Manip) -> bool {
        self.status.has(bits(manip).1)
    }

    /// The first packet will look like `chosen`: its answer, the other way round.
    fn turn(&mut self, chosen: &Tuple) {
        if let Some(reply) = chosen.invert() {
            self.reply = Key::from(&reply);
            self.plain = false;
            self.hashes[1] = 0;
        }
    }
}

/// What is changed at one end of a connection's packets, as [`Engine::edits`] says for one of them.
pub(crate) fn edits_of(status: Status, opposite: &Tuple, direction: Direction, manip: Manip) -> Edits {
    edits::edits(status, opposite, direction, manip, false)
}

/// Translated; decided.
fn bits(manip: Manip) -> (Status, Status) {
    match manip {
        Manip::Source => (Status::SRC_NAT, Status::SRC_NAT_DONE),
        Manip::Destination => (Status::DST_NAT, Status::DST_NAT_DONE),
    }
}

#[cfg(test)]
mod tests;
