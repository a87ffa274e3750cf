//! Frames through the engine, on the clock of their own timestamps: what `replay` and `watch` have in common.
//!
//! A follower owns the engine and the reassembler. Frames come in order; time never goes back, and whatever expires between two frames expires at
//! its own time. Frames may be given one by one, each with its result, or queued and handled by batches.
use crate::Frame;
use keepstate_engine::{Engine, Instant, Knob, Knobs, Outcome, Secret, Zone};
use keepstate_wire::link::{self, LinkType};
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
use keepstate_wire::{Family, Fate, Packet, Refusal};

/// What became of one frame.
#[derive(Clone, Copy, Debug)]
pub enum Passed {
    /// It was tracked.
    Tracked(Outcome),
    /// It is a fragment, and others of its datagram are missing.
    Waiting,
    /// It could not be tracked.
    Refused(Refusal),
}

/// Frames handled together.
const BATCH: usize = 32;
/// Times closer than this fall into one tick of the engine's timers.
const TICK_NANOS: u64 = 4_000_000;

/// The year 2262. A capture may claim later times, but the engine's timers need some future to expire in.
const LATEST: Instant = Instant(i64::MAX.cast_unsigned());

/// See the module's words.
pub struct Follower {
    engine: Engine,
    reassembler: Reassembler,
    whole: Vec<u8>,
    now: Instant,
    queue: Queue,
    outcomes: Vec<Outcome>,
    /// The latest time of a frame, and how many frames were older.
    latest: u64,
    stale: u64,
    unknown_link: Option<LinkType>,
    /// Frames seen.
    pub frames: u64,
}

/// Datagrams waiting for their batch, side by side in one buffer.
#[derive(Default)]
struct Queue {
    octets: Vec<u8>,
    /// Beginning, end, length on the wire.
    places: Vec<(usize, usize, usize)>,
}

impl Follower {
    /// A follower with an empty table.
    pub fn new(knobs: Knobs, secret: [u8; 16]) -> Follower {
        let limits = Limits {
            memory: knobs[Knob::Frag6HighThresh] as usize,
            timeout_v6: u64::from(knobs[Knob::Frag6Timeout]) * 1_000_000_000,
            ..Limits::default()
        };
        let (first, second) = secret.split_at(8);
        let half = |octets: &[u8]| octets.iter().fold(0, |word: u64, octet| word.rotate_left(8) ^ u64::from(*octet));
        Follower {
            engine: Engine::new(knobs, Secret(secret), Instant(0)),
            reassembler: Reassembler::new((!half(first), !half(second)), limits),
            whole: Vec::new(),
            now: Instant(0),
            latest: 0,
            stale: 0,
            unknown_link: None,
            queue: Queue::default(),
            outcomes: Vec::with_capacity(BATCH),
            frames: 0,
        }
    }

    /// The engine: its table, counters and events.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to listen and to poll.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The time, by the frames seen.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Moves the clock; what expires on the way expires at its own time.
    pub fn advance(&mut self, to: Instant) {
        let to = to.min(LATEST);
        if self.now == Instant(0) {
            // The first frame's time is the beginning of time.
            self.now = to;
        }
        while let Some(wake) = self.engine.next_wake(self.now).filter(|wake| *wake <= to) {
            self.now = self.now.max(wake);
            self.engine.poll(self.now);
        }
        self.now = self.now.max(to);
    }

    /// A frame's time: the clock moves to it, but never back.
    fn stamp(&mut self, time: u64) {
        self.stale += u64::from(time < self.latest);
        self.latest = self.latest.max(time);
    }

    /// Frames that were older than one before them; they were tracked as if they had come at its time.
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// The link type of the last frame whose link type is not known.
    pub fn unknown_link(&self) -> Option<LinkType> {
        self.unknown_link
    }

    /// Takes one frame at once.
    pub fn take(&mut self, frame: &Frame<'_>) -> Passed {
        self.flush();
        self.frames += 1;
        frame.time.into_iter().for_each(|time| self.stamp(time));
        if let Some(time) = frame.time {
            self.advance(Instant(time));
        }
        let parsed = link::datagram(frame.link, frame.data)
            .and_then(|network| Packet::parse_snapped(network.datagram, frame.wire_len.saturating_sub(network.offset)));
        match parsed {
            Ok(packet) => self.track(&packet),
            Err(refusal) => self.refuse_frame(frame, refusal),
        }
    }

    /// Queues one frame; it is handled with its batch, or by [`Follower::flush`].
    pub fn queue(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        frame.time.into_iter().for_each(|time| self.stamp(time));
        if let Some(time) = frame.time.filter(|time| *time / TICK_NANOS != self.now.0 / TICK_NANOS) {
            self.flush();
            self.advance(Instant(time));
        }
        match link::datagram(frame.link, frame.data) {
            Ok(network) => {
                let begin = self.queue.octets.len();
                self.queue.octets.extend_from_slice(network.datagram);
                let wire_len = frame.wire_len.saturating_sub(network.offset);
                self.queue.places.push((begin, self.queue.octets.len(), wire_len));
            }
            Err(refusal) => drop(self.refuse_frame(frame, refusal)),
        }
        if self.queue.places.len() == BATCH {
            self.flush();
        }
    }

    /// Handles what is queued.
    pub fn flush(&mut self) {
        let mut queue = core::mem::take(&mut self.queue);
        {
            let mut batch = [const { None::<Packet<'_>> }; BATCH];
            let mut length = 0;
            for (begin, end, wire_len) in &queue.places {
                let octets = queue.octets.get(*begin..*end).unwrap_or_default();
                match Packet::parse_snapped(octets, *wire_len) {
                    Ok(packet) if packet.fragment().is_none() => {
                        batch[length] = Some(packet);
                        length += 1;
                    }
                    other => {
                        self.handle(&batch[..length]);
                        length = 0;
                        match other {
                            Ok(fragment) => self.track(&fragment),
                            Err(refusal) => self.refuse(refusal),
                        };
                    }
                }
            }
            self.handle(&batch[..length]);
        }
        queue.octets.clear();
        queue.places.clear();
        self.queue = queue;
    }

    fn handle(&mut self, batch: &[Option<Packet<'_>>]) {
        let Some(first) = batch.first().copied().flatten() else { return };
        let mut packets = [first; BATCH];
        for (place, packet) in packets.iter_mut().zip(batch.iter().flatten()) {
            *place = *packet;
        }
        self.engine.handle_batch(&packets[..batch.len().min(BATCH)], self.now, &mut self.outcomes);
    }

    /// Tracks a packet; a fragment only when its datagram is whole.
    fn track(&mut self, packet: &Packet<'_>) -> Passed {
        if packet.fragment().is_none() {
            return Passed::Tracked(self.engine.handle(packet, Zone::default(), self.now));
        }
        let mut whole = core::mem::take(&mut self.whole);
        let reassembled = match self.reassembler.push(packet, self.now.0, &mut whole) {
            Ok(Reassembly::Waiting) => Ok(None),
            Ok(Reassembly::Whole(_)) => Packet::parse_reassembled(&whole).map(Some),
            // IPv6 reassembly lets it go on as it is, and so tracking sees the fragment itself.
            Err(refusal) if refusal.fate() == Fate::Passed && packet.family() == Family::V6 => {
                Packet::parse_reassembled(packet.bytes()).map(Some)
            }
            Err(refusal) => Err(refusal),
        };
        let passed = match reassembled {
            Ok(Some(packet)) => Passed::Tracked(self.engine.handle(&packet, Zone::default(), self.now)),
            Ok(None) => Passed::Waiting,
            Err(refusal) => self.refuse(refusal),
        };
        self.whole = whole;
        passed
    }

    fn refuse_frame(&mut self, frame: &Frame<'_>, refusal: Refusal) -> Passed {
        if refusal == Refusal::LinkUnknown {
            self.unknown_link = Some(frame.link);
        }
        self.refuse(refusal)
    }

    fn refuse(&mut self, refusal: Refusal) -> Passed {
        self.engine.refuse(refusal);
        Passed::Refused(refusal)
    }
}
