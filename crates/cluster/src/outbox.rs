//! What the active node sends: numbered, a few frames at a time; the rest waits in the table's own list of changes, which is bounded by the table.
use crate::frame::{Epoch, FrameKind, Sequence, StateFrame};
use crate::greeting::Greeting;
use crate::names::{NodeInstance, NodeName, ShardName};
use std::collections::VecDeque;
use std::time::Duration;

/// Frames that wait for the transport.
const MAX_WAITING: usize = 4;
/// Frames that may be on their way: what is not acknowledged is not taken for stored.
const MAX_UNACKNOWLEDGED: u64 = 1024;
/// Between two snapshots that standbys ask for.
pub(crate) const MIN_SNAPSHOT_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of changes after which a new snapshot lets the older ones be deleted, if the last snapshot was shorter.
const MIN_CHANGED_BYTES: u64 = 64 << 20;

/// The frames of one epoch of ours.
#[derive(Debug)]
pub(crate) struct Outbox {
    shard: ShardName,
    node: NodeName,
    epoch: Epoch,
    last: Sequence,
    acknowledged: Sequence,
    waiting: VecDeque<StateFrame>,
    in_snapshot: bool,
    snapshot_wanted: bool,
    snapshot_began: Option<Duration>,
    /// Of the last snapshot, and of what followed it.
    snapshot_bytes: u64,
    changed_bytes: u64,
}

impl Outbox {
    pub(crate) fn new(shard: ShardName, node: NodeName, epoch: Epoch) -> Outbox {
        Outbox {
            shard,
            node,
            epoch,
            last: Sequence(0),
            acknowledged: Sequence(0),
            waiting: VecDeque::new(),
            in_snapshot: false,
            snapshot_wanted: true,
            snapshot_began: None,
            snapshot_bytes: 0,
            changed_bytes: 0,
        }
    }

    fn push_frame(&mut self, kind: FrameKind, payload: Vec<u8>) {
        if kind.is_stored() {
            self.last = self.last.next();
        }
        let (shard, node) = (self.shard.clone(), self.node.clone());
        self.waiting.push_back(StateFrame { shard, node, epoch: self.epoch, sequence: self.last, kind, payload });
    }

    /// Is there room for another frame?
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING && self.unacknowledged() < MAX_UNACKNOWLEDGED
    }

    pub(crate) fn push(&mut self, kind: FrameKind, payload: Vec<u8>) {
        let length = payload.len() as u64;
        match kind {
            FrameKind::SnapshotPart => self.snapshot_bytes += length,
            FrameKind::SnapshotEnd => self.in_snapshot = false,
            _ => self.changed_bytes += length,
        }
        self.push_frame(kind, payload);
    }

    pub(crate) fn heartbeat(&mut self, instance: NodeInstance) {
        self.push_frame(FrameKind::Heartbeat, instance.0.to_le_bytes().to_vec());
    }

    pub(crate) fn pop(&mut self) -> Option<StateFrame> {
        self.waiting.pop_front()
    }

    /// The transport had no room for it.
    pub(crate) fn put_back(&mut self, frame: StateFrame) {
        if frame.kind.is_stored() {
            self.waiting.push_front(frame);
        }
    }

    pub(crate) fn acknowledge(&mut self, sequence: Sequence) {
        self.acknowledged = self.acknowledged.max(sequence.min(self.last));
    }

    pub(crate) fn last(&self) -> Sequence {
        self.last
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        self.last.0.saturating_sub(self.acknowledged.0)
    }

    /// What was taken is lost: the numbers go on, so the others see a gap; what it held comes with a new snapshot.
    pub(crate) fn lost(&mut self) {
        self.in_snapshot = false;
        self.snapshot_wanted = true;
        self.snapshot_began = None;
        // Lost frames are never acknowledged; later ones are, and theirs counts for all before.
    }

    pub(crate) fn want_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }

    pub(crate) fn snapshot_due(&self, now: Duration) -> bool {
        let grown = self.changed_bytes > self.snapshot_bytes.max(MIN_CHANGED_BYTES);
        let rested = self.snapshot_began.is_none_or(|began| now.saturating_sub(began) >= MIN_SNAPSHOT_INTERVAL);
        !self.in_snapshot && rested && (self.snapshot_wanted || grown) && self.waiting.len() + 2 <= MAX_WAITING
    }

    pub(crate) fn begin_snapshot(&mut self, greeting: &Greeting, now: Duration) {
        self.push_frame(FrameKind::Greeting, greeting.to_bytes());
        self.push_frame(FrameKind::SnapshotStart, Vec::new());
        (self.in_snapshot, self.snapshot_wanted, self.snapshot_began) = (true, false, Some(now));
        (self.snapshot_bytes, self.changed_bytes) = (0, 0);
    }

    pub(crate) fn in_snapshot(&self) -> bool {
        self.in_snapshot
    }
}
