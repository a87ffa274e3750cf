//! The engine: one packet's way, from the table and back into it.
//!
//! ```text
//! handle = track, then confirm
//!   track     identify (a tuple, or why not) ▶ find ─ known ▶ its protocol rules ▶ apply
//!                                                  └ none  ▶ expected? ▶ begin: Unconfirmed, owned by the passage
//!   confirm   Unconfirmed is moved into the table, both directions or neither; a helper hears what its connection says
//! poll      what has expired leaves the table; the index grows a step
//! ```
//! The engine lives as long as its driver; it has no clock and does no IO. It never drops a packet: it reports, except where Linux itself drops
//! (the table is full; a clash; an announcement that a helper cannot read or keep).
use crate::event::Queue;
use crate::expectation::Expectations;
use crate::export::Changes;
use crate::extras::Extras;
use crate::full::Crowded;
use crate::identity::{Identity, is_own_icmp};
use crate::log::Log;
use crate::nat::Nat;
use crate::offload::Offload;
use crate::passage::Pending;
use crate::protocol::Pace;
use crate::saying::Saying;
use crate::table::key::HashKeys;
use crate::table::{Probe, Reference, Table};
use crate::time::Clock;
use crate::timeouts::Policy;
use crate::{
    Counters, Direction, Entry, Event, EventMask, Expectation, Helper, Info, Instant, Knob, KnobError, Knobs, Outcome,
    Passage, Why, Zone,
};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use keepstate_wire::{Fate, Packet, Refusal};

/// Names a connection while it lives: by its place in the table and a fold of its original tuple. If it ends and the same tuple takes the
/// same place again, that is taken for the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    pub(crate) slot: u32,
    pub(crate) stamp: u32,
}

/// The secret that keys hashes and ids: sixteen random octets, fresh at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

/// Blocks of sixteen records that one [`Engine::poll`] looks at.
const LOOKS_A_POLL: usize = 4096;
/// Slots where one [`Engine::poll`] of a table that was full looks for connections that are closing anyway.
const SLOTS_A_POLL: usize = 65_536;
/// Splits that one [`Engine::poll`] does for a growing index.
const SPLITS_A_POLL: usize = 256;
/// Expectations that one [`Engine::poll`] ends.
const EXPECTATIONS_A_POLL: usize = 1024;

/// Tracks connections. See the example at [`Engine::handle`].
pub struct Engine {
    pub(crate) knobs: Knobs,
    pub(crate) pace: Pace,
    pub(crate) table: Table,
    pub(crate) extras: Extras,
    pub(crate) expectations: Expectations,
    /// Which new connections get a helper: protocol, destination port.
    pub(crate) helped: Vec<(u8, u16, Helper)>,
    pub(crate) crowded: Crowded,
    pub(crate) nat: Nat,
    pub(crate) policies: Vec<Policy>,
    pub(crate) offload: Offload,
    pub(crate) counters: Counters,
    reasons: Box<[u64; Why::COUNT]>,
    pub(crate) events: Queue,
    pub(crate) log: Log,
    pub(crate) changes: Changes,
    /// Some connection was begun in its client's name.
    pub(crate) promises: bool,
    /// Folds what peers send: see `Tcp`.
    pub(crate) secret: (u64, u64),
    /// Makes ids unpredictable.
    pub(crate) id_keys: HashKeys,
}

impl Engine {
    /// An engine without connections. `secret` must be unknown to whoever sends packets.
    pub fn new(knobs: Knobs, secret: Secret, _now: Instant) -> Engine {
        let connections = knobs[Knob::Buckets] as usize;
        Engine {
            table: Table::new(HashKeys::derive(&secret, 0), connections),
            id_keys: HashKeys::derive(&secret, 1),
            secret: HashKeys::derive(&secret, 2).words(),
            pace: Pace::from(&knobs),
            knobs,
            extras: Extras::new(),
            expectations: Expectations::new(HashKeys::derive(&secret, 3).words()),
            helped: Vec::new(),
            crowded: Crowded::default(),
            nat: Nat::new(&secret),
            policies: Vec::new(),
            offload: Offload::default(),
            counters: Counters::default(),
            reasons: Box::new([0; Why::COUNT]),
            events: Queue::default(),
            log: Log::default(),
            changes: Changes::default(),
            promises: false,
        }
    }

    /// Tracks one packet. What it begins is confirmed only by [`Engine::confirm`]; drop the passage when a rule dropped the packet.
    #[inline]
    pub fn track(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Passage {
        let (identity, key) = self.identify(packet);
        let probe = self.table.probe(key, zone);
        // Who tracks without confirming at once has rules, which may ask about what this packet ends.
        self.nat.remembers = true;
        let passage = self.pass(packet, identity, &probe, now);
        self.nat.remembers = false;
        passage
    }

    /// Known connection, or a new one; again if an old one had to go first.
    #[inline(never)]
    pub(crate) fn pass(&mut self, packet: &Packet<'_>, identity: Identity, probe: &Probe, now: Instant) -> Passage {
        match identity {
            Identity::Tuple => (),
            Identity::About => {
                let outcome = self.relate(packet, probe.zone, now);
                return Passage { about: true, ..self.settle_icmp(outcome) };
            }
            Identity::Invalid(why) if is_own_icmp(packet) && why != Why::IcmpUnpaired => {
                return self.settle_icmp(Outcome::invalid(why));
            }
            Identity::Invalid(why) => return self.settle(Outcome::invalid(why)),
            Identity::Untracked(why) => return self.settle(Outcome::untracked(why)),
        }
        while let Some(reference) = self.table.find(probe) {
            if let Some(outcome) = self.follow(packet, reference, now) {
                let pending = Saying::of(self, packet, &outcome).map_or(Pending::Nothing, Pending::Said);
                return Passage { outcome, pending, about: false, ended: self.nat.ended.take() };
            }
        }
        self.begin(packet, probe, now)
    }

    /// Counts a packet that has no connection.
    pub(crate) fn settle(&mut self, outcome: Outcome) -> Passage {
        self.counters.invalid += u64::from(outcome.info == Info::Invalid);
        self.settle_uncounted(outcome)
    }

    fn settle_uncounted(&mut self, outcome: Outcome) -> Passage {
        if let Some(why) = outcome.why {
            self.note(why);
        }
        Passage::settled(outcome)
    }

    /// As [`Engine::settle`]; Linux counts bad ICMP messages as errors, not as invalid.
    fn settle_icmp(&mut self, outcome: Outcome) -> Passage {
        self.counters.error += u64::from(outcome.info == Info::Invalid);
        self.settle_uncounted(outcome)
    }

    pub(crate) fn note(&mut self, why: Why) {
        if let Some(count) = self.reasons.get_mut(why.index()) {
            *count += 1;
        }
    }

    /// Counts a packet that wire refused before it could be tracked (or that a driver could not make whole): as invalid, where Linux's tracking
    /// would have seen it.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.counters.invalid += u64::from(refusal.fate() == Fate::Invalid);
        self.note(Why::Refused(refusal));
    }

    /// Attaches `helper` to every new connection of `protocol` to `port`, from now on: for who has no rules (else see
    /// [`Unconfirmed::attach_helper`](crate::Unconfirmed::attach_helper)). No helper is ever attached otherwise.
    pub fn help(&mut self, protocol: u8, port: u16, helper: Helper) {
        self.helped.retain(|(known, at, _)| (*known, *at) != (protocol, port));
        self.helped.push((protocol, port, helper));
    }

    /// Removes what has expired, and does a few steps of any growing: a bounded piece of work. Call it at [`Engine::next_wake`]; again,
    /// while that is not later than `now`.
    pub fn poll(&mut self, now: Instant) {
        self.expire(now, LOOKS_A_POLL);
        self.relieve(now, SLOTS_A_POLL);
        self.counters.expect_delete += self.expectations.remove_expired(now, EXPECTATIONS_A_POLL) as u64;
        self.table.grow_index(SPLITS_A_POLL);
    }

    /// When [`Engine::poll`] has something to do; `None` while the table is empty. Never later than a deadline; it may be earlier.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.table.pressed() && self.table.count() > 0 {
            return Some(now);
        }
        let connection = self.table.next_deadline().map(|deadline| now.after_ticks(deadline.wrapping_sub(now.tick())));
        // Without its master there is no expectation: an empty table has none.
        self.expectations
            .next_deadline()
            .map(|deadline| deadline.max(now))
            .into_iter()
            .chain(connection)
            .chain(self.next_relief(now))
            .min()
    }

    /// Which events to queue; at most `capacity` wait, later ones are lost and counted.
    pub fn listen(&mut self, mask: EventMask, capacity: usize) {
        self.events.listen(mask, capacity);
    }

    /// The oldest event that waits.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Events lost because the queue was full, since the start.
    pub fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    /// The next line the kernel would have logged, rate-limited as the kernel does.
    pub fn poll_log(&mut self) -> Option<String> {
        self.log.poll()
    }

    /// Connections in the table: `nf_conntrack_count`. Like Linux, it counts what has expired and was not yet removed.
    pub fn count(&self) -> usize {
        self.table.count()
    }

    /// Every connection that has not expired at `now`.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = Entry> + '_ {
        self.table.slots().filter_map(move |slot| {
            let expired = self.table.records.hot(slot)?.expired(now.tick());
            if expired { None } else { self.show(slot, now) }
        })
    }

    /// One connection, if it still lives.
    pub fn entry(&self, handle: Handle, now: Instant) -> Option<Entry> {
        let hot = self.table.records.hot(handle.slot)?;
        let same = hot.living() && hot.stamp(self.secret.0) == handle.stamp;
        if same { self.show(handle.slot, now) } else { None }
    }

    /// Every expectation whose time is not over at `now`, as `/proc/net/nf_conntrack_expect` lists them.
    pub fn expectations(&self, now: Instant) -> impl Iterator<Item = Expectation> + '_ {
        self.expectations.iter().filter_map(move |expected| self.show_expected(expected, now))
    }

    /// The connection that a tuple belongs to, and which direction of it the tuple is.
    pub fn find(&self, tuple: &crate::Tuple, zone: Zone, now: Instant) -> Option<(Handle, Direction)> {
        let probe = self.table.probe(tuple.into(), zone);
        let reference = self.table.find(&probe)?;
        if self.table.records.hot(reference.slot())?.expired(now.tick()) {
            return None;
        }
        Some((self.handle_of(reference.slot()), reference.direction()))
    }

    /// The counters of `conntrack -S`, and those of expectations.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many packets there were for each reason to refuse, ignore or drop one.
    pub fn reasons(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        Why::all().zip(self.reasons.iter().copied())
    }

    /// The knobs as they stand. `nf_conntrack_count` is [`Engine::count`].
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Changes a knob while the engine runs. A larger index is grown in steps; a smaller maximum removes nothing by itself.
    pub fn set(&mut self, knob: Knob, value: u64) -> Result<(), KnobError> {
        self.knobs.set(knob, value)?;
        self.pace = Pace::from(&self.knobs);
        self.renew_policies();
        if knob == Knob::Buckets {
            self.table.want(self.knobs[Knob::Buckets] as usize);
        }
        Ok(())
    }

    /// Removes every connection, as `conntrack -F`.
    pub fn flush(&mut self, now: Instant) {
        let slots: Vec<u32> = self.table.slots().collect();
        for slot in slots {
            self.destroy(slot, now);
        }
    }

    /// Removes one connection, as `conntrack -D`. False if it no longer lives.
    pub fn remove(&mut self, handle: Handle, now: Instant) -> bool {
        let living = self.entry(handle, now).is_some();
        if living {
            self.destroy(handle.slot, now);
        }
        living
    }

    /// Bytes held for connections: records, index, timers. Chunks are counted whole, though memory is only touched when used.
    pub fn memory(&self) -> usize {
        self.table.bytes()
    }

    /// Checks what must always hold: every connection stands in the index exactly twice, and can be found by both its tuples; every
    /// expectation has a living master with a helper, and every master as many uses as it has living children.
    /// Costs a look at everything; for tests and fuzzing.
    pub fn check(&self) -> Result<(), String> {
        let connections = self.table.slots().count();
        if connections != self.table.count() {
            return Err(alloc::format!("{connections} records, {} counted", self.table.count()));
        }
        if self.table.index_entries() != connections * 2 {
            return Err(alloc::format!("{} index entries of {connections} connections", self.table.index_entries()));
        }
        for slot in self.table.slots() {
            for direction in [Direction::Original, Direction::Reply] {
                let reference = Reference::new(slot, direction);
                let zone = self.table.records.zone(slot);
                let found = self.table.records.key(reference).and_then(|key| self.table.holder(&key, zone, direction));
                if found.is_none() {
                    return Err(alloc::format!("slot {slot} is not found by its {direction:?} tuple"));
                }
            }
        }
        self.check_masters()
    }
}
