//! What the table weighs, and whether the machine can bear it.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use crate::kernel_constants::{ENTRY_BYTES, EXTENSION_BYTES};
use crate::units::{Bytes, Count};

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "memory-not-charged",
        number: 22,
        title: "the table takes the host's memory, and no container's limit holds it",
        explains: &["extensions-cost-memory"],
        check: memory_not_charged,
    },
    DoctorRule {
        name: "extensions-cost-memory",
        number: 20,
        title: "accounting, events or timestamps make each entry half as large again",
        explains: &[],
        check: extensions_cost_memory,
    },
];

/// A share of the memory, in hundredths, that a table should not take without somebody having decided so.
const HEAVY_PERCENT: u64 = 15;

/// A share that is still available, below which the machine is in danger.
const SCARCE_PERCENT: u64 = 5;

/// What a table must take of a scarce memory to be among the culprits.
const SIGNIFICANT_PERCENT: u64 = 5;

/// A share of the memory, in thousandths, that extensions may cost without a word: most machines have one and want it.
const EXTENSIONS_PERMILLE: u64 = 10;

fn total_entries(seen: &Observations) -> u64 {
    let counts = seen.namespaces.iter().filter_map(|space| space.count.as_ref());
    counts.map(|count| count.value).fold(0, u64::saturating_add)
}

fn memory_not_charged(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let (total, available) = (memory.value.total, memory.value.available);
    let objects = seen.slab.as_ref().map_or(0, |slab| slab.value.bytes);
    let octets = objects.max(total_entries(seen).saturating_mul(ENTRY_BYTES));
    let share = octets.saturating_mul(100) / total;
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
        finding = finding.evidence("the kernel's objects", value, &slab.source);
    }
    vec![
        finding
            .evidence("if it were full", Bytes(max.saturating_mul(ENTRY_BYTES)), "limit × 384 octets")
            .meaning("Entries are the kernel's own memory, charged to no control group: a container can fill the host's memory from inside its own limit.")
            .now(remedy::set_sysctl(
                remedy::sysctl_location(seen),
                "nf_conntrack_max",
                limit,
                "a tenth of the memory, for new entries; see first what would be refused: keepstate top",
            ))
            .for_good(RemedyStep::command(remedy::sysctl_location(seen), "keepstate size --connections N", "what the table needs, and what that costs of the host's budget")),
    ]
}

fn extensions_cost_memory(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let mut costly: Vec<(&ObservedNamespace, &str)> = Vec::new();
    let mut held = 0_u64;
    for space in &seen.namespaces {
        // events=2, the default of today, takes memory only while somebody listens.
        let wants = [("nf_conntrack_acct", 1), ("nf_conntrack_timestamp", 1), ("nf_conntrack_events", 1)];
        let on = wants.into_iter().filter(|(knob, value)| space.sysctl(knob) == Some(*value));
        let before = costly.len();
        costly.extend(on.map(|(knob, _)| (space, knob)));
        if costly.len() > before {
            held = held.saturating_add(space.count.as_ref().map_or(0, |count| count.value));
        }
    }
    let octets = held.saturating_mul(EXTENSION_BYTES);
    if costly.is_empty() || octets.saturating_mul(1000) / memory.value.total < EXTENSIONS_PERMILLE {
        return Vec::new();
    }
    let mut finding = rule
        .finding(Severity::Warning, Certainty::Likely)
        .evidence("entries with extensions", Count(held), "nf_conntrack_count")
        .evidence("they cost", format!("about {} of {}", Bytes(octets), Bytes(memory.value.total)), &memory.source);
    for (space, knob) in &costly {
        let source = space.sysctls.get(*knob).map_or("", |knob| knob.source.as_str());
        finding = finding.evidence(&format!("{knob} in {}", space.name), space.sysctl(knob).unwrap_or(0), source);
        let value = if *knob == "nf_conntrack_events" { 2 } else { 0 };
        finding = finding
            .now(remedy::set_sysctl(
                remedy::namespace_location(space),
                knob,
                value,
                "for connections that begin from now on",
            ))
            .for_good(remedy::persist_sysctl(
                remedy::namespace_location(space),
                knob,
                value,
                "unless something reads what they keep",
            ));
    }
    vec![finding.meaning(
        "Each entry has 128 octets more for what is counted and kept; with events=2 only while somebody listens.",
    )]
}
