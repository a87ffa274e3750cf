//! What a shard sends: frames, and a snapshot for whoever has joined.
use super::Shard;
use crate::frame::{FrameKind, StateFrame};
use crate::outbox::Outbox;
use std::time::Duration;

impl Shard {
    /// The next frame for the transport.
    pub fn poll_frame(&mut self) -> Option<StateFrame> {
        self.requests.pop_front().or_else(|| self.outbox.as_mut().and_then(Outbox::pop))
    }

    /// Asks the other nodes for something: not numbered, and in front of what is.
    pub(super) fn queue_request(&mut self, kind: FrameKind, payload: Vec<u8>) {
        self.requests.push_back(StateFrame {
            shard: self.name.clone(),
            node: self.node.clone(),
            epoch: self.epoch,
            sequence: Default::default(),
            kind,
            payload,
        });
    }

    /// The transport had no room for this frame, the one last taken.
    pub fn frame_refused(&mut self, frame: StateFrame) {
        if let Some(outbox) = &mut self.outbox {
            outbox.put_back(frame);
        }
    }

    /// Does it send, and has it room for a frame? If not, changes stay in the table's own list.
    pub fn has_room(&self) -> bool {
        self.connected && self.outbox.as_ref().is_some_and(Outbox::has_room)
    }

    /// Active: is a new snapshot to be begun? Then the caller goes through its table from the beginning.
    pub fn begin_snapshot(&mut self, now: Duration) -> bool {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| self.connected && outbox.snapshot_due(now)) else {
            return false;
        };
        outbox.begin_snapshot(&self.greeting, now);
        true
    }

    /// Active: was a snapshot begun, and not ended? After a loss the caller drops it, and one is begun anew.
    pub fn in_snapshot(&self) -> bool {
        self.outbox.as_ref().is_some_and(Outbox::in_snapshot)
    }

    /// Active: numbers a frame and puts it in the line, where [`Shard::has_room`] says there is room.
    pub fn push(&mut self, kind: FrameKind, payload: Vec<u8>) {
        if let Some(outbox) = &mut self.outbox {
            outbox.push(kind, payload);
        }
    }
}
