//! The memory of the table, and whether the machine has enough of it.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use crate::kernel_constants::{ENTRY_BYTES, EXTENSION_BYTES};
use crate::units::{Bytes, Count};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "memory-not-charged",
        number: 22,
        title: "the table uses much of the host's memory, outside every container limit",
        explains: &["extensions-cost-memory"],
        check: memory_not_charged,
    },
    DoctorRule {
        name: "extensions-cost-memory",
        number: 20,
        title: "accounting, events or timestamps make each entry 50 % larger",
        explains: &[],
        check: extensions_cost_memory,
    },
];

/// Percent of the memory that a table should not use unless that was decided.
const HEAVY_PERCENT: u64 = 15;

/// Percent of available memory below which the machine is in danger.
const SCARCE_PERCENT: u64 = 5;

/// Percent of the memory a table must use to be a cause of the shortage.
const SIGNIFICANT_PERCENT: u64 = 5;

/// Permille of the memory that extensions may use without being reported: most machines need one.
const EXTENSIONS_PERMILLE: u64 = 10;

fn total_entries(seen: &Observations) -> u64 {
    let counts = seen.namespaces.iter().filter_map(|space| space.count.as_ref());
    counts.map(|count| count.value).fold(0, u64::saturating_add)
}

fn memory_not_charged(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let (total, available) = (memory.value.total, memory.value.available);
    let objects = seen.slab.as_ref().map_or(0, |slab| slab.value.bytes);
    let bytes = objects.max(total_entries(seen).saturating_mul(ENTRY_BYTES));
    let share = bytes.saturating_mul(100) / total;
    let scarce = available.saturating_mul(100) / total < SCARCE_PERCENT;
    if !(share >= HEAVY_PERCENT || (scarce && share >= SIGNIFICANT_PERCENT)) {
        return Vec::new();
    }
    let severity = if scarce { Severity::Critical } else { Severity::Warning };
    let max = seen.namespaces.iter().find_map(ObservedNamespace::max).unwrap_or(0);
    let limit = (total / 10 / ENTRY_BYTES).clamp(1024, 1 << 30);
    let mut finding = rule
        .finding(severity, Certainty::Certain)
        .evidence("entries of all namespaces", Count(total_entries(seen)), "nf_conntrack_count of each")
        .evidence("memory", format!("{} available of {}", Bytes(available), Bytes(total)), &memory.source);
    if let Some(slab) = &seen.slab {
        let value = format!(
            "{} in {} objects of {}",
            Bytes(slab.value.bytes),
            Count(slab.value.objects),
            Bytes(slab.value.object_size)
        );
        finding = finding.evidence("slab", value, &slab.source);
    }
    vec![
        finding
            .evidence("with a full table", Bytes(max.saturating_mul(ENTRY_BYTES)), "limit × 384 bytes")
            .meaning("Entries are kernel memory that is charged to no control group: a container can fill the host's memory without reaching its own limit.")
            .now(remedy::set_sysctl(
                remedy::sysctl_location(seen),
                "nf_conntrack_max",
                limit,
                "at most a tenth of the memory; if more connections are open, new ones are dropped until the count has fallen",
            ))
            .for_good(RemedyStep::command(remedy::sysctl_location(seen), format!("keepstate size --connections {}", total_entries(seen).max(1)), "computes the table size for as many connections as there are now, and its memory")),
    ]
}

fn extensions_cost_memory(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let mut costly: Vec<(&ObservedNamespace, &str)> = Vec::new();
    let mut held = 0_u64;
    for space in &seen.namespaces {
        // events=2, today's default, uses memory only while a program listens.
        let wants = [("nf_conntrack_acct", 1), ("nf_conntrack_timestamp", 1), ("nf_conntrack_events", 1)];
        let on = wants.into_iter().filter(|(knob, value)| space.sysctl(knob) == Some(*value));
        let before = costly.len();
        costly.extend(on.map(|(knob, _)| (space, knob)));
        if costly.len() > before {
            held = held.saturating_add(space.count.as_ref().map_or(0, |count| count.value));
        }
    }
    let bytes = held.saturating_mul(EXTENSION_BYTES);
    if costly.is_empty() || bytes.saturating_mul(1000) / memory.value.total < EXTENSIONS_PERMILLE {
        return Vec::new();
    }
    let mut finding = rule
        .finding(Severity::Warning, Certainty::Likely)
        .evidence("entries with extensions", Count(held), "nf_conntrack_count")
        .evidence(
            "memory of extensions",
            format!("about {} of {}", Bytes(bytes), Bytes(memory.value.total)),
            &memory.source,
        );
    for (space, knob) in &costly {
        let source = space.sysctls.get(*knob).map_or("", |knob| knob.source.as_str());
        finding = finding.evidence(&format!("{knob} in {}", space.name), space.sysctl(knob).unwrap_or(0), source);
        let value = if *knob == "nf_conntrack_events" { 2 } else { 0 };
        finding = finding
            .now(remedy::set_sysctl(remedy::namespace_location(space), knob, value, "applies to new connections"))
            .for_good(remedy::persist_sysctl(
                remedy::namespace_location(space),
                knob,
                value,
                "unless a program reads this data",
            ));
    }
    vec![finding.meaning(
        "Each entry takes 128 bytes more for this data; with nf_conntrack_events=2 only while a program listens for events.",
    )]
}
