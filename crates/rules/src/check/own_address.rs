//! What a ruleset must not do where several machines share its connections: translate to an address that only one of them has.
use super::refusal::place;
use crate::ast::{Chain, Nat, NatTarget, Ruleset, Statement};
use crate::diagnostic::{Diagnostic, RulesetError};
use crate::source::Sources;
use keepstate_engine::Manip;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Refuses every `masquerade`: its address is that of this machine's interface, which a machine that takes over does not have.
///
/// # Errors
/// There is one.
pub fn refuse_masquerade(ruleset: &Ruleset, sources: Sources) -> Result<Sources, RulesetError> {
    refuse_nat(ruleset, sources, |nat| {
        matches!(nat.target, NatTarget::Masquerade).then_some([
            "masquerade takes an address of this machine alone: no connection would survive a takeover by another gateway of the cluster",
            "write snat to ADDRESS, with an address that moves to the active gateway (keepalived, BGP)",
        ])
    })
}

/// Refuses every `snat to` addresses of which none is among `assigned`, those of a cluster's shards: each gateway would give the same ports of them. Addresses that only packets tell
/// (`snat to ip saddr map …`) are not looked at.
///
/// # Errors
/// There is one.
pub fn refuse_unassigned_sources(
    ruleset: &Ruleset,
    sources: Sources,
    assigned: &[RangeInclusive<IpAddr>],
) -> Result<Sources, RulesetError> {
    refuse_nat(ruleset, sources, |nat| {
        let NatTarget::Addresses(first, last) = nat.target else { return None };
        let is_assigned = assigned.iter().any(|own| *own.start() <= last && first <= *own.end());
        (nat.manip == Manip::Source && !is_assigned).then_some([
            "snat to an address of no shard: two gateways of the cluster could give the same port of it",
            "write an address of a shard here, or add this one to the address list of a shard in gateway.toml",
        ])
    })
}

/// Refuses NAT statements for which `reason` has what is wrong and what to do.
fn refuse_nat(
    ruleset: &Ruleset,
    sources: Sources,
    reason: impl Fn(&Nat) -> Option<[&'static str; 2]>,
) -> Result<Sources, RulesetError> {
    let rules = ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(Chain::all_rules);
    let found = rules.flat_map(|rule| {
        rule.statements.iter().enumerate().filter_map(|(at, statement)| {
            let Statement::Nat(nat) = statement else { return None };
            reason(nat).map(|[wrong, help]| Diagnostic::new(place(rule, at), wrong).with_help(help))
        })
    });
    let diagnostics: Vec<Diagnostic> = found.collect();
    if diagnostics.is_empty() { Ok(sources) } else { Err(RulesetError { diagnostics, sources }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoIncludes, parse_with};

    #[test]
    fn masquerade_is_found_wherever_it_stands_and_snat_is_taken() {
        let refusals = |rule: &str| {
            let text = format!("table ip t {{ chain p {{ type nat hook postrouting priority 100; {rule} }} }}");
            let (tree, sources) = parse_with("test.nft", &text, &NoIncludes, &[]).unwrap();
            refuse_masquerade(&tree, sources).err().map_or(0, |refused| refused.diagnostics.len())
        };
        assert_eq!(refusals("snat to 192.0.2.1;"), 0);
        assert_eq!(refusals("ip protocol tcp masquerade to :1024-2048; oifname eth0 masquerade;"), 2);
        assert_eq!(refusals("ip protocol tcp jump { masquerade; };"), 1);
    }

    #[test]
    fn snat_needs_an_address_of_a_shard_and_dnat_does_not() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let shards = [address(2)..=address(2), address(9)..=address(9), address(64)..=address(127)];
        let refused = |hook: &str, rule: &str| {
            let text = format!("table ip t {{ chain p {{ type nat hook {hook} priority 100; {rule} }} }}");
            let (tree, sources) = parse_with("test.nft", &text, &NoIncludes, &[]).unwrap();
            refuse_unassigned_sources(&tree, sources, &shards).err().map_or(0, |refused| refused.diagnostics.len())
        };
        assert_eq!(refused("postrouting", "snat to 192.0.2.2; snat to 192.0.2.1-192.0.2.4:1024-2047;"), 0);
        assert_eq!(refused("postrouting", "snat to 192.0.2.1; ip protocol tcp snat to 192.0.2.3-192.0.2.8;"), 2);
        let beside =
            "snat to 192.0.2.60-192.0.2.64; ip protocol tcp snat to 192.0.2.127; ip protocol udp snat to 192.0.2.128;";
        assert_eq!(refused("postrouting", beside), 1);
        assert_eq!(refused("postrouting", "snat to ip saddr map { 10.0.0.1 : 192.0.2.1 };"), 0);
        assert_eq!(refused("prerouting", "dnat to 10.0.0.1;"), 0);
    }
}
