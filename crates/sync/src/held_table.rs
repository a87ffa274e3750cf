//! What a standby holds: the active machine's entries, each as its line, in no kernel's table.
use keepstate_cluster::TableChange;
use keepstate_cluster::records::{self, Record};
use std::collections::{HashMap, HashSet};

/// The active machine's entries as they are told.
#[derive(Debug, Default)]
pub struct HeldTable {
    /// By the sender's slot.
    lines: HashMap<u32, Box<str>>,
    /// Of a sender before, until the new one has told all of its own.
    earlier: Vec<Box<str>>,
    /// Those put since the last [`TableChange::Mark`].
    put_since_mark: HashSet<u32>,
    is_marked: bool,
    refused: u64,
}

impl HeldTable {
    /// Takes over a change.
    pub fn apply(&mut self, change: &TableChange) {
        match change {
            TableChange::NewSender => {
                self.earlier.extend(self.lines.drain().map(|(_, line)| line));
                self.is_marked = false;
            }
            TableChange::Mark => {
                self.put_since_mark.clear();
                self.is_marked = true;
            }
            TableChange::Records(bytes) => self.apply_records(bytes),
            TableChange::Sweep => self.sweep(),
        }
    }

    fn apply_records(&mut self, bytes: &[u8]) {
        let Some(all) = records::parse_records(bytes) else {
            self.refused += 1;
            return;
        };
        for record in all {
            match record {
                Record::Delete(slot) => {
                    self.lines.remove(&slot);
                    self.put_since_mark.remove(&slot);
                }
                Record::Put(slot, range) => match bytes.get(range).map(std::str::from_utf8) {
                    Some(Ok(line)) => {
                        self.lines.insert(slot, line.into());
                        if self.is_marked {
                            self.put_since_mark.insert(slot);
                        }
                    }
                    _ => self.refused += 1,
                },
                Record::SnapshotEnd => {}
            }
        }
    }

    /// Forgets all that the snapshot did not have.
    fn sweep(&mut self) {
        if !self.is_marked {
            return;
        }
        self.is_marked = false;
        self.earlier = Vec::new();
        let kept = std::mem::take(&mut self.put_since_mark);
        self.lines.retain(|slot, _| kept.contains(slot));
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.lines.len() + self.earlier.len()
    }

    /// Is none held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records that were none.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The lines, the newer ones last; nothing is held any more.
    pub fn take(&mut self) -> Vec<Box<str>> {
        let refused = self.refused;
        let held = std::mem::take(self);
        self.refused = refused;
        held.earlier.into_iter().chain(held.lines.into_values()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slot: u32, line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        records::write_put(&mut bytes, slot, |out| out.extend_from_slice(line.as_bytes()));
        bytes
    }

    fn sorted(held: &mut HeldTable) -> Vec<Box<str>> {
        let mut lines = held.take();
        lines.sort();
        lines
    }

    #[test]
    fn a_snapshot_replaces_what_was_held_and_changes_follow() {
        let mut held = HeldTable::default();
        for change in [
            TableChange::NewSender,
            TableChange::Records(put(1, "a")),
            TableChange::Records(put(2, "b")),
            TableChange::Mark,
            TableChange::Records(put(2, "b2")),
            TableChange::Records(put(3, "c")),
            TableChange::Sweep,
            TableChange::Records(put(3, "c2")),
        ] {
            held.apply(&change);
        }
        assert_eq!(held.len(), 2);
        assert_eq!(sorted(&mut held), ["b2".into(), "c2".into()]);
        assert!(held.is_empty());
    }

    #[test]
    fn entries_of_the_sender_before_stay_until_the_next_one_has_told_all() {
        let mut held = HeldTable::default();
        held.apply(&TableChange::Records(put(1, "old")));
        held.apply(&TableChange::NewSender);
        held.apply(&TableChange::Mark);
        held.apply(&TableChange::Records(put(1, "new")));
        assert_eq!(held.len(), 2, "half a snapshot replaces nothing");
        held.apply(&TableChange::Sweep);
        assert_eq!(sorted(&mut held), ["new".into()]);
    }

    #[test]
    fn what_is_no_record_changes_nothing() {
        let mut held = HeldTable::default();
        held.apply(&TableChange::Records(put(1, "a")));
        let mut invalid = Vec::new();
        records::write_put(&mut invalid, 1, |out| out.push(0xff));
        held.apply(&TableChange::Records(invalid));
        held.apply(&TableChange::Records(vec![9, 9]));
        assert_eq!((held.refused(), sorted(&mut held)), (2, vec!["a".into()]));
    }
}
