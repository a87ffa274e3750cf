//! Finding and inserting: lists that are too long, races that lose a packet, a table being resized.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{self, SampleStats};
use crate::kernel_constants::BUCKET_BYTES;
use crate::units::{Bytes, Count};

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "chains-too-long",
        number: 8,
        title: "connections are refused because the table has too few buckets",
        explains: &["buckets-too-few", "udp-insert-race"],
        check: chains_too_long,
    },
    DoctorRule {
        name: "buckets-too-few",
        number: 9,
        title: "lookups walk long lists: many entries, few buckets",
        explains: &[],
        check: buckets_too_few,
    },
    DoctorRule {
        name: "udp-insert-race",
        number: 6,
        title: "packets sent at the same moment lose a race for their entry (the five-second DNS stall)",
        explains: &[],
        check: udp_insert_race,
    },
    DoctorRule {
        name: "resize-stalls",
        number: 21,
        title: "lookups start over: the table is being resized under load",
        explains: &[],
        check: resize_stalls,
    },
];

/// Entries a bucket, on average, above which lookups cost: each connection hangs in two lists, so that lists average twice as many.
/// Kernels up to 5.14 allow four by default.
const MAX_ENTRIES_PER_BUCKET: u64 = 4;

/// The limit a bucket above which a full table will have long lists. `hashsize=` alone makes it 8, which many live with.
const MAX_LIMIT_PER_BUCKET: u64 = 8;

/// Lost races since boot that are worth a word. A few happen on any busy resolver.
const MIN_LOST_RACES: u64 = 100;

/// Lookups a second that start over, above which it is more than chance: an entry reused while it is read makes one now and then.
const MAX_RESTARTS_PER_SECOND: u64 = 100;

/// All entries of all namespaces seen, which share one array of buckets; and its size.
fn entries_and_buckets(seen: &Observations) -> Option<(u64, u64)> {
    let buckets =
        seen.namespaces.iter().find_map(|space| space.sysctl("nf_conntrack_buckets")).filter(|size| *size > 0)?;
    let entries = seen.namespaces.iter().filter_map(|space| space.count.as_ref()).map(|count| count.value);
    Some((entries.fold(0, u64::saturating_add), buckets))
}

fn chains_too_long(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let grown: u64 = seen.namespaces.iter().map(|space| space.counter_growth(|by| by.chaintoolong.unwrap_or(0))).sum();
    let stands: u64 = seen.namespaces.iter().map(|space| space.counter_total(|by| by.chaintoolong.unwrap_or(0))).sum();
    if stands == 0 {
        return Vec::new();
    }
    let Some((entries, size)) = entries_and_buckets(seen) else { return Vec::new() };
    // Refused at some time since boot, and the lists are short now: somebody has mended it already.
    if grown == 0 && entries <= size.saturating_mul(MAX_ENTRIES_PER_BUCKET) {
        return Vec::new();
    }
    let severity = if grown > 0 { Severity::Critical } else { Severity::Warning };
    let mut finding = rule
        .finding(severity, Certainty::Certain)
        .evidence("entries of all namespaces", Count(entries), "nf_conntrack_count of each")
        .evidence("buckets", Count(size), "/proc/sys/net/netfilter/nf_conntrack_buckets");
    for space in seen.namespaces.iter().filter(|space| space.counter_total(|by| by.chaintoolong.unwrap_or(0)) > 0) {
        let (now, all) = (
            space.counter_growth(|by| by.chaintoolong.unwrap_or(0)),
            space.counter_total(|by| by.chaintoolong.unwrap_or(0)),
        );
        let value = format!("{} since boot, {} while looking", Count(all), Count(now));
        let source = space.counters.as_ref().map_or("", |counters| counters.source.as_str());
        finding = finding.evidence(&format!("refused in {}", space.name), value, source);
    }
    let wanted = wanted_buckets(seen, entries);
    vec![
        finding
            .meaning("All namespaces share one array of buckets. A list of more than about 50 to 79 entries takes no more: the packet is dropped, though the table is not full.")
            .now(grow_buckets(seen, wanted))
            .for_good(persist_buckets(seen, wanted)),
    ]
}

fn buckets_too_few(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some((entries, size)) = entries_and_buckets(seen) else { return Vec::new() };
    let max = seen.namespaces.iter().find_map(ObservedNamespace::max).unwrap_or(0);
    let crowded = entries > size.saturating_mul(MAX_ENTRIES_PER_BUCKET);
    let promised = max > size.saturating_mul(MAX_LIMIT_PER_BUCKET);
    if !crowded && !promised {
        return Vec::new();
    }
    let wanted = wanted_buckets(seen, entries);
    let certainty = if crowded { Certainty::Certain } else { Certainty::Likely };
    let lists = entries.saturating_mul(2) / size;
    let meaning = if crowded {
        format!(
            "Each packet's lookup walks a list of {lists} on average, one cache miss after another; the processor's time goes there."
        )
    } else {
        "The limit was raised and the buckets were not: a table filled to it would have lists so long that each packet's lookup walks them, \
         and that inserts fail."
            .to_owned()
    };
    vec![
        rule.finding(Severity::Warning, certainty)
            .evidence("entries of all namespaces", Count(entries), "nf_conntrack_count of each")
            .evidence("buckets", Count(size), "/proc/sys/net/netfilter/nf_conntrack_buckets")
            .evidence("limit", Count(max), "/proc/sys/net/netfilter/nf_conntrack_max")
            .meaning(meaning)
            .now(grow_buckets(seen, wanted))
            .for_good(persist_buckets(seen, wanted)),
    ]
}

/// As many buckets as the limit, if there is one.
fn wanted_buckets(seen: &Observations, entries: u64) -> u64 {
    let max = seen.namespaces.iter().find_map(ObservedNamespace::max).unwrap_or(0);
    max.max(entries).clamp(1024, 1 << 27).next_power_of_two()
}

fn grow_buckets(seen: &Observations, buckets: u64) -> RemedyStep {
    let cost = Bytes(buckets.saturating_mul(BUCKET_BYTES));
    remedy::set_sysctl(
        remedy::sysctl_location(seen),
        "nf_conntrack_buckets",
        buckets,
        &format!(
            "{cost} of memory; every packet waits while the table is moved, so off-peak and in steps if it is large"
        ),
    )
}

fn persist_buckets(seen: &Observations, buckets: u64) -> RemedyStep {
    RemedyStep::command(
        remedy::sysctl_location(seen),
        remedy::tune_command(&format!("--buckets {buckets}")),
        "one bucket for each entry allowed",
    )
}

fn udp_insert_race(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let lost = |failed: u64, long: Option<u64>, dropped: u64| failed.saturating_sub(long.unwrap_or(0)).min(dropped);
        let now =
            space.growth.map_or(0, |growth| lost(growth.by.insert_failed, growth.by.chaintoolong, growth.by.drop));
        let counters = space.counters.as_ref()?;
        let all = lost(counters.value.insert_failed, counters.value.chaintoolong, counters.value.drop);
        if now == 0 && all < MIN_LOST_RACES {
            return None;
        }
        let census = SampleStats::from_sample(space);
        let asks_names = census.as_ref().is_some_and(|census| {
            census.ports.iter().any(|(protocol, port, _)| (*protocol, *port) == (sample_stats::UDP, 53))
        });
        let translates = space
            .rules
            .as_ref()
            .is_some_and(|rules| !rules.value.destination_nat.is_empty() || !rules.value.source_nat.is_empty());
        // The race is for NAT and UDP; each of the two that was seen makes it surer.
        let certainty = if asks_names || translates { Certainty::Likely } else { Certainty::Possible };
        let value = format!("{} since boot, {} while looking", Count(all), Count(now));
        let mut finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name).evidence(
            "inserts that failed and cost a packet",
            value,
            &counters.source,
        );
        if let Some(resolved) = counters.value.clash_resolve {
            finding = finding.evidence("races that cost nothing", Count(resolved), &counters.source);
        }
        if let (true, Some(sample)) = (asks_names, &space.sample) {
            finding = finding.evidence("among the most entries", "udp port 53", &sample.source);
        }
        Some(
            finding
                .meaning(
                    "Two packets of one socket, as resolvers send for A and AAAA, were both new; the second to be entered was dropped. \
                     A resolver asks again after five seconds.",
                )
                .now(RemedyStep::command(
                    StepLocation::Elsewhere("the clients' /etc/resolv.conf".into()),
                    "options single-request-reopen",
                    "one socket a question (glibc); or `use-vc` for TCP",
                ))
                .for_good(RemedyStep::manual(StepLocation::Host, "a resolver on each node that clients reach without NAT (NodeLocal DNSCache)"))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    remedy::notrack_command("udp", "53"),
                    "where DNS is not translated it needs no tracking",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn resize_stalls(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let moved = seen
        .namespaces
        .iter()
        .filter_map(|space| space.sysctls.get("nf_conntrack_buckets"))
        .find_map(|knob| knob.reread_value.map(|later| (knob.value, later)));
    let mut over = 0;
    let mut restarts = 0;
    for space in &seen.namespaces {
        let Some(growth) = space.growth else { continue };
        over = over.max(growth.over_ms);
        restarts += growth.by.search_restart;
    }
    let many = over > 0 && restarts.saturating_mul(1000) / over >= MAX_RESTARTS_PER_SECOND;
    if moved.is_none() && !many {
        return Vec::new();
    }
    let certainty = if moved.is_some() { Certainty::Certain } else { Certainty::Possible };
    let mut finding = rule.finding(Severity::Warning, certainty).evidence(
        "lookups that started over",
        format!("{} in {over} ms", Count(restarts)),
        "/proc/net/stat/nf_conntrack, search_restart",
    );
    if let Some((before, after)) = moved {
        finding = finding.evidence(
            "buckets",
            format!("{} and then {}", Count(before), Count(after)),
            "/proc/sys/net/netfilter/nf_conntrack_buckets, read twice",
        );
    }
    vec![
        finding
            .meaning("While entries are moved to a new array, all locks are taken and every packet of every namespace waits.")
            .now(RemedyStep::manual(remedy::sysctl_location(seen), "let it end, and do not resize again now"))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                remedy::tune_command("--buckets N"),
                "set the size once, at boot, when the table is empty; else off-peak, in steps",
            )),
    ]
}
