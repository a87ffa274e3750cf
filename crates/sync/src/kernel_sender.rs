//! What the active machine sends: entries of the kernel's table that have changed, and all of them once more for a snapshot, a bounded number a turn.
//!
//! An event only says that an entry has changed: what is sent is read from the kernel when it is sent. So a change that waits is no line in a queue, and many changes of an entry are one. The numbers of
//! entries are bounded by the kernel's limit, and so is all that is kept here.
use keepstate_cluster::{FrameKind, Shard, ShardRole, records};
use keepstate_conntrack::saved_line;
use keepstate_linux::ctnetlink::{CtClient, CtFamily, CtFlow, CtTuple, EventKind};
use keepstate_linux::netlink::NetlinkError;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

/// A payload is closed when it is this long, in bytes.
const PAYLOAD_TARGET: usize = 12 << 10;
/// Entries read from the kernel in one turn.
const ENTRIES_PER_TURN: usize = 512;

/// What tells an entry from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct EntryKey {
    family: Option<CtFamily>,
    zone: Option<u16>,
    original: CtTuple,
}

impl EntryKey {
    fn of(flow: &CtFlow) -> EntryKey {
        EntryKey { family: flow.family, zone: flow.zone, original: flow.original }
    }

    fn to_flow(self) -> CtFlow {
        CtFlow { family: self.family, zone: self.zone, original: self.original, ..CtFlow::default() }
    }
}

/// Sends the kernel's table; see the module.
#[derive(Debug, Default)]
pub struct KernelTableSender {
    /// Entries to or from these are not sent.
    ignored: HashSet<IpAddr>,
    slots: HashMap<EntryKey, u32>,
    keys: Vec<Option<EntryKey>>,
    /// What each slot's entry was when it was last sent.
    sent: Vec<u64>,
    free: Vec<u32>,
    waiting: VecDeque<u32>,
    is_waiting: HashSet<u32>,
    /// The next slot of the snapshot.
    cursor: usize,
}

impl KernelTableSender {
    /// Sends all entries but those of loopback and those to or from these addresses: the machine's own, which mean nothing to another one.
    pub fn new(ignored: HashSet<IpAddr>) -> KernelTableSender {
        KernelTableSender { ignored, ..KernelTableSender::default() }
    }

    fn key(&self, flow: &CtFlow) -> Option<EntryKey> {
        let ends = [flow.original.source?, flow.original.destination?];
        let is_sent = !ends.iter().any(|end| end.is_loopback() || self.ignored.contains(end));
        is_sent.then_some(EntryKey::of(flow))
    }

    /// An entry of a listing: it is to be sent if it is not known, or not as it is now. Linux tells nothing of an entry that was made while nobody listened, so listings alone tell of its changes.
    /// Returns its slot.
    pub(crate) fn handle_listed(&mut self, flow: &CtFlow) -> Option<u32> {
        let key = self.key(flow)?;
        match self.slots.get(&key) {
            Some(slot) if self.sent.get(*slot as usize) == Some(&digest(&saved_line(flow))) => Some(*slot),
            _ => Some(self.changed(key)),
        }
    }

    /// A listing is complete: what was not in it is looked for, since it may be gone.
    pub(crate) fn handle_unlisted(&mut self, seen: &HashSet<u32>) {
        let unseen: Vec<u32> = self.slots.values().filter(|slot| !seen.contains(slot)).copied().collect();
        unseen.into_iter().for_each(|slot| self.wait(slot));
    }

    /// An event: the entry is to be sent, or to be deleted at the others.
    pub fn handle_event(&mut self, kind: EventKind, flow: &CtFlow) {
        let Some(key) = self.key(flow) else { return };
        match kind {
            EventKind::Destroy => self.destroyed(&key),
            EventKind::New | EventKind::Update => {
                self.changed(key);
            }
        }
    }

    /// Entries known.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Is none known?
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Entries that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn changed(&mut self, key: EntryKey) -> u32 {
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None => self.insert(key),
        };
        self.wait(slot);
        slot
    }

    fn insert(&mut self, key: EntryKey) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.keys.push(None);
            self.sent.push(0);
            // A table has fewer entries than 2³².
            u32::try_from(self.keys.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.keys.get_mut(slot as usize) {
            *place = Some(key);
        }
        self.slots.insert(key, slot);
        slot
    }

    fn destroyed(&mut self, key: &EntryKey) {
        let Some(slot) = self.slots.remove(key) else { return };
        if let Some(place) = self.keys.get_mut(slot as usize) {
            *place = None;
        }
        self.free.push(slot);
        self.wait(slot);
    }

    fn wait(&mut self, slot: u32) {
        if self.is_waiting.insert(slot) {
            self.waiting.push_back(slot);
        }
    }

    /// Gives the shard what there is to send, as long as it has room; true if there may be more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn poll(&mut self, shard: &mut Shard, table: &mut CtClient, now: Duration) -> Result<bool, NetlinkError> {
        if !matches!(shard.role(), ShardRole::Active | ShardRole::Demoting) {
            return Ok(false);
        }
        if shard.begin_snapshot(now) {
            // It tells of all that waits: of those that are gone by leaving them out.
            self.cursor = 0;
            self.waiting.clear();
            self.is_waiting.clear();
        }
        let mut left = ENTRIES_PER_TURN;
        while left > 0 && shard.has_room() && !self.waiting.is_empty() {
            self.send_changes(shard, table, &mut left)?;
        }
        if self.waiting.is_empty() {
            shard.table_flushed(now);
        }
        while left > 0 && shard.in_snapshot() && shard.has_room() {
            self.send_snapshot_part(shard, table, &mut left)?;
        }
        Ok(!self.waiting.is_empty() || shard.in_snapshot())
    }

    fn send_changes(&mut self, shard: &mut Shard, table: &mut CtClient, left: &mut usize) -> Result<(), NetlinkError> {
        let (mut payload, mut put) = (Vec::new(), Vec::new());
        while payload.len() + put.len() < PAYLOAD_TARGET && *left > 0 {
            let Some(slot) = self.waiting.pop_front() else { break };
            self.is_waiting.remove(&slot);
            *left -= 1;
            match self.line(slot, table)? {
                Some(line) => records::write_put(&mut put, slot, |out| out.extend_from_slice(line.as_bytes())),
                None => records::write_delete(&mut payload, slot),
            }
        }
        payload.append(&mut put);
        shard.push(FrameKind::Changes, payload);
        Ok(())
    }

    fn send_snapshot_part(
        &mut self,
        shard: &mut Shard,
        table: &mut CtClient,
        left: &mut usize,
    ) -> Result<(), NetlinkError> {
        let mut payload = Vec::new();
        while self.cursor < self.keys.len() && payload.len() < PAYLOAD_TARGET && *left > 0 {
            let slot = u32::try_from(self.cursor).unwrap_or(u32::MAX);
            *left -= 1;
            if let Some(line) = self.line(slot, table)? {
                records::write_put(&mut payload, slot, |out| out.extend_from_slice(line.as_bytes()));
            }
            self.cursor += 1;
        }
        if !payload.is_empty() {
            shard.push(FrameKind::SnapshotPart, payload);
        }
        if self.cursor >= self.keys.len() {
            shard.push(FrameKind::SnapshotEnd, Vec::new());
        }
        Ok(())
    }

    /// The entry in a slot as the kernel has it now; `None` if it has none.
    fn line(&mut self, slot: u32, table: &mut CtClient) -> Result<Option<String>, NetlinkError> {
        let Some(key) = self.keys.get(slot as usize).copied().flatten() else { return Ok(None) };
        match table.get(&key.to_flow()) {
            Ok(flow) => Ok(flow.map(|flow| {
                let line = saved_line(&flow);
                if let Some(sent) = self.sent.get_mut(slot as usize) {
                    *sent = digest(&line);
                }
                line
            })),
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                // The event that said so was lost, or comes behind others.
                self.destroyed(&key);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Of an entry's line without its timeout, which changes with each packet. Not zero.
fn digest(line: &str) -> u64 {
    let without_timeout =
        line.strip_prefix("-A -t ").and_then(|rest| rest.split_once(' ')).map_or(line, |(_, rest)| rest);
    let mut hasher = DefaultHasher::new();
    without_timeout.hash(&mut hasher);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_timeout_makes_no_difference() {
        let line =
            |timeout: &str, mark: u32| format!("-A {timeout}-u ASSURED -s 10.0.0.1 -d 10.0.0.2 -p tcp -m {mark}");
        assert_eq!(digest(&line("-t 119 ", 7)), digest(&line("-t 5 ", 7)));
        assert_ne!(digest(&line("-t 119 ", 7)), digest(&line("-t 119 ", 8)));
    }
}
