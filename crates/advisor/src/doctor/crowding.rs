//! What the table is crowded with: connections that are over, peers that are gone, protocols that open one entry a question.
//!
//! A crowd in an empty table is no trouble: these rules speak where the table is at least [`MATTERS`] full.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Namespace, Observations};
use super::{Census, Rule, remedy};
use crate::quantity::{Count, Span};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "close-wait-lingers",
        number: 4,
        title: "half-closed connections stay for an hour",
        explains: &["time-wait-dominates", "table-was-full"],
        judge: close_wait,
    },
    Rule {
        name: "time-wait-dominates",
        number: 4,
        title: "most entries are of connections that are over",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        judge: time_wait,
    },
    Rule {
        name: "dead-peers-linger",
        number: 5,
        title: "entries of peers that are long gone stay for days",
        explains: &["table-was-full"],
        judge: dead,
    },
    Rule {
        name: "udp-dominates",
        number: 14,
        title: "UDP fills the table, one entry for each question",
        explains: &["nearly-full-reclaimable", "table-was-full"],
        judge: udp,
    },
];

/// How full a table is, in hundredths, from which on its contents matter.
const MATTERS: u64 = 30;

/// A share of the entries, in hundredths, that is most of them.
const MOST: u64 = 50;

/// A share that is worth taking away.
const MUCH: u64 = 30;

/// A share of UDP that a mixed load does not have.
const NEARLY_ALL: u64 = 70;

/// The kernel's own 60 s for CLOSE_WAIT; kube-proxy sets an hour. Ten minutes is neither.
const LONG_CLOSE_WAIT: u64 = 600;

/// The least that RFC 5382 allows for an established connection: 2 h 4 min.
const LEAST_ESTABLISHED: u64 = 7440;

/// What the story proposes: six hours, enough for keepalives up to four.
const ESTABLISHED: u64 = 21_600;

/// The census of a table whose contents matter.
fn crowd(space: &Namespace) -> Option<(Census, &str)> {
    space.fullness().filter(|share| *share >= MATTERS)?;
    Some((Census::of(space)?, space.sample.as_ref()?.source.as_str()))
}

fn sockets(finding: Finding, space: &Namespace) -> Finding {
    let Some(sockets) = &space.sockets else { return finding };
    let value = format!("{} TCP, {} TIME_WAIT, {} UDP", sockets.value.tcp, sockets.value.time_wait, sockets.value.udp);
    finding.seen("sockets", value, &sockets.source)
}

fn begun(rule: &Rule, space: &Namespace, certainty: Certainty) -> Finding {
    let finding = Finding::new(rule, Severity::Warning, certainty).inside(&space.name);
    match (&space.count, space.fullness()) {
        (Some(count), Some(share)) => {
            finding.seen("entries", format!("{} ({share} % of the limit)", Count(count.value)), &count.source)
        }
        _ => finding,
    }
}

fn close_wait(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (census, source) = crowd(space)?;
        let timeout =
            space.knob("nf_conntrack_tcp_timeout_close_wait").filter(|timeout| *timeout >= LONG_CLOSE_WAIT)?;
        let entries = census.state("CLOSE_WAIT");
        if census.share(entries) < MUCH {
            return None;
        }
        let finding = begun(rule, space, Certainty::Certain)
            .seen("in CLOSE_WAIT", format!("{} %", census.share(entries)), source)
            .seen("their timeout", Span(timeout), "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait");
        Some(
            sockets(finding, space)
                .means("One end has closed, and the entry waits for the other for longer than any program does. kube-proxy sets this hour.")
                .now(remedy::set(remedy::inside(space), "nf_conntrack_tcp_timeout_close_wait", 60, "the kernel's own; for entries that change from now on"))
                .for_good(Step::run(
                    super::Place::Elsewhere("kube-proxy's configuration".into()),
                    "conntrack: {tcpCloseWaitTimeout: 60s}",
                    "if kube-proxy set it, it will again",
                ))
                .for_good(remedy::set_for_good(remedy::inside(space), "nf_conntrack_tcp_timeout_close_wait", 60, "otherwise")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn time_wait(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (census, source) = crowd(space)?;
        let entries = census.state("TIME_WAIT");
        let live = space.sockets.as_ref().map_or(0, |sockets| sockets.value.tcp.saturating_add(sockets.value.udp));
        if census.share(entries) < MOST || census.all < live.saturating_mul(2) {
            return None;
        }
        let timeout = space.knob("nf_conntrack_tcp_timeout_time_wait").unwrap_or(120);
        let finding = begun(rule, space, Certainty::Certain)
            .seen(
                "in TIME_WAIT",
                format!("{} %, about {}", census.share(entries), Count(census.scaled(entries))),
                source,
            )
            .seen("their timeout", Span(timeout), "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait");
        Some(
            sockets(finding, space)
                .means(format!("Entries in TIME_WAIT are the rate of short connections times {timeout} s; the sockets are gone long before."))
                .now(remedy::set(remedy::inside(space), "nf_conntrack_tcp_timeout_time_wait", 30, "for connections that end from now on"))
                .for_good(remedy::set_for_good(remedy::inside(space), "nf_conntrack_tcp_timeout_time_wait", 30, "30 s is longer than any retransmission of a LAN"))
                .for_good(Step::todo(super::Place::Elsewhere("the clients".into()), "keep connections open and use them again")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn dead(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (census, source) = crowd(space)?;
        let timeout =
            space.knob("nf_conntrack_tcp_timeout_established").filter(|timeout| *timeout > LEAST_ESTABLISHED)?;
        if census.share(census.idle) < MUCH {
            return None;
        }
        let idle = Span(super::census::IDLE);
        let finding = begun(rule, space, Certainty::Likely)
            .seen(
                &format!("established and idle for more than {idle}"),
                format!("{} %, about {}", census.share(census.idle), Count(census.scaled(census.idle))),
                source,
            )
            .seen("established timeout", Span(timeout), "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established");
        Some(
            sockets(finding, space)
                .means("Peers that vanish without closing leave their entries for the whole timeout; being ASSURED they are never evicted.")
                .now(remedy::set(
                    remedy::inside(space),
                    "nf_conntrack_tcp_timeout_established",
                    ESTABLISHED,
                    "for entries that see a packet from now on; fits keepalives up to 4 h, and never go below 7440 s (RFC 5382)",
                ))
                .now(Step::run(
                    remedy::inside(space),
                    format!("keepstate conntrack -L -p tcp --state ESTABLISHED | awk '$3 < {}'", timeout.saturating_sub(super::census::IDLE)),
                    "those are the idle ones; delete what is surely dead",
                ))
                .for_good(remedy::set_for_good(remedy::inside(space), "nf_conntrack_tcp_timeout_established", ESTABLISHED, "at every boot")),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn udp(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (census, source) = crowd(space)?;
        if census.share(census.udp) < NEARLY_ALL {
            return None;
        }
        let port = census.ports.iter().find(|(protocol, _, _)| *protocol == super::census::UDP);
        let (port, share) = port.map_or((0, 0), |(_, port, entries)| (*port, census.share(*entries)));
        let finding = begun(rule, space, Certainty::Certain)
            .seen("UDP", format!("{} %", census.share(census.udp)), source)
            .seen("of it the most", format!("port {port}, {share} % of all entries"), source);
        Some(
            sockets(finding, space)
                .means("Each question from a new port is an entry for 30 s, for 120 s where answers go on; QUIC and DNS make many.")
                .now(remedy::set(remedy::inside(space), "nf_conntrack_udp_timeout_stream", 60, "answered flows go sooner"))
                .for_good(Step::run(remedy::inside(space), remedy::untrack("udp", &port.to_string()), "what is not translated need not be tracked"))
                .for_good(Step::run(
                    remedy::inside(space),
                    format!("nft 'add ct timeout inet filter short {{ protocol udp; policy = {{ unreplied : 5, replied : 10 }}; }}' and rules `udp dport {port} ct timeout set \"short\"`"),
                    "or shorter timeouts for this port alone",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}
