//! What a table went through: its occupancy over time by state, when it was full, what was dropped and what left.
//!
//! A record is begun with an engine, told after each step what happened, and read at the end. It samples at even intervals; where the end
//! is not known (a capture), the interval doubles whenever there are too many samples, so that memory stays the same however long it lasts.
use keepstate_engine::{Engine, Entry, EventMask, Instant, Knob, ProtocolInfo, SctpState, Status, TcpState};
use serde::Serialize;

/// Kinds of connections, as a histogram tells them apart: TCP's states, SCTP's, and the rest by whether they were answered.
pub const KINDS: usize = TCP + SCTP + 2;
const TCP: usize = TcpState::ALL.len();
const SCTP: usize = SctpState::ALL.len();

/// Connections by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; KINDS]);

/// The table at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds from the beginning.
    pub at: u64,
    /// `nf_conntrack_count`.
    pub connections: u64,
    /// Of these, those that a full table may not push out.
    pub assured: u64,
    /// By kind.
    pub kinds: Histogram,
    /// Packets dropped for want of room since the beginning.
    pub dropped: u64,
    /// Connections pushed out to make room since the beginning (early drop).
    pub early: u64,
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Record {
    interval: u64,
    next: u64,
    bounded: bool,
    /// The samples, first to last.
    pub samples: Vec<Sample>,
    /// The most connections there ever were, and when first.
    pub peak: (u64, u64),
    /// When the table was full for the first time.
    pub filled: Option<u64>,
    /// When the first packet was dropped for want of room.
    pub first_drop: Option<u64>,
    /// What was pushed out to make room, or ended early once there had been none.
    pub pushed_out: Histogram,
    /// What expired.
    pub expired: Histogram,
    limit: u64,
    drops: u64,
    early: u64,
}

/// Samples a record has at least, once it is long enough, and at most twice as many.
pub const SAMPLES: u64 = 120;
/// Destroyed connections that may wait to be told.
const EVENTS: usize = 1 << 20;
const MILLISECOND: u64 = 1_000_000;

impl Record {
    /// A record of `engine` for a known duration (milliseconds), or for as long as it takes. It listens to the engine's events: nobody else may.
    pub fn new(engine: &mut Engine, duration: Option<u64>) -> Record {
        engine.listen(EventMask { destroy: true, ..EventMask::default() }, EVENTS);
        let interval = duration.map_or(FIRST_INTERVAL, |duration| (duration / SAMPLES).max(1));
        Record {
            interval,
            next: 0,
            bounded: duration.is_some(),
            samples: Vec::new(),
            peak: (0, 0),
            filled: None,
            first_drop: None,
            pushed_out: Histogram::default(),
            expired: Histogram::default(),
            limit: u64::from(engine.knobs()[Knob::Max]),
            drops: 0,
            early: 0,
        }
    }

    /// When the next sample is due, in milliseconds from the beginning.
    pub fn due(&self) -> u64 {
        self.next
    }

    /// Takes note of what the engine did at `at` with a packet.
    #[inline]
    pub fn note(&mut self, engine: &mut Engine, at: u64) {
        self.take(engine, at, Cause::Packet);
    }

    /// Takes note of what the engine did at `at` when it was polled.
    pub fn polled(&mut self, engine: &mut Engine, at: u64) {
        self.take(engine, at, Cause::Poll);
    }

    fn take(&mut self, engine: &mut Engine, at: u64, cause: Cause) {
        let count = engine.count() as u64;
        if count > self.peak.0 {
            self.peak = (count, at);
            if self.filled.is_none() && self.limit > 0 && count >= self.limit {
                self.filled = Some(at);
            }
        }
        let counters = engine.counters();
        let early = counters.early_drop;
        if counters.drop != self.drops {
            self.drops = counters.drop;
            self.first_drop.get_or_insert(at);
        }
        while let Some(event) = engine.poll_event() {
            // A packet may end a connection in its own right (a new one on its tuple, a RST): nobody pushed that one out.
            let (pushed, expired) = match cause {
                Cause::Packet => (early != self.early, event.entry.timeout == 0),
                Cause::Poll => (event.entry.timeout > 0, true),
            };
            if pushed {
                self.pushed_out.add(&event.entry);
            } else if expired {
                self.expired.add(&event.entry);
            }
        }
        self.early = early;
    }

    /// Takes the sample that was due; `now` is that moment on the engine's clock.
    pub fn sample(&mut self, engine: &Engine, now: Instant) {
        let mut sample = Sample {
            at: self.next,
            connections: engine.count() as u64,
            assured: 0,
            kinds: Histogram::default(),
            dropped: engine.counters().drop,
            early: engine.counters().early_drop,
        };
        for entry in engine.entries(now) {
            sample.assured += u64::from(entry.status.has(Status::ASSURED));
            sample.kinds.add(&entry);
        }
        self.samples.push(sample);
        self.next = self.next.saturating_add(self.interval);
        if !self.bounded && self.samples.len() as u64 > 2 * SAMPLES {
            self.interval *= 2;
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.next = self.samples.last().map_or(0, |last| last.at + self.interval);
        }
    }

    /// Milliseconds between samples.
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// The limit it stood against; 0: none.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The sample with the most connections.
    pub fn fullest(&self) -> Option<&Sample> {
        self.samples.iter().max_by_key(|sample| sample.connections)
    }
}

/// When something left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Packet,
    Poll,
}

/// Milliseconds between the first samples of a record without a known end.
const FIRST_INTERVAL: u64 = 10;

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; KINDS])
    }
}

impl Histogram {
    /// Counts one more.
    pub fn add(&mut self, entry: &Entry) {
        let kind = match entry.protocol {
            ProtocolInfo::Tcp { state, .. } => state as usize,
            ProtocolInfo::Sctp { state, .. } => TCP + state as usize,
            _ if entry.status.has(Status::SEEN_REPLY) => TCP + SCTP,
            _ => TCP + SCTP + 1,
        };
        if let Some(count) = self.0.get_mut(kind) {
            *count += 1;
        }
    }

    /// What a place of the histogram is called: TCP's states by their own names.
    pub fn name(kind: usize) -> String {
        match (TcpState::ALL.get(kind), kind.checked_sub(TCP).and_then(|kind| SctpState::ALL.get(kind))) {
            (Some(state), _) => state.name().to_owned(),
            (None, Some(state)) => format!("SCTP_{}", state.name()),
            (None, None) if kind == TCP + SCTP => "OTHER_REPLIED".to_owned(),
            (None, None) => "OTHER_UNREPLIED".to_owned(),
        }
    }

    /// The kinds there are, most first.
    pub fn present(&self) -> Vec<(String, u64)> {
        let kinds = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut present: Vec<(String, u64)> = kinds.map(|(kind, count)| (Histogram::name(kind), *count)).collect();
        present.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        present
    }

    /// All together.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.present())
    }
}

impl Serialize for Sample {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut sample = serializer.serialize_struct("Sample", 6)?;
        sample.serialize_field("seconds", &(self.at as f64 / 1e3))?;
        sample.serialize_field("connections", &self.connections)?;
        sample.serialize_field("assured", &self.assured)?;
        sample.serialize_field("by_state", &self.kinds)?;
        sample.serialize_field("dropped", &self.dropped)?;
        sample.serialize_field("early_dropped", &self.early)?;
        sample.end()
    }
}

/// An engine's clock at so many milliseconds from the beginning.
pub fn instant(milliseconds: u64) -> Instant {
    Instant(milliseconds.saturating_mul(MILLISECOND))
}
