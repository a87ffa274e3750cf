//! The full table, and one that is about to be.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace, TableFullLines};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::SampleStats;
use crate::units::{Count, Seconds};

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "count-above-max",
        number: 11,
        title: "the limit was lowered below what is in the table",
        explains: &[
            "full-in-namespace",
            "table-full-half-open",
            "table-full-assured",
            "table-nearly-full",
            "nearly-full-reclaimable",
            "table-was-full",
        ],
        check: count_above_max,
    },
    DoctorRule {
        name: "full-in-namespace",
        number: 10,
        title: "the table is full in one namespace, while the host's looks fine",
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
        title: "the table is full of connections that were never finished",
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
        title: "the table is nearly full, but mostly of what the kernel evicts by itself",
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
        title: "the table was full lately",
        explains: &[],
        check: table_was_full,
    },
    DoctorRule {
        name: "no-lifeline",
        number: 25,
        title: "when the table is full, nobody can log in to mend it",
        explains: &[],
        check: no_lifeline,
    },
];

/// From here on, in hundredths, a table counts as full: the kernel compares with `>`, entries come and go, and what is seen is a moment.
const FULL_PERCENT: u64 = 98;

/// Where people set their alarms, in hundredths, as node_exporter's does: what is above it is looked at closely.
const ALERT_PERCENT: u64 = 75;

/// Above this nothing but ASSURED entries is near trouble: a burst as large as seen every day would fill it.
const NEARLY_FULL_PERCENT: u64 = 85;

/// Lines of the log older than this, in seconds, are history: an hour.
const RECENT_SECONDS: u64 = 3600;

/// And older than this, a day, they are not worth a word.
const MAX_LOG_AGE_SECONDS: u64 = 86_400;

/// How the table of a namespace is full.
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
    // A drop has other causes too; with a table that is nearly full there is hardly another.
    let losing = (dropped > 0 || evicted > 0 || log.is_some()) && space.fill_percent()? >= NEARLY_FULL_PERCENT;
    (crowded || losing).then(|| FullTable {
        namespace: space,
        dropped,
        evicted,
        log,
        sample_stats: SampleStats::from_sample(space),
    })
}

/// Packets lost and entries evicted while we looked. A failed insert is counted as a drop too, and has other causes.
fn drops_and_evictions(space: &ObservedNamespace) -> (u64, u64) {
    let dropped = space.counter_growth(|by| by.drop).saturating_sub(space.counter_growth(|by| by.insert_failed));
    (dropped, space.counter_growth(|by| by.early_drop))
}

/// What the log says of a namespace, if its own counters do not deny it: inodes are used again, and the log remembers the dead.
fn table_full_log<'a>(seen: &'a Observations, space: &ObservedNamespace) -> Option<(&'a TableFullLines, &'a str)> {
    let log = seen.log.as_ref()?;
    let full = match (space.is_initial, space.inode) {
        (Some(true), _) => &log.value.initial,
        (Some(false), Some(inode)) => log.value.by_inode.get(&inode)?,
        // Only one namespace was seen, and nothing says which: what the log says without a number is taken for its.
        (None, _) if seen.namespaces.len() == 1 => &log.value.initial,
        _ => return None,
    };
    let denied = space.counters.is_some() && space.counter_total(|counters| counters.drop) == 0;
    (full.lines > 0 && !denied).then_some((full, log.source.as_str()))
}

impl FullTable<'_> {
    /// Is it full of what was never finished?
    fn is_half_open(&self) -> bool {
        match &self.sample_stats {
            // Among TCP it is the handshake that counts; a flood may be of UDP too, whose entries then were never answered.
            Some(census) => census.percent(census.half_open.max(census.unreplied)) >= 50,
            None => self.evicted > self.dropped,
        }
    }

    /// A finding with all that shows it.
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
            finding = finding.evidence("the kernel says", &full.latest, source);
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

/// Adds what the table is made of.
fn with_sample_stats(finding: Finding, space: &ObservedNamespace, census: Option<&SampleStats>) -> Finding {
    let (Some(census), Some(sample)) = (census, &space.sample) else { return finding };
    let source = format!("{}, {} entries", sample.source, Count(census.sampled));
    let finding = finding.evidence("the table is", census.summary(), &source);
    match census.top_port() {
        Some(port) => finding.evidence("most entries", port, &source),
        None => finding,
    }
}

fn count_above_max(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (count, max) = (space.count.as_ref()?.value, space.max().filter(|max| *max > 0)?);
        // Entries that are being made count already: a few above the limit are ordinary.
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
                .meaning("No new connection gets in until old ones have gone below the limit: lowering it removes nothing by itself.")
                .now(remedy::set_sysctl(remedy::sysctl_location(seen), "nf_conntrack_max", enough, "back above what is there"))
                .for_good(RemedyStep::manual(
                    remedy::sysctl_location(seen),
                    "shorten the timeouts first, wait until the entries have gone, and lower the limit last",
                ))
                .for_good(remedy::persist_limit(seen, enough)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn full_in_namespace(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(host) = seen.namespaces.iter().find(|space| space.is_initial == Some(true)) else { return Vec::new() };
    if host.fill_percent().is_none_or(|share| share >= ALERT_PERCENT) {
        return Vec::new();
    }
    let others = seen.namespaces.iter().filter(|space| space.is_initial == Some(false));
    let judge = |space: &ObservedNamespace| {
        let full = detect_full(seen, space)?;
        let limit = remedy::limit_with_headroom(space);
        let host_count = host.count.as_ref().map_or(0, |count| count.value);
        Some(
            full.finding(rule, Certainty::Certain)
                .evidence("entries on the host", Count(host_count), "nf_conntrack_count of the initial namespace")
                .meaning(
                    "Each namespace counts its own entries, but the limit is the machine's, set in the initial namespace only: \
                     monitoring of the host's count sees nothing.",
                )
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit))
                .for_good(RemedyStep::command(
                    remedy::sysctl_location(seen),
                    "keepstate doctor --watch",
                    "watches every namespace; what watches the host's count alone is blind here",
                )),
        )
    };
    others.filter_map(judge).collect()
}

fn table_full_half_open(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let full = detect_full(seen, space).filter(FullTable::is_half_open)?;
        let certainty = if full.sample_stats.is_some() { Certainty::Certain } else { Certainty::Likely };
        let port = full.sample_stats.as_ref().and_then(|census| census.ports.first().copied());
        let port = port.map_or_else(|| "PORT".to_owned(), |(_, port, _)| port.to_string());
        let finding = full.finding(rule, certainty).meaning(
            "Something opens connections and never finishes them: a SYN flood, a scan, or a destination that does not answer. \
             The kernel evicts such entries for new ones, and drops where it finds none to evict.",
        );
        Some(
            finding
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("nft add table inet lifeline '{{ chain in {{ type filter hook prerouting priority -350; tcp dport {port} tcp flags & (syn|ack) == syn limit rate over 1000/second drop; }}; }}'"),
                    "limits new connections before they are tracked; choose the rate from your own traffic",
                ))
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_syn_recv", 20, "half-open entries go sooner"))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    remedy::notrack_command("tcp", &port),
                    "a public port that needs no tracking is best not tracked at all",
                ))
                .for_good(RemedyStep::manual(remedy::namespace_location(space), "or put synproxy in front of it: nft's `synproxy`, with tcp_loose=0")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn table_full_assured(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let full = detect_full(seen, space).filter(|full| !full.is_half_open())?;
        let losing = full.dropped > 0 || full.log.is_some();
        let certainty = if losing { Certainty::Certain } else { Certainty::Likely };
        let limit = remedy::limit_with_headroom(space);
        Some(
            full.finding(rule, certainty)
                .meaning(
                    "Connections that were once established are kept for their whole timeout and never evicted for new ones. \
                     New connections time out; the old go on.",
                )
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    "keepstate disable",
                    "if nothing here needs tracking, not tracking is the better cure",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn no_limit(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(space) = seen.namespaces.iter().find(|space| space.max() == Some(0)) else { return Vec::new() };
    let limit = remedy::limit_with_headroom(space).max(262_144);
    let source = space.sysctls.get("nf_conntrack_max").map_or("", |knob| knob.source.as_str());
    vec![
        rule.finding(Severity::Warning, Certainty::Certain)
            .evidence("limit", "0", source)
            .evidence("entries", space.count.as_ref().map_or(0, |count| count.value), "nf_conntrack_count")
            .meaning("0 is no limit, not a small one: a flood takes memory until the machine has none left.")
            .now(remedy::set_sysctl(remedy::sysctl_location(seen), "nf_conntrack_max", limit, "a number"))
            .for_good(remedy::persist_limit(seen, limit)),
    ]
}

fn nearly_full_reclaimable(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let share = space.fill_percent().filter(|share| *share >= ALERT_PERCENT)?;
        let census = SampleStats::from_sample(space)?;
        let evictable = census.percent(census.sampled - census.assured);
        if evictable < 50 || share >= FULL_PERCENT {
            return None;
        }
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            with_sample_stats(finding, space, Some(&census))
                .evidence("can be evicted", format!("{evictable} % of the entries"), "the sample: those not ASSURED")
                .meaning("Nothing is lost: when the table is full the kernel replaces entries that are not ASSURED. An alarm at this height cries for nothing.")
                .now(RemedyStep::command(remedy::namespace_location(space), "keepstate conntrack -C", "look whether it grows; see who opens them: keepstate top"))
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("the monitoring".into()),
                    "alarm on what cannot be evicted (ASSURED entries above 75 % of the limit), and on drop > 0",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn table_nearly_full(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        space.fill_percent().filter(|share| (NEARLY_FULL_PERCENT..FULL_PERCENT).contains(share))?;
        let census = SampleStats::from_sample(space);
        if census.as_ref().is_some_and(|census| census.percent(census.assured) <= 50) {
            return None;
        }
        let limit = remedy::limit_with_headroom(space);
        let finding = with_entries_and_limit(
            rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name),
            space,
        );
        Some(
            with_sample_stats(finding, space, census.as_ref())
                .meaning("The next burst fills it, and then new connections are dropped.")
                .now(remedy::raise_limit(seen, limit))
                .for_good(remedy::persist_limit(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn table_was_full(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (full, source) = table_full_log(seen, space)?;
        // A log without times may be of any day.
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
                .evidence(
                    "the kernel said",
                    format!("{} ({} lines, the latest {age})", full.latest, full.lines),
                    source,
                )
                .evidence(
                    "packets dropped since boot",
                    Count(space.counter_total(|counters| counters.drop)),
                    "/proc/net/stat/nf_conntrack",
                )
                .meaning("It has room now. Whatever filled it may come again.")
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    "keepstate doctor --watch",
                    "see what it is made of when it fills again",
                ))
                .for_good(remedy::persist_limit(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn no_lifeline(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
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
                .evidence("a login service listens on", format!("tcp port {}", port.value), &port.source)
                .evidence("rules that keep it untracked", "none", &rules.source)
                .meaning("A full table drops the connection that would mend it, like any other new one. Keep the session you have.")
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("nft add table inet lifeline '{{ chain pre {{ type filter hook prerouting priority -300; tcp dport {0} notrack; }}; chain out {{ type filter hook output priority -300; tcp sport {0} notrack; }}; }}'", port.value),
                    "rules that accept only what is established must accept this port by its number then",
                ))
                .for_good(RemedyStep::command(remedy::namespace_location(space), remedy::notrack_command("tcp", &port.value.to_string()), "the same, as a file that stays")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}
