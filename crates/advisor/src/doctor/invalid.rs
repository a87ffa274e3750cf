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

/// Entries per INVALID packet a second that is noise: late segments of closed connections, scanners.
const NOISE_ENTRIES: u64 = 1000;

/// A growth in the interval per second; 0 if it was read once.
fn per_second(space: &ObservedNamespace, grown: Option<u64>) -> u64 {
    let Some(growth) = space.growth.filter(|growth| growth.over_ms > 0) else { return 0 };
    grown.unwrap_or(0).saturating_mul(1000) / growth.over_ms
}

/// Invalid packets per second in the interval; 0 if the counters were read once.
fn invalid_per_second(space: &ObservedNamespace) -> u64 {
    per_second(space, Some(space.counter_growth(|by| by.invalid)))
}

/// Are there more invalid packets than a table of this size always has?
fn is_invalid_noteworthy(space: &ObservedNamespace) -> bool {
    let entries = space.count.as_ref().map_or(0, |count| count.value);
    invalid_per_second(space) >= MIN_INVALID_PER_SECOND.max(entries / NOISE_ENTRIES)
}

fn with_invalid_counter(finding: Finding, space: &ObservedNamespace) -> Finding {
    let Some(counters) = &space.counters else { return finding };
    let rate = match space.growth {
        Some(_) => format!("{}/s in the interval", Count(invalid_per_second(space))),
        None => "read once".to_owned(),
    };
    let value = format!("{} since boot, {rate}", Count(counters.value.invalid));
    finding.evidence("invalid packets", value, &counters.source)
}

fn one_way_flows(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let stats = SampleStats::from_sample(space)?;
        let sample = space.sample.as_ref()?;
        // A handshake of which only the client's packets pass leaves SYN_SENT and an INVALID; a connection picked up in the
        // middle is ESTABLISHED and unreplied.
        let invalid = match space.growth {
            Some(_) => invalid_per_second(space) >= MIN_INVALID_PER_SECOND,
            None => space.counter_total(|counters| counters.invalid) >= stats.extrapolate(stats.half_open).max(1),
        };
        let unanswered = if invalid { stats.one_way + stats.half_open } else { stats.one_way };
        if stats.tcp < 20 || unanswered * 100 / stats.tcp < ONE_WAY_PERCENT {
            return None;
        }
        let certainty = match (stats.one_way * 100 / stats.tcp >= ONE_WAY_PERCENT, space.growth) {
            (true, _) => Certainty::Certain,
            (false, Some(_)) => Certainty::Likely,
            // The counter is since boot, and half-open connections have other causes.
            (false, None) => Certainty::Possible,
        };
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
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the routers".into()), "make the routes symmetric, or share state between the gateways (keepstate sync, conntrackd)")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn invalid_dropped(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let rules = space.rules.as_ref()?;
        let first = rules.value.drop_invalid.first()?;
        if !is_invalid_noteworthy(space) || space.sysctl("nf_conntrack_tcp_be_liberal") == Some(1) {
            return None;
        }
        let finding = rule.finding(Severity::Warning, Certainty::Likely).in_namespace(&space.name);
        let finding = with_reason(with_invalid_counter(finding, space), seen, space);
        let finding = finding
                .evidence("rule that drops them", first, &rules.source)
                .evidence("be_liberal", space.sysctl("nf_conntrack_tcp_be_liberal").unwrap_or(0), "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
                .meaning(
                    "Segments outside the expected window (after packet loss, offloading or a reset) are INVALID. The rule drops them, \
                     and the connection stalls or is reset.",
                )
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "only resets outside the window stay INVALID"))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_be_liberal", 1, "if these are real clients, not an attack"))
                .for_good(remedy::persist_sysctl(
                    remedy::namespace_location(space),
                    "nf_conntrack_tcp_ignore_invalid_rst",
                    1,
                    "if the packets are resets (Linux 5.13 and later)",
                ));
        Some(with_reason_steps(finding, space))
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn invalid_not_dropped(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| invalid_not_dropped_in(rule, seen, space)).collect()
}

fn invalid_not_dropped_in(rule: &DoctorRule, seen: &Observations, space: &ObservedNamespace) -> Option<Finding> {
    let rules = space.rules.as_ref()?;
    let rate = invalid_per_second(space);
    if !is_invalid_noteworthy(space) || !rules.value.drop_invalid.is_empty() {
        return None;
    }
    // Who sees them: a host that answers with resets, NAT that leaves them as they are, or a chain's last rule.
    let resets = per_second(space, space.resets_sent_growth);
    // Each hook counts a packet again, and a reset of an unknown connection is INVALID itself: four counts a reset on loopback.
    let is_reset = resets >= MIN_INVALID_PER_SECOND && resets.saturating_mul(5) >= rate;
    let nat = rules.value.source_nat.first().map(|nat| &nat.rule);
    let nat = nat.or_else(|| rules.value.destination_nat.first().map(|nat| &nat.rule));
    let last = rules.value.drop_unaccepted.first();
    if !is_reset && nat.is_none() && last.is_none() {
        return None;
    }
    let certainty = if is_reset { Certainty::Certain } else { Certainty::Likely };
    let finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name);
    let mut finding = with_reason(with_invalid_counter(finding, space), seen, space);
    let mut meaning = "The kernel does not track these packets.".to_owned();
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
        meaning.push_str(" They do not match `established`, so the end of the chain drops them, and transfers stall.");
    }
    let here = || remedy::namespace_location(space);
    let mut finding = finding.meaning(meaning);
    if has_wrong_checksums(space) {
        finding = finding.for_good(RemedyStep::manual(
            StepLocation::Elsewhere("the sending machine".into()),
            "turn checksum offload off at the interface that sends them (`ethtool -K INTERFACE tx off`), or mend what changes them on the way",
        ));
    } else if space.sysctl("nf_conntrack_tcp_be_liberal") == Some(0) {
        finding = finding
            .now(remedy::set_sysctl(
                here(),
                "nf_conntrack_tcp_be_liberal",
                1,
                "segments outside the window belong to their connection again; a forger then needs only the ports",
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
    Some(with_reason_steps(finding, space))
}

/// Does the kernel count enough wrong checksums to explain the INVALID packets?
fn has_wrong_checksums(space: &ObservedNamespace) -> bool {
    let wrong = per_second(space, space.checksum_errors_growth);
    wrong > 0 && wrong.saturating_mul(2) >= invalid_per_second(space)
}

/// Adds why the packets are INVALID, as far as counters and the kernel log tell.
fn with_reason(mut finding: Finding, seen: &Observations, space: &ObservedNamespace) -> Finding {
    if has_wrong_checksums(space) {
        let wrong = format!("{}/s in the interval", Count(per_second(space, space.checksum_errors_growth)));
        finding = finding.evidence("wrong TCP checksums", wrong, "/proc/net/snmp, InCsumErrors");
    }
    // The kernel logs the initial namespace's packets only, unless nf_log_all_netns is set.
    let Some(log) = seen.log.as_ref().filter(|_| space.is_initial != Some(false)) else { return finding };
    let reason = log.value.other_lines.iter().rev().find_map(|line| invalid_reason(line));
    match reason {
        Some(reason) => finding.evidence("reason of the latest", reason, &log.source),
        None => finding,
    }
}

/// The reason in a line of `nf_conntrack_log_invalid`: `nf_ct_proto_6: REASON IN=… OUT=… SRC=…`.
fn invalid_reason(line: &str) -> Option<&str> {
    let (protocol, rest) = line.strip_prefix("nf_ct_proto_")?.split_once(": ")?;
    protocol.parse::<u8>().ok()?;
    Some(rest.split_once(" IN=").map_or(rest, |(reason, _)| reason).trim())
}

/// Adds the steps that find the reason of each packet.
fn with_reason_steps(finding: Finding, space: &ObservedNamespace) -> Finding {
    let here = || remedy::namespace_location(space);
    let finding = finding.now(RemedyStep::command(
        here(),
        "timeout 30 tcpdump -i any -w invalid.pcap tcp; keepstate replay --each invalid.pcap | grep INVALID",
        "names the reason of each packet: out of window, reset, checksum, unknown connection (needs tcpdump)",
    ));
    if space.is_initial == Some(false) {
        return finding;
    }
    finding.now(remedy::set_sysctl(
        here(),
        "nf_conntrack_log_invalid",
        6,
        "the kernel logs the reason of each invalid TCP packet; set it back to 0 after a minute",
    ))
}

/// Drops INVALID packets in every hook that follows tracking.
const DROP_INVALID: &str = "nft 'table inet drop_invalid { chain pre { type filter hook prerouting priority -150; ct state invalid drop; }; chain out { type filter hook output priority -150; ct state invalid drop; }; }'";

#[cfg(test)]
mod tests {
    use super::invalid_reason;

    #[test]
    fn reasons_are_read_from_the_kernel_log() {
        let line = "nf_ct_proto_6: invalid RST IN= OUT=lo SRC=127.0.0.1 DST=127.0.0.1 ";
        assert_eq!(invalid_reason(line), Some("invalid RST"));
        assert_eq!(invalid_reason("nf_conntrack: nf_conntrack: table full, dropping packet"), None);
    }
}
