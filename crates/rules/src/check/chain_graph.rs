//! Which chains are reachable from which hooks: where NAT and synproxy are allowed, and that jumps have no loops.
#![allow(clippy::disallowed_types, reason = "the keys are names in a ruleset, not a peer's")]
use crate::ast::{self, ElementData, Hook, SetRef, Statement};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use std::collections::{HashMap, HashSet};

/// Maximum depth of nested jumps below a base chain, as in the kernel.
const MAX_JUMP_DEPTH: usize = 15;

/// Targets of a chain's jumps and gotos.
fn jump_targets<'a>(table: &'a ast::Table, chain: &'a ast::Chain) -> Vec<(&'a str, Span)> {
    let mut found = Vec::new();
    let mut of = |verdict: &'a ast::NftVerdict| {
        if let ast::NftVerdict::Jump(name, span) | ast::NftVerdict::Goto(name, span) = verdict {
            found.push((name.as_str(), *span));
        }
    };
    for statement in chain.all_rules().flat_map(|rule| &rule.statements) {
        match statement {
            Statement::Verdict(verdict) => of(verdict),
            Statement::Vmap(_, map) => {
                let set = match map {
                    SetRef::Anonymous(set) => Some(set.as_ref()),
                    SetRef::Named(name, _) => table.sets.iter().find(|set| set.name == *name),
                };
                for element in set.into_iter().flat_map(|set| &set.elements) {
                    if let Some(ElementData::Verdict(verdict)) = &element.data {
                        of(verdict);
                    }
                }
            }
            _ => (),
        }
    }
    found
}

/// Chains that are not reachable from filter chains, and so may contain NAT statements. Unreachable chains are included.
pub(crate) fn nat_only_chains(table: &ast::Table) -> HashSet<&str> {
    let filtering = reachable_chains(table, |chain| chain.base.is_some_and(|base| !base.nat));
    table.chains.iter().map(|chain| chain.name.as_str()).filter(|name| !filtering.contains(name)).collect()
}

/// Chains that packets reach only where handshakes may be answered: behind tracking, on the level to somebody.
pub(crate) fn synproxy_allowed_chains(table: &ast::Table) -> HashSet<&str> {
    let elsewhere = reachable_chains(table, |chain| {
        chain.base.is_some_and(|base| base.nat || !matches!(base.hook, Hook::Input | Hook::Forward))
    });
    table.chains.iter().map(|chain| chain.name.as_str()).filter(|name| !elsewhere.contains(name)).collect()
}

/// Chains reachable from some chains, which are among them.
pub(super) fn reachable_chains(table: &ast::Table, from: impl Fn(&ast::Chain) -> bool) -> HashSet<&str> {
    let by_name: HashMap<&str, &ast::Chain> = table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
    let mut open: Vec<&str> =
        table.chains.iter().filter(|chain| from(chain)).map(|chain| chain.name.as_str()).collect();
    let mut reached = HashSet::new();
    while let Some(name) = open.pop() {
        if let Some(chain) = by_name.get(name)
            && reached.insert(name)
        {
            open.extend(jump_targets(table, chain).into_iter().map(|(name, _)| name));
        }
    }
    reached
}

/// Jumps to chains that have a hook: packets reach those by their hook only. In maps too.
pub(super) fn jumps_to_base_chains(table: &ast::Table) -> Vec<Diagnostic> {
    let bases: HashSet<&str> =
        table.chains.iter().filter(|chain| chain.base.is_some()).map(|chain| chain.name.as_str()).collect();
    let in_rules = table.chains.iter().flat_map(|chain| jump_targets(table, chain));
    let in_maps = table.sets.iter().flat_map(|set| &set.elements).filter_map(|element| match &element.data {
        Some(ElementData::Verdict(ast::NftVerdict::Jump(name, span) | ast::NftVerdict::Goto(name, span))) => {
            Some((name.as_str(), *span))
        }
        _ => None,
    });
    let mut seen = HashSet::new();
    let refused = in_rules.chain(in_maps).filter(|(name, span)| bases.contains(name) && seen.insert(*span));
    refused
        .map(|(name, span)| {
            Diagnostic::new(span, format!("{name} is a base chain: rules cannot jump to it"))
                .with_help("move its rules into a chain without a hook, and jump to that one from both")
        })
        .collect()
}

/// Checks that jumps have no loops and are nested at most [`MAX_JUMP_DEPTH`] deep.
pub(crate) fn check_jump_depth(table: &ast::Table) -> Result<(), Diagnostic> {
    let by_name: HashMap<&str, &ast::Chain> = table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
    // Depth below each chain, once known.
    let mut known: HashMap<&str, usize> = HashMap::new();
    fn depth_below<'a>(
        table: &'a ast::Table,
        by_name: &HashMap<&str, &'a ast::Chain>,
        known: &mut HashMap<&'a str, usize>,
        chain: &'a ast::Chain,
        level: usize,
    ) -> Result<usize, Diagnostic> {
        if let Some(depth) = known.get(chain.name.as_str()) {
            return Ok(*depth);
        }
        let nests = chain.rules.iter().any(|rule| rule.nested_rules().next().is_some());
        let mut deepest = usize::from(nests);
        for (name, span) in jump_targets(table, chain) {
            if level >= MAX_JUMP_DEPTH {
                let what = format!("jumps form a loop or are nested more than {MAX_JUMP_DEPTH} deep");
                return Err(Diagnostic::new(span, what));
            }
            if let Some(target) = by_name.get(name) {
                deepest = deepest.max(1 + depth_below(table, by_name, known, target, level + 1)?);
            }
        }
        known.insert(chain.name.as_str(), deepest);
        Ok(deepest)
    }
    // As in the kernel, only what packets can reach from a hook counts.
    for chain in table.chains.iter().filter(|chain| chain.base.is_some()) {
        if depth_below(table, &by_name, &mut known, chain, 0)? > MAX_JUMP_DEPTH {
            return Err(Diagnostic::new(
                chain.span,
                format!("jumps from this chain are nested more than {MAX_JUMP_DEPTH} deep"),
            ));
        }
    }
    Ok(())
}
