//! Watching the packets of a running gateway: captures (pcapng), and traces that say rule by rule what happened (`keepstate control capture`, `… trace`).
//!
//! A client's watch begins with [`PacketWatch::begin`], which gives the router a tap, and ends when its [`WatchGuard`] is dropped. The tap runs where packets are routed, so it only
//! compares, copies and queues: never more than fits into the queue; what does not is counted, and the client is told. Writing is done by the client's own thread.
mod packet_text;
mod pcapng;
mod serve;

pub(super) use serve::{capture, trace};

use keepstate_conntrack::{FilterArgs, FlowSelection};
use keepstate_engine::Entry;
use keepstate_router::{Egress, PacketTap, TappedPacket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Records and bytes that are queued for one client, at most.
const MAX_QUEUED_RECORDS: usize = 4096;
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Where packets of the machine itself come from and go to, in captures.
const HOST_NAME: &str = "this machine";

/// Which packets a client wants.
#[derive(Clone, Debug)]
pub(super) enum WatchedPackets {
    /// Those of these connections; `None`: all.
    Selected(Option<Box<FlowSelection>>),
    /// Those that a rule asks to be traced (`meta nftrace set 1`).
    AskedFor,
}

impl WatchedPackets {
    pub(super) fn of_filter(filter: &FilterArgs) -> WatchedPackets {
        WatchedPackets::Selected((!filter.is_empty()).then(|| Box::new(FlowSelection::of_args(filter))))
    }

    fn selects(&self, packet: &TappedPacket<'_>) -> bool {
        match self {
            WatchedPackets::Selected(None) => true,
            WatchedPackets::Selected(Some(selection)) => match &packet.entry {
                Some(entry) => selection.matches_entry(entry),
                None => packet.tuple.is_some_and(|tuple| selection.matches_tuple(&tuple)),
            },
            WatchedPackets::AskedFor => packet.rules.is_some_and(keepstate_rules::RuleTrace::is_asked_for),
        }
    }
}

/// What is queued for a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchRecord {
    /// A packet, for a capture.
    Packet(CapturedPacket),
    /// The lines of a trace.
    Lines(String),
}

/// One packet at one interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CapturedPacket {
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) interface: String,
    /// It came in; else it leaves.
    pub(super) inbound: bool,
    /// As much of it as is kept, from its IP header on.
    pub(super) bytes: Vec<u8>,
    /// How long it was.
    pub(super) length: usize,
    pub(super) comment: Option<String>,
}

/// What a tap and its client share.
#[derive(Default)]
struct WatchCounters {
    closed: AtomicBool,
    queued_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// A client's end of a watch. It ends when this is dropped.
pub(super) struct WatchGuard {
    counters: Arc<WatchCounters>,
    pub(super) records: Receiver<WatchRecord>,
}

impl WatchGuard {
    /// A record was taken out of the queue.
    pub(super) fn consumed(&self, record: &WatchRecord) {
        self.counters.queued_bytes.fetch_sub(record.len(), Ordering::Relaxed);
    }

    /// Packets that found no room in the queue so far.
    pub(super) fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::Relaxed)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.counters.closed.store(true, Ordering::Relaxed);
    }
}

impl WatchRecord {
    fn len(&self) -> usize {
        match self {
            WatchRecord::Packet(packet) => packet.bytes.len(),
            WatchRecord::Lines(text) => text.len(),
        }
    }
}

/// What is made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchKind {
    /// The packet as it came and as it leaves: of each so many bytes at most.
    Capture { snaplen: usize },
    /// What happened to it.
    Trace,
}

/// The router's end of a watch.
pub(super) struct PacketWatch {
    kind: WatchKind,
    wanted: WatchedPackets,
    counters: Arc<WatchCounters>,
    queue: SyncSender<WatchRecord>,
    /// The number of the next trace.
    next_id: u32,
}

impl PacketWatch {
    /// Both ends.
    pub(super) fn begin(kind: WatchKind, wanted: WatchedPackets) -> (PacketWatch, WatchGuard) {
        let (queue, records) = sync_channel(MAX_QUEUED_RECORDS);
        let counters = Arc::new(WatchCounters::default());
        let guard = WatchGuard { counters: Arc::clone(&counters), records };
        (PacketWatch { kind, wanted, counters, queue, next_id: 1 }, guard)
    }

    fn has_room(&self) -> bool {
        self.counters.queued_bytes.load(Ordering::Relaxed) < MAX_QUEUED_BYTES
    }

    fn lose(&self) {
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, record: WatchRecord) {
        let length = record.len();
        self.counters.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if self.queue.try_send(record).is_err() {
            self.counters.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.lose();
        }
    }

    fn capture(&self, snaplen: usize, packet: &TappedPacket<'_>) {
        let name = |index: Option<u32>| {
            let known = index.and_then(|index| packet.fib.interface(index));
            known.map_or_else(|| HOST_NAME.to_owned(), |interface| interface.name.clone())
        };
        let record = |interface, inbound, bytes: &[u8], comment| {
            if !self.has_room() {
                return self.lose();
            }
            let kept = bytes.get(..snaplen.min(bytes.len())).unwrap_or_default().to_vec();
            self.push(WatchRecord::Packet(CapturedPacket {
                time: packet.time.0,
                interface,
                inbound,
                bytes: kept,
                length: bytes.len(),
                comment,
            }));
        };
        record(name(packet.iif), true, packet.received, packet.dropped.map(packet_text::describe_drop));
        for output in packet.outputs() {
            let by = match output {
                Egress::Forward { oif, .. } => Some(*oif),
                Egress::LetOut(_) => packet.sent_by,
                Egress::LocalDeliver(_) | Egress::ToProxy { .. } | Egress::Loop { .. } => None,
            };
            record(name(by), false, output.packet(), None);
        }
    }
}

impl PacketTap for PacketWatch {
    fn is_closed(&self) -> bool {
        self.counters.closed.load(Ordering::Relaxed)
    }

    fn wants_rules(&self) -> bool {
        self.kind == WatchKind::Trace
    }

    fn wants_connection(&self, entry: &Entry) -> bool {
        match &self.wanted {
            WatchedPackets::Selected(selection) => {
                selection.as_ref().is_none_or(|selection| selection.matches_entry(entry))
            }
            // A rule that asks for a trace keeps its connections here by itself.
            WatchedPackets::AskedFor => false,
        }
    }

    fn see(&mut self, packet: &TappedPacket<'_>) {
        if self.is_closed() || !self.wanted.selects(packet) {
            return;
        }
        match self.kind {
            WatchKind::Capture { snaplen } => self.capture(snaplen, packet),
            WatchKind::Trace if !self.has_room() => self.lose(),
            WatchKind::Trace => {
                let whole = !matches!(self.wanted, WatchedPackets::AskedFor);
                self.push(WatchRecord::Lines(packet_text::trace_lines(self.next_id, packet, whole)));
                self.next_id = self.next_id.wrapping_add(1);
            }
        }
    }
}
