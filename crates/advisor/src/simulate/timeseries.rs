//! The entries of a table over time by state, when it was full, what was dropped, evicted and expired.
//!
//! A [`Timeseries`] starts with an engine, records each step, and is read at the end. It samples at even intervals; if the end is not
//! known (a capture), the interval doubles whenever there are too many samples, so that its memory is bounded.
use keepstate_engine::{Engine, Entry, EventMask, Instant, ProtocolInfo, SctpState, Status, Sysctl, TcpState};
use serde::Serialize;

/// Number of kinds of connections: TCP's states, SCTP's states, and the rest by replied or unreplied.
pub const STATE_COUNT: usize = TCP_STATES + SCTP_STATES + 2;
const TCP_STATES: usize = TcpState::ALL.len();
const SCTP_STATES: usize = SctpState::ALL.len();

/// Connections by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHistogram(pub [u64; STATE_COUNT]);

/// The table at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeseriesSample {
    /// Milliseconds from the beginning.
    pub at: u64,
    /// `nf_conntrack_count`.
    pub connections: u64,
    /// ASSURED entries: not evicted when the table is full.
    pub assured: u64,
    /// By kind.
    pub by_state: StateHistogram,
    /// Packets dropped because the table was full, since the beginning.
    pub dropped: u64,
    /// Entries evicted since the beginning (early_drop).
    pub early_dropped: u64,
}

/// The recorded time series; see the module.
#[derive(Clone, Debug)]
pub struct Timeseries {
    interval: u64,
    next_sample_at: u64,
    bounded: bool,
    /// The samples, first to last.
    pub samples: Vec<TimeseriesSample>,
    /// The peak number of connections, and when it was first reached.
    pub peak: (u64, u64),
    /// When the table was full for the first time.
    pub full_at: Option<u64>,
    /// When the first packet was dropped because the table was full.
    pub first_drop: Option<u64>,
    /// Entries evicted by early_drop.
    pub early_dropped: StateHistogram,
    /// Entries that expired.
    pub expired: StateHistogram,
    limit: u64,
    last_drop_count: u64,
    last_early_drop_count: u64,
}

/// The least number of samples of a long series; the most is twice as many.
pub const MIN_SAMPLES: u64 = 120;
/// Capacity of the engine's event queue.
const EVENT_QUEUE_LEN: usize = 1 << 20;
const MILLISECOND: u64 = 1_000_000;

impl Timeseries {
    /// A time series of `engine` for a known duration in milliseconds, or without a known end. It reads the engine's events: nothing else may.
    pub fn new(engine: &mut Engine, duration: Option<u64>) -> Timeseries {
        engine.subscribe(EventMask { destroy: true, ..EventMask::default() }, EVENT_QUEUE_LEN);
        let interval = duration.map_or(FIRST_INTERVAL, |duration| (duration / MIN_SAMPLES).max(1));
        Timeseries {
            interval,
            next_sample_at: 0,
            bounded: duration.is_some(),
            samples: Vec::new(),
            peak: (0, 0),
            full_at: None,
            first_drop: None,
            early_dropped: StateHistogram::default(),
            expired: StateHistogram::default(),
            limit: u64::from(engine.sysctls()[Sysctl::Max]),
            last_drop_count: 0,
            last_early_drop_count: 0,
        }
    }

    /// When the next sample is due, in milliseconds from the beginning.
    pub fn next_sample_at(&self) -> u64 {
        self.next_sample_at
    }

    /// Records what the engine did with a packet at `at`.
    #[inline]
    pub fn record_packet(&mut self, engine: &mut Engine, at: u64) {
        self.record_events(engine, at, DestroyTrigger::Packet);
    }

    /// Records what the engine did when polled at `at`.
    pub fn record_poll(&mut self, engine: &mut Engine, at: u64) {
        self.record_events(engine, at, DestroyTrigger::Poll);
    }

    fn record_events(&mut self, engine: &mut Engine, at: u64, cause: DestroyTrigger) {
        let count = engine.count() as u64;
        if count > self.peak.0 {
            self.peak = (count, at);
            if self.full_at.is_none() && self.limit > 0 && count >= self.limit {
                self.full_at = Some(at);
            }
        }
        let counters = engine.counters();
        let early = counters.early_drop;
        if counters.drop != self.last_drop_count {
            self.last_drop_count = counters.drop;
            self.first_drop.get_or_insert(at);
        }
        while let Some(event) = engine.poll_event() {
            // A packet may end a connection itself (a new one on its tuple, a RST): that is not an eviction.
            let (pushed, expired) = match cause {
                DestroyTrigger::Packet => (early != self.last_early_drop_count, event.entry.timeout == 0),
                DestroyTrigger::Poll => (event.entry.timeout > 0, true),
            };
            if pushed {
                self.early_dropped.add(&event.entry);
            } else if expired {
                self.expired.add(&event.entry);
            }
        }
        self.last_early_drop_count = early;
    }

    /// Takes the sample that is due; `now` is its time on the engine's clock.
    pub fn take_sample(&mut self, engine: &Engine, now: Instant) {
        let mut sample = TimeseriesSample {
            at: self.next_sample_at,
            connections: engine.count() as u64,
            assured: 0,
            by_state: StateHistogram::default(),
            dropped: engine.counters().drop,
            early_dropped: engine.counters().early_drop,
        };
        for entry in engine.entries(now) {
            sample.assured += u64::from(entry.status.contains(Status::ASSURED));
            sample.by_state.add(&entry);
        }
        self.samples.push(sample);
        self.next_sample_at = self.next_sample_at.saturating_add(self.interval);
        if !self.bounded && self.samples.len() as u64 > 2 * MIN_SAMPLES {
            self.interval *= 2;
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.next_sample_at = self.samples.last().map_or(0, |last| last.at + self.interval);
        }
    }

    /// Milliseconds between samples.
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// The limit; 0 means unlimited.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The sample with the most connections.
    pub fn peak_sample(&self) -> Option<&TimeseriesSample> {
        self.samples.iter().max_by_key(|sample| sample.connections)
    }
}

/// Why an entry left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DestroyTrigger {
    Packet,
    Poll,
}

/// Milliseconds between the first samples of a series without a known end.
const FIRST_INTERVAL: u64 = 10;

impl Default for StateHistogram {
    fn default() -> Self {
        StateHistogram([0; STATE_COUNT])
    }
}

impl StateHistogram {
    /// Counts one more.
    pub fn add(&mut self, entry: &Entry) {
        let kind = match entry.protocol {
            ProtocolInfo::Tcp { state, .. } => state as usize,
            ProtocolInfo::Sctp { state, .. } => TCP_STATES + state as usize,
            _ if entry.status.contains(Status::SEEN_REPLY) => TCP_STATES + SCTP_STATES,
            _ => TCP_STATES + SCTP_STATES + 1,
        };
        if let Some(count) = self.0.get_mut(kind) {
            *count += 1;
        }
    }

    /// The name of a kind.
    pub fn name(kind: usize) -> String {
        match (TcpState::ALL.get(kind), kind.checked_sub(TCP_STATES).and_then(|kind| SctpState::ALL.get(kind))) {
            (Some(state), _) => state.name().to_owned(),
            (None, Some(state)) => format!("SCTP_{}", state.name()),
            (None, None) if kind == TCP_STATES + SCTP_STATES => "OTHER_REPLIED".to_owned(),
            (None, None) => "OTHER_UNREPLIED".to_owned(),
        }
    }

    /// The kinds that are not zero, the most frequent first.
    pub fn nonzero(&self) -> Vec<(String, u64)> {
        let kinds = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut present: Vec<(String, u64)> = kinds.map(|(kind, count)| (StateHistogram::name(kind), *count)).collect();
        present.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        present
    }

    /// The sum.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Serialize for StateHistogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.nonzero())
    }
}

impl Serialize for TimeseriesSample {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut sample = serializer.serialize_struct("Sample", 6)?;
        sample.serialize_field("seconds", &(self.at as f64 / 1e3))?;
        sample.serialize_field("connections", &self.connections)?;
        sample.serialize_field("assured", &self.assured)?;
        sample.serialize_field("by_state", &self.by_state)?;
        sample.serialize_field("dropped", &self.dropped)?;
        sample.serialize_field("early_dropped", &self.early_dropped)?;
        sample.end()
    }
}

/// The engine's clock at this many milliseconds from the beginning.
pub fn engine_instant(milliseconds: u64) -> Instant {
    Instant(milliseconds.saturating_mul(MILLISECOND))
}
