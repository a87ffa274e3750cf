//! Connections by namespace and by container, counted when somebody asks: whose a connection is may become known after it began.
use crate::flow_record::{FlowRecord, seconds};
use crate::groups::GroupRow;
use crate::owner::OwnerIndex;
use std::collections::HashMap;
use std::time::Duration;

/// Connections that began within so many seconds are new.
const NEW_SECONDS: u32 = 10;

/// Both groupings, the largest groups first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnerGroups {
    /// By network namespace.
    pub namespaces: Vec<GroupRow>,
    /// By container, pod or service.
    pub containers: Vec<GroupRow>,
}

#[derive(Clone, Copy, Default)]
struct OwnerTally {
    entries: u64,
    new: u64,
    bytes_per_second: u64,
}

/// Counts all records. `known_since`: what was there before was first seen then, and is not new.
pub(crate) fn count<'a>(
    records: impl Iterator<Item = &'a FlowRecord>,
    owners: &OwnerIndex,
    known_since: Duration,
    now: Duration,
) -> OwnerGroups {
    let mut tallies: [HashMap<u32, OwnerTally>; 2] = Default::default();
    let (now, known_since) = (seconds(now), seconds(known_since));
    for record in records {
        let owner = owners.owner(&record.key, record.server());
        let is_new = record.began > known_since && now.saturating_sub(record.began) < NEW_SECONDS;
        for (tallies, label) in tallies.iter_mut().zip([owner.namespace, owner.container]) {
            let tally = tallies.entry(label).or_default();
            tally.entries += 1;
            tally.new += u64::from(is_new);
            tally.bytes_per_second = tally.bytes_per_second.saturating_add(record.bytes_per_second());
        }
    }
    let rows = |tallies: &HashMap<u32, OwnerTally>| {
        let row = |(label, tally): (&u32, &OwnerTally)| GroupRow {
            label: owners.text(*label).to_owned(),
            words: String::new(),
            entries: tally.entries,
            new_per_second: tally.new as f64 / f64::from(NEW_SECONDS),
            bytes_per_second: tally.bytes_per_second,
        };
        let mut rows: Vec<GroupRow> = tallies.iter().map(row).collect();
        rows.sort_by(|a, b| b.entries.cmp(&a.entries).then(a.label.cmp(&b.label)));
        rows
    };
    let [namespaces, containers] = &tallies;
    OwnerGroups { namespaces: rows(namespaces), containers: rows(containers) }
}
