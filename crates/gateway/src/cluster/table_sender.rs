//! What the active gateway sends: connections that have changed, and all of them once more for a snapshot, a bounded number a turn.
//!
//! The list of what is to be sent is the engine's own (`poll_dirty_slot`): each slot once, so it is bounded by the table however long nothing can be sent. There must be no other reader of that list.
use keepstate_cluster::{FrameKind, Shard, ShardRole, records};
use keepstate_engine::{Engine, Instant};
use std::time::Duration;

/// A payload is closed when it is this long, in bytes: some thirteen changes of 110 bytes fill an Ethernet frame, and NATS carries most in messages of some KiB.
const PAYLOAD_TARGET: usize = 12 << 10;
/// Slots of the table looked at in one turn, for a snapshot.
const SNAPSHOT_SLOTS_PER_TURN: u32 = 1024;
/// Changes sent in one turn.
const CHANGES_PER_TURN: usize = 2048;

/// Sends one shard's table; see the module.
#[derive(Debug, Default)]
pub struct TableSender {
    /// The next slot of the snapshot.
    cursor: u32,
    is_tracking: bool,
}

impl TableSender {
    /// Gives the shard what there is to send, as long as it has room; true if there may be more. Without a system call.
    pub fn poll(&mut self, shard: &mut Shard, engine: &mut Engine, monotonic: Duration, now: Instant) -> bool {
        let sends = matches!(shard.role(), ShardRole::Active | ShardRole::Demoting);
        if sends != self.is_tracking {
            self.is_tracking = sends;
            engine.track_dirty(sends);
        }
        if !sends {
            return false;
        }
        if shard.begin_snapshot(monotonic) {
            self.cursor = 0;
        }
        let more = send_changes(shard, engine, now);
        if more == Flushed::Yes {
            shard.table_flushed(monotonic);
        }
        if shard.in_snapshot() && shard.has_room() {
            self.send_snapshot_part(shard, engine, now);
        }
        more == Flushed::No || shard.in_snapshot()
    }

    fn send_snapshot_part(&mut self, shard: &mut Shard, engine: &Engine, now: Instant) {
        let mut payload = Vec::new();
        let behind = self.cursor.saturating_add(SNAPSHOT_SLOTS_PER_TURN).min(engine.slot_count());
        while self.cursor < behind && payload.len() < PAYLOAD_TARGET {
            if let Some(connection) = engine.export_slot(self.cursor, now) {
                records::write_put(&mut payload, self.cursor, |out| connection.encode(out));
            }
            self.cursor += 1;
        }
        if !payload.is_empty() {
            shard.push(FrameKind::SnapshotPart, payload);
        }
        if self.cursor >= engine.slot_count() {
            shard.push(FrameKind::SnapshotEnd, Vec::new());
        }
    }
}

/// Is nothing left of the engine's list?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flushed {
    Yes,
    No,
}

fn send_changes(shard: &mut Shard, engine: &mut Engine, now: Instant) -> Flushed {
    let mut left = CHANGES_PER_TURN;
    while shard.has_room() {
        let (mut deleted, mut put) = (Vec::new(), Vec::new());
        let mut is_empty = false;
        while deleted.len() + put.len() < PAYLOAD_TARGET && left > 0 {
            let Some(slot) = engine.poll_dirty_slot() else {
                is_empty = true;
                break;
            };
            left -= 1;
            match engine.export_slot(slot, now) {
                Some(connection) => records::write_put(&mut put, slot, |out| connection.encode(out)),
                None => records::write_delete(&mut deleted, slot),
            }
        }
        // What is gone comes first: its tuple may be another one's already.
        deleted.append(&mut put);
        if !deleted.is_empty() {
            shard.push(FrameKind::Changes, deleted);
        }
        if is_empty {
            return Flushed::Yes;
        }
        if left == 0 {
            break;
        }
    }
    Flushed::No
}
