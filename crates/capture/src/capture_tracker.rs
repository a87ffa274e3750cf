//! A passive tracker: frames tracked by the engine, on the clock of their own timestamps.
//!
//! A [`CaptureTracker`] owns the engine and the reassembler. Frames come in order. Time never goes back, and timeouts between two frames
//! expire at their own time. Frames are tracked one by one, each with its result, or queued and tracked in batches. No frame is changed
//! or sent.
use crate::checksums::{ChecksumPolicy, ChecksumTrust, blame_capture, network_part};
use crate::cut_fragments::{CutFragments, DatagramKey};
use crate::duplicates::DuplicateFilter;
use crate::frame::{Frame, FrameChecksum};
use keepstate_engine::{Engine, Instant, Outcome, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::link::LinkType;
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{Family, LinuxAction, Packet, ParseError};

/// The result of one frame.
#[derive(Clone, Copy, Debug)]
pub enum FrameResult {
    /// It was tracked.
    Tracked(Outcome),
    /// It is a fragment; others of its datagram are missing.
    FragmentQueued,
    /// It was tracked already, as captured on another interface (`tcpdump -i any` on a router).
    Duplicate,
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
    /// The clock has been set by a frame.
    started: bool,
    checksums: ChecksumPolicy,
    cut_fragments: CutFragments,
    duplicates: DuplicateFilter,
    queue: PacketQueue,
    outcomes: Vec<Outcome>,
    /// The latest time of a frame, and the number of frames older than that.
    latest_time: u64,
    out_of_order: u64,
    unknown_link_type: Option<LinkType>,
    unknown_link_frames: u64,
    /// Frames seen.
    pub frame_count: u64,
}

/// Packets waiting for their batch, in one buffer.
#[derive(Default)]
struct PacketQueue {
    bytes: Vec<u8>,
    ranges: Vec<QueuedRange>,
}

/// A packet in the queue's buffer.
#[derive(Clone, Copy)]
struct QueuedRange {
    begin: usize,
    end: usize,
    wire_len: usize,
    checksum: FrameChecksum,
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
            started: false,
            checksums: ChecksumPolicy::new(ChecksumTrust::Auto),
            cut_fragments: CutFragments::default(),
            duplicates: DuplicateFilter::default(),
            latest_time: 0,
            out_of_order: 0,
            unknown_link_type: None,
            unknown_link_frames: 0,
            queue: PacketQueue::default(),
            outcomes: Vec::with_capacity(BATCH),
            frame_count: 0,
        }
    }

    /// The same with another policy for checksums; without this it is `auto` without a sample.
    #[must_use]
    pub fn with_checksums(self, checksums: ChecksumPolicy) -> CaptureTracker {
        CaptureTracker { checksums, ..self }
    }

    /// The policy for checksums, and what it has trusted.
    pub fn checksums(&self) -> &ChecksumPolicy {
        &self.checksums
    }

    /// Frames skipped because their packet was tracked on another interface.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.skipped()
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
        if !self.started {
            // The clock starts at the first frame.
            (self.started, self.now) = (true, to);
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

    /// No frame could be read, for want of a supported link type.
    pub fn is_unreadable(&self) -> bool {
        self.frame_count > 0 && self.unknown_link_frames == self.frame_count
    }

    /// Tracks one frame at once.
    pub fn track_frame(&mut self, frame: &Frame<'_>) -> FrameResult {
        self.flush();
        self.frame_count += 1;
        frame.time.into_iter().for_each(|time| self.update_latest_time(time));
        if let Some(time) = frame.time {
            self.advance(Instant(time));
        }
        match self.parse_frame(frame) {
            Ok(Some(packet)) => self.track_packet(&packet, frame.checksum),
            Ok(None) => FrameResult::Duplicate,
            Err(error) => self.reject_frame(frame, error),
        }
    }

    /// The packet in a frame; `None` if it was tracked on another interface.
    fn parse_frame<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Packet<'a>>, ParseError> {
        let (network, wire_len) = network_part(frame)?;
        let packet = self
            .checksums
            .parse(network.packet, wire_len, frame.checksum)
            .map_err(|error| blame_capture(frame, error))?;
        Ok((!self.duplicates.is_duplicate(frame, &packet)).then_some(packet))
    }

    /// Queues one frame; it is tracked with its batch, or by [`CaptureTracker::flush`].
    pub fn queue_frame(&mut self, frame: &Frame<'_>) {
        self.frame_count += 1;
        frame.time.into_iter().for_each(|time| self.update_latest_time(time));
        let same_tick = |time: u64| self.started && time / TICK_NANOS == self.now.0 / TICK_NANOS;
        if let Some(time) = frame.time.filter(|time| !same_tick(*time)) {
            self.flush();
            self.advance(Instant(time));
        }
        // What needs the link header again is done at once.
        if DuplicateFilter::may_repeat(frame) {
            self.flush();
            match self.parse_frame(frame) {
                Ok(Some(packet)) => drop(self.track_packet(&packet, frame.checksum)),
                Ok(None) => (),
                Err(error) => drop(self.reject_frame(frame, error)),
            }
            return;
        }
        match network_part(frame) {
            Ok((network, wire_len)) => {
                let begin = self.queue.bytes.len();
                self.queue.bytes.extend_from_slice(network.packet);
                let (end, checksum) = (self.queue.bytes.len(), frame.checksum);
                self.queue.ranges.push(QueuedRange { begin, end, wire_len, checksum });
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
            for &QueuedRange { begin, end, wire_len, checksum } in &queue.ranges {
                let bytes = queue.bytes.get(begin..end).unwrap_or_default();
                match self.checksums.parse(bytes, wire_len, checksum) {
                    Ok(packet) if packet.fragment().is_none() => {
                        batch[length] = Some(packet);
                        length += 1;
                    }
                    other => {
                        self.handle_batch(&batch[..length]);
                        length = 0;
                        match other {
                            Ok(fragment) => self.track_packet(&fragment, checksum),
                            Err(error) if bytes.len() < wire_len && error.is_truncation() => {
                                self.reject(ParseError::NotCaptured)
                            }
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
    fn track_packet(&mut self, packet: &Packet<'_>, checksum: FrameChecksum) -> FrameResult {
        if packet.fragment().is_none() {
            return FrameResult::Tracked(self.engine.handle(packet, Zone::default(), self.now));
        }
        let mut datagram = core::mem::take(&mut self.reassembled);
        let pushed = self.push_fragment(packet, &mut datagram);
        let gap = match pushed {
            Ok(Reassembly::Incomplete) => None,
            _ => self.cut_fragments.take_gap(DatagramKey::of(packet)),
        };
        let reassembled = match pushed {
            Ok(Reassembly::Incomplete) => Ok(None),
            Ok(Reassembly::Complete(info)) => {
                let captured = gap.map_or(datagram.len(), |gap| datagram.len().min(info.header_len + gap));
                let bytes = datagram.get(..captured).unwrap_or_default();
                Packet::parse_reassembled_snapped(bytes, datagram.len()).map(Some)
            }
            // IPv6 reassembly passes it on unassembled, and so the fragment itself is tracked.
            Err(error) if error.linux_action() == LinuxAction::PassedUnassembled && packet.family() == Family::V6 => {
                Packet::parse_reassembled(packet.bytes()).map(Some)
            }
            Err(error) => Err(error),
        };
        let result = match reassembled {
            Ok(Some(packet)) => {
                let packet = self.checksums.check_transport(packet, checksum);
                FrameResult::Tracked(self.engine.handle(&packet, Zone::default(), self.now))
            }
            Ok(None) => FrameResult::FragmentQueued,
            Err(error) => self.reject(error),
        };
        self.reassembled = datagram;
        result
    }

    /// Gives a fragment to the reassembler. What of it was not captured is filled with zeros.
    fn push_fragment(&mut self, packet: &Packet<'_>, datagram: &mut Vec<u8>) -> Result<Reassembly, ParseError> {
        if !packet.is_snapped() {
            return self.reassembler.push(packet, self.now.0, datagram);
        }
        let filled = self.cut_fragments.fill(packet).ok_or(ParseError::NotCaptured)?;
        let whole = Packet::parse_unfinished(filled, filled.len())?;
        self.reassembler.push(&whole, self.now.0, datagram)
    }

    fn reject_frame(&mut self, frame: &Frame<'_>, error: ParseError) -> FrameResult {
        if error == ParseError::LinkUnknown {
            self.unknown_link_type = Some(frame.link);
            self.unknown_link_frames += 1;
        }
        self.reject(error)
    }

    fn reject(&mut self, error: ParseError) -> FrameResult {
        self.engine.count_parse_error(error);
        FrameResult::Rejected(error)
    }
}
