//! The full table, and one that is about to be.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Full, Namespace, Observations};
use super::remedy;
use super::{Census, Rule};
use crate::quantity::{Count, Span};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
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
        judge: above,
    },
    Rule {
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
        judge: in_namespace,
    },
    Rule {
        name: "table-full-half-open",
        number: 2,
        title: "the table is full of connections that were never finished",
        explains: &["table-nearly-full", "nearly-full-reclaimable", "table-was-full", "one-way-flows", "udp-dominates"],
        judge: half_open,
    },
    Rule {
        name: "table-full-assured",
        number: 1,
        title: "the table is full, and new connections are dropped",
        explains: &["table-nearly-full", "nearly-full-reclaimable", "table-was-full"],
        judge: assured,
    },
    Rule { name: "no-limit", number: 26, title: "the table has no limit", explains: &[], judge: no_limit },
    Rule {
        name: "nearly-full-reclaimable",
        number: 3,
        title: "the table is nearly full, but mostly of what the kernel evicts by itself",
        explains: &["table-was-full"],
        judge: reclaimable,
    },
    Rule {
        name: "table-nearly-full",
        number: 1,
        title: "the table is nearly full",
        explains: &["table-was-full"],
        judge: nearly,
    },
    Rule { name: "table-was-full", number: 1, title: "the table was full lately", explains: &[], judge: was_full },
    Rule {
        name: "no-lifeline",
        number: 25,
        title: "when the table is full, nobody can log in to mend it",
        explains: &[],
        judge: no_lifeline,
    },
];

/// From here on, in hundredths, a table counts as full: the kernel compares with `>`, entries come and go, and what is seen is a moment.
const FULL: u64 = 98;

/// Where people set their alarms, in hundredths, as node_exporter's does: what is above it is looked at closely.
const ALARM: u64 = 75;

/// Above this nothing but ASSURED entries is near trouble: a burst as large as seen every day would fill it.
const NEARLY: u64 = 85;

/// Lines of the log older than this, in seconds, are history: an hour.
const RECENT: u64 = 3600;

/// And older than this, a day, they are not worth a word.
const LATELY: u64 = 86_400;

/// How the table of a namespace is full.
struct Fullness<'a> {
    space: &'a Namespace,
    dropped: u64,
    evicted: u64,
    log: Option<(&'a Full, &'a str)>,
    census: Option<Census>,
}

/// Is this table full now?
fn fullness<'a>(seen: &'a Observations, space: &'a Namespace) -> Option<Fullness<'a>> {
    let (dropped, evicted) = losses(space);
    let crowded = space.fullness()? >= FULL;
    let log = logged(seen, space).filter(|(full, _)| full.age.is_some_and(|age| age <= RECENT));
    // A drop has other causes too; with a table that is nearly full there is hardly another.
    let losing = (dropped > 0 || evicted > 0 || log.is_some()) && space.fullness()? >= NEARLY;
    (crowded || losing).then(|| Fullness { space, dropped, evicted, log, census: Census::of(space) })
}

/// Packets lost and entries evicted while we looked. A failed insert is counted as a drop too, and has other causes.
fn losses(space: &Namespace) -> (u64, u64) {
    let dropped = space.grew(|by| by.drop).saturating_sub(space.grew(|by| by.insert_failed));
    (dropped, space.grew(|by| by.early_drop))
}

/// What the log says of a namespace, if its own counters do not deny it: inodes are used again, and the log remembers the dead.
fn logged<'a>(seen: &'a Observations, space: &Namespace) -> Option<(&'a Full, &'a str)> {
    let log = seen.log.as_ref()?;
    let full = match (space.is_initial, space.inode) {
        (Some(true), _) => &log.value.initial,
        (Some(false), Some(inode)) => log.value.inside.get(&inode)?,
        // Only one namespace was seen, and nothing says which: what the log says without a number is taken for its.
        (None, _) if seen.namespaces.len() == 1 => &log.value.initial,
        _ => return None,
    };
    let denied = space.counters.is_some() && space.stands(|counters| counters.drop) == 0;
    (full.lines > 0 && !denied).then_some((full, log.source.as_str()))
}

impl Fullness<'_> {
    /// Is it full of what was never finished?
    fn is_half_open(&self) -> bool {
        match &self.census {
            // Among TCP it is the handshake that counts; a flood may be of UDP too, whose entries then were never answered.
            Some(census) => census.share(census.half_open.max(census.unreplied)) >= 50,
            None => self.evicted > self.dropped,
        }
    }

    /// A finding with all that shows it.
    fn finding(&self, rule: &Rule, certainty: Certainty) -> Finding {
        let mut finding =
            counted(Finding::new(rule, Severity::Critical, certainty).inside(&self.space.name), self.space);
        let over = self.space.growth.map_or(String::new(), |growth| format!(" in {} ms", growth.over_ms));
        let counters = "/proc/net/stat/nf_conntrack";
        let source = self.space.counters.as_ref().map_or(counters, |counters| counters.source.as_str());
        if self.space.growth.is_some() {
            finding = finding.seen("packets dropped", format!("{}{over}", Count(self.dropped)), source);
            finding = finding.seen("entries evicted early", format!("{}{over}", Count(self.evicted)), source);
        }
        if self.space.counters.is_some() {
            let drops = self.space.stands(|counters| counters.drop);
            finding = finding.seen("packets dropped since boot", Count(drops), source);
        }
        if let Some((full, source)) = self.log {
            finding = finding.seen("the kernel says", &full.latest, source);
        }
        with_census(finding, self.space, self.census.as_ref())
    }
}

/// Adds entries and limit.
fn counted(finding: Finding, space: &Namespace) -> Finding {
    let (Some(count), Some(max)) = (&space.count, space.knobs.get("nf_conntrack_max")) else { return finding };
    let share = space.fullness().map_or(String::new(), |share| format!(" ({share} % of the limit)"));
    finding.seen("entries", format!("{}{share}", Count(count.value)), &count.source).seen(
        "limit",
        Count(max.value),
        &max.source,
    )
}

/// Adds what the table is made of.
fn with_census(finding: Finding, space: &Namespace, census: Option<&Census>) -> Finding {
    let (Some(census), Some(sample)) = (census, &space.sample) else { return finding };
    let source = format!("{}, {} entries", sample.source, Count(census.looked_at));
    let finding = finding.seen("the table is", census.line(), &source);
    match census.top_port() {
        Some(port) => finding.seen("most entries", port, &source),
        None => finding,
    }
}

fn above(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (count, max) = (space.count.as_ref()?.value, space.max().filter(|max| *max > 0)?);
        // Entries that are being made count already: a few above the limit are ordinary.
        if count <= max + max / 50 + 8 {
            return None;
        }
        let enough = (count + count / 4).next_power_of_two();
        let finding = counted(Finding::new(rule, Severity::Critical, Certainty::Certain).inside(&space.name), space);
        let finding = with_census(finding, space, Census::of(space).as_ref());
        Some(
            finding
                .means("No new connection gets in until old ones have gone below the limit: lowering it removes nothing by itself.")
                .now(remedy::set(remedy::owner(seen), "nf_conntrack_max", enough, "back above what is there"))
                .for_good(Step::todo(
                    remedy::owner(seen),
                    "shorten the timeouts first, wait until the entries have gone, and lower the limit last",
                ))
                .for_good(remedy::raise_for_good(seen, enough)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn in_namespace(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(host) = seen.namespaces.iter().find(|space| space.is_initial == Some(true)) else { return Vec::new() };
    if host.fullness().is_none_or(|share| share >= ALARM) {
        return Vec::new();
    }
    let others = seen.namespaces.iter().filter(|space| space.is_initial == Some(false));
    let judge = |space: &Namespace| {
        let full = fullness(seen, space)?;
        let limit = remedy::roomy(space);
        let host_count = host.count.as_ref().map_or(0, |count| count.value);
        Some(
            full.finding(rule, Certainty::Certain)
                .seen("entries on the host", Count(host_count), "nf_conntrack_count of the initial namespace")
                .means(
                    "Each namespace counts its own entries, but the limit is the machine's, set in the initial namespace only: \
                     monitoring of the host's count sees nothing.",
                )
                .now(remedy::raise(seen, limit))
                .for_good(remedy::raise_for_good(seen, limit))
                .for_good(Step::run(
                    remedy::owner(seen),
                    "keepstate doctor --watch",
                    "watches every namespace; what watches the host's count alone is blind here",
                )),
        )
    };
    others.filter_map(judge).collect()
}

fn half_open(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let full = fullness(seen, space).filter(Fullness::is_half_open)?;
        let certainty = if full.census.is_some() { Certainty::Certain } else { Certainty::Likely };
        let port = full.census.as_ref().and_then(|census| census.ports.first().copied());
        let port = port.map_or_else(|| "PORT".to_owned(), |(_, port, _)| port.to_string());
        let finding = full.finding(rule, certainty).means(
            "Something opens connections and never finishes them: a SYN flood, a scan, or a destination that does not answer. \
             The kernel evicts such entries for new ones, and drops where it finds none to evict.",
        );
        Some(
            finding
                .now(Step::run(
                    remedy::inside(space),
                    format!("nft add table inet lifeline '{{ chain in {{ type filter hook prerouting priority -350; tcp dport {port} tcp flags & (syn|ack) == syn limit rate over 1000/second drop; }}; }}'"),
                    "limits new connections before they are tracked; choose the rate from your own traffic",
                ))
                .now(remedy::set(remedy::inside(space), "nf_conntrack_tcp_timeout_syn_recv", 20, "half-open entries go sooner"))
                .for_good(Step::run(
                    remedy::inside(space),
                    remedy::untrack("tcp", &port),
                    "a public port that needs no tracking is best not tracked at all",
                ))
                .for_good(Step::todo(remedy::inside(space), "or put synproxy in front of it: nft's `synproxy`, with tcp_loose=0")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn assured(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let full = fullness(seen, space).filter(|full| !full.is_half_open())?;
        let losing = full.dropped > 0 || full.log.is_some();
        let certainty = if losing { Certainty::Certain } else { Certainty::Likely };
        let limit = remedy::roomy(space);
        Some(
            full.finding(rule, certainty)
                .means(
                    "Connections that were once established are kept for their whole timeout and never evicted for new ones. \
                     New connections time out; the old go on.",
                )
                .now(remedy::raise(seen, limit))
                .for_good(remedy::raise_for_good(seen, limit))
                .for_good(Step::run(
                    remedy::inside(space),
                    "keepstate disable",
                    "if nothing here needs tracking, not tracking is the better cure",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn no_limit(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(space) = seen.namespaces.iter().find(|space| space.max() == Some(0)) else { return Vec::new() };
    let limit = remedy::roomy(space).max(262_144);
    let source = space.knobs.get("nf_conntrack_max").map_or("", |knob| knob.source.as_str());
    vec![
        Finding::new(rule, Severity::Warning, Certainty::Certain)
            .seen("limit", "0", source)
            .seen("entries", space.count.as_ref().map_or(0, |count| count.value), "nf_conntrack_count")
            .means("0 is no limit, not a small one: a flood takes memory until the machine has none left.")
            .now(remedy::set(remedy::owner(seen), "nf_conntrack_max", limit, "a number"))
            .for_good(remedy::raise_for_good(seen, limit)),
    ]
}

fn reclaimable(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let share = space.fullness().filter(|share| *share >= ALARM)?;
        let census = Census::of(space)?;
        let evictable = census.share(census.looked_at - census.assured);
        if evictable < 50 || share >= FULL {
            return None;
        }
        let finding = counted(Finding::new(rule, Severity::Warning, Certainty::Certain).inside(&space.name), space);
        Some(
            with_census(finding, space, Some(&census))
                .seen("can be evicted", format!("{evictable} % of the entries"), "the sample: those not ASSURED")
                .means("Nothing is lost: when the table is full the kernel replaces entries that are not ASSURED. An alarm at this height cries for nothing.")
                .now(Step::run(remedy::inside(space), "keepstate conntrack -C", "look whether it grows; see who opens them: keepstate top"))
                .for_good(Step::todo(
                    super::Place::Elsewhere("the monitoring".into()),
                    "alarm on what cannot be evicted (ASSURED entries above 75 % of the limit), and on drop > 0",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn nearly(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        space.fullness().filter(|share| (NEARLY..FULL).contains(share))?;
        let census = Census::of(space);
        if census.as_ref().is_some_and(|census| census.share(census.assured) <= 50) {
            return None;
        }
        let limit = remedy::roomy(space);
        let finding = counted(Finding::new(rule, Severity::Warning, Certainty::Certain).inside(&space.name), space);
        Some(
            with_census(finding, space, census.as_ref())
                .means("The next burst fills it, and then new connections are dropped.")
                .now(remedy::raise(seen, limit))
                .for_good(remedy::raise_for_good(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn was_full(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (full, source) = logged(seen, space)?;
        // A log without times may be of any day.
        if full.age.is_some_and(|age| age > LATELY) {
            return None;
        }
        let age = full.age.map_or("at an unknown time".to_owned(), |age| format!("{} ago", Span(age)));
        let limit = remedy::roomy(space);
        let finding = counted(Finding::new(rule, Severity::Warning, Certainty::Certain).inside(&space.name), space);
        Some(
            finding
                .seen("the kernel said", format!("{} ({} lines, the latest {age})", full.latest, full.lines), source)
                .seen(
                    "packets dropped since boot",
                    Count(space.stands(|counters| counters.drop)),
                    "/proc/net/stat/nf_conntrack",
                )
                .means("It has room now. Whatever filled it may come again.")
                .now(Step::run(
                    remedy::inside(space),
                    "keepstate doctor --watch",
                    "see what it is made of when it fills again",
                ))
                .for_good(remedy::raise_for_good(seen, limit)),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn no_lifeline(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let port = space.management_port.as_ref()?;
        let rules = space.rules.as_ref()?;
        space.fullness().filter(|share| *share >= NEARLY)?;
        let covered = rules.value.untracked.iter().any(|rule| {
            rule.split_ascii_whitespace().any(|word| word.trim_matches([',', '{', '}']) == port.value.to_string())
        });
        if covered {
            return None;
        }
        let finding = counted(Finding::new(rule, Severity::Warning, Certainty::Certain).inside(&space.name), space);
        Some(
            finding
                .seen("a login service listens on", format!("tcp port {}", port.value), &port.source)
                .seen("rules that keep it untracked", "none", &rules.source)
                .means("A full table drops the connection that would mend it, like any other new one. Keep the session you have.")
                .now(Step::run(
                    remedy::inside(space),
                    format!("nft add table inet lifeline '{{ chain pre {{ type filter hook prerouting priority -300; tcp dport {0} notrack; }}; chain out {{ type filter hook output priority -300; tcp sport {0} notrack; }}; }}'", port.value),
                    "rules that accept only what is established must accept this port by its number then",
                ))
                .for_good(Step::run(remedy::inside(space), remedy::untrack("tcp", &port.value.to_string()), "the same, as a file that stays")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}
