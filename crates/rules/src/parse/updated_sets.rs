//! Sets that rules change: what nft and the kernel make of them once a rule is bound to them.
use super::parser::Parser;
use crate::ast::{Chain, Ruleset, Statement};

/// Handles of each table, and how many it has given away: what is numbered later is new.
pub(super) type KnownHandles = Vec<(u64, u64)>;

pub(super) fn known_handles(ruleset: &Ruleset) -> KnownHandles {
    ruleset.tables.iter().map(|table| (table.handle, table.handles)).collect()
}

impl Parser<'_> {
    /// Marks the sets that rules change; `before` are the handles from before the text.
    pub(super) fn mark_updated_sets(&mut self, before: &KnownHandles) {
        for table in &mut self.ruleset.tables {
            let given = before.iter().find(|(handle, _)| *handle == table.handle).map_or(0, |(_, handles)| *handles);
            let rules = table.chains.iter().flat_map(Chain::all_rules);
            for statement in rules.flat_map(|rule| &rule.statements) {
                let Statement::Dynset(change) = statement else { continue };
                let set = table.sets.iter_mut().find(|set| change.meter_size.is_none() && set.name == change.set);
                let Some(set) = set.filter(|set| !set.updated_by_rules) else { continue };
                set.updated_by_rules = true;
                set.updated_from_start = set.handle == 0 || set.handle > given;
            }
        }
    }
}
