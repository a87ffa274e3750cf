//! Protocols that announce connections, and nobody who listens to the announcements.
use super::census::{TCP, UDP};
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Namespace, Observations};
use super::{Rule, remedy};
use crate::quantity::Count;

/// What this family knows.
pub const RULES: &[Rule] = &[Rule {
    name: "helper-not-assigned",
    number: 19,
    title: "FTP or SIP passes here without a helper",
    explains: &[],
    judge: missing,
}];

/// Protocols with a helper, and where they are spoken: name, protocol, port.
const HELPED: [(&str, u8, u16); 3] = [("ftp", TCP, 21), ("sip", UDP, 5060), ("sip", TCP, 5060)];

fn missing(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| missing_in(rule, space)).collect()
}

fn missing_in(rule: &Rule, space: &Namespace) -> Option<Finding> {
    let (sample, rules) = (space.sample.as_ref()?, space.rules.as_ref()?);
    // Automatic assignment, where it is still there and on, does it.
    if space.knob("nf_conntrack_helper") == Some(1) || !rules.value.helpers.is_empty() {
        return None;
    }
    let translates = !rules.value.source_nat.is_empty() || !rules.value.destination_nat.is_empty();
    let related = rules.value.ask_state.iter().any(|rule| rule.to_ascii_lowercase().contains("related"));
    if !translates && !related {
        return None;
    }
    let (name, protocol, port, flows) = HELPED.into_iter().find_map(|(name, protocol, port)| {
        let flows = sample.value.flows.iter().filter(|flow| {
            flow.protocol == protocol
                && flow.original.destination_port == port
                && !flow.is_unreplied
                && flow.helper.is_none()
        });
        let flows = flows.count();
        (flows > 0).then_some((name, protocol, port, flows))
    })?;
    let l4 = if protocol == TCP { "tcp" } else { "udp" };
    let key = if space.knobs.contains_key("nf_conntrack_helper") { "0" } else { "the key is gone (since Linux 6.0)" };
    Some(
        Finding::new(rule, Severity::Warning, Certainty::Possible)
            .inside(&space.name)
            .seen(&format!("answered connections to {l4} port {port} without a helper"), Count(flows as u64), &sample.source)
            .seen("automatic assignment", key, "/proc/sys/net/netfilter/nf_conntrack_helper")
            .seen("rules that assign one", "none", &rules.source)
            .means(format!(
                "What {name} announces in its control connection is neither expected nor translated: its data connections are refused \
                 by rules that accept only what is related. Modern FTP in passive mode without NAT, and SIP behind a session border \
                 controller, do not need it."
            ))
            .now(Step::run(
                remedy::inside(space),
                format!("nft 'table inet helpers {{ ct helper {name}-standard {{ type \"{name}\" protocol {l4}; }}; chain pre {{ type filter hook prerouting priority -150; {l4} dport {port} ct helper set \"{name}-standard\"; }}; }}'"),
                "for connections that begin from now on",
            ))
            .for_good(Step::todo(remedy::inside(space), "keep that table in /etc/nftables.conf, for the ports and servers that need it")),
    )
}
