//! A passive tracker: frames tracked by the engine, on the clock of their own timestamps.
//!
//! A [`CaptureTracker`] owns the engine and the reassembler. Frames come in order. Time never goes back, and timeouts between two frames
//! expire at their own time. Frames are tracked one by one, each with its result, or queued and tracked in batches. No frame is changed
//! or sent.
use crate::frame::Frame;
use keepstate_engine::{Engine, Instant, Outcome, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::link::{self, LinkType};
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{Family, LinuxAction, Packet, ParseError};

/// The result of one frame.
#[derive(Clone, Copy, Debug)]
pub enum FrameResult {
    /// It was tracked.
    Tracked(Outcome),
    /// It is a fragment; others of its datagram are missing.
    FragmentQueued,
    /// It could not be parsed.
    Rejected(ParseError),
}

/// Frames in a batch.
const BATCH: usize = 32;
/// One tick of the engine's timers: frames within it share a batch.
const TICK_NANOS: u64 = 4_000_000;

/// The year 2262. A capture may have later times, but the engine's timers need room for timeouts after them.
const MAX_TIME: Instant = Instant(i64::MAX.cast_unsigned());

/// See the module.
pub struct CaptureTracker {
    engine: Engine,
    reassembler: Reassembler,
    reassembled: Vec<u8>,
    now: Instant,
    queue: PacketQueue,
    outcomes: Vec<Outcome>,
    /// The latest time of a frame, and the number of frames older than that.
    latest_time: u64,
    out_of_order: u64,
    unknown_link_type: Option<LinkType>,
    /// Frames seen.
    pub frame_count: u64,
}

/// Packets waiting for their batch, in one buffer.
#[derive(Default)]
struct PacketQueue {
    bytes: Vec<u8>,
    /// Start, end, length on the wire.
    ranges: Vec<(usize, usize, usize)>,
}

impl CaptureTracker {
    /// A tracker with an empty table.
    pub fn new(sysctls: Sysctls, secret: [u8; 16]) -> CaptureTracker {
        let limits = ReassemblyLimits {
            high_thresh: sysctls[Sysctl::Frag6HighThresh] as usize,
            timeout_v6: u64::from(sysctls[Sysctl::Frag6Timeout]) * 1_000_000_000,
            ..ReassemblyLimits::default()
        };
        let (first, second) = secret.split_at(8);
        let half = |bytes: &[u8]| bytes.iter().fold(0, |word: u64, byte| word.rotate_left(8) ^ u64::from(*byte));
        CaptureTracker {
            engine: Engine::new(sysctls, Secret(secret)),
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

    /// The engine, to subscribe to events and to poll.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The time of the frames seen.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Advances the clock; timeouts on the way expire at their own time.
    pub fn advance(&mut self, to: Instant) {
        let to = to.min(MAX_TIME);
        if self.now == Instant(0) {
            // The clock starts at the first frame.
            self.now = to;
        }
        while let Some(wake) = self.engine.next_wake(self.now).filter(|wake| *wake <= to) {
            self.now = self.now.max(wake);
            self.engine.poll(self.now);
        }
        self.now = self.now.max(to);
    }

    /// Records a frame's time.
    fn update_latest_time(&mut self, time: u64) {
        self.out_of_order += u64::from(time < self.latest_time);
        self.latest_time = self.latest_time.max(time);
    }

    /// Frames older than an earlier one; they were tracked at that one's time.
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// The link type of the last frame with an unsupported link type.
    pub fn unknown_link_type(&self) -> Option<LinkType> {
        self.unknown_link_type
    }

    /// Tracks one frame at once.
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
            Err(error) => self.reject_frame(frame, error),
        }
    }

    /// Queues one frame; it is tracked with its batch, or by [`CaptureTracker::flush`].
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
            Err(error) => drop(self.reject_frame(frame, error)),
        }
        if self.queue.ranges.len() == BATCH {
            self.flush();
        }
    }

    /// Tracks the queued frames.
    pub fn flush(&mut self) {
        let mut queue = core::mem::take(&mut self.queue);
        {
            let mut batch = [const { None::<Packet<'_>> }; BATCH];
            let mut length = 0;
            for (begin, end, wire_len) in &queue.ranges {
                let bytes = queue.bytes.get(*begin..*end).unwrap_or_default();
                match Packet::parse_snapped(bytes, *wire_len) {
                    Ok(packet) if packet.fragment().is_none() => {
                        batch[length] = Some(packet);
                        length += 1;
                    }
                    other => {
                        self.handle_batch(&batch[..length]);
                        length = 0;
                        match other {
                            Ok(fragment) => self.track_packet(&fragment),
                            Err(error) => self.reject(error),
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
        for (slot, packet) in packets.iter_mut().zip(batch.iter().flatten()) {
            *slot = *packet;
        }
        self.engine.handle_batch(&packets[..batch.len().min(BATCH)], Zone::default(), self.now, &mut self.outcomes);
    }

    /// Tracks a packet; fragments once their datagram is complete.
    fn track_packet(&mut self, packet: &Packet<'_>) -> FrameResult {
        if packet.fragment().is_none() {
            return FrameResult::Tracked(self.engine.handle(packet, Zone::default(), self.now));
        }
        let mut datagram = core::mem::take(&mut self.reassembled);
        let reassembled = match self.reassembler.push(packet, self.now.0, &mut datagram) {
            Ok(Reassembly::Incomplete) => Ok(None),
            Ok(Reassembly::Complete(_)) => Packet::parse_reassembled(&datagram).map(Some),
            // IPv6 reassembly passes it on unassembled, and so the fragment itself is tracked.
            Err(error) if error.linux_action() == LinuxAction::PassedUnassembled && packet.family() == Family::V6 => {
                Packet::parse_reassembled(packet.bytes()).map(Some)
            }
            Err(error) => Err(error),
        };
        let result = match reassembled {
            Ok(Some(packet)) => FrameResult::Tracked(self.engine.handle(&packet, Zone::default(), self.now)),
            Ok(None) => FrameResult::FragmentQueued,
            Err(error) => self.reject(error),
        };
        self.reassembled = datagram;
        result
    }

    fn reject_frame(&mut self, frame: &Frame<'_>, error: ParseError) -> FrameResult {
        if error == ParseError::LinkUnknown {
            self.unknown_link_type = Some(frame.link);
        }
        self.reject(error)
    }

    fn reject(&mut self, error: ParseError) -> FrameResult {
        self.engine.count_parse_error(error);
        FrameResult::Rejected(error)
    }
}
