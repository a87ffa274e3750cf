//! The model: every connection once, with groups, rates and history beside it.
//!
//! Its life: it is empty; a dump begins ([`LiveTable::begin_dump`]), its connections are added, and when it ends whatever neither the dump nor an
//! event has named is gone. Events come at any time, also during a dump. Lost events make it uncertain until the next dump has ended. It never holds
//! more connections than it was given room for, and counts those that it leaves out.
use crate::counters::CounterSums;
use crate::flow_key::FlowKey;
use crate::flow_record::{FlowRecord, FlowState};
use crate::groups::{FlowGroups, GroupBy, GroupChange, GroupFacts, GroupRow};
use crate::nat_ports::{NatPortUse, NatPorts};
use crate::occupancy::{Occupancy, OccupancySample, TimeToFull};
use crate::owner::OwnerIndex;
use crate::owner_groups::{self, OwnerGroups};
use crate::page::{self, FlowRow, PageQuery, TablePage};
use hashbrown::HashTable;
use keepstate_linux::ctnetlink::{CtFlow, EventKind};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// What is known about how far the model can be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// A dump has ended, and no event was lost since it began.
    pub is_complete: bool,
    /// A dump is being read: this many connections so far.
    pub dumped: Option<u64>,
    /// How often events were lost.
    pub overruns: u64,
    /// When they were lost last, on the model's clock.
    pub last_overrun: Option<Duration>,
    /// Dumps that ended.
    pub dumps: u64,
    /// Why nothing comes, if nothing does.
    pub error: Option<String>,
    /// Connections left out because there was no room for them here.
    pub left_out: u64,
}

/// One look at the table's owner: size and rates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TableSample {
    /// New connections a second.
    pub new_per_second: f64,
    /// Connections that ended, a second.
    pub ended_per_second: f64,
}

/// See the module.
#[derive(Debug)]
pub struct LiveTable {
    chunks: Vec<Vec<Option<FlowRecord>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    most: usize,
    groups: FlowGroups,
    nat: NatPorts,
    occupancy: Occupancy,
    /// The owner's counters, those of `conntrack -S`.
    pub counters: CounterSums,
    /// Why packets were invalid, ignored or dropped, where the owner tells.
    pub reasons: CounterSums,
    /// Events so far: new, changed, ended.
    events: [u64; 3],
    events_at_sample: [u64; 3],
    rates: TableSample,
    epoch: u8,
    /// Connections that ended during a dump, which may name them still.
    ended_in_dump: HashMap<FlowKey, Option<u32>>,
    lost_in_dump: bool,
    metered: u64,
    state: FeedState,
    owners: Option<OwnerIndex>,
    /// When the first dump had ended.
    known_since: Duration,
}

/// Records of one chunk of memory, which fill two huge pages: a million records in ordinary ones are thirty thousand page faults.
const CHUNK: usize = (4 << 20) / size_of::<Option<FlowRecord>>();
/// Ends remembered during a dump; with more, another dump follows.
const MAX_ENDED_IN_DUMP: usize = 1 << 20;

impl LiveTable {
    /// An empty model with room for this many connections.
    pub fn new(most: usize) -> LiveTable {
        LiveTable {
            chunks: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            most: most.min(u32::MAX as usize),
            groups: FlowGroups::default(),
            nat: NatPorts::default(),
            occupancy: Occupancy::default(),
            counters: CounterSums::default(),
            reasons: CounterSums::default(),
            events: [0; 3],
            events_at_sample: [0; 3],
            rates: TableSample::default(),
            epoch: 0,
            ended_in_dump: HashMap::new(),
            lost_in_dump: false,
            metered: 0,
            state: FeedState::default(),
            owners: None,
            known_since: Duration::ZERO,
        }
    }

    /// Makes room for so many connections at once, instead of bit by bit while they come.
    pub fn reserve(&mut self, connections: usize) {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let more = connections.min(self.most).saturating_sub(self.index.len());
        self.index.reserve(more, |slot| at(chunks, *slot).map_or(0, |record| hasher.hash_one(record.key)));
    }

    /// A dump begins.
    pub fn begin_dump(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.ended_in_dump.clear();
        self.lost_in_dump = false;
        self.state.dumped = Some(0);
        self.state.left_out = 0;
    }

    /// A connection that the dump names.
    pub fn dump_flow(&mut self, flow: &CtFlow, now: Duration) {
        let Some(key) = FlowKey::of(flow) else { return };
        if let Some(dumped) = &mut self.state.dumped {
            *dumped += 1;
        }
        if self.ended_in_dump.get(&key).is_some_and(|id| id.is_none() || *id == flow.id) {
            return;
        }
        let hash = self.hasher.hash_one(key);
        match self.slot_at(hash, &key) {
            // The event is as new as the dump, or newer.
            Some(slot) if self.record(slot).is_some_and(|record| self.is_told_in_this_dump(record)) => {
                self.with_record(slot, now, |record| record.measure(flow.counters, now));
            }
            Some(slot) => {
                let epoch = self.epoch;
                self.with_record(slot, now, |record| {
                    record.merge(flow, now);
                    (record.epoch, record.is_newer_than_dump) = (epoch, false);
                });
            }
            None => self.insert((key, hash), flow, GroupChange::Found, now),
        }
    }

    /// The dump has ended: what it did not name has gone. Returns how many those were.
    pub fn end_dump(&mut self, now: Duration) -> usize {
        let epoch = self.epoch;
        let stale: Vec<u32> =
            self.records().filter(|(_, record)| record.epoch != epoch).map(|(slot, _)| slot).collect();
        for slot in &stale {
            self.remove(*slot, now);
        }
        self.ended_in_dump = HashMap::new();
        self.state.dumped = None;
        if self.state.dumps == 0 {
            self.known_since = now;
        }
        self.state.dumps += 1;
        self.state.is_complete = !self.lost_in_dump;
        self.state.error = None;
        stale.len()
    }

    /// The dump failed: nothing is concluded from what it did not name.
    pub fn abort_dump(&mut self, error: String) {
        self.ended_in_dump = HashMap::new();
        self.state.dumped = None;
        self.state.is_complete = false;
        self.state.error = Some(error);
    }

    /// An event.
    pub fn event(&mut self, kind: EventKind, flow: &CtFlow, now: Duration) {
        let Some(key) = FlowKey::of(flow) else { return };
        let [created, changed, ended] = &mut self.events;
        match kind {
            EventKind::New => *created += 1,
            EventKind::Update => *changed += 1,
            EventKind::Destroy => *ended += 1,
        }
        let hash = self.hasher.hash_one(key);
        let slot = self.slot_at(hash, &key);
        if kind == EventKind::Destroy {
            self.note_end(key, flow.id);
            let same = |record: &FlowRecord| record.id.is_none() || flow.id.is_none() || record.id == flow.id;
            if let Some(slot) = slot.filter(|slot| self.record(*slot).is_some_and(same)) {
                self.remove(slot, now);
            }
            return;
        }
        self.ended_in_dump.remove(&key);
        let epoch = self.epoch;
        let other = |record: &FlowRecord| kind == EventKind::New && record.id.is_some() && record.id != flow.id;
        match slot {
            Some(slot) if !self.record(slot).is_some_and(other) => self.with_record(slot, now, |record| {
                record.merge(flow, now);
                (record.epoch, record.is_newer_than_dump) = (epoch, true);
            }),
            old => {
                old.inspect(|slot| self.remove(*slot, now));
                let change = if kind == EventKind::New { GroupChange::Created } else { GroupChange::Found };
                self.insert((key, hash), flow, change, now);
                if let Some(record) = self.slot_at(hash, &key).and_then(|slot| self.record_mut(slot)) {
                    record.is_newer_than_dump = true;
                }
            }
        }
    }

    /// Events were lost: until the next dump has ended, connections may be missing, or shown that have gone.
    pub fn events_lost(&mut self, now: Duration) {
        self.state.overruns += 1;
        self.state.last_overrun = Some(now);
        self.state.is_complete = false;
        self.lost_in_dump = true;
    }

    /// Nothing can be read, and why.
    pub fn failed(&mut self, error: String) {
        self.state.error = Some(error);
        self.state.is_complete = false;
    }

    /// The owner's size of the table: once a second.
    pub fn sample(&mut self, sample: OccupancySample) {
        let before = self.occupancy.latest();
        self.occupancy.push(sample);
        let seconds = before.map_or(0.0, |before| sample.at.saturating_sub(before.at).as_secs_f64());
        if seconds > 0.0 {
            let [created, _, ended] = self.events;
            let [created_before, _, ended_before] = self.events_at_sample;
            self.rates.new_per_second = (created - created_before) as f64 / seconds;
            self.rates.ended_per_second = (ended - ended_before) as f64 / seconds;
        }
        self.events_at_sample = self.events;
    }

    /// How far it can be believed.
    pub fn state(&self) -> &FeedState {
        &self.state
    }

    /// Connections in the model.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Are packets and bytes counted, as far as the connections show it? `None` without connections.
    pub fn has_counts(&self) -> Option<bool> {
        (!self.is_empty()).then_some(self.metered > 0)
    }

    /// Connections begun and ended, a second.
    pub fn rates(&self) -> TableSample {
        self.rates
    }

    /// Events so far: new, changed, ended.
    pub fn event_counts(&self) -> [u64; 3] {
        self.events
    }

    /// The last look at the owner's size.
    pub fn latest(&self) -> Option<OccupancySample> {
        self.occupancy.latest()
    }

    /// The last quarter of an hour, a sample a second.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &OccupancySample> + ExactSizeIterator {
        self.occupancy.seconds()
    }

    /// The last day, a sample a minute.
    pub fn long_history(&self) -> impl DoubleEndedIterator<Item = &OccupancySample> + ExactSizeIterator {
        self.occupancy.minutes()
    }

    /// When it is full.
    pub fn time_to_full(&self) -> TimeToFull {
        self.occupancy.time_to_full()
    }

    /// Connections by protocol number and state.
    pub fn states(&self) -> impl Iterator<Item = (u8, FlowState, u64)> {
        self.groups.states()
    }

    /// The largest groups.
    pub fn groups(&self, by: GroupBy, most: usize, now: Duration) -> Vec<GroupRow> {
        self.groups.largest(by, most, now)
    }

    /// How many groups there are.
    pub fn group_count(&self, by: GroupBy) -> usize {
        self.groups.len(by)
    }

    /// Connections by namespace and by container; `None` until this machine's sockets have been read. It reads the whole table: do it as often as its cost allows.
    pub fn owner_groups(&self, now: Duration) -> Option<OwnerGroups> {
        let owners = self.owners.as_ref()?;
        // Until a dump has ended nobody knows what is new.
        let known_since = if self.state.dumps == 0 { now } else { self.known_since };
        Some(owner_groups::count(self.records().map(|(_, record)| record), owners, known_since, now))
    }

    /// Takes a new picture of who owns what.
    pub fn set_owners(&mut self, owners: OwnerIndex) {
        self.owners = Some(owners);
    }

    /// Ports in use by source NAT.
    pub fn nat_ports(&self) -> Vec<NatPortUse> {
        self.nat.by_protocol()
    }

    /// A page of connections. It reads the whole table: do it as often as its cost allows.
    pub fn page(&self, query: &PageQuery<'_>, now: Duration) -> TablePage {
        page::select(self.records(), |slot| self.record(slot), query, now)
    }

    /// One connection.
    pub fn find(&self, key: &FlowKey, now: Duration) -> Option<FlowRow> {
        self.slot_of(key).and_then(|slot| self.record(slot)).map(|record| page::row(record, now))
    }

    fn is_told_in_this_dump(&self, record: &FlowRecord) -> bool {
        record.epoch == self.epoch && record.is_newer_than_dump
    }

    fn note_end(&mut self, key: FlowKey, id: Option<u32>) {
        if self.state.dumped.is_none() {
            return;
        }
        if self.ended_in_dump.len() >= MAX_ENDED_IN_DUMP {
            self.lost_in_dump = true;
            return;
        }
        self.ended_in_dump.insert(key, id);
    }

    /// Enters a connection, whose key comes with its hash.
    fn insert(&mut self, (key, hash): (FlowKey, u64), flow: &CtFlow, change: GroupChange, now: Duration) {
        if self.index.len() >= self.most {
            self.state.left_out += 1;
            return;
        }
        let mut record = FlowRecord::new(key, flow, now);
        record.epoch = self.epoch;
        self.groups.count(&record, change, now);
        record.source_nat().inspect(|reply| self.nat.add(reply));
        self.metered += u64::from(record.meter.is_some());
        let slot = self.place(record);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| at(chunks, *slot).map_or(0, |record| hasher.hash_one(record.key)));
    }

    fn place(&mut self, record: FlowRecord) -> u32 {
        if let Some(slot) = self.free.pop() {
            if let Some(free) = at_mut(&mut self.chunks, slot) {
                *free = Some(record);
            }
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return u32::MAX };
        chunk.push(Some(record));
        u32::try_from(full + chunk.len() - 1).unwrap_or(u32::MAX)
    }

    fn remove(&mut self, slot: u32, now: Duration) {
        let Some(record) = at_mut(&mut self.chunks, slot).and_then(Option::take) else { return };
        self.free.push(slot);
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(record.key), |there| *there == slot) {
            entry.remove();
        }
        self.groups.count(&record, GroupChange::Gone, now);
        record.source_nat().inspect(|reply| self.nat.remove(reply));
        self.metered -= u64::from(record.meter.is_some());
    }

    /// Changes a record, and what is counted of it.
    fn with_record(&mut self, slot: u32, now: Duration, change: impl FnOnce(&mut FlowRecord)) {
        let Some(Some(record)) = at_mut(&mut self.chunks, slot) else { return };
        let (facts, nat, metered) = (GroupFacts::of(record), record.source_nat().copied(), record.meter.is_some());
        change(record);
        self.groups.change(record, facts, now);
        if record.source_nat() != nat.as_ref() {
            nat.inspect(|reply| self.nat.remove(reply));
            record.source_nat().inspect(|reply| self.nat.add(reply));
        }
        self.metered += u64::from(record.meter.is_some() && !metered);
    }

    fn slot_of(&self, key: &FlowKey) -> Option<u32> {
        self.slot_at(self.hasher.hash_one(key), key)
    }

    fn slot_at(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let same = |slot: &u32| at(&self.chunks, *slot).is_some_and(|record| record.key == *key);
        self.index.find(hash, same).copied()
    }

    fn record(&self, slot: u32) -> Option<&FlowRecord> {
        at(&self.chunks, slot)
    }

    fn record_mut(&mut self, slot: u32) -> Option<&mut FlowRecord> {
        at_mut(&mut self.chunks, slot)?.as_mut()
    }

    fn records(&self) -> impl Iterator<Item = (u32, &FlowRecord)> {
        let all = self.chunks.iter().flatten();
        (0..).zip(all).filter_map(|(slot, record)| Some((slot, record.as_ref()?)))
    }
}

fn at(chunks: &[Vec<Option<FlowRecord>>], slot: u32) -> Option<&FlowRecord> {
    let slot = slot as usize;
    chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
}

fn at_mut(chunks: &mut [Vec<Option<FlowRecord>>], slot: u32) -> Option<&mut Option<FlowRecord>> {
    let slot = slot as usize;
    chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
}
