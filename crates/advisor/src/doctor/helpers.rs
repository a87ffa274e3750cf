//! Protocols that announce further connections, without a helper that reads the announcements.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::sample_stats::{TCP, UDP};
use crate::units::Count;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[DoctorRule {
    name: "helper-not-assigned",
    number: 19,
    title: "FTP or SIP connections have no helper",
    explains: &[],
    check: helper_not_assigned,
}];

/// Protocols with a helper: name, protocol, port.
const HELPER_PORTS: [(&str, u8, u16); 3] = [("ftp", TCP, 21), ("sip", UDP, 5060), ("sip", TCP, 5060)];

fn helper_not_assigned(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    seen.namespaces.iter().filter_map(|space| helper_not_assigned_in(rule, space)).collect()
}

fn helper_not_assigned_in(rule: &DoctorRule, space: &ObservedNamespace) -> Option<Finding> {
    let (sample, rules) = (space.sample.as_ref()?, space.rules.as_ref()?);
    // Automatic assignment, if the kernel still has it and it is on.
    if space.sysctl("nf_conntrack_helper") == Some(1) || !rules.value.helpers.is_empty() {
        return None;
    }
    let translates = !rules.value.source_nat.is_empty() || !rules.value.destination_nat.is_empty();
    let related = rules.value.match_state.iter().any(|rule| rule.to_ascii_lowercase().contains("related"));
    if !translates && !related {
        return None;
    }
    let (name, protocol, port, flows) = HELPER_PORTS.into_iter().find_map(|(name, protocol, port)| {
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
    let key =
        if space.sysctls.contains_key("nf_conntrack_helper") { "0" } else { "not available (removed in Linux 6.0)" };
    Some(
        rule.finding(Severity::Warning, Certainty::Possible)
            .in_namespace(&space.name)
            .evidence(&format!("answered connections to {l4} port {port} without a helper"), Count(flows as u64), &sample.source)
            .evidence("automatic assignment", key, "/proc/sys/net/netfilter/nf_conntrack_helper")
            .evidence("rules that assign one", "none", &rules.source)
            .meaning(format!(
                "The data connections that {name} announces are neither expected nor translated: rules that accept only related \
                 connections drop them. Passive FTP without NAT, and SIP behind a session border controller, do not need a \
                 helper."
            ))
            .now(RemedyStep::command(
                remedy::namespace_location(space),
                format!("nft 'table inet helpers {{ ct helper {name}-standard {{ type \"{name}\" protocol {l4}; }}; chain pre {{ type filter hook prerouting priority -150; {l4} dport {port} ct helper set \"{name}-standard\"; }}; }}'"),
                "applies to new connections",
            ))
            .for_good(RemedyStep::manual(remedy::namespace_location(space), "keep this table in /etc/nftables.conf, for the ports and servers that need it")),
    )
}
