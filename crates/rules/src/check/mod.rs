//! What nft and the kernel refuse although every word of it is known: run on the parsed ruleset before it is compiled.
//!
//! One file a kind of check. A check reads the tree and changes nothing; it says what is wrong, where, and what to write instead.
mod chain_graph;
mod hooks;
mod own_address;
mod protocol;
mod refusal;
mod sets;
mod translation;
mod types;

pub(crate) use chain_graph::{check_jump_depth, nat_only_chains, synproxy_allowed_chains};
pub use own_address::{refuse_masquerade, refuse_unassigned_sources};
pub(crate) use protocol::ProtocolContext;

use crate::ast::{Chain, Rule, Ruleset, Statement, Table};
use crate::diagnostic::Diagnostic;
use refusal::place;

/// All that is wrong with a ruleset whose text could be parsed.
pub(crate) fn check_ruleset(ruleset: &Ruleset) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for table in &ruleset.tables {
        for rule in table.chains.iter().flat_map(Chain::all_rules) {
            found.extend(check_rule(table, rule));
        }
        found.extend(hooks::check_hooks(table));
        found.extend(sets::check_sets(table));
        found.extend(chain_graph::jumps_to_base_chains(table));
    }
    found
}

/// Follows what the statements of a rule say about its packets; the first contradiction ends the rule.
fn check_rule(table: &Table, rule: &Rule) -> Option<Diagnostic> {
    let mut context = ProtocolContext::new(table.family);
    for (at, statement) in rule.statements.iter().enumerate() {
        let checked = match statement {
            Statement::Nat(nat) => translation::check_nat(table, &mut context, nat),
            Statement::Tproxy(proxy) => translation::check_tproxy(table, &mut context, proxy),
            other => context.statement(other),
        };
        if let Err(refusal) = checked.and_then(|()| types::check_types(table, statement)) {
            return Some(refusal.at(place(rule, at)));
        }
    }
    None
}
