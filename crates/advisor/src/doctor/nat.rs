//! Source NAT: ports that run out.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedFlow, ObservedNamespace, ObservedSnat};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{TCP, UDP};
use crate::units::Count;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[DoctorRule {
    name: "snat-ports-exhausted",
    number: 7,
    title: "source NAT runs out of ports for one destination",
    explains: &["udp-insert-race", "snat-port-race"],
    check: snat_ports_exhausted,
}];

/// Percent of used ports above which the kernel's search (248 tries at most) begins to fail.
const EXHAUSTED_PERCENT: u64 = 90;

/// The ports NAT uses by default: 1024 to 65535.
const DEFAULT_PORT_RANGE: (u16, u16) = (1024, 65535);

/// Connections that share a set of ports: same address, same destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SnatPortPool {
    protocol: u8,
    address: IpAddr,
    destination: SocketAddr,
}

fn snat_ports_exhausted(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| snat_ports_exhausted_in(rule, space)).collect()
}

fn snat_ports_exhausted_in(rule: &DoctorRule, space: &ObservedNamespace) -> Option<Finding> {
    let sample = space.sample.as_ref()?;
    let mut used: BTreeMap<SnatPortPool, BTreeSet<u16>> = BTreeMap::new();
    for flow in sample.value.flows.iter().filter(|flow| is_source_translated(flow)) {
        let destination = SocketAddr::new(flow.reply.source, flow.reply.source_port);
        let pool = SnatPortPool { protocol: flow.protocol, address: flow.reply.destination, destination };
        used.entry(pool).or_default().insert(flow.reply.destination_port);
    }
    let (pool, ports) = used.into_iter().max_by_key(|(_, ports)| ports.len())?;
    let (low, high) = snat_port_range(space, &ports);
    let given = u64::from(high.saturating_sub(low)) + 1;
    let all = space.count.as_ref().map_or(0, |count| count.value);
    let sampled = sample.value.flows.len() as u64;
    let taken = if sample.value.is_complete {
        ports.len() as u64
    } else {
        ports.len() as u64 * all.max(sampled) / sampled.max(1)
    };
    if taken.saturating_mul(100) / given < EXHAUSTED_PERCENT {
        return None;
    }
    let failed = space.counter_growth(|by| by.insert_failed);
    let severity = if failed > 0 { Severity::Critical } else { Severity::Warning };
    let certainty = if sample.value.is_complete { Certainty::Certain } else { Certainty::Likely };
    let source = format!("{}, {} entries", sample.source, Count(sampled));
    let mut finding = rule
        .finding(severity, certainty)
        .in_namespace(&space.name)
        .evidence("destination", format!("{}, protocol {}", pool.destination, pool.protocol), &source)
        .evidence("NAT address", pool.address, &source)
        .evidence("ports in use", format!("{} of {} ({low} to {high})", Count(taken), Count(given)), &source);
    if let Some(counters) = &space.counters {
        let value = format!("{} since boot, {} in the interval", Count(counters.value.insert_failed), Count(failed));
        finding = finding.evidence("failed inserts", value, &counters.source);
    }
    Some(
        finding
            .meaning(
                "Each connection to the same destination needs its own port of the NAT address, and nearly all are in use. New \
                 connections to this destination fail; others work. No kernel counter shows this.",
            )
            .now(RemedyStep::command(
                remedy::namespace_location(space),
                format!("conntrack -D --reply-src {} --reply-dst {}", pool.destination.ip(), pool.address),
                "ends all connections to that destination; add --state or --orig-port-src to delete only unused ones",
            ))
            .for_good(RemedyStep::command(
                remedy::namespace_location(space),
                "nft 'table ip more_snat { chain post { type nat hook postrouting priority 90; snat to 192.0.2.1-192.0.2.4 fully-random; }; }'",
                "more NAT addresses, each with its own ports; replace 192.0.2.1-192.0.2.4 by yours. With fully-random the search fails later",
            ))
            .for_good(RemedyStep::manual(StepLocation::Elsewhere("the clients".into()), "reuse connections (pools, keepalive) instead of one per request")),
    )
}

fn is_source_translated(flow: &ObservedFlow) -> bool {
    matches!(flow.protocol, TCP | UDP)
        && (flow.original.source, flow.original.source_port) != (flow.reply.destination, flow.reply.destination_port)
        && flow.original.source != flow.reply.source
}

/// The port range of the SNAT rule in use: the smallest that contains all these ports.
fn snat_port_range(space: &ObservedNamespace, ports: &BTreeSet<u16>) -> (u16, u16) {
    let rules = space.rules.as_ref().map_or(&[][..], |rules| rules.value.source_nat.as_slice());
    let ranges = rules.iter().filter_map(|ObservedSnat { ports, .. }| *ports);
    let holds = |range: &(u16, u16)| ports.iter().all(|port| (range.0..=range.1).contains(port));
    ranges.filter(holds).min_by_key(|(low, high)| high.saturating_sub(*low)).unwrap_or(DEFAULT_PORT_RANGE)
}
