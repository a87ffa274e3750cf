//! Lookup and insertion: hash chains that are too long, insert races, a table being resized.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{self, SampleStats};
use crate::kernel_constants::BUCKET_BYTES;
use crate::units::{Bytes, Count};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "chains-too-long",
        number: 8,
        title: "connections are dropped because hash chains are too long (too few buckets)",
        explains: &["buckets-too-few", "udp-insert-race", "snat-port-race"],
        check: chains_too_long,
    },
    DoctorRule {
        name: "buckets-too-few",
        number: 9,
        title: "hash chains are long: many entries, few buckets",
        explains: &[],
        check: buckets_too_few,
    },
    DoctorRule {
        name: "udp-insert-race",
        number: 6,
        title: "packets sent at the same time lose an insert race (5-second DNS delays)",
        explains: &[],
        check: udp_insert_race,
    },
    DoctorRule {
        name: "snat-port-race",
        number: 6,
        title: "new connections choose the same NAT port at the same time, and one of them is dropped",
        explains: &[],
        check: snat_port_race,
    },
    DoctorRule {
        name: "resize-stalls",
        number: 21,
        title: "lookups restart: the table is being resized under load",
        explains: &[],
        check: resize_stalls,
    },
];

/// Entries per bucket above which lookups are slow: each connection is in two chains, so chains average twice as many.
/// Kernels up to 5.14 allow four by default.
const MAX_ENTRIES_PER_BUCKET: u64 = 4;

/// Limit per bucket above which a full table has long chains. `hashsize=` alone makes it 8, which is common.
const MAX_LIMIT_PER_BUCKET: u64 = 8;

/// Lost races since boot that are worth reporting. A few happen on any busy resolver.
const MIN_LOST_RACES: u64 = 100;

/// Entries per lost race a second that a busy resolver has without anybody noticing.
const ENTRIES_PER_LOST_RACE: u64 = 10_000;

/// Percent of the entries that are UDP below which failed inserts have another cause.
const MIN_UDP_PERCENT: u64 = 5;

/// Lookup restarts per second above which it is not chance: an entry reused while it is read causes one now and then.
const MAX_RESTARTS_PER_SECOND: u64 = 100;

/// The entries of all namespaces, which share one hash table, and its buckets.
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
    // It happened at some time since boot, and chains are short now: it is fixed already.
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
        let value = format!("{} since boot, {} in the interval", Count(all), Count(now));
        let source = space.counters.as_ref().map_or("", |counters| counters.source.as_str());
        finding = finding.evidence(&format!("dropped in {}", space.name), value, source);
    }
    let wanted = wanted_buckets(seen, entries);
    vec![
        finding
            .meaning("All network namespaces share one hash table. A chain of more than about 50 to 79 entries takes no more: the packet is dropped although the table is not full.")
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
    let average = entries.saturating_mul(2) / size;
    let meaning = if crowded {
        format!(
            "Each packet's lookup walks a chain of {average} entries on average, one cache miss each: this costs CPU time."
        )
    } else {
        "The limit was raised but the buckets were not: with a full table chains get so long that every lookup is slow and \
         inserts fail."
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
    remedy::set_buckets(
        seen,
        buckets,
        &format!(
            "takes {cost} of memory; packets wait while the table is resized, so do it off-peak, and in steps if it is large"
        ),
    )
}

fn persist_buckets(seen: &Observations, buckets: u64) -> RemedyStep {
    RemedyStep::command(
        remedy::sysctl_location(seen),
        remedy::tune_command(&format!("--buckets {buckets}")),
        "one bucket per entry of the limit",
    )
}

/// Are there more lost races in the interval than a table of this size always has?
fn is_noteworthy(space: &ObservedNamespace, lost: u64) -> bool {
    let over_ms = space.growth.map_or(0, |growth| growth.over_ms).max(1);
    let entries = space.count.as_ref().map_or(0, |count| count.value);
    lost.saturating_mul(1000) / over_ms >= (entries / ENTRIES_PER_LOST_RACE).max(1)
}

fn udp_insert_race(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let lost = |failed: u64, long: Option<u64>, dropped: u64| failed.saturating_sub(long.unwrap_or(0)).min(dropped);
        let now =
            space.growth.map_or(0, |growth| lost(growth.by.insert_failed, growth.by.chaintoolong, growth.by.drop));
        let counters = space.counters.as_ref()?;
        let all = lost(counters.value.insert_failed, counters.value.chaintoolong, counters.value.drop);
        // Counters since boot say nothing about now, unless they are all there is.
        if space.growth.map_or(all < MIN_LOST_RACES, |_| !is_noteworthy(space, now)) {
            return None;
        }
        let stats = SampleStats::from_sample(space);
        // Without UDP in the table it was not this race.
        if stats.as_ref().is_some_and(|stats| stats.percent(stats.udp) < MIN_UDP_PERCENT) {
            return None;
        }
        let asks_names = stats.as_ref().is_some_and(|stats| {
            stats.ports.iter().any(|(protocol, port, _)| (*protocol, *port) == (sample_stats::UDP, 53))
        });
        let translates = space
            .rules
            .as_ref()
            .is_some_and(|rules| !rules.value.destination_nat.is_empty() || !rules.value.source_nat.is_empty());
        // The race happens with NAT and UDP; each of the two makes it more certain.
        let certainty = if asks_names || translates { Certainty::Likely } else { Certainty::Possible };
        let value = match space.growth {
            Some(growth) => format!("{} in {} ms, {} since boot", Count(now), growth.over_ms, Count(all)),
            None => format!("{} since boot (read once, so it may be long ago)", Count(all)),
        };
        let certainty = if space.growth.is_some() { certainty } else { Certainty::Possible };
        let mut finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name).evidence(
            "failed inserts that dropped a packet",
            value,
            &counters.source,
        );
        if let Some(resolved) = counters.value.clash_resolve {
            finding = finding.evidence("races that were resolved", Count(resolved), &counters.source);
        }
        if let (true, Some(sample)) = (asks_names, &space.sample) {
            finding = finding.evidence("among the most frequent destinations", "udp port 53", &sample.source);
        }
        Some(
            finding
                .meaning(
                    "Two packets of one socket (a resolver's A and AAAA queries) were both new; the second insert failed and its \
                     packet was dropped. The resolver retries after five seconds.",
                )
                .now(RemedyStep::command(
                    StepLocation::Elsewhere("the clients' /etc/resolv.conf".into()),
                    "options single-request-reopen",
                    "one socket per query (glibc); or `use-vc` for TCP",
                ))
                .for_good(RemedyStep::manual(StepLocation::Host, "run a resolver on each node that clients reach without NAT (NodeLocal DNSCache)"))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    remedy::notrack_command("udp", "53"),
                    "if DNS is not translated here it needs no tracking",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn snat_port_race(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (growth, counters, rules) = (space.growth?, space.counters.as_ref()?, space.rules.as_ref()?);
        let failed = growth.by.insert_failed.saturating_sub(growth.by.chaintoolong.unwrap_or(0)).min(growth.by.drop);
        let stats = SampleStats::from_sample(space)?;
        // Of UDP the socket's own packets race too: that is another finding.
        if !is_noteworthy(space, failed) || stats.percent(stats.udp) >= MIN_UDP_PERCENT {
            return None;
        }
        let nat = rules.value.source_nat.iter().find(|nat| !nat.is_random)?;
        let random = if nat.rule.starts_with("-A ") { "--random-fully" } else { "fully-random" };
        Some(
            rule.finding(Severity::Warning, Certainty::Likely)
                .in_namespace(&space.name)
                .evidence("failed inserts that dropped a packet", format!("{} in {} ms", Count(failed), growth.over_ms), &counters.source)
                .evidence("TCP", format!("{} % of the entries", stats.percent(stats.tcp)), space.sample.as_ref().map_or("", |sample| sample.source.as_str()))
                .evidence("rule without random ports", &nat.rule, &rules.source)
                .meaning(
                    "Connections to one destination look for a free port of the NAT address in the same order. Two that begin at the \
                     same time find the same one; the second loses its SYN and is sent again a second later.",
                )
                .now(RemedyStep::manual(remedy::namespace_location(space), format!("add {random} to this rule")))
                .for_good(RemedyStep::manual(
                    remedy::namespace_location(space),
                    format!("add {random} where the rule comes from: Docker's, kube-proxy's and the firewall's own configuration write it again"),
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
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
        "lookup restarts",
        format!("{} in {over} ms", Count(restarts)),
        "/proc/net/stat/nf_conntrack, search_restart",
    );
    if let Some((before, after)) = moved {
        finding = finding.evidence(
            "buckets",
            format!("{}, then {}", Count(before), Count(after)),
            "/proc/sys/net/netfilter/nf_conntrack_buckets, read twice",
        );
    }
    vec![
        finding
            .meaning("While the table is resized all its locks are held, and every packet of every namespace waits.")
            .now(RemedyStep::manual(
                remedy::sysctl_location(seen),
                "wait until it is finished; do not resize again now",
            ))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                remedy::tune_command(&format!("--buckets {}", wanted_buckets(seen, 0))),
                "set the size once at boot, while the table is empty; or off-peak, in steps",
            )),
    ]
}
