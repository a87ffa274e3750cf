//! What the active gateway sends: connections that have changed, and all of them once more for a snapshot, a bounded number a turn.
//!
//! The list of what is to be sent is the engine's own (`poll_dirty_slot`): each slot once, so it is bounded by the table however long nothing can be sent. There must be no other reader of that list.
//! Of several shards each has such a list of its own, filled from the engine's by whose the connection is: a shard whose stream is slow does not keep the others waiting. That a connection is gone is
//! told to the shard that its slot was last seen to be of.
use keepstate_cluster::{FrameKind, Shard, ShardRole, records};
use keepstate_engine::{DirtySlots, Engine, Instant};
use keepstate_router::{ConnectionShard, ShardAddresses};
use std::time::Duration;

/// A payload is closed when it is this long, in bytes: some thirteen changes of 110 bytes fill an Ethernet frame, and NATS carries most in messages of some KiB.
const PAYLOAD_TARGET: usize = 12 << 10;
/// Slots of the table looked at in one turn, for a snapshot.
const SNAPSHOT_SLOTS_PER_TURN: u32 = 1024;
/// Changes sent in one turn, of all shards together.
const CHANGES_PER_TURN: usize = 2048;

/// Sends the tables of a gateway's shards; see the module.
#[derive(Debug, Default)]
pub struct TableSender {
    /// Of several shards; `None`: the only one has all connections.
    addresses: Option<ShardAddresses>,
    /// By shard.
    parts: Vec<SenderPart>,
    /// The shard that comes first in the next turn: each in its turn, since all together have a bound.
    first: usize,
    /// By slot, the shard of what it was last seen to hold: one more than its place, 0 for none.
    owners: Vec<u8>,
    is_tracking: bool,
}

/// What may still be done in a turn.
struct SenderTurn {
    /// Of several shards: is every change in its shard's list?
    sorted: Flushed,
    changes_left: usize,
    snapshots_left: usize,
    monotonic: Duration,
    now: Instant,
}

/// What is sent of one shard.
#[derive(Debug, Default)]
struct SenderPart {
    /// The next slot of the snapshot.
    cursor: u32,
    sends: bool,
    /// There was more to send at the end of its last turn.
    more: bool,
    /// Of several shards: changed slots that are or were its own.
    changed: DirtySlots,
}

impl TableSender {
    /// Of several shards, each with the connections of its addresses.
    pub fn of_shards(addresses: ShardAddresses) -> TableSender {
        TableSender { addresses: Some(addresses), ..TableSender::default() }
    }

    /// Gives the shards what there is to send, as long as they have room; true if there may be more. Without a system call.
    pub fn poll(&mut self, shards: &mut [&mut Shard], engine: &mut Engine, monotonic: Duration, now: Instant) -> bool {
        self.parts.resize_with(shards.len(), SenderPart::default);
        for (part, shard) in self.parts.iter_mut().zip(shards.iter()) {
            let sends = matches!(shard.role(), ShardRole::Active | ShardRole::Demoting);
            if sends != part.sends {
                let changed = if sends { DirtySlots::enabled() } else { DirtySlots::default() };
                *part = SenderPart { sends, changed, ..SenderPart::default() };
            }
        }
        let sends = self.parts.iter().any(|part| part.sends);
        if sends != self.is_tracking {
            self.is_tracking = sends;
            engine.track_dirty(sends);
            self.owners.clear();
        }
        if !sends {
            return false;
        }
        let sorted = self.sort_changes(engine, now);
        let mut is_busy = sorted == Flushed::No;
        let mut turn = SenderTurn { sorted, changes_left: CHANGES_PER_TURN, snapshots_left: 1, monotonic, now };
        let count = shards.len();
        for at in (self.first..self.first + count).map(|at| at % count) {
            let Some(shard) = shards.get_mut(at) else { continue };
            let more = self.poll_shard((at, shard), engine, &mut turn);
            self.parts.get_mut(at).into_iter().for_each(|part| part.more = more);
            is_busy |= more;
        }
        self.first = (self.first + 1) % count;
        is_busy
    }

    /// Had this shard more to send at the end of the last turn?
    pub fn has_more(&self, shard: usize) -> bool {
        self.parts.get(shard).is_some_and(|part| part.sends && part.more)
    }

    fn poll_shard(&mut self, (at, shard): (usize, &mut Shard), engine: &mut Engine, turn: &mut SenderTurn) -> bool {
        let (monotonic, now) = (turn.monotonic, turn.now);
        let Some(part) = self.parts.get_mut(at).filter(|part| part.sends) else { return false };
        if shard.begin_snapshot(monotonic) {
            part.cursor = 0;
        }
        let sent = match &self.addresses {
            None => send_changes(shard, engine, Engine::poll_dirty_slot, |_, _| true, turn),
            Some(addresses) => {
                let changed = &mut part.changed;
                let is_its = |engine: &Engine, slot| shard_of_slot(addresses, engine, slot, now) == Some(at);
                send_changes(shard, engine, |_| changed.pop(), is_its, turn)
            }
        };
        let flushed = if turn.sorted == Flushed::No { Flushed::No } else { sent };
        if flushed == Flushed::Yes {
            shard.table_flushed(monotonic);
        }
        if shard.in_snapshot() && shard.has_room() && turn.snapshots_left > 0 {
            turn.snapshots_left -= 1;
            self.send_snapshot_part(at, shard, engine, now);
        }
        flushed == Flushed::No || shard.in_snapshot()
    }

    /// Of several shards: hands the engine's changed slots to the shards' own lists.
    fn sort_changes(&mut self, engine: &mut Engine, now: Instant) -> Flushed {
        let Some(addresses) = &self.addresses else { return Flushed::Yes };
        for _ in 0..CHANGES_PER_TURN {
            let Some(slot) = engine.poll_dirty_slot() else { return Flushed::Yes };
            let shard = shard_of_slot(addresses, engine, slot, now);
            let before = note_owner(&mut self.owners, slot, shard);
            for at in [shard, before.filter(|before| shard != Some(*before))].into_iter().flatten() {
                if let Some(part) = self.parts.get_mut(at).filter(|part| part.sends) {
                    part.changed.mark_dirty(slot);
                }
            }
        }
        Flushed::No
    }

    fn send_snapshot_part(&mut self, at: usize, shard: &mut Shard, engine: &Engine, now: Instant) {
        let Some(part) = self.parts.get_mut(at) else { return };
        let mut payload = Vec::new();
        let mut left_behind = Vec::new();
        let behind = part.cursor.saturating_add(SNAPSHOT_SLOTS_PER_TURN).min(engine.slot_count());
        while part.cursor < behind && payload.len() < PAYLOAD_TARGET {
            let is_its = match &self.addresses {
                None => true,
                Some(addresses) => {
                    let owner = shard_of_slot(addresses, engine, part.cursor, now);
                    let is_its = owner == Some(at);
                    if is_its {
                        let before = note_owner(&mut self.owners, part.cursor, owner);
                        left_behind.extend(before.filter(|before| *before != at).map(|before| (before, part.cursor)));
                    }
                    is_its
                }
            };
            if is_its && let Some(connection) = engine.export_slot(part.cursor, now) {
                records::write_put(&mut payload, part.cursor, |out| connection.encode(out));
            }
            part.cursor += 1;
        }
        if !payload.is_empty() {
            shard.push(FrameKind::SnapshotPart, payload);
        }
        if part.cursor >= engine.slot_count() {
            shard.push(FrameKind::SnapshotEnd, Vec::new());
        }
        // Its slot was another shard's, whose connection there is gone.
        for (before, slot) in left_behind {
            if let Some(part) = self.parts.get_mut(before).filter(|part| part.sends) {
                part.changed.mark_dirty(slot);
            }
        }
    }
}

/// The shard of the connection in a slot.
fn shard_of_slot(addresses: &ShardAddresses, engine: &Engine, slot: u32, now: Instant) -> Option<usize> {
    let (original, reply) = engine.slot_tuples(slot, now)?;
    match addresses.of_connection(&original, &reply) {
        ConnectionShard::Of(shard) => Some(shard),
        ConnectionShard::Local | ConnectionShard::Unassigned => None,
    }
}

/// Notes of which shard a slot is now; returns of which it was.
fn note_owner(owners: &mut Vec<u8>, slot: u32, shard: Option<usize>) -> Option<usize> {
    let at = slot as usize;
    if owners.len() <= at {
        owners.resize(at + 1, 0);
    }
    // There are fewer than 255 shards.
    let number = shard.map_or(0, |shard| u8::try_from(shard + 1).unwrap_or(0));
    let before = owners.get_mut(at).map_or(0, |owner| std::mem::replace(owner, number));
    usize::from(before).checked_sub(1)
}

/// Is nothing left of the list?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flushed {
    Yes,
    No,
}

/// Sends the slots that `next` gives. What is not the shard's (any more) is gone for it.
fn send_changes(
    shard: &mut Shard,
    engine: &mut Engine,
    mut next: impl FnMut(&mut Engine) -> Option<u32>,
    is_its: impl Fn(&Engine, u32) -> bool,
    turn: &mut SenderTurn,
) -> Flushed {
    while shard.has_room() {
        let (mut deleted, mut put) = (Vec::new(), Vec::new());
        let mut is_empty = false;
        while deleted.len() + put.len() < PAYLOAD_TARGET && turn.changes_left > 0 {
            let Some(slot) = next(engine) else {
                is_empty = true;
                break;
            };
            turn.changes_left -= 1;
            match engine.export_slot(slot, turn.now).filter(|_| is_its(engine, slot)) {
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
        if turn.changes_left == 0 {
            break;
        }
    }
    Flushed::No
}
