//! Source NAT: ports that run out, addresses that are gone.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{Observations, ObservedFlow, ObservedNamespace, ObservedSnat};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{TCP, UDP};
use crate::units::Count;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "snat-ports-exhausted",
        number: 7,
        title: "source NAT runs out of ports for one destination",
        explains: &["udp-insert-race", "snat-port-race"],
        check: snat_ports_exhausted,
    },
    DoctorRule {
        name: "snat-address-gone",
        number: 7,
        title: "connections leave with a NAT address that this machine no longer has",
        explains: &[],
        check: snat_address_gone,
    },
];

/// Percent of used ports above which the kernel's search (248 tries at most) begins to fail.
const EXHAUSTED_PERCENT: u64 = 90;

/// Connections that a NAT address must have, all unanswered, to be called gone.
const MIN_UNANSWERED: u64 = 5;

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
                format!("keepstate conntrack -D --reply-src {} --reply-dst {}", pool.destination.ip(), pool.address),
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

fn snat_address_gone(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| snat_address_gone_in(rule, space)).collect()
}

/// A NAT address that is routed here without being configured is answered; one that is gone is not.
fn snat_address_gone_in(rule: &DoctorRule, space: &ObservedNamespace) -> Option<Finding> {
    let sample = space.sample.as_ref().filter(|_| !space.addresses.is_empty())?;
    let mut flows: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
    let translated = sample.value.flows.iter().filter(|flow| is_source_translated(flow));
    for flow in translated.filter(|flow| flow.original.source != flow.reply.destination) {
        let (unanswered, answered) = flows.entry(flow.reply.destination).or_default();
        *if flow.is_unreplied { unanswered } else { answered } += 1;
    }
    let is_gone = |address: &IpAddr, (unanswered, answered): (u64, u64)| {
        !space.addresses.contains(address) && answered == 0 && unanswered >= MIN_UNANSWERED
    };
    let (address, (unanswered, _)) = flows
        .into_iter()
        .filter(|(address, counted)| is_gone(address, *counted))
        .max_by_key(|(_, (unanswered, _))| *unanswered)?;
    let is_named = |nat: &&ObservedSnat| {
        let mut words =
            nat.rule.split(|letter: char| letter.is_whitespace() || matches!(letter, '-' | ',' | '[' | ']'));
        words.any(|word| {
            word.parse() == Ok(address) || word.split(':').next().is_some_and(|word| word.parse() == Ok(address))
        })
    };
    let rules = space.rules.as_ref();
    let named = rules.and_then(|rules| rules.value.source_nat.iter().find(is_named));
    let here = || remedy::namespace_location(space);
    let certainty = if named.is_some() { Certainty::Likely } else { Certainty::Possible };
    let mut finding = rule
        .finding(Severity::Warning, certainty)
        .in_namespace(&space.name)
        .evidence("NAT address", format!("{address}, not an address of this machine"), "/proc/net/fib_trie, /proc/net/if_inet6")
        .evidence("connections that use it", format!("{}, none answered", Count(unanswered)), &sample.source)
        .meaning(
            "Answers to this address do not come here. The entries keep it for as long as the clients send, also after the rule or the \
             address has changed.",
        );
    if let (Some(nat), Some(rules)) = (named, rules) {
        finding = finding.evidence("rule", &nat.rule, &rules.source).now(RemedyStep::manual(
            here(),
            "in this rule: replace the address by one of this machine, or use `masquerade`; or give the machine the address again",
        ));
    }
    Some(
        finding
            .now(RemedyStep::command(
                here(),
                format!("keepstate conntrack -D --reply-dst {address}"),
                "deletes these entries; the next packets follow the rules as they are then",
            ))
            .for_good(RemedyStep::manual(
                here(),
                "use `masquerade` where the address changes: the kernel then ends the entries with the address",
            )),
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
