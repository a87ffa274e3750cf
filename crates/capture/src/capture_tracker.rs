//! Frames through the engine, on the clock of their own timestamps: what `replay` and `watch` have in common.
//!
//! A follower owns the engine and the reassembler. Frames come in order; time never goes back, and whatever expires between two frames expires at
//! its own time. Frames may be given one by one, each with its result, or queued and handled by batches.
use crate::Frame;
use keepstate_engine::{Engine, Instant, Outcome, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::link::{self, LinkType};
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{Family, LinuxAction, Packet, ParseError};

/// What became of one frame.
#[derive(Clone, Copy, Debug)]
pub enum FrameResult {
    /// It was tracked.
    Tracked(Outcome),
    /// It is a fragment, and others of its datagram are missing.
    FragmentQueued,
    /// It could not be tracked.
    Rejected(ParseError),
}

/// Frames handled together.
const BATCH: usize = 32;
/// Times closer than this fall into one tick of the engine's timers.
const TICK_NANOS: u64 = 4_000_000;

/// The year 2262. A capture may claim later times, but the engine's timers need some future to expire in.
const MAX_TIME: Instant = Instant(i64::MAX.cast_unsigned());

/// See the module's words.
pub struct CaptureTracker {
    engine: Engine,
    reassembler: Reassembler,
    reassembled: Vec<u8>,
    now: Instant,
    queue: PacketQueue,
    outcomes: Vec<Outcome>,
    /// The latest time of a frame, and how many frames were older.
    latest_time: u64,
    out_of_order: u64,
    unknown_link_type: Option<LinkType>,
    /// Frames seen.
    pub frame_count: u64,
}

/// Datagrams waiting for their batch, side by side in one buffer.
#[derive(Default)]
struct PacketQueue {
    bytes: Vec<u8>,
    /// Beginning, end, length on the wire.
    ranges: Vec<(usize, usize, usize)>,
}

impl CaptureTracker {
    /// A follower with an empty table.
    pub fn new(knobs: Sysctls, secret: [u8; 16]) -> CaptureTracker {
        let limits = ReassemblyLimits {
            high_thresh: knobs[Sysctl::Frag6HighThresh] as usize,
            timeout_v6: u64::from(knobs[Sysctl::Frag6Timeout]) * 1_000_000_000,
            ..ReassemblyLimits::default()
        };
        let (first, second) = secret.split_at(8);
        let half = |octets: &[u8]| octets.iter().fold(0, |word: u64, octet| word.rotate_left(8) ^ u64::from(*octet));
        CaptureTracker {
            engine: Engine::new(knobs, Secret(secret), Instant(0)),
            reassembler: Reassembler::new((!half(first), !half(second)), limits),
            reassembled: Vec::new(),
            now: Instant(0),
            latest_time: 0,
            out_of_order: 0,
            unknown_link_type: None,
            queue: PacketQueue::default(),
            outcomes: Vec::with_capacity(BATCH),
            frame_count: 0,
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
        let to = to.min(MAX_TIME);
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
    fn update_latest_time(&mut self, time: u64) {
        self.out_of_order += u64::from(time < self.latest_time);
        self.latest_time = self.latest_time.max(time);
    }

    /// Frames that were older than one before them; they were tracked as if they had come at its time.
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// The link type of the last frame whose link type is not known.
    pub fn unknown_link_type(&self) -> Option<LinkType> {
        self.unknown_link_type
    }

    /// Takes one frame at once.
    pub fn track_frame(&mut self, frame: &Frame<'_>) -> FrameResult {
        self.flush();
        self.frame_count += 1;
        frame.time.into_iter().for_each(|time| self.update_latest_time(time));
        if let Some(time) = frame.time {
            self.advance(Instant(time));
        }
        let parsed = link::strip_link_header(frame.link, frame.data)
            .and_then(|network| Packet::parse_snapped(network.packet, frame.wire_len.saturating_sub(network.offset)));
        match parsed {
            Ok(packet) => self.track_packet(&packet),
            Err(refusal) => self.reject_frame(frame, refusal),
        }
    }

    /// Queues one frame; it is handled with its batch, or by [`Follower::flush`].
    pub fn queue_frame(&mut self, frame: &Frame<'_>) {
        self.frame_count += 1;
        frame.time.into_iter().for_each(|time| self.update_latest_time(time));
        if let Some(time) = frame.time.filter(|time| *time / TICK_NANOS != self.now.0 / TICK_NANOS) {
            self.flush();
            self.advance(Instant(time));
        }
        match link::strip_link_header(frame.link, frame.data) {
            Ok(network) => {
                let begin = self.queue.bytes.len();
                self.queue.bytes.extend_from_slice(network.packet);
                let wire_len = frame.wire_len.saturating_sub(network.offset);
                self.queue.ranges.push((begin, self.queue.bytes.len(), wire_len));
            }
            Err(refusal) => drop(self.reject_frame(frame, refusal)),
        }
        if self.queue.ranges.len() == BATCH {
            self.flush();
        }
    }

    /// Handles what is queued.
    pub fn flush(&mut self) {
        let mut queue = core::mem::take(&mut self.queue);
        {
            let mut batch = [const { None::<Packet<'_>> }; BATCH];
            let mut length = 0;
            for (begin, end, wire_len) in &queue.ranges {
                let octets = queue.bytes.get(*begin..*end).unwrap_or_default();
                match Packet::parse_snapped(octets, *wire_len) {
                    Ok(packet) if packet.fragment().is_none() => {
                        batch[length] = Some(packet);
                        length += 1;
                    }
                    other => {
                        self.handle_batch(&batch[..length]);
                        length = 0;
                        match other {
                            Ok(fragment) => self.track_packet(&fragment),
                            Err(refusal) => self.reject(refusal),
                        };
                    }
                }
            }
            self.handle_batch(&batch[..length]);
        }
        queue.bytes.clear();
        queue.ranges.clear();
        self.queue = queue;
    }

    fn handle_batch(&mut self, batch: &[Option<Packet<'_>>]) {
        let Some(first) = batch.first().copied().flatten() else { return };
        let mut packets = [first; BATCH];
        for (place, packet) in packets.iter_mut().zip(batch.iter().flatten()) {
            *place = *packet;
        }
        self.engine.handle_batch(&packets[..batch.len().min(BATCH)], self.now, &mut self.outcomes);
    }

    /// Tracks a packet; a fragment only when its datagram is whole.
    fn track_packet(&mut self, packet: &Packet<'_>) -> FrameResult {
        if packet.fragment().is_none() {
            return FrameResult::Tracked(self.engine.handle(packet, Zone::default(), self.now));
        }
        let mut whole = core::mem::take(&mut self.reassembled);
        let reassembled = match self.reassembler.push(packet, self.now.0, &mut whole) {
            Ok(Reassembly::Incomplete) => Ok(None),
            Ok(Reassembly::Complete(_)) => Packet::parse_reassembled(&whole).map(Some),
            // IPv6 reassembly lets it go on as it is, and so tracking sees the fragment itself.
            Err(refusal)
                if refusal.linux_action() == LinuxAction::PassedUnassembled && packet.family() == Family::V6 =>
            {
                Packet::parse_reassembled(packet.bytes()).map(Some)
            }
            Err(refusal) => Err(refusal),
        };
        let passed = match reassembled {
            Ok(Some(packet)) => FrameResult::Tracked(self.engine.handle(&packet, Zone::default(), self.now)),
            Ok(None) => FrameResult::FragmentQueued,
            Err(refusal) => self.reject(refusal),
        };
        self.reassembled = whole;
        passed
    }

    fn reject_frame(&mut self, frame: &Frame<'_>, refusal: ParseError) -> FrameResult {
        if refusal == ParseError::LinkUnknown {
            self.unknown_link_type = Some(frame.link);
        }
        self.reject(refusal)
    }

    fn reject(&mut self, refusal: ParseError) -> FrameResult {
        self.engine.count_parse_error(refusal);
        FrameResult::Rejected(refusal)
    }
}
