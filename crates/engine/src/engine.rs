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
use crate::classify::{Classification, is_icmp_of_family};
use crate::ct_timeout::TimeoutPolicy;
use crate::early_drop::GcState;
use crate::event::EventQueue;
use crate::expectation::ExpectationTable;
use crate::export::DirtySlots;
use crate::extension::Extensions;
use crate::helper_packet::HelperPacket;
use crate::log::KernelLog;
use crate::nat::NatState;
use crate::offload::OffloadState;
use crate::packet_ctx::Pending;
use crate::protocol::FastPathTimeouts;
use crate::table::key::HashKeys;
use crate::table::{LookupKey, Table, TupleRef};
use crate::time::Ticks;
use crate::{
    Counters, CtInfo, Direction, Entry, Event, EventMask, ExpectationEntry, Helper, Instant, Outcome, PacketCtx,
    Reason, Sysctl, SysctlError, Sysctls, Zone,
};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use keepstate_wire::{LinuxAction, Packet, ParseError};

/// Names a connection while it lives: by its place in the table and a fold of its original tuple. If it ends and the same tuple takes the
/// same place again, that is taken for the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) tuple_hash: u32,
}

/// The secret that keys hashes and ids: sixteen random octets, fresh at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

/// Blocks of sixteen records that one [`Engine::poll`] looks at.
const BLOCKS_PER_POLL: usize = 4096;
/// Slots where one [`Engine::poll`] of a table that was full looks for connections that are closing anyway.
const SLOTS_PER_POLL: usize = 65_536;
/// Splits that one [`Engine::poll`] does for a growing index.
const SPLITS_PER_POLL: usize = 256;
/// Expectations that one [`Engine::poll`] ends.
const EXPECTATIONS_PER_POLL: usize = 1024;

/// Tracks connections. See the example at [`Engine::handle`].
pub struct Engine {
    pub(crate) sysctls: Sysctls,
    pub(crate) tcp_fast_timeouts: FastPathTimeouts,
    pub(crate) table: Table,
    pub(crate) extensions: Extensions,
    pub(crate) expectations: ExpectationTable,
    /// Which new connections get a helper: protocol, destination port.
    pub(crate) auto_helpers: Vec<(u8, u16, Helper)>,
    pub(crate) gc_state: GcState,
    pub(crate) nat: NatState,
    pub(crate) timeout_policies: Vec<TimeoutPolicy>,
    pub(crate) offload: OffloadState,
    pub(crate) counters: Counters,
    reason_counts: Box<[u64; Reason::COUNT]>,
    pub(crate) events: EventQueue,
    pub(crate) log: KernelLog,
    pub(crate) dirty: DirtySlots,
    /// Some connection was begun in its client's name.
    pub(crate) synproxy_in_use: bool,
    /// Folds what peers send: see `Tcp`.
    pub(crate) secret: (u64, u64),
    /// Makes ids unpredictable.
    pub(crate) id_keys: HashKeys,
}

impl Engine {
    /// An engine without connections. `secret` must be unknown to whoever sends packets.
    pub fn new(sysctls: Sysctls, secret: Secret, _now: Instant) -> Engine {
        let connections = sysctls[Sysctl::Buckets] as usize;
        Engine {
            table: Table::new(HashKeys::derive(&secret, 0), connections),
            id_keys: HashKeys::derive(&secret, 1),
            secret: HashKeys::derive(&secret, 2).words(),
            tcp_fast_timeouts: FastPathTimeouts::from(&sysctls),
            sysctls,
            extensions: Extensions::new(),
            expectations: ExpectationTable::new(HashKeys::derive(&secret, 3).words()),
            auto_helpers: Vec::new(),
            gc_state: GcState::default(),
            nat: NatState::new(&secret),
            timeout_policies: Vec::new(),
            offload: OffloadState::default(),
            counters: Counters::default(),
            reason_counts: Box::new([0; Reason::COUNT]),
            events: EventQueue::default(),
            log: KernelLog::default(),
            dirty: DirtySlots::default(),
            synproxy_in_use: false,
        }
    }

    /// Tracks one packet. What it begins is confirmed only by [`Engine::confirm`]; drop the passage when a rule dropped the packet.
    #[inline]
    pub fn track(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> PacketCtx {
        let (identity, key) = self.classify(packet);
        let probe = self.table.lookup_key(key, zone);
        // Who tracks without confirming at once has rules, which may ask about what this packet ends.
        self.nat.keep_ended = true;
        let passage = self.lookup_or_create(packet, identity, &probe, now);
        self.nat.keep_ended = false;
        passage
    }

    /// Known connection, or a new one; again if an old one had to go first.
    #[inline(never)]
    pub(crate) fn lookup_or_create(
        &mut self,
        packet: &Packet<'_>,
        identity: Classification,
        probe: &LookupKey,
        now: Instant,
    ) -> PacketCtx {
        match identity {
            Classification::Tuple => (),
            Classification::IcmpError => {
                let outcome = self.track_icmp_error(packet, probe.zone, now);
                return PacketCtx { is_icmp_error: true, ..self.finish_icmp(outcome) };
            }
            Classification::Invalid(why) if is_icmp_of_family(packet) && why != Reason::IcmpUnpaired => {
                return self.finish_icmp(Outcome::invalid(why));
            }
            Classification::Invalid(why) => return self.finish_untracked(Outcome::invalid(why)),
            Classification::Untracked(why) => return self.finish_untracked(Outcome::untracked(why)),
        }
        while let Some(reference) = self.table.find(probe) {
            if let Some(outcome) = self.handle_known(packet, reference, now) {
                let pending =
                    HelperPacket::from_packet(self, packet, &outcome).map_or(Pending::Nothing, Pending::HelperPacket);
                return PacketCtx { outcome, pending, is_icmp_error: false, ended: self.nat.ended.take() };
            }
        }
        self.init_conntrack(packet, probe, now)
    }

    /// Counts a packet that has no connection.
    pub(crate) fn finish_untracked(&mut self, outcome: Outcome) -> PacketCtx {
        self.counters.invalid += u64::from(outcome.info == CtInfo::Invalid);
        self.finish_with_reason(outcome)
    }

    fn finish_with_reason(&mut self, outcome: Outcome) -> PacketCtx {
        if let Some(why) = outcome.reason {
            self.count_reason(why);
        }
        PacketCtx::finished(outcome)
    }

    /// As [`Engine::settle`]; Linux counts bad ICMP messages as errors, not as invalid.
    fn finish_icmp(&mut self, outcome: Outcome) -> PacketCtx {
        self.counters.error += u64::from(outcome.info == CtInfo::Invalid);
        self.finish_with_reason(outcome)
    }

    pub(crate) fn count_reason(&mut self, why: Reason) {
        if let Some(count) = self.reason_counts.get_mut(why.index()) {
            *count += 1;
        }
    }

    /// Counts a packet that wire refused before it could be tracked (or that a driver could not make whole): as invalid, where Linux's tracking
    /// would have seen it.
    pub fn count_parse_error(&mut self, refusal: ParseError) {
        self.counters.invalid += u64::from(refusal.linux_action() == LinuxAction::Invalid);
        self.count_reason(Reason::ParseError(refusal));
    }

    /// Attaches `helper` to every new connection of `protocol` to `port`, from now on: for who has no rules (else see
    /// [`Unconfirmed::attach_helper`](crate::Unconfirmed::attach_helper)). No helper is ever attached otherwise.
    pub fn set_auto_helper(&mut self, protocol: u8, port: u16, helper: Helper) {
        self.auto_helpers.retain(|(known, at, _)| (*known, *at) != (protocol, port));
        self.auto_helpers.push((protocol, port, helper));
    }

    /// Removes what has expired, and does a few steps of any growing: a bounded piece of work. Call it at [`Engine::next_wake`]; again,
    /// while that is not later than `now`.
    pub fn poll(&mut self, now: Instant) {
        self.remove_expired(now, BLOCKS_PER_POLL);
        self.gc_full(now, SLOTS_PER_POLL);
        self.counters.expect_delete += self.expectations.remove_expired(now, EXPECTATIONS_PER_POLL) as u64;
        self.table.grow_index(SPLITS_PER_POLL);
    }

    /// When [`Engine::poll`] has something to do; `None` while the table is empty. Never later than a deadline; it may be earlier.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.table.needs_growth() && self.table.count() > 0 {
            return Some(now);
        }
        let connection = self.table.next_deadline().map(|deadline| now.after_ticks(deadline.wrapping_sub(now.tick())));
        // Without its master there is no expectation: an empty table has none.
        self.expectations
            .next_deadline()
            .map(|deadline| deadline.max(now))
            .into_iter()
            .chain(connection)
            .chain(self.next_gc_full(now))
            .min()
    }

    /// Which events to queue; at most `capacity` wait, later ones are lost and counted.
    pub fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.events.subscribe(mask, capacity);
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
        self.table.used_slots().filter_map(move |slot| {
            let expired = self.table.records.hot(slot)?.is_expired(now.tick());
            if expired { None } else { self.dump_entry(slot, now) }
        })
    }

    /// One connection, if it still lives.
    pub fn entry(&self, handle: ConnId, now: Instant) -> Option<Entry> {
        let hot = self.table.records.hot(handle.slot)?;
        let same = hot.is_confirmed() && hot.tuple_hash(self.secret.0) == handle.tuple_hash;
        if same { self.dump_entry(handle.slot, now) } else { None }
    }

    /// Every expectation whose time is not over at `now`, as `/proc/net/nf_conntrack_expect` lists them.
    pub fn expectations(&self, now: Instant) -> impl Iterator<Item = ExpectationEntry> + '_ {
        self.expectations.iter().filter_map(move |expected| self.dump_expectation(expected, now))
    }

    /// The connection that a tuple belongs to, and which direction of it the tuple is.
    pub fn find(&self, tuple: &crate::Tuple, zone: Zone, now: Instant) -> Option<(ConnId, Direction)> {
        let probe = self.table.lookup_key(tuple.into(), zone);
        let reference = self.table.find(&probe)?;
        if self.table.records.hot(reference.slot())?.is_expired(now.tick()) {
            return None;
        }
        Some((self.conn_id(reference.slot()), reference.direction()))
    }

    /// The counters of `conntrack -S`, and those of expectations.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many packets there were for each reason to refuse, ignore or drop one.
    pub fn reason_counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::all().zip(self.reason_counts.iter().copied())
    }

    /// The knobs as they stand. `nf_conntrack_count` is [`Engine::count`].
    pub fn sysctls(&self) -> &Sysctls {
        &self.sysctls
    }

    /// Changes a knob while the engine runs. A larger index is grown in steps; a smaller maximum removes nothing by itself.
    pub fn set_sysctl(&mut self, knob: Sysctl, value: u64) -> Result<(), SysctlError> {
        self.sysctls.set(knob, value)?;
        self.tcp_fast_timeouts = FastPathTimeouts::from(&self.sysctls);
        self.refresh_timeout_policies();
        if knob == Sysctl::Buckets {
            self.table.set_target_size(self.sysctls[Sysctl::Buckets] as usize);
        }
        Ok(())
    }

    /// Removes every connection, as `conntrack -F`.
    pub fn flush(&mut self, now: Instant) {
        let slots: Vec<u32> = self.table.used_slots().collect();
        for slot in slots {
            self.destroy(slot, now);
        }
    }

    /// Removes one connection, as `conntrack -D`. False if it no longer lives.
    pub fn remove(&mut self, handle: ConnId, now: Instant) -> bool {
        let living = self.entry(handle, now).is_some();
        if living {
            self.destroy(handle.slot, now);
        }
        living
    }

    /// Bytes held for connections: records, index, timers. Chunks are counted whole, though memory is only touched when used.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Checks what must always hold: every connection stands in the index exactly twice, and can be found by both its tuples; every
    /// expectation has a living master with a helper, and every master as many uses as it has living children.
    /// Costs a look at everything; for tests and fuzzing.
    pub fn check_invariants(&self) -> Result<(), String> {
        let connections = self.table.used_slots().count();
        if connections != self.table.count() {
            return Err(alloc::format!("{connections} records, {} counted", self.table.count()));
        }
        if self.table.index_entries() != connections * 2 {
            return Err(alloc::format!("{} index entries of {connections} connections", self.table.index_entries()));
        }
        for slot in self.table.used_slots() {
            for direction in [Direction::Original, Direction::Reply] {
                let reference = TupleRef::new(slot, direction);
                let zone = self.table.records.zone(slot);
                let found =
                    self.table.records.key(reference).and_then(|key| self.table.tuple_owner(&key, zone, direction));
                if found.is_none() {
                    return Err(alloc::format!("slot {slot} is not found by its {direction:?} tuple"));
                }
            }
        }
        self.check_masters()
    }
}
