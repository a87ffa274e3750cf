//! What a standby makes of the records it is told: its own engine holds the same connections, each under its own id.
//!
//! Of several shards, each has a receiver of its own. What it enters is held ([`Engine::hold`]): the clock goes on for the connections that this gateway decides.
//!
//! Records are absolute: a put replaces whatever the slot held, and whatever it clashes with. Nothing of them is trusted: the engine checks each connection. A master's children that come before it have no master.
use keepstate_cluster::TableChange;
use keepstate_cluster::records::{self, Record};
use keepstate_engine::{ConnId, ConnSnapshot, Engine, Entry, ImportError, Instant, WindowTrust};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What was taken over, and what was not, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Connections entered or replaced.
    pub put: u64,
    /// Connections removed.
    pub deleted: u64,
    /// Connections that could not be entered: the table is full, or the record is no connection.
    pub refused: u64,
}

/// One shard's table as it is told; see the module.
#[derive(Debug, Default)]
pub struct TableReceiver {
    /// Ours, by the sender's slot.
    slots: HashMap<u32, ConnId>,
    /// Those put since the last [`TableChange::Mark`].
    put_since_mark: HashSet<ConnId>,
    is_marked: bool,
    /// Where a sweep goes on.
    sweep: Option<u32>,
    /// The clock goes on, so each connection is held.
    holds: bool,
    /// What was taken over.
    pub counters: ReceiverCounters,
}

/// Slots of the table looked at in one turn of a sweep.
const SWEEP_SLOTS_PER_TURN: u32 = 2048;

impl TableReceiver {
    /// Of one of several shards: what it enters is held.
    pub fn holding() -> TableReceiver {
        TableReceiver { holds: true, ..TableReceiver::default() }
    }

    /// Takes over a change. A connection in the way of one that is told goes if `may_replace` says so, else what is told is refused. After a [`TableChange::Sweep`] call
    /// [`TableReceiver::poll_sweep`] until it is done, before the next change.
    pub fn apply(
        &mut self,
        change: &TableChange,
        engine: &mut Engine,
        may_replace: impl Fn(&Entry) -> bool,
        now: Instant,
    ) {
        engine.set_replicated(true);
        match change {
            TableChange::NewSender => {
                self.slots.clear();
                (self.is_marked, self.sweep) = (false, None);
            }
            TableChange::Mark => {
                self.put_since_mark.clear();
                (self.is_marked, self.sweep) = (true, None);
            }
            TableChange::Records(bytes) => self.apply_records(bytes, engine, may_replace, now),
            TableChange::Sweep => self.sweep = Some(0).filter(|_| self.is_marked),
        }
        engine.set_replicated(false);
    }

    /// Nobody is followed any more.
    pub fn forget(&mut self) {
        *self = TableReceiver { counters: self.counters, holds: self.holds, ..TableReceiver::default() };
    }

    fn apply_records(&mut self, bytes: &[u8], engine: &mut Engine, may_replace: impl Fn(&Entry) -> bool, now: Instant) {
        let Some(all) = records::parse_records(bytes) else {
            self.counters.refused += 1;
            return;
        };
        for record in &all {
            if let Record::Delete(slot) = record
                && let Some(conn_id) = self.slots.remove(slot)
            {
                self.counters.deleted += u64::from(engine.remove(conn_id, now));
                self.put_since_mark.remove(&conn_id);
            }
        }
        for record in all {
            let Record::Put(slot, range) = record else { continue };
            let decoded = bytes.get(range).and_then(|bytes| ConnSnapshot::decode(bytes).ok());
            let entered = decoded.and_then(|connection| {
                if let Some(before) = self.slots.remove(&slot) {
                    engine.remove(before, now);
                    self.put_since_mark.remove(&before);
                }
                enter(&connection, engine, &may_replace, now)
            });
            match entered {
                Some(conn_id) => {
                    if self.holds {
                        engine.hold(conn_id, now);
                    }
                    self.counters.put += 1;
                    self.slots.insert(slot, conn_id);
                    if self.is_marked {
                        self.put_since_mark.insert(conn_id);
                    }
                }
                None => self.counters.refused += 1,
            }
        }
    }

    /// A bounded part of a sweep: removes what the snapshot did not have, unless `stays` says that it is no affair of the sender: a connection of this machine itself, or of another shard.
    /// True if there is more to do.
    pub fn poll_sweep(&mut self, engine: &mut Engine, stays: impl Fn(&Entry) -> bool, now: Instant) -> bool {
        let Some(from) = self.sweep.take() else { return false };
        let mut gone = Vec::new();
        self.sweep = engine.dump_range(from, SWEEP_SLOTS_PER_TURN, now, |entry| {
            if !self.put_since_mark.contains(&entry.conn_id) && !stays(&entry) {
                gone.push(entry.conn_id);
            }
        });
        engine.set_replicated(true);
        for conn_id in gone {
            self.counters.deleted += u64::from(engine.remove(conn_id, now));
        }
        engine.set_replicated(false);
        if self.sweep.is_none() {
            self.is_marked = false;
            let kept = std::mem::take(&mut self.put_since_mark);
            self.slots.retain(|_, conn_id| kept.contains(conn_id));
        }
        self.sweep.is_some()
    }
}

/// Enters a connection; what has one of its tuples goes, because the sender has it no more, if it may be replaced.
fn enter(
    connection: &ConnSnapshot,
    engine: &mut Engine,
    may_replace: impl Fn(&Entry) -> bool,
    now: Instant,
) -> Option<ConnId> {
    // One for each direction.
    for _ in 0..3 {
        match engine.import(connection, Duration::ZERO, WindowTrust::Lenient, now) {
            Ok(conn_id) => return Some(conn_id),
            Err(ImportError::Clash) => {
                let tuples = [connection.original, connection.reply];
                let others = tuples.iter().filter_map(|tuple| engine.find(tuple, connection.zone, now));
                let others: Vec<ConnId> = others.map(|(conn_id, _)| conn_id).collect();
                let stays = |conn_id: &ConnId| engine.entry(*conn_id, now).is_some_and(|entry| !may_replace(&entry));
                if others.iter().any(stays) {
                    return None;
                }
                for conn_id in others {
                    engine.remove(conn_id, now);
                }
            }
            Err(_) => return None,
        }
    }
    None
}
