//! Packets that fit no connection, and connections of which only one half passes here.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::SampleStats;
use crate::units::Count;

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "one-way-flows",
        number: 13,
        title: "only one direction of the traffic passes here",
        explains: &["invalid-dropped"],
        check: one_way_flows,
    },
    DoctorRule {
        name: "invalid-dropped",
        number: 12,
        title: "packets are judged INVALID, and a rule drops them",
        explains: &[],
        check: invalid_dropped,
    },
];

/// Invalid packets a second from which on it is no chance: scanners and late resets make a few.
const MIN_INVALID_PER_SECOND: u64 = 5;

/// Shares of TCP entries, in hundredths, that saw one direction only, from which on it is the routing.
const ONE_WAY_PERCENT: u64 = 30;

/// Invalid packets a second while we looked; none where we looked once.
fn invalid_per_second(space: &ObservedNamespace) -> u64 {
    let Some(growth) = space.growth.filter(|growth| growth.over_ms > 0) else { return 0 };
    growth.by.invalid.saturating_mul(1000) / growth.over_ms
}

fn with_invalid_counter(finding: Finding, space: &ObservedNamespace) -> Finding {
    let Some(counters) = &space.counters else { return finding };
    let value =
        format!("{} since boot, {} a second now", Count(counters.value.invalid), Count(invalid_per_second(space)));
    finding.evidence("invalid packets", value, &counters.source)
}

fn one_way_flows(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let census = SampleStats::from_sample(space)?;
        let sample = space.sample.as_ref()?;
        // A handshake of which only the client's half is seen leaves SYN_SENT and an INVALID; one that was met in its middle is
        // ESTABLISHED and unreplied.
        let invalid = invalid_per_second(space) >= MIN_INVALID_PER_SECOND
            || space.counter_total(|counters| counters.invalid) >= census.extrapolate(census.half_open).max(1);
        let unanswered = if invalid { census.one_way + census.half_open } else { census.one_way };
        if census.tcp < 20 || unanswered * 100 / census.tcp < ONE_WAY_PERCENT {
            return None;
        }
        let certainty =
            if census.one_way * 100 / census.tcp >= ONE_WAY_PERCENT { Certainty::Certain } else { Certainty::Likely };
        let share = unanswered * 100 / census.tcp;
        let finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name).evidence(
            "TCP entries that saw one direction only",
            format!(
                "{share} % ({} ESTABLISHED yet unreplied, {} in the handshake)",
                Count(census.one_way),
                Count(census.half_open)
            ),
            &sample.source,
        );
        Some(
            with_invalid_counter(finding, space)
                .meaning(
                    "Requests and answers take different ways, and each way's tracker sees half a connection: entries stay UNREPLIED, \
                     and what does not fit is INVALID.",
                )
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "out of window is not invalid any more"))
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    "nft add rule inet raw prerouting ip daddr 192.0.2.0/24 notrack",
                    "or do not track what passes one way only; the rule's addresses are to be yours",
                ))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the routers".into()), "symmetric routes; or state shared between the gateways (conntrackd)")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn invalid_dropped(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let rules = space.rules.as_ref()?;
        let first = rules.value.drop_invalid.first()?;
        if invalid_per_second(space) < MIN_INVALID_PER_SECOND || space.sysctl("nf_conntrack_tcp_be_liberal") == Some(1)
        {
            return None;
        }
        let finding = rule.finding(Severity::Warning, Certainty::Likely).in_namespace(&space.name);
        Some(
            with_invalid_counter(finding, space)
                .evidence("a rule that drops them", first, &rules.source)
                .evidence("be_liberal", space.sysctl("nf_conntrack_tcp_be_liberal").unwrap_or(0), "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
                .meaning(
                    "Segments outside the window the tracker expects, as after lost packets, offloading or a reset, are INVALID; the rule \
                     drops them, and the connection stalls or is reset.",
                )
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "only resets outside the window stay invalid"))
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_log_invalid", 6, "and let the kernel log which they are, for a minute"))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "if it is not an attack"))
                .for_good(remedy::persist_sysctl(
                    remedy::namespace_location(space),
                    "nf_conntrack_tcp_ignore_invalid_rst",
                    1,
                    "if it is resets (kernels from 5.13)",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}
