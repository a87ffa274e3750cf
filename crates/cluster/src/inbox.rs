//! What a standby makes of another node's frames: which are used, which come too late, what is missing.
//!
//! A record says what a slot holds, not what has changed in it, so frames are used in rising order and a gap harms only until the next complete snapshot: that is asked for.
use crate::frame::{FrameKind, Sequence, StateFrame};
use crate::greeting::{Greeting, GreetingDifference};
use crate::names::NodeName;

/// What is to be done to the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// The slots of what follows are another sender's: forget which connection was in which slot. The connections stay until a [`TableChange::Sweep`].
    NewSender,
    /// Mark every connection: one that is not put before the sweep is gone.
    Mark,
    /// Take over these [`records`](crate::records): all deletions first, then the puts; who is put replaces whom it clashes with.
    Records(Vec<u8>),
    /// Remove what is still marked.
    Sweep,
}

/// What was received and not used, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxCounters {
    /// Frames used.
    pub received: u64,
    /// Frames of an epoch that has ended.
    pub stale_epoch: u64,
    /// Frames that came twice or too late.
    pub repeated: u64,
    /// Times that frames were missing.
    pub gaps: u64,
}

/// The frames of a shard that others send.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) sender: Option<NodeName>,
    last: Sequence,
    /// The sender's newest, by its heartbeats.
    sent: Sequence,
    /// Between a snapshot's start and its end, without a gap.
    in_snapshot: bool,
    /// A snapshot was completed, and nothing has been missing since.
    pub(crate) in_step: bool,
    pub(crate) differences: Vec<GreetingDifference>,
    pub(crate) counters: InboxCounters,
}

/// What came of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reception {
    pub(crate) changes: Vec<TableChange>,
    /// Something is missing, known since this frame.
    pub(crate) found_gap: bool,
}

impl Inbox {
    /// Follows another epoch from its beginning.
    pub(crate) fn follow(&mut self, sender: Option<NodeName>) {
        *self = Inbox { sender, counters: self.counters, ..Inbox::default() };
    }

    /// The last stored frame that was used.
    pub(crate) fn last(&self) -> Sequence {
        self.last
    }

    /// How many frames the sender is known to be ahead.
    pub(crate) fn lag(&self) -> u64 {
        self.sent.0.saturating_sub(self.last.0)
    }

    /// Something is missing.
    pub(crate) fn note_gap(&mut self) {
        self.counters.gaps += 1;
        (self.in_snapshot, self.in_step) = (false, false);
    }

    /// A frame of the epoch that is followed.
    pub(crate) fn receive(&mut self, frame: StateFrame, ours: &Greeting) -> Reception {
        self.sent = self.sent.max(frame.sequence);
        let mut reception = Reception::default();
        match frame.kind {
            FrameKind::SnapshotRequest | FrameKind::HandoverRequest => return reception,
            // Its sequence is the sender's last: what was stored before it may still be on its way, or is lost.
            FrameKind::Heartbeat => return reception,
            _ => (),
        }
        if frame.sequence <= self.last {
            self.counters.repeated += 1;
            return reception;
        }
        let is_first = self.last == Sequence(0);
        // The first frames may have been deleted behind a newer snapshot: then it begins with a greeting.
        let starts_anew = is_first && frame.kind == FrameKind::Greeting;
        if frame.sequence != self.last.next() && !starts_anew {
            self.note_gap();
            reception.found_gap = true;
        }
        if is_first {
            reception.changes.push(TableChange::NewSender);
        }
        self.last = frame.sequence;
        self.counters.received += 1;
        match frame.kind {
            FrameKind::Greeting => {
                self.differences = match Greeting::decode(&frame.payload) {
                    Some(theirs) => ours.differences(&theirs),
                    None => vec![GreetingDifference::Unreadable],
                };
            }
            FrameKind::SnapshotStart => {
                self.in_snapshot = true;
                reception.changes.push(TableChange::Mark);
            }
            FrameKind::SnapshotPart | FrameKind::Changes => {
                reception.changes.push(TableChange::Records(frame.payload));
            }
            FrameKind::SnapshotEnd if self.in_snapshot => {
                (self.in_snapshot, self.in_step) = (false, true);
                reception.changes.push(TableChange::Sweep);
            }
            // The end of a snapshot whose begin was missed; what is not stored has returned above.
            _ => (),
        }
        if self.is_other_table() {
            self.in_step = false;
            reception.changes.clear();
        }
        reception
    }

    /// Does the sender carry a table that this node cannot use?
    pub(crate) fn is_other_table(&self) -> bool {
        self.differences.contains(&GreetingDifference::OtherTable)
    }
}
