//! Entries older than the rules: NAT is decided by a connection's first packet, and the entry keeps that decision.
//!
//! Each flow that may be lost is given to the NAT rules as a new connection. It is stale if they would certainly translate it, and never to
//! where its entry sends it.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::nat_rules::{NatCandidate, read_tables};
use super::observations::{Observations, ObservedFlow, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{TCP, UDP};
use crate::units::Count;
use std::net::SocketAddr;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "udp-source-not-translated",
        number: 27,
        title: "a UDP flow is not translated by its DNAT rule; a proxy on this machine answers it",
        explains: &[],
        check: udp_source_not_translated,
    },
    DoctorRule {
        name: "udp-stale-translation",
        number: 15,
        title: "a UDP flow goes to an old destination",
        explains: &[],
        check: udp_stale_translation,
    },
    DoctorRule {
        name: "tcp-stale-translation",
        number: 15,
        title: "a TCP connection in its handshake goes to an old destination",
        explains: &[],
        check: tcp_stale_translation,
    },
];

/// Flows of a namespace that are compared with its rules; the sample is random, so many show what there is.
const MAX_COMPARED: usize = 4000;

/// Why a flow is not where the rules send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DnatBypass {
    /// Not translated, and answered by this machine.
    AnsweredByProxy,
    /// UDP to a destination of no rule, or not translated at all.
    StaleUdp,
    /// The same of TCP, before an answer came.
    StaleTcp,
}

/// The flows of one kind, and the rule that the first of them should follow.
struct BypassingFlows<'a> {
    first: &'a ObservedFlow,
    rule: String,
    number: u64,
    /// Was the first answered?
    is_answered: bool,
}

fn udp_source_not_translated(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let found = find_bypassing_flows(space, DnatBypass::AnsweredByProxy)?;
        Some(
            bypass_finding(rule, space, &found, Certainty::Likely)
                .meaning(
                    "The first packet came before the rule existed, and a proxy on this machine (docker-proxy) took the flow. NAT is \
                     decided once per entry: the service keeps seeing the bridge's address instead of the client's.",
                )
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("Docker's daemon.json".into()),
                    "set \"userland-proxy\": false, and delete the port's UDP entries after starting a container",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn udp_stale_translation(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let found = find_bypassing_flows(space, DnatBypass::StaleUdp)?;
        // What was answered once may still be answered.
        let certainty = if found.is_answered { Certainty::Possible } else { Certainty::Likely };
        Some(
            bypass_finding(rule, space, &found, certainty)
                .meaning(
                    "NAT is decided by an entry's first packet, and this entry is older than the rule. As long as the client keeps \
                     sending, its packets go to the old destination, and are lost if nobody answers there.",
                )
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("the script or program that restarts the service".into()),
                    "delete the service's UDP entries after changing its address, as kube-proxy does; do not flush the table",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

fn tcp_stale_translation(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let found = find_bypassing_flows(space, DnatBypass::StaleTcp)?;
        Some(
            bypass_finding(rule, space, &found, Certainty::Likely)
                .meaning(
                    "NAT is decided by an entry's first packet, and this entry is older than the rule. The client's SYN is sent again \
                     from the same port, keeps the entry alive and goes to the old destination, which does not answer.",
                )
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("the script or program that changes the rule".into()),
                    "delete the service's entries in SYN_SENT after changing its address; do not flush the table",
                )),
        )
    };
    seen.namespaces.iter().filter_map(check).collect()
}

/// A finding about one flow and the rule it does not follow.
fn bypass_finding(
    rule: &DoctorRule,
    space: &ObservedNamespace,
    found: &BypassingFlows<'_>,
    certainty: Certainty,
) -> Finding {
    let sample = space.sample.as_ref().map_or("", |sample| sample.source.as_str());
    let rules = space.rules.as_ref().map_or("", |rules| rules.source.as_str());
    let original = found.first.original;
    let (destination, reply) = ends(found.first);
    let end = match (found.is_answered, destination == reply) {
        (true, _) => format!("answered by {reply}"),
        (false, true) => "not translated and not answered".to_owned(),
        (false, false) => format!("sent on to {reply} and not answered"),
    };
    let client = SocketAddr::new(original.source, original.source_port);
    let mut finding = rule
        .finding(Severity::Warning, certainty)
        .in_namespace(&space.name)
        .evidence("flow", format!("{client} to {destination}, {end}"), sample)
        .evidence("rule", &found.rule, rules);
    if found.number > 1 {
        finding = finding.evidence("such flows", Count(found.number), sample);
    }
    let protocol = if found.first.protocol == TCP { "tcp" } else { "udp" };
    finding.now(RemedyStep::command(
        remedy::namespace_location(space),
        format!(
            "keepstate conntrack -D -p {protocol} -s {} -d {} --sport {} --dport {}",
            original.source, original.destination, original.source_port, original.destination_port
        ),
        "deletes this entry only; the next packet then follows the rules",
    ))
}

/// Where a flow was addressed to, and where it is answered from.
fn ends(flow: &ObservedFlow) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(flow.original.destination, flow.original.destination_port),
        SocketAddr::new(flow.reply.source, flow.reply.source_port),
    )
}

/// The flows of a kind that the rules would certainly send elsewhere.
fn find_bypassing_flows(space: &ObservedNamespace, wanted: DnatBypass) -> Option<BypassingFlows<'_>> {
    let (sample, rules) = (space.sample.as_ref()?, space.rules.as_ref()?);
    let tables = read_tables(&rules.value.listings);
    if !tables.translates() {
        return None;
    }
    let mut found: Option<BypassingFlows<'_>> = None;
    let flows = sample.value.flows.iter().filter(|flow| bypass_of(flow, space) == Some(wanted));
    for flow in flows.take(MAX_COMPARED) {
        let (destination, reply) = ends(flow);
        let new = NatCandidate {
            protocol: flow.protocol,
            source: SocketAddr::new(flow.original.source, flow.original.source_port),
            destination,
            local: &space.addresses,
            interface: space.interface_towards(flow.original.source),
        };
        let outcome = tables.evaluate(&new);
        if outcome.may_pass
            || outcome.targets.iter().any(|(_, target)| target.fits(destination, reply, &space.addresses))
        {
            continue;
        }
        let Some((rule, _)) = outcome.targets.first() else { continue };
        match &mut found {
            Some(found) => found.number += 1,
            None => {
                let is_answered = !flow.is_unreplied;
                found = Some(BypassingFlows { first: flow, rule: (*rule).to_owned(), number: 1, is_answered });
            }
        }
    }
    found
}

/// The kind of a flow, should the rules send it elsewhere.
fn bypass_of(flow: &ObservedFlow, space: &ObservedNamespace) -> Option<DnatBypass> {
    let (destination, reply) = ends(flow);
    match (flow.protocol, flow.is_unreplied) {
        (UDP, true) => Some(DnatBypass::StaleUdp),
        (UDP, false) if destination != reply => Some(DnatBypass::StaleUdp),
        (UDP, false) if space.addresses.is_empty() || space.addresses.contains(&reply.ip()) => {
            Some(DnatBypass::AnsweredByProxy)
        }
        // An established connection goes on where it began, as it should.
        (TCP, true) if flow.state.as_deref() == Some("SYN_SENT") => Some(DnatBypass::StaleTcp),
        _ => None,
    }
}
