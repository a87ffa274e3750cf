//! A table that is full, or about to be.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::flood::{self, Unanswered};
use super::observations::{Observations, ObservedNamespace, TableFullLines};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{SampleStats, protocol_name};
use crate::units::{Count, Seconds};

/// The rules about a table that is or was full: what explains its count explains them.
pub(super) const OF_A_FULL_TABLE: &[&str] = &[
    "full-in-namespace",
    "table-full-half-open",
    "table-full-assured",
    "table-nearly-full",
    "nearly-full-reclaimable",
    "table-was-full",
];

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "count-above-max",
        number: 11,
        title: "the limit is below the number of entries in the table",
        explains: OF_A_FULL_TABLE,
        check: count_above_max,
    },
    DoctorRule {
        name: "full-in-namespace",
        number: 10,
        title: "the table of one network namespace is full, while the host's is not",
        explains: &[
            "table-full-half-open",
            "table-full-assured",
            "table-nearly-full",
            "nearly-full-reclaimable",
            "table-was-full",
        ],
        check: full_in_namespace,
    },
    DoctorRule {
        name: "table-full-half-open",
        number: 2,
        title: "the table is full of unfinished handshakes",
        explains: &["table-nearly-full", "nearly-full-reclaimable", "table-was-full", "one-way-flows", "udp-dominates"],
        check: table_full_half_open,
    },
    DoctorRule {
        name: "table-full-assured",
        number: 1,
        title: "the table is full, and new connections are dropped",
        explains: &["table-nearly-full", "nearly-full-reclaimable", "table-was-full"],
        check: table_full_assured,
    },
    DoctorRule { name: "no-limit", number: 26, title: "the table has no limit", explains: &[], check: no_limit },
    DoctorRule {
        name: "nearly-full-reclaimable",
        number: 3,
        title: "the table is nearly full, but most entries can be evicted",
        explains: &["table-was-full"],
        check: nearly_full_reclaimable,
    },
    DoctorRule {
        name: "table-nearly-full",
        number: 1,
        title: "the table is nearly full",
        explains: &["table-was-full"],
        check: table_nearly_full,
    },
    DoctorRule {
        name: "table-was-full",
        number: 1,
        title: "the table was full recently",
        explains: &[],
        check: table_was_full,
    },
    DoctorRule {
        name: "no-lifeline",
        number: 25,
        title: "when the table is full, new SSH logins are dropped too",
        explains: &[],
        check: no_lifeline,
    },
];

/// Percent of the limit from which a table counts as full: entries come and go, and a reading is one moment.
pub(super) const FULL_PERCENT: u64 = 98;

/// Percent at which monitoring usually alerts (node_exporter's rule); above it the entries are looked at.
const ALERT_PERCENT: u64 = 75;

/// Percent above which a table of mostly ASSURED entries is near its limit: an ordinary burst would fill it.
const NEARLY_FULL_PERCENT: u64 = 85;

/// Log lines older than this, in seconds, say nothing about now: an hour.
const RECENT_SECONDS: u64 = 3600;

/// Log lines older than this, in seconds, are not reported: a day.
const MAX_LOG_AGE_SECONDS: u64 = 86_400;

/// A full table, and what shows it.
struct FullTable<'a> {
    namespace: &'a ObservedNamespace,
    dropped: u64,
    evicted: u64,
    log: Option<(&'a TableFullLines, &'a str)>,
    sample_stats: Option<SampleStats>,
}

/// Is this table full now?
fn detect_full<'a>(seen: &'a Observations, space: &'a ObservedNamespace) -> Option<FullTable<'a>> {
    let (dropped, evicted) = drops_and_evictions(space);
    let crowded = space.fill_percent()? >= FULL_PERCENT;
    let log = table_full_log(seen, space).filter(|(full, _)| full.age.is_some_and(|age| age <= RECENT_SECONDS));
    // A drop has other causes too, but hardly with a table that is nearly full.
    // A log line is about the past: it counts only where nothing was measured.
    let was_losing = log.is_some() && space.growth.is_none();
    let losing = (dropped > 0 || evicted > 0 || was_losing) && space.fill_percent()? >= NEARLY_FULL_PERCENT;
    (crowded || losing).then(|| FullTable {
        namespace: space,
        dropped,
        evicted,
        log,
        sample_stats: SampleStats::from_sample(space),
    })
}

/// Packets dropped and entries evicted during the interval. A failed insert counts as a drop too, but has other causes.
fn drops_and_evictions(space: &ObservedNamespace) -> (u64, u64) {
    let dropped = space.counter_growth(|by| by.drop).saturating_sub(space.counter_growth(|by| by.insert_failed));
    (dropped, space.counter_growth(|by| by.early_drop))
}

/// The log lines about a namespace, unless its own counters contradict them: inodes are reused, and the log keeps lines about namespaces that are gone.
fn table_full_log<'a>(seen: &'a Observations, space: &ObservedNamespace) -> Option<(&'a TableFullLines, &'a str)> {
    let log = seen.log.as_ref()?;
    let full = match (space.is_initial, space.inode) {
        (Some(true), _) => &log.value.initial,
        (Some(false), Some(inode)) => log.value.by_inode.get(&inode)?,
        // Only one namespace is known, and not which: lines without an inode are taken as its own.
        (None, _) if seen.namespaces.len() == 1 => &log.value.initial,
        _ => return None,
    };
    let denied = space.counters.is_some() && space.counter_total(|counters| counters.drop) == 0;
    (full.lines > 0 && !denied).then_some((full, log.source.as_str()))
}

impl FullTable<'_> {
    /// Is it full of unfinished handshakes?
    fn is_half_open(&self) -> bool {
        match &self.sample_stats {
            // For TCP the handshake counts; in a UDP flood the entries were never answered.
            Some(stats) => stats.percent(stats.half_open.max(stats.unreplied)) >= 50,
            None => self.evicted > self.dropped,
        }
    }

    /// A finding with all the evidence.
    fn finding(&self, rule: &DoctorRule, certainty: Certainty) -> Finding {
        let mut finding = with_entries_and_limit(
            rule.finding(Severity::Critical, certainty).in_namespace(&self.namespace.name),
            self.namespace,
        );
        let over = self.namespace.growth.map_or(String::new(), |growth| format!(" in {} ms", growth.over_ms));
        let counters = "/proc/net/stat/nf_conntrack";
        let source = self.namespace.counters.as_ref().map_or(counters, |counters| counters.source.as_str());
        if self.namespace.growth.is_some() {
            finding = finding.evidence("packets dropped", format!("{}{over}", Count(self.dropped)), source);
            finding = finding.evidence("entries evicted early", format!("{}{over}", Count(self.evicted)), source);
        }
        if self.namespace.counters.is_some() {
            let drops = self.namespace.counter_total(|counters| counters.drop);
            finding = finding.evidence("packets dropped since boot", Count(drops), source);
        }
        if let Some((full, source)) = self.log {
            finding = finding.evidence("kernel log", &full.latest, source);
        }
        with_sample_stats(finding, self.namespace, self.sample_stats.as_ref())
    }
}

/// Adds entries and limit.
fn with_entries_and_limit(finding: Finding, space: &ObservedNamespace) -> Finding {
    let (Some(count), Some(max)) = (&space.count, space.sysctls.get("nf_conntrack_max")) else { return finding };
    let share = space.fill_percent().map_or(String::new(), |share| format!(" ({share} % of the limit)"));
    finding.evidence("entries", format!("{}{share}", Count(count.value)), &count.source).evidence(
        "limit",
        Count(max.value),
        &max.source,
    )
}

/// Adds what the table holds.
fn with_sample_stats(finding: Finding, space: &ObservedNamespace, stats: Option<&SampleStats>) -> Finding {
    let (Some(stats), Some(sample)) = (stats, &space.sample) else { return finding };
    let source = format!("{}, {} entries", sample.source, Count(stats.sampled));
    let finding = finding.evidence("table contents", stats.summary(), &source);
    match stats.top_port() {
        Some(port) => finding.evidence("most frequent destination", port, &source),
        None => finding,
    }
}

fn count_above_max(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (count, max) = (space.count.as_ref()?.value, space.max().filter(|max| *max > 0)?);
        // Unconfirmed entries count already: a few above the limit are normal.
        if count <= max + max / 50 + 8 {
            return None;
        }
        let enough = (count + count / 4).next_power_of_two();
        let finding = with_entries_and_limit(
            rule.finding(Severity::Critical, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        let finding = with_sample_stats(finding, space, SampleStats::from_sample(space).as_ref());
        Some(
            finding
                .meaning("Lowering the limit removes no entries. New connections are dropped until the count has fallen below it.")
                .now(remedy::set_sysctl(remedy::sysctl_location(seen), "nf_conntrack_max", enough, "a limit above the current count"))
                .for_good(RemedyStep::manual(
                    remedy::sysctl_location(seen),
                    "to make the table smaller: shorten the timeouts, wait until the count has fallen, then lower the limit",
                ))
                .for_good(remedy::persist_limit(seen, enough)),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn full_in_namespace(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(host) = seen.namespaces.iter().find(|space| space.is_initial == Some(true)) else { return Vec::new() };
    if host.fill_percent().is_none_or(|share| share >= ALERT_PERCENT) {
        return Vec::new();
    }
    let others = seen.namespaces.iter().filter(|space| space.is_initial == Some(false));
    let check = |space: &ObservedNamespace| {
        let full = detect_full(seen, space)?;
        let limit = remedy::limit_with_headroom(space);
        let host_count = host.count.as_ref().map_or(0, |count| count.value);
        Some(
            full.finding(rule, Certainty::Certain)
                .evidence("entries on the host", Count(host_count), "nf_conntrack_count of the initial namespace")
                .meaning(
                    "Each network namespace counts its own entries against the same limit, which can only be set in the initial \
                     namespace. Monitoring the host's count does not see this.",
                )
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit))
                .for_good(RemedyStep::command(
                    remedy::sysctl_location(seen),
                    "keepstate doctor --watch",
                    "watches every namespace, not only the host's",
                )),
        )
    };
    others.filter_map(check).collect()
}

fn table_full_half_open(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let full = detect_full(seen, space).filter(FullTable::is_half_open)?;
        let certainty = if full.sample_stats.is_some() { Certainty::Certain } else { Certainty::Likely };
        let mut finding = full.finding(rule, certainty);
        let stats = full.sample_stats.as_ref();
        Some(match stats.map_or(Unanswered::Handshakes, Unanswered::most_of) {
            Unanswered::Handshakes => {
                let finding = finding.meaning(
                    "Connections are opened and never finished: a SYN flood, a scan, or a destination that does not answer. \
                     The kernel evicts such entries for new connections, and drops packets when it finds none to evict.",
                );
                flood::with_syn_flood_remedies(finding, space, stats)
            }
            Unanswered::PickedUp => {
                finding.title = "the table is full of TCP connections of which only one direction was ever seen";
                let finding = finding.meaning(
                    "Segments without a handshake are entries too (nf_conntrack_tcp_loose), for five minutes: a flood of ACKs, or \
                     requests and replies that take different paths. The kernel evicts such entries for new connections, and drops \
                     packets when it finds none to evict.",
                );
                flood::with_picked_up_remedies(finding, space)
            }
            Unanswered::Udp => {
                finding.title = "the table is full of UDP flows that nobody answers";
                let finding = finding.meaning(
                    "Each packet from another address or port is an entry for 30 s: a flood with forged sources, a scan, or a server that \
                     does not answer. The kernel evicts such entries for new connections, and drops packets when it finds none to evict.",
                );
                flood::with_udp_flood_remedies(finding, space, stats)
            }
            Unanswered::Other(protocol) => {
                finding.title = "the table is full of packets that nobody answers, neither TCP nor UDP";
                let name = protocol_name(protocol);
                let finding = finding.meaning(format!(
                    "Most entries are {name} without a reply: a flood with forged sources, a scan, or a destination that does not \
                     answer. The kernel evicts such entries for new connections, and drops packets when it finds none to evict.",
                ));
                flood::with_other_flood_remedies(finding, space, protocol)
            }
        })
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn table_full_assured(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let full = detect_full(seen, space).filter(|full| !full.is_half_open())?;
        let losing = full.dropped > 0 || full.log.is_some();
        let certainty = if losing { Certainty::Certain } else { Certainty::Likely };
        let limit = remedy::limit_with_headroom(space);
        Some(
            full.finding(rule, certainty)
                .meaning(
                    "Established connections (ASSURED) stay for their whole timeout and are never evicted. Existing connections \
                     work; new ones time out.",
                )
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    "keepstate disable",
                    "shows whether anything here needs tracking; without tracking no table can fill",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn no_limit(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(space) = seen.namespaces.iter().find(|space| space.max() == Some(0)) else { return Vec::new() };
    let limit = remedy::limit_with_headroom(space).max(262_144);
    let source = space.sysctls.get("nf_conntrack_max").map_or("", |knob| knob.source.as_str());
    vec![
        rule.finding(Severity::Warning, Certainty::Certain)
            .evidence("limit", "0", source)
            .evidence("entries", space.count.as_ref().map_or(0, |count| count.value), "nf_conntrack_count")
            .meaning("0 means unlimited: a flood of connections can use all memory.")
            .now(remedy::set_sysctl(remedy::sysctl_location(seen), "nf_conntrack_max", limit, "a finite limit"))
            .for_good(remedy::persist_limit(seen, limit)),
    ]
}

fn nearly_full_reclaimable(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let share = space.fill_percent().filter(|share| *share >= ALERT_PERCENT)?;
        let stats = SampleStats::from_sample(space)?;
        let evictable = stats.percent(stats.sampled - stats.assured);
        if evictable < 50 || share >= FULL_PERCENT {
            return None;
        }
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            with_sample_stats(finding, space, Some(&stats))
                .evidence("can be evicted", format!("{evictable} % of the entries"), "entries of the sample that are not ASSURED")
                .meaning("Nothing is lost: when the table is full the kernel evicts entries that are not ASSURED. Alerting at this level is a false alarm.")
                .now(RemedyStep::command(remedy::namespace_location(space), "keepstate conntrack -C", "run it twice to see whether the count grows"))
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("the monitoring".into()),
                    "alert when ASSURED entries exceed 75 % of the limit, or the counter drop grows",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn table_nearly_full(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        space.fill_percent().filter(|share| (NEARLY_FULL_PERCENT..FULL_PERCENT).contains(share))?;
        let stats = SampleStats::from_sample(space);
        if stats.as_ref().is_some_and(|stats| stats.percent(stats.assured) <= 50) {
            return None;
        }
        let limit = remedy::limit_with_headroom(space);
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            with_sample_stats(finding, space, stats.as_ref())
                .meaning("The next burst can fill it; then new connections are dropped.")
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn table_was_full(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (full, source) = table_full_log(seen, space)?;
        // Lines without a time may be old.
        if full.age.is_some_and(|age| age > MAX_LOG_AGE_SECONDS) {
            return None;
        }
        let age = full.age.map_or("at an unknown time".to_owned(), |age| format!("{} ago", Seconds(age)));
        let limit = remedy::limit_with_headroom(space);
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            finding
                .evidence("kernel log", format!("{} ({} lines, the latest {age})", full.latest, full.lines), source)
                .evidence(
                    "packets dropped since boot",
                    Count(space.counter_total(|counters| counters.drop)),
                    "/proc/net/stat/nf_conntrack",
                )
                .meaning("There is room now, but the cause may return.")
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    "keepstate doctor --watch",
                    "shows what the table holds when it fills again",
                ))
                .for_good(remedy::persist_limit(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn no_lifeline(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let port = space.management_port.as_ref()?;
        let rules = space.rules.as_ref()?;
        space.fill_percent().filter(|share| *share >= NEARLY_FULL_PERCENT)?;
        let covered = rules.value.notrack.iter().any(|rule| {
            rule.split_ascii_whitespace().any(|word| word.trim_matches([',', '{', '}']) == port.value.to_string())
        });
        if covered {
            return None;
        }
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            finding
                .evidence("login service on", format!("tcp port {}", port.value), &port.source)
                .evidence("notrack rules for it", "none", &rules.source)
                .meaning("A full table drops new SSH connections like any other. Keep the session that is open.")
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("nft 'table inet lifeline {{ chain pre {{ type filter hook prerouting priority -300; tcp dport {0} notrack; }}; chain out {{ type filter hook output priority -300; tcp sport {0} notrack; }}; }}'", port.value),
                    "rules that accept only established connections must then accept this port explicitly",
                ))
                .for_good(RemedyStep::command(remedy::namespace_location(space), remedy::notrack_command("tcp", &port.value.to_string()), "the same with checks; prints rules that can be kept in a file")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}
