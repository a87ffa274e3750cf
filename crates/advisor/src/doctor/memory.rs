//! What the table weighs, and whether the machine can bear it.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Namespace, Observations};
use super::{Rule, remedy};
use crate::quantity::{Bytes, Count};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "memory-not-charged",
        number: 22,
        title: "the table takes the host's memory, and no container's limit holds it",
        explains: &["extensions-cost-memory"],
        judge: uncharged,
    },
    Rule {
        name: "extensions-cost-memory",
        number: 20,
        title: "accounting, events or timestamps make each entry half as large again",
        explains: &[],
        judge: extensions,
    },
];

/// A share of the memory, in hundredths, that a table should not take without somebody having decided so.
const HEAVY: u64 = 15;

/// A share that is still available, below which the machine is in danger.
const SCARCE: u64 = 5;

/// What a table must take of a scarce memory to be among the culprits.
const CULPRIT: u64 = 5;

/// A share of the memory, in thousandths, that extensions may cost without a word: most machines have one and want it.
const EXTENSIONS: u64 = 10;

/// Octets that extensions add to an entry.
const EXTENSION: u64 = 128;

fn entries(seen: &Observations) -> u64 {
    let counts = seen.namespaces.iter().filter_map(|space| space.count.as_ref());
    counts.map(|count| count.value).fold(0, u64::saturating_add)
}

fn uncharged(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let (total, available) = (memory.value.total, memory.value.available);
    let objects = seen.slab.as_ref().map_or(0, |slab| slab.value.octets);
    let octets = objects.max(entries(seen).saturating_mul(remedy::CONNECTION));
    let share = octets.saturating_mul(100) / total;
    let scarce = available.saturating_mul(100) / total < SCARCE;
    if !(share >= HEAVY || (scarce && share >= CULPRIT)) {
        return Vec::new();
    }
    let severity = if scarce { Severity::Critical } else { Severity::Warning };
    let max = seen.namespaces.iter().find_map(Namespace::max).unwrap_or(0);
    let limit = (total / 10 / remedy::CONNECTION).clamp(1024, 1 << 30);
    let mut finding = Finding::new(rule, severity, Certainty::Certain)
        .seen("entries of all namespaces", Count(entries(seen)), "nf_conntrack_count of each")
        .seen("memory", format!("{} available of {}", Bytes(available), Bytes(total)), &memory.source);
    if let Some(slab) = &seen.slab {
        let value = format!(
            "{} in {} objects of {}",
            Bytes(slab.value.octets),
            Count(slab.value.objects),
            Bytes(slab.value.object_size)
        );
        finding = finding.seen("the kernel's objects", value, &slab.source);
    }
    vec![
        finding
            .seen("if it were full", Bytes(max.saturating_mul(remedy::CONNECTION)), "limit × 384 octets")
            .means("Entries are the kernel's own memory, charged to no control group: a container can fill the host's memory from inside its own limit.")
            .now(remedy::set(
                remedy::owner(seen),
                "nf_conntrack_max",
                limit,
                "a tenth of the memory, for new entries; see first what would be refused: keepstate top",
            ))
            .for_good(Step::run(remedy::owner(seen), "keepstate size --connections N", "what the table needs, and what that costs of the host's budget")),
    ]
}

fn extensions(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(memory) = seen.machine.memory.as_ref().filter(|memory| memory.value.total > 0) else { return Vec::new() };
    let mut costly: Vec<(&Namespace, &str)> = Vec::new();
    let mut held = 0_u64;
    for space in &seen.namespaces {
        // events=2, the default of today, takes memory only while somebody listens.
        let wants = [("nf_conntrack_acct", 1), ("nf_conntrack_timestamp", 1), ("nf_conntrack_events", 1)];
        let on = wants.into_iter().filter(|(knob, value)| space.knob(knob) == Some(*value));
        let before = costly.len();
        costly.extend(on.map(|(knob, _)| (space, knob)));
        if costly.len() > before {
            held = held.saturating_add(space.count.as_ref().map_or(0, |count| count.value));
        }
    }
    let octets = held.saturating_mul(EXTENSION);
    if costly.is_empty() || octets.saturating_mul(1000) / memory.value.total < EXTENSIONS {
        return Vec::new();
    }
    let mut finding = Finding::new(rule, Severity::Warning, Certainty::Likely)
        .seen("entries with extensions", Count(held), "nf_conntrack_count")
        .seen("they cost", format!("about {} of {}", Bytes(octets), Bytes(memory.value.total)), &memory.source);
    for (space, knob) in &costly {
        let source = space.knobs.get(*knob).map_or("", |knob| knob.source.as_str());
        finding = finding.seen(&format!("{knob} in {}", space.name), space.knob(knob).unwrap_or(0), source);
        let value = if *knob == "nf_conntrack_events" { 2 } else { 0 };
        finding = finding
            .now(remedy::set(remedy::inside(space), knob, value, "for connections that begin from now on"))
            .for_good(remedy::set_for_good(
                remedy::inside(space),
                knob,
                value,
                "unless something reads what they keep",
            ));
    }
    vec![finding.means(
        "Each entry has 128 octets more for what is counted and kept; with events=2 only while somebody listens.",
    )]
}
