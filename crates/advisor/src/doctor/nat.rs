//! Translation: ports that run out, and UDP entries that know nothing of today's rules.
use super::census::{TCP, UDP};
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{DestinationNat, Flow, Namespace, Observations, SourceNat};
use super::{Place, Rule, remedy};
use crate::quantity::Count;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "snat-ports-exhausted",
        number: 7,
        title: "source NAT runs out of ports towards one destination",
        explains: &["udp-insert-race"],
        judge: exhausted,
    },
    Rule {
        name: "udp-source-not-translated",
        number: 27,
        title: "a UDP flow bypasses its DNAT rule and is answered by a proxy on this machine",
        explains: &[],
        judge: proxied,
    },
    Rule {
        name: "udp-stale-translation",
        number: 15,
        title: "a UDP flow goes where the rules no longer send it",
        explains: &[],
        judge: stale,
    },
];

/// Share of an address's ports, in hundredths, from which on the kernel's search (248 tries at most) begins to fail now and then.
const NEARLY_ALL: u64 = 90;

/// The ports that NAT gives where no rule says otherwise: 1024 to 65535.
const ORDINARY: (u16, u16) = (1024, 65535);

/// The same address, the same destination: what has to share ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bundle {
    protocol: u8,
    address: IpAddr,
    destination: SocketAddr,
}

fn exhausted(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| exhausted_in(rule, space)).collect()
}

fn exhausted_in(rule: &Rule, space: &Namespace) -> Option<Finding> {
    let sample = space.sample.as_ref()?;
    let mut used: BTreeMap<Bundle, BTreeSet<u16>> = BTreeMap::new();
    for flow in sample.value.flows.iter().filter(|flow| is_source_translated(flow)) {
        let destination = SocketAddr::new(flow.reply.source, flow.reply.source_port);
        let bundle = Bundle { protocol: flow.protocol, address: flow.reply.destination, destination };
        used.entry(bundle).or_default().insert(flow.reply.destination_port);
    }
    let (bundle, ports) = used.into_iter().max_by_key(|(_, ports)| ports.len())?;
    let (low, high) = ports_given(space, &ports);
    let given = u64::from(high.saturating_sub(low)) + 1;
    let all = space.count.as_ref().map_or(0, |count| count.value);
    let looked_at = sample.value.flows.len() as u64;
    let taken = if sample.value.is_whole {
        ports.len() as u64
    } else {
        ports.len() as u64 * all.max(looked_at) / looked_at.max(1)
    };
    if taken.saturating_mul(100) / given < NEARLY_ALL {
        return None;
    }
    let failed = space.grew(|by| by.insert_failed);
    let severity = if failed > 0 { Severity::Critical } else { Severity::Warning };
    let certainty = if sample.value.is_whole { Certainty::Certain } else { Certainty::Likely };
    let source = format!("{}, {} entries", sample.source, Count(looked_at));
    let mut finding = Finding::new(rule, severity, certainty)
        .inside(&space.name)
        .seen("towards", format!("{} of protocol {}", bundle.destination, bundle.protocol), &source)
        .seen("from", bundle.address, &source)
        .seen("ports in use", format!("{} of {} ({low} to {high})", Count(taken), Count(given)), &source);
    if let Some(counters) = &space.counters {
        let value = format!("{} since boot, {} while looking", Count(counters.value.insert_failed), Count(failed));
        finding = finding.seen("inserts that failed", value, &counters.source);
    }
    Some(
        finding
            .means(
                "One address has one port for each connection to the same destination, and nearly all are taken. New connections to it \
                 fail; to others they do not. The kernel has no counter that says so.",
            )
            .now(Step::run(
                remedy::inside(space),
                format!("conntrack -D --reply-src {} --reply-dst {}", bundle.destination.ip(), bundle.address),
                "ends the connections to that destination; only what nobody uses any more should go: add a state or a port",
            ))
            .for_good(Step::run(
                remedy::inside(space),
                "nft add rule ip nat postrouting snat to 192.0.2.1-192.0.2.4 fully-random",
                "more addresses, each brings as many ports again; at random the search fails later",
            ))
            .for_good(Step::todo(Place::Elsewhere("the clients".into()), "reuse connections (pools, keepalive) instead of one for each request")),
    )
}

fn is_source_translated(flow: &Flow) -> bool {
    matches!(flow.protocol, TCP | UDP)
        && (flow.original.source, flow.original.source_port) != (flow.reply.destination, flow.reply.destination_port)
        && flow.original.source != flow.reply.source
}

/// The ports that the rule gives of which these are: a rule with a range that holds them all.
fn ports_given(space: &Namespace, ports: &BTreeSet<u16>) -> (u16, u16) {
    let rules = space.rules.as_ref().map_or(&[][..], |rules| rules.value.source_nat.as_slice());
    let ranges = rules.iter().filter_map(|SourceNat { ports, .. }| *ports);
    let holds = |range: &(u16, u16)| ports.iter().all(|port| (range.0..=range.1).contains(port));
    ranges.filter(holds).min_by_key(|(low, high)| high.saturating_sub(*low)).unwrap_or(ORDINARY)
}

/// How a flow stands to a rule that should have translated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not translated, and answered all the same.
    Proxied,
    /// Not translated, or to where no rule sends it, and not answered.
    Stale,
}

fn proxied(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (flow, nat) = untranslated(space, Standing::Proxied)?;
        Some(
            strayed(rule, space, flow, nat, Certainty::Likely)
                .means(
                    "The first packet came before the rule was there, and a proxy on this machine (docker-proxy) took the flow. NAT is \
                     decided once for each entry: the service goes on seeing the bridge's address instead of the client's.",
                )
                .for_good(Step::todo(
                    Place::Elsewhere("Docker's daemon.json".into()),
                    "\"userland-proxy\": false; and delete the port's UDP entries after starting a container",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

fn stale(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let (flow, nat) = untranslated(space, Standing::Stale)?;
        Some(
            strayed(rule, space, flow, nat, Certainty::Likely)
                .means(
                    "NAT is decided by an entry's first packet and kept while packets come: the entry is older than the rule, and as long \
                     as the client goes on sending, its packets go into a black hole.",
                )
                .for_good(Step::todo(
                    Place::Elsewhere("what restarts the service".into()),
                    "delete the service's UDP entries after changing its address, as kube-proxy does; never flush all",
                )),
        )
    };
    seen.namespaces.iter().filter_map(judge).collect()
}

/// A finding about one flow and the rule it does not follow.
fn strayed(rule: &Rule, space: &Namespace, flow: &Flow, nat: &DestinationNat, certainty: Certainty) -> Finding {
    let sample = space.sample.as_ref().map_or("", |sample| sample.source.as_str());
    let rules = space.rules.as_ref().map_or("", |rules| rules.source.as_str());
    let (client, service) = (flow.original, flow.reply);
    let goes = format!(
        "{}:{} to {}:{}, answered by {}:{}",
        client.source,
        client.source_port,
        client.destination,
        client.destination_port,
        service.source,
        service.source_port
    );
    Finding::new(rule, Severity::Warning, certainty)
        .inside(&space.name)
        .seen("a flow", goes, sample)
        .seen("the rule", &nat.rule, rules)
        .now(Step::run(
            remedy::inside(space),
            format!(
                "conntrack -D -p udp -s {} -d {} --sport {} --dport {}",
                client.source, client.destination, client.source_port, client.destination_port
            ),
            "this entry only; the next packet is then sent as the rules say",
        ))
}

/// The first UDP flow that a rule should have translated and that goes elsewhere.
fn untranslated(space: &Namespace, wanted: Standing) -> Option<(&Flow, &DestinationNat)> {
    let (sample, rules) = (space.sample.as_ref()?, space.rules.as_ref()?);
    let all = &rules.value.destination_nat;
    let udp = sample.value.flows.iter().filter(|flow| flow.protocol == UDP);
    for flow in udp {
        // A flow that starts from the service itself passes no such rule.
        let asks = |nat: &&DestinationNat| {
            nat.port == Some(flow.original.destination_port)
                && nat.protocol.as_deref().is_none_or(|protocol| protocol == "udp")
                && nat.to.is_some_and(|to| to != flow.original.source && to != flow.original.destination)
        };
        let Some(nat) = all.iter().find(asks) else { continue };
        let goes = flow.reply.source;
        if all.iter().filter(asks).any(|nat| nat.to == Some(goes)) {
            continue;
        }
        let is_untouched = goes == flow.original.destination;
        let standing = match (is_untouched, flow.is_unreplied) {
            (true, false) if space.addresses.is_empty() || space.addresses.contains(&goes) => Some(Standing::Proxied),
            (_, true) => Some(Standing::Stale),
            // It is answered from elsewhere: a rule that was not understood may have sent it there.
            _ => None,
        };
        if standing == Some(wanted) {
            return Some((flow, nat));
        }
    }
    None
}
