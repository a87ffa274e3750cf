//! What fills the table: connections that are closed, peers that are gone, protocols that open one entry per query.
//!
//! This does not matter in an empty table: the rules apply from [`MIN_FILL_PERCENT`] on.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{self, SampleStats};
use crate::kernel_constants::MIN_ESTABLISHED_TIMEOUT;
use crate::units::{Count, Seconds};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "close-wait-lingers",
        number: 4,
        title: "half-closed connections stay in the table for too long",
        explains: &["time-wait-dominates", "table-was-full"],
        check: close_wait_lingers,
    },
    DoctorRule {
        name: "time-wait-dominates",
        number: 4,
        title: "most entries are closed connections (TIME_WAIT)",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        check: time_wait_dominates,
    },
    DoctorRule {
        name: "dead-peers-linger",
        number: 5,
        title: "entries of dead peers stay for days",
        explains: &["table-was-full"],
        check: dead_peers_linger,
    },
    DoctorRule {
        name: "established-timeout-short",
        number: 5,
        title: "idle connections lose their entry too early",
        explains: &[],
        check: established_timeout_short,
    },
    DoctorRule {
        name: "udp-dominates",
        number: 14,
        title: "UDP fills the table, one entry per query",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        check: udp_dominates,
    },
];

/// Percent of the limit from which the contents of a table matter.
const MIN_FILL_PERCENT: u64 = 30;

/// Percent of the entries that is most of them.
const MAJORITY_PERCENT: u64 = 50;

/// Percent of the entries worth removing.
const SIGNIFICANT_PERCENT: u64 = 30;

/// Percent of UDP entries that mixed traffic does not reach.
const UDP_DOMINANT_PERCENT: u64 = 70;

/// A CLOSE_WAIT timeout that is too long, in seconds. The kernel's default is 60 s; kube-proxy sets an hour.
const LONG_CLOSE_WAIT: u64 = 600;

/// The recommended established timeout, in seconds: six hours, enough for keepalives up to four.
const RECOMMENDED_ESTABLISHED: u64 = 21_600;

/// The sample of a table that is full enough for its contents to matter.
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
    let check = |space: &ObservedNamespace| {
        let (stats, source) = sample_if_filled(space)?;
        let timeout =
            space.sysctl("nf_conntrack_tcp_timeout_close_wait").filter(|timeout| *timeout >= LONG_CLOSE_WAIT)?;
        let entries = stats.entries_in_state("CLOSE_WAIT");
        if stats.percent(entries) < SIGNIFICANT_PERCENT {
            return None;
        }
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence("in CLOSE_WAIT", format!("{} %", stats.percent(entries)), source)
            .evidence(
                "CLOSE_WAIT timeout",
                Seconds(timeout),
                "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
            );
        Some(
            with_sockets(finding, space)
                .meaning("One end has closed, and the entry waits for the other end longer than programs do. kube-proxy sets this timeout to an hour.")
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_close_wait", 60, "the kernel's default; applies to entries from their next packet on"))
                .for_good(RemedyStep::command(
                    StepLocation::Elsewhere("kube-proxy's configuration".into()),
                    "conntrack: {tcpCloseWaitTimeout: 60s}",
                    "if kube-proxy set it, it will set it again",
                ))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_close_wait", 60, "if kube-proxy does not run here")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn time_wait_dominates(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (stats, source) = sample_if_filled(space)?;
        let entries = stats.entries_in_state("TIME_WAIT");
        let live = space.sockets.as_ref().map_or(0, |sockets| sockets.value.tcp.saturating_add(sockets.value.udp));
        if stats.percent(entries) < MAJORITY_PERCENT || stats.total < live.saturating_mul(2) {
            return None;
        }
        let timeout = space.sysctl("nf_conntrack_tcp_timeout_time_wait").unwrap_or(120);
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence(
                "in TIME_WAIT",
                format!("{} %, about {}", stats.percent(entries), Count(stats.extrapolate(entries))),
                source,
            )
            .evidence(
                "TIME_WAIT timeout",
                Seconds(timeout),
                "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait",
            );
        Some(
            with_sockets(finding, space)
                .meaning(format!("The number of TIME_WAIT entries is the rate of closed connections times {timeout} s; their sockets are gone long before."))
                .now(remedy::set_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_time_wait", 30, "applies to connections that close from now on"))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_time_wait", 30, "30 s is enough for retransmissions in a LAN"))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the clients".into()), "reuse connections (keepalive, pools)")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn dead_peers_linger(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (stats, source) = sample_if_filled(space)?;
        let timeout = space
            .sysctl("nf_conntrack_tcp_timeout_established")
            .filter(|timeout| *timeout > MIN_ESTABLISHED_TIMEOUT)?;
        if stats.percent(stats.idle) < SIGNIFICANT_PERCENT {
            return None;
        }
        let idle = Seconds(sample_stats::IDLE_SECONDS);
        let finding = finding_with_entry_count(rule, space, Certainty::Likely)
            .evidence(
                &format!("ESTABLISHED and idle for more than {idle}"),
                format!("{} %, about {}", stats.percent(stats.idle), Count(stats.extrapolate(stats.idle))),
                source,
            )
            .evidence(
                "established timeout",
                Seconds(timeout),
                "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
            );
        Some(
            with_sockets(finding, space)
                .meaning("Peers that vanish without closing leave entries for the whole timeout. These are ASSURED and never evicted.")
                .now(remedy::set_sysctl(
                    remedy::namespace_location(space),
                    "nf_conntrack_tcp_timeout_established",
                    RECOMMENDED_ESTABLISHED,
                    "applies to entries from their next packet on; enough for keepalives up to 4 h. Do not go below 7440 s (RFC 5382)",
                ))
                .now(RemedyStep::command(
                    remedy::namespace_location(space),
                    format!("keepstate conntrack -L -p tcp --state ESTABLISHED | awk '$3 < {}'", timeout.saturating_sub(sample_stats::IDLE_SECONDS)),
                    "lists the idle ones; delete those that are certainly dead",
                ))
                .for_good(remedy::persist_sysctl(remedy::namespace_location(space), "nf_conntrack_tcp_timeout_established", RECOMMENDED_ESTABLISHED, "sets it at every boot")),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn established_timeout_short(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let name = "nf_conntrack_tcp_timeout_established";
        let knob = space.sysctls.get(name).filter(|knob| knob.value < MIN_ESTABLISHED_TIMEOUT)?;
        space.count.as_ref().filter(|count| count.value > 0)?;
        let here = || remedy::namespace_location(space);
        let least = Seconds(MIN_ESTABLISHED_TIMEOUT);
        Some(
            rule.finding(Severity::Warning, Certainty::Possible)
                .in_namespace(&space.name)
                .evidence("established timeout", Seconds(knob.value), &knob.source)
                .evidence("least by RFC 5382 (REQ-5)", least, "TCP keepalives are sent after two hours by default")
                .meaning(
                    "A connection that is idle for longer loses its entry: its next packet is a new connection, which NAT and rules that accept only established connections break.",
                )
                .now(remedy::set_sysctl(here(), name, RECOMMENDED_ESTABLISHED, "applies to entries from their next packet on"))
                .for_good(remedy::persist_sysctl(
                    here(),
                    name,
                    RECOMMENDED_ESTABLISHED,
                    "unless every program here sends keepalives more often than the timeout",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn udp_dominates(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let (stats, source) = sample_if_filled(space)?;
        if stats.percent(stats.udp) < UDP_DOMINANT_PERCENT {
            return None;
        }
        let finding = finding_with_entry_count(rule, space, Certainty::Certain)
            .evidence("UDP", format!("{} %", stats.percent(stats.udp)), source)
            .evidence("UDP without a reply", format!("{} %", stats.percent(stats.udp_unreplied)), source);
        let here = || remedy::namespace_location(space);
        // The shorter timeout is that of the entries which are there.
        let (timeout, seconds, why) = if stats.udp_unreplied * 2 >= stats.udp {
            ("nf_conntrack_udp_timeout", 10, "unanswered flows expire sooner")
        } else {
            ("nf_conntrack_udp_timeout_stream", 60, "answered flows expire sooner")
        };
        let mut finding = with_sockets(finding, space)
            .meaning("Each query from a new port is an entry for 30 s, or 120 s if packets go both ways. DNS and QUIC make many.")
            .now(remedy::set_sysctl(here(), timeout, seconds, why));
        if let Some(port) = stats.major_port(sample_stats::UDP) {
            let share =
                stats.ports.iter().find(|(protocol, other, _)| (*protocol, *other) == (sample_stats::UDP, port));
            let share = share.map_or(0, |(_, _, entries)| stats.percent(*entries));
            finding = finding
                .evidence("most frequent destination", format!("udp port {port}, {share} % of all entries"), source)
                .for_good(RemedyStep::command(here(), remedy::notrack_command("udp", &port.to_string()), "traffic that is not translated need not be tracked"))
                .for_good(RemedyStep::command(
                    here(),
                    format!("nft 'table inet udp_timeout {{ ct timeout short {{ protocol udp; l3proto ip; policy = {{ unreplied : 5, replied : 10 }}; }}; chain pre {{ type filter hook prerouting priority -150; udp dport {port} ct timeout set \"short\"; }}; }}'"),
                    "or a shorter timeout for this port only (IPv4)",
                ));
        }
        Some(finding.for_good(remedy::persist_sysctl(here(), timeout, seconds, "the same at every boot")))
    };
    seen.namespaces.iter().filter_map(check).collect()
}
