//! Invalid packets, and connections of which only one direction passes here.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::SampleStats;
use crate::units::Count;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "one-way-flows",
        number: 13,
        title: "only one direction of the traffic passes here",
        explains: &["invalid-dropped", "invalid-not-dropped"],
        check: one_way_flows,
    },
    DoctorRule {
        name: "invalid-dropped",
        number: 12,
        title: "packets are INVALID, and a rule drops them",
        explains: &[],
        check: invalid_dropped,
    },
    DoctorRule {
        name: "invalid-not-dropped",
        number: 12,
        title: "packets are INVALID, and no rule drops them before they do harm",
        explains: &[],
        check: invalid_not_dropped,
    },
];

/// Invalid packets per second above the noise of scanners and late resets.
const MIN_INVALID_PER_SECOND: u64 = 5;

/// Percent of TCP entries with one direction only above which the routing is the cause.
const ONE_WAY_PERCENT: u64 = 30;

/// Invalid packets per second in the interval; 0 if the counters were read once.
fn invalid_per_second(space: &ObservedNamespace) -> u64 {
    let Some(growth) = space.growth.filter(|growth| growth.over_ms > 0) else { return 0 };
    growth.by.invalid.saturating_mul(1000) / growth.over_ms
}

fn with_invalid_counter(finding: Finding, space: &ObservedNamespace) -> Finding {
    let Some(counters) = &space.counters else { return finding };
    let value =
        format!("{} since boot, {}/s in the interval", Count(counters.value.invalid), Count(invalid_per_second(space)));
    finding.evidence("invalid packets", value, &counters.source)
}

fn one_way_flows(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let stats = SampleStats::from_sample(space)?;
        let sample = space.sample.as_ref()?;
        // A handshake of which only the client's packets pass leaves SYN_SENT and an INVALID; a connection picked up in the
        // middle is ESTABLISHED and unreplied.
        let invalid = invalid_per_second(space) >= MIN_INVALID_PER_SECOND
            || space.counter_total(|counters| counters.invalid) >= stats.extrapolate(stats.half_open).max(1);
        let unanswered = if invalid { stats.one_way + stats.half_open } else { stats.one_way };
        if stats.tcp < 20 || unanswered * 100 / stats.tcp < ONE_WAY_PERCENT {
            return None;
        }
        let certainty =
            if stats.one_way * 100 / stats.tcp >= ONE_WAY_PERCENT { Certainty::Certain } else { Certainty::Likely };
        let share = unanswered * 100 / stats.tcp;
        let finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name).evidence(
            "TCP entries with one direction only",
            format!(
                "{share} % ({} ESTABLISHED but unreplied, {} in the handshake)",
                Count(stats.one_way),
                Count(stats.half_open)
            ),
            &sample.source,
        );
        Some(
            with_invalid_counter(finding, space)
                .meaning(
                    "Requests and replies take different paths (asymmetric routing): entries stay UNREPLIED, and packets that do not \
                     fit are INVALID.",
                )
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "segments outside the window are no longer INVALID"))
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    "nft 'table inet one_way { chain pre { type filter hook prerouting priority -300; ip daddr 192.0.2.0/24 notrack; }; }'",
                    "or do not track this traffic; replace 192.0.2.0/24 by the addresses concerned",
                ))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the routers".into()), "make the routes symmetric, or share state between the gateways (conntrackd)")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn invalid_dropped(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let rules = space.rules.as_ref()?;
        let first = rules.value.drop_invalid.first()?;
        if invalid_per_second(space) < MIN_INVALID_PER_SECOND || space.sysctl("nf_conntrack_tcp_be_liberal") == Some(1)
        {
            return None;
        }
        let finding = rule.finding(Severity::Warning, Certainty::Likely).in_namespace(&space.name);
        Some(
            with_invalid_counter(finding, space)
                .evidence("rule that drops them", first, &rules.source)
                .evidence("be_liberal", space.sysctl("nf_conntrack_tcp_be_liberal").unwrap_or(0), "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
                .meaning(
                    "Segments outside the expected window (after packet loss, offloading or a reset) are INVALID. The rule drops them, \
                     and the connection stalls or is reset.",
                )
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "only resets outside the window stay INVALID"))
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_log_invalid", 6, "the kernel logs the invalid TCP packets; set it back to 0 after a minute"))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "if these are real clients, not an attack"))
                .for_good(remedy::persist_sysctl(
                    remedy::namespace_location(space),
                    "nf_conntrack_tcp_ignore_invalid_rst",
                    1,
                    "if the packets are resets (Linux 5.13 and later)",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn invalid_not_dropped(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let rules = space.rules.as_ref()?;
        let rate = invalid_per_second(space);
        if rate < MIN_INVALID_PER_SECOND || !rules.value.drop_invalid.is_empty() {
            return None;
        }
        // Who sees them: a host that answers with resets, NAT that leaves them as they are, or a chain's last rule.
        let over_ms = space.growth.map_or(0, |growth| growth.over_ms).max(1);
        let resets = space.resets_sent_growth.unwrap_or(0).saturating_mul(1000) / over_ms;
        let is_reset = resets >= MIN_INVALID_PER_SECOND && resets.saturating_mul(2) >= rate;
        let nat = rules.value.source_nat.first().map(|nat| &nat.rule);
        let nat = nat.or_else(|| rules.value.destination_nat.first().map(|nat| &nat.rule));
        let last = rules.value.drop_unaccepted.first();
        if !is_reset && nat.is_none() && last.is_none() {
            return None;
        }
        let certainty = if is_reset { Certainty::Certain } else { Certainty::Likely };
        let finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name);
        let mut finding = with_invalid_counter(finding, space);
        let mut meaning =
            "The kernel does not track these packets (out of window, an unexpected reset, a wrong checksum)."
                .to_owned();
        if let Some(sent) = space.resets_sent.as_ref().filter(|_| is_reset) {
            finding = finding.evidence("resets sent", format!("{resets}/s in the interval"), &sent.source);
            meaning.push_str(" This host answers them with a reset, which ends the real connection.");
        }
        if let Some(nat) = nat {
            finding = finding.evidence("NAT rule that does not apply to them", nat, &rules.source);
            meaning.push_str(" NAT does not translate them: they go on with the wrong address, and whoever gets them resets the connection.");
        }
        if let Some(last) = last {
            finding = finding.evidence("they are dropped by", last, &rules.source);
            meaning
                .push_str(" They do not match `established`, so the end of the chain drops them, and transfers stall.");
        }
        let here = || remedy::namespace_location(space);
        let mut finding = finding.meaning(meaning);
        if space.sysctl("nf_conntrack_tcp_be_liberal") == Some(0) {
            finding = finding
                .now(remedy::set_sysctl(
                    here(),
                    "nf_conntrack_tcp_be_liberal",
                    1,
                    "segments outside the window belong to their connection again; a forger needs only the ports",
                ))
                .for_good(remedy::persist_sysctl(
                    here(),
                    "nf_conntrack_tcp_be_liberal",
                    1,
                    "if these are real clients, not an attack",
                ));
        }
        if nat.is_some() || is_reset {
            finding = finding.for_good(RemedyStep::command(
                here(),
                DROP_INVALID,
                "a table of its own that drops them before NAT and the host; the sender retransmits instead of being reset. Real segments out of the window are lost too",
            ));
        }
        if space.sysctl("nf_conntrack_tcp_ignore_invalid_rst") == Some(0) {
            finding = finding.for_good(remedy::persist_sysctl(
                here(),
                "nf_conntrack_tcp_ignore_invalid_rst",
                1,
                "if the packets are resets: the connection stays, also when a reset was meant",
            ));
        }
        Some(
            finding
                .now(remedy::set_sysctl(here(), "nf_conntrack_log_invalid", 6, "the kernel log then names the reason for each TCP packet; set it back to 0 after a minute"))
                .for_good(RemedyStep::manual(here(), "if the kernel log says that checksums are wrong, turn checksum offload off at the sending interface")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

/// Drops INVALID packets in every hook that follows tracking.
const DROP_INVALID: &str = "nft 'table inet drop_invalid { chain pre { type filter hook prerouting priority -150; ct state invalid drop; }; chain out { type filter hook output priority -150; ct state invalid drop; }; }'";
