//! What the table is crowded with: connections that are over, peers that are gone, protocols that open one entry a question.
//!
//! A crowd in an empty table is no trouble: these rules speak where the table is at least [`MATTERS`] full.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{self, SampleStats};
use crate::kernel_constants::MIN_ESTABLISHED_TIMEOUT;
use crate::units::{Count, Seconds};

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "close-wait-lingers",
        number: 4,
        title: "half-closed connections stay for an hour",
        explains: &["time-wait-dominates", "table-was-full"],
        check: close_wait_lingers,
    },
    DoctorRule {
        name: "time-wait-dominates",
        number: 4,
        title: "most entries are of connections that are over",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        check: time_wait_dominates,
    },
    DoctorRule {
        name: "dead-peers-linger",
        number: 5,
        title: "entries of peers that are long gone stay for days",
        explains: &["table-was-full"],
        check: dead_peers_linger,
    },
    DoctorRule {
        name: "udp-dominates",
        number: 14,
        title: "UDP fills the table, one entry for each question",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        check: udp_dominates,
    },
];

/// How full a table is, in hundredths, from which on its contents matter.
const MIN_FILL_PERCENT: u64 = 30;

/// A share of the entries, in hundredths, that is most of them.
const MAJORITY_PERCENT: u64 = 50;

/// A share that is worth taking away.
const SIGNIFICANT_PERCENT: u64 = 30;

/// A share of UDP that a mixed load does not have.
const UDP_DOMINANT_PERCENT: u64 = 70;

/// The kernel's own 60 s for CLOSE_WAIT; kube-proxy sets an hour. Ten minutes is neither.
const LONG_CLOSE_WAIT: u64 = 600;

/// What the story proposes: six hours, enough for keepalives up to four.
const RECOMMENDED_ESTABLISHED: u64 = 21_600;

/// The census of a table whose contents matter.
fn sample_if_filled(space: &ObservedNamespace) -> Option<(SampleStats, &str)> {
    space.fill_percent().filter(|share| *share >= MIN_FILL_PERCENT)?;
    Some((SampleStats::from_sample(space)?, space.sample.as_ref()?.source.as_str()))
}

fn with_sockets(finding: Finding, space: &ObservedNamespace) -> Finding {
    let Some(sockets) = &space.sockets else { return finding };
    let value = format!("{} TCP, {} TIME_WAIT, {} UDP", sockets.value.tcp, sockets.value.time_wait, sockets.value.udp);
    finding.evidence("sockets", value, &sockets.source)
}

fn finding_with_entry_count(rule: &DoctorRule, space: &ObservedNamespace, certainty: Certainty) -> Finding {
    let finding = rule.finding(Severity::Warning, certainty).in_namespace(&space.name);
    match (&space.count, space.fill_percent()) {
        (Some(count), Some(share)) => {
            finding.evidence("entries", format!("{} ({share} % of the limit)", Count(count.value)), &count.source)
        }
        _ => finding,
    }
}

fn close_wait_lingers(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (census, source) = sample_if_filled(space)?;
        let timeout =
            space.sysctl("nf_conntrack_tcp_timeout_close_wait").filter(|timeout| *timeout >= LONG_CLOSE_WAIT)?;
        let entries = census.entries_in_state("CLOSE_WAIT");
        if census.percent(entries) < SIGNIFICANT_PERCENT {
            return None;
        }
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence("in CLOSE_WAIT", format!("{} %", census.percent(entries)), source)
            .evidence("their timeout", Seconds(timeout), "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait");
        Some(
            with_sockets(finding, space)
                .meaning("One end has closed, and the entry waits for the other for longer than any program does. kube-proxy sets this hour.")
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_close_wait", 60, "the kernel's own; for entries that change from now on"))
                .for_good(RemedyStep::command(
                    StepLocation::Elsewhere("kube-proxy's configuration".into()),
                    "conntrack: {tcpCloseWaitTimeout: 60s}",
                    "if kube-proxy set it, it will again",
                ))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_close_wait", 60, "otherwise")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn time_wait_dominates(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (census, source) = sample_if_filled(space)?;
        let entries = census.entries_in_state("TIME_WAIT");
        let live = space.sockets.as_ref().map_or(0, |sockets| sockets.value.tcp.saturating_add(sockets.value.udp));
        if census.percent(entries) < MAJORITY_PERCENT || census.total < live.saturating_mul(2) {
            return None;
        }
        let timeout = space.sysctl("nf_conntrack_tcp_timeout_time_wait").unwrap_or(120);
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence(
                "in TIME_WAIT",
                format!("{} %, about {}", census.percent(entries), Count(census.extrapolate(entries))),
                source,
            )
            .evidence("their timeout", Seconds(timeout), "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait");
        Some(
            with_sockets(finding, space)
                .meaning(format!("Entries in TIME_WAIT are the rate of short connections times {timeout} s; the sockets are gone long before."))
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_time_wait", 30, "for connections that end from now on"))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_time_wait", 30, "30 s is longer than any retransmission of a LAN"))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the clients".into()), "keep connections open and use them again")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn dead_peers_linger(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (census, source) = sample_if_filled(space)?;
        let timeout = space
            .sysctl("nf_conntrack_tcp_timeout_established")
            .filter(|timeout| *timeout > MIN_ESTABLISHED_TIMEOUT)?;
        if census.percent(census.idle) < SIGNIFICANT_PERCENT {
            return None;
        }
        let idle = Seconds(sample_stats::IDLE_SECONDS);
        let finding = finding_with_entry_count(rule, space, Certainty::Likely)
            .evidence(
                &format!("established and idle for more than {idle}"),
                format!("{} %, about {}", census.percent(census.idle), Count(census.extrapolate(census.idle))),
                source,
            )
            .evidence(
                "established timeout",
                Seconds(timeout),
                "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
            );
        Some(
            with_sockets(finding, space)
                .meaning("Peers that vanish without closing leave their entries for the whole timeout; being ASSURED they are never evicted.")
                .now(remedy::set_sysctl(
                    remedy::namespace_location(space),
                    "nf_conntrack_tcp_timeout_established",
                    RECOMMENDED_ESTABLISHED,
                    "for entries that see a packet from now on; fits keepalives up to 4 h, and never go below 7440 s (RFC 5382)",
                ))
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("keepstate conntrack -L -p tcp --state ESTABLISHED | awk '$3 < {}'", timeout.saturating_sub(sample_stats::IDLE_SECONDS)),
                    "those are the idle ones; delete what is surely dead",
                ))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_established", RECOMMENDED_ESTABLISHED, "at every boot")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn udp_dominates(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let (census, source) = sample_if_filled(space)?;
        if census.percent(census.udp) < UDP_DOMINANT_PERCENT {
            return None;
        }
        let port = census.ports.iter().find(|(protocol, _, _)| *protocol == sample_stats::UDP);
        let (port, share) = port.map_or((0, 0), |(_, port, entries)| (*port, census.percent(*entries)));
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence("UDP", format!("{} %", census.percent(census.udp)), source)
            .evidence("of it the most", format!("port {port}, {share} % of all entries"), source);
        Some(
            with_sockets(finding, space)
                .meaning("Each question from a new port is an entry for 30 s, for 120 s where answers go on; QUIC and DNS make many.")
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_udp_timeout_stream", 60, "answered flows go sooner"))
                .for_good(RemedyStep::command(remedy::namespace_location(space), remedy::notrack_command("udp", &port.to_string()), "what is not translated need not be tracked"))
                .for_good(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("nft 'add ct timeout inet filter short {{ protocol udp; policy = {{ unreplied : 5, replied : 10 }}; }}' and rules `udp dport {port} ct timeout set \"short\"`"),
                    "or shorter timeouts for this port alone",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}
