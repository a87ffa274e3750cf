//! What a ruleset must not do where several machines share its connections: translate to an address that only one of them has.
use super::refusal::place;
use crate::ast::{Chain, NatTarget, Ruleset, Statement};
use crate::diagnostic::{Diagnostic, RulesetError};
use crate::source::Sources;

/// Refuses every `masquerade`: its address is that of this machine's interface, which a machine that takes over does not have.
///
/// # Errors
/// There is one.
pub fn refuse_masquerade(ruleset: &Ruleset, sources: Sources) -> Result<Sources, RulesetError> {
    let rules = ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(Chain::all_rules);
    let found = rules.flat_map(|rule| {
        rule.statements.iter().enumerate().filter_map(|(at, statement)| {
            let Statement::Nat(nat) = statement else { return None };
            matches!(nat.target, NatTarget::Masquerade).then(|| {
                Diagnostic::new(
                    place(rule, at),
                    "masquerade takes an address of this machine alone: no connection would survive a takeover by another gateway of the cluster",
                )
                .with_help("write snat to ADDRESS, with an address that moves to the active gateway (keepalived, BGP)")
            })
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
}
