//! A ruleset in use is changed by a script, or replaced by another file: all of it or nothing.
//!
//! Parsing and compiling are done away from the packets, on a [`RunningRuleset`], which shares the tree with the program. What is left for
//! [`Program::apply`] is to move state (set elements, counters, quotas, limits) from the old program to the new one, and to change elements: it takes as
//! long as what changes, and never copies a set.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compile::compile;
use super::compiled::{ListedTable, Listing, Program, StateSlots};
use super::element_change::{PreparedChange, apply_changes, prepare_changes};
use super::rule_drops::DropMoves;
use super::set::DynElement;
use super::set_lookup::LookupScope;
use super::update_scope::scope_between;
use crate::ast::{AddedItem, ObjectBody, Query, Ruleset, Table};
use crate::check::{refuse_masquerade, refuse_unassigned_sources};
use crate::diagnostic::RulesetError;
use crate::parse::{ParsedScript, parse_script};
use crate::source::{IncludeResolver, Sources};
use keepstate_engine::Instant;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The names, rules and texts of a program in use. Cheap to clone; does not change.
#[derive(Clone, Debug)]
pub struct RunningRuleset {
    pub(super) listing: Arc<Listing>,
    /// When its timeouts began to run.
    started: Option<Instant>,
}

/// A checked change of a running ruleset, ready to be applied.
#[derive(Debug)]
pub struct RulesetUpdate {
    base: Arc<Listing>,
    /// The program that takes over; `None` if only elements change.
    program: Option<Box<Program>>,
    plan: AdoptPlan,
    /// What the program that takes over judges otherwise.
    scope: LookupScope,
    moved_counters: MovedCounters,
    changes: Vec<PreparedChange>,
    /// What the script asks to list, in order.
    pub queries: Vec<Query>,
    /// What the script has added.
    pub added: Vec<AddedItem>,
    /// Tables that the script names and that are the kernel's: nothing was done about them. A line each.
    pub notes: Vec<String>,
    sources: Sources,
}

/// What an update has done, for those who go by what rules have said before.
#[derive(Debug)]
pub struct AppliedUpdate {
    /// The program that was replaced, if one was: to be dropped where that delays nobody.
    pub replaced: Option<Box<Program>>,
    /// What is to be evaluated anew.
    pub scope: LookupScope,
    /// Where the counters of rules are now; `None` if they are where they were.
    pub moved_counters: Option<MovedCounters>,
}

/// The new index of each counter of a rule, by its old one. Those of rules that are gone have none.
pub type MovedCounters = HashMap<u32, u32>;

/// Why an update was not applied. Nothing has changed.
#[derive(Debug)]
pub enum RulesetUpdateError {
    /// Somebody else has changed the ruleset in the meantime: prepare the update again.
    Outdated,
    /// An element exists, or does not exist.
    Refused(RulesetError),
}

/// What moves from the old program to the new one: indices into both.
#[derive(Debug, Default)]
struct AdoptPlan {
    counters: Vec<(usize, usize)>,
    stateful: Vec<(usize, usize)>,
    sets: Vec<(usize, usize)>,
    /// Sets of a file that was read again: what the file names, and what packets and scripts have added.
    merged_sets: Vec<(usize, usize)>,
    /// Sets of which only the state of equal elements moves.
    element_state: Vec<(usize, usize)>,
    numgens: Vec<(usize, usize)>,
    /// Counts of dropped packets.
    drops: DropMoves,
}

impl Program {
    /// The names and rules of this program.
    pub fn ruleset(&self) -> RunningRuleset {
        RunningRuleset { listing: Arc::clone(&self.listing), started: self.state.started_at }
    }

    /// Applies an update.
    ///
    /// # Errors
    /// See [`RulesetUpdateError`]; the program is as it was.
    pub fn apply(&mut self, update: RulesetUpdate, now: Instant) -> Result<AppliedUpdate, RulesetUpdateError> {
        let RulesetUpdate { base, program, plan, mut scope, moved_counters, changes, sources, .. } = update;
        if !Arc::ptr_eq(&base, &self.listing) {
            return Err(RulesetUpdateError::Outdated);
        }
        self.start_timeouts(now);
        let refused = |diagnostic| {
            RulesetUpdateError::Refused(RulesetError { diagnostics: vec![diagnostic], sources: sources.clone() })
        };
        let Some(mut new) = program else {
            let scope = apply_changes(&mut self.sets, changes, now).map_err(refused)?;
            return Ok(AppliedUpdate { replaced: None, scope, moved_counters: None });
        };
        new.start_timeouts(now);
        new.swap_state(self, &plan);
        match apply_changes(&mut new.sets, changes, now) {
            Ok(of_elements) => scope.extend(of_elements),
            Err(diagnostic) => {
                new.swap_state(self, &plan);
                return Err(refused(diagnostic));
            }
        }
        for (to, from) in &plan.counters {
            if let (Some(to), Some(from)) = (new.state.counters.get_mut(*to), self.state.counters.get(*from)) {
                *to = *from;
            }
        }
        for (to, from) in &plan.numgens {
            if let (Some(to), Some(from)) =
                (new.state.numgen_counters.get_mut(*to), self.state.numgen_counters.get(*from))
            {
                *to = *from;
            }
        }
        plan.drops.apply(&mut new.state.drops, &self.state.drops);
        new.state.rng_state = self.state.rng_state;
        new.state.wall_clock_offset = self.state.wall_clock_offset;
        std::mem::swap(self, &mut new);
        let all_stay =
            moved_counters.len() == new.state.counters.len() && moved_counters.iter().all(|(from, to)| from == to);
        Ok(AppliedUpdate { replaced: Some(new), scope, moved_counters: (!all_stay).then_some(moved_counters) })
    }

    /// Exchanges what the plan moves; done twice, nothing has changed.
    fn swap_state(&mut self, old: &mut Program, plan: &AdoptPlan) {
        for (at, from) in &plan.stateful {
            if let (Some(one), Some(other)) = (self.state.stateful.get_mut(*at), old.state.stateful.get_mut(*from)) {
                one.swap_state(other);
            }
        }
        for (at, from) in &plan.sets {
            let (Some(one), Some(other)) = (self.sets.get_mut(*at), old.sets.get_mut(*from)) else { continue };
            std::mem::swap(&mut one.dynamic, &mut other.dynamic);
            std::mem::swap(&mut one.catchall, &mut other.catchall);
            std::mem::swap(&mut one.has_state, &mut other.has_state);
            std::mem::swap(&mut one.declared, &mut other.declared);
        }
        for (at, from) in &plan.merged_sets {
            let (Some(one), Some(other)) = (self.sets.get_mut(*at), old.sets.get_mut(*from)) else { continue };
            // A large set that only the file has made costs nothing here.
            if !other.has_state {
                continue;
            }
            one.has_state = true;
            // The file's elements stay in force; those of packets and scripts join them. Of two maps the smaller is moved, where it is known to be.
            if other.declared == 0 {
                std::mem::swap(&mut one.dynamic, &mut other.dynamic);
                for (key, element) in other.dynamic.drain() {
                    match one.dynamic.get_mut(&key) {
                        Some(known) => known.declared = true,
                        None => _ = one.dynamic.insert(key, element),
                    }
                }
                continue;
            }
            for (key, element) in other.dynamic.drain() {
                match one.dynamic.get_mut(&key) {
                    Some(declared) => *declared = DynElement { declared: true, ..element },
                    None if !element.declared => {
                        one.dynamic.insert(key, element);
                    }
                    None => (),
                }
            }
        }
        for (at, from) in &plan.element_state {
            let (Some(one), Some(other)) = (self.sets.get_mut(*at), old.sets.get_mut(*from)) else { continue };
            for (key, element) in &mut one.dynamic {
                if let Some(old) = other.dynamic.get_mut(key) {
                    let pairs = element.stateful.iter_mut().zip(&mut old.stateful);
                    pairs.for_each(|(one, other)| one.swap_state(other));
                }
            }
        }
    }
}

impl RulesetUpdate {
    /// Refuses an update by which the ruleset has a `masquerade`, which no gateway of a cluster may have.
    ///
    /// # Errors
    /// It has one.
    pub fn refuse_masquerade(&self) -> Result<(), RulesetError> {
        let Some(program) = &self.program else { return Ok(()) };
        refuse_masquerade(&program.listing.tree, self.sources.clone()).map(drop)
    }

    /// Refuses an update by which the ruleset has a `snat to` addresses of which none is `assigned`: see [`refuse_unassigned_sources`].
    ///
    /// # Errors
    /// It has one.
    pub fn refuse_unassigned_sources(&self, assigned: &[RangeInclusive<IpAddr>]) -> Result<(), RulesetError> {
        let Some(program) = &self.program else { return Ok(()) };
        refuse_unassigned_sources(&program.listing.tree, self.sources.clone(), assigned).map(drop)
    }
}

impl RunningRuleset {
    /// Prepares the changes that a script of nft commands makes to this ruleset. `script` is its name in messages, and its text.
    ///
    /// # Errors
    /// The script has errors, or the ruleset it makes is refused.
    pub fn prepare_script(
        &self,
        script: (&str, &str),
        includes: &dyn IncludeResolver,
        now: Instant,
    ) -> Result<RulesetUpdate, RulesetError> {
        let mut tree = self.listing.tree.clone();
        settle_elements(&mut tree, self.started.unwrap_or(now), now);
        let before = &self.listing.sources;
        let parsed = parse_script(tree, before.clone(), script, includes)?;
        let ParsedScript { mut tree, sources, tree_changed, changes, queries, added, notes } = parsed;
        let notes =
            notes.iter().map(|diagnostic| format!("{}: {}", sources.position(diagnostic.span), diagnostic.message));
        let notes = notes.collect();
        let refused = |diagnostic| RulesetError { diagnostics: vec![diagnostic], sources: sources.clone() };
        let (program, plan, scope, tables) = if tree_changed {
            settle_elements(&mut tree, now, now);
            let mut program = compile(&tree, &sources).map_err(|refused| explain_older_rules(refused, before))?;
            let plan = plan_adoption(&self.listing, &program.listing, false);
            if let Some(listing) = Arc::get_mut(&mut program.listing) {
                listing.sources.forget_since(before);
            }
            let scope = scope_between(&self.listing.tree, &tree);
            let tables = Arc::clone(&program.listing);
            (Some(Box::new(program)), plan, scope, tables)
        } else {
            (None, AdoptPlan::default(), LookupScope::default(), Arc::clone(&self.listing))
        };
        let moved_counters = plan.moved_counters();
        let changes = prepare_changes(changes, &tables.tables).map_err(refused)?;
        let base = Arc::clone(&self.listing);
        Ok(RulesetUpdate { base, program, plan, scope, moved_counters, changes, queries, added, notes, sources })
    }

    /// Prepares to replace this ruleset by that of a file (`tree` and `sources`, as parsed). The elements that packets and scripts have added to sets,
    /// counters, quotas and limits go on in those of the same name; unless the file says `flush ruleset`, tables that only scripts have made stay.
    ///
    /// # Errors
    /// The ruleset is refused.
    pub fn prepare_reload(
        &self,
        mut tree: Ruleset,
        sources: &Sources,
        now: Instant,
    ) -> Result<RulesetUpdate, RulesetError> {
        let old = &self.listing.tree;
        if !tree.flushed {
            let known =
                |table: &Table| tree.tables.iter().any(|one| one.family == table.family && one.name == table.name);
            let kept: Vec<Table> =
                old.tables.iter().filter(|table| table.by_script && !known(table)).cloned().collect();
            // Their chains are older than those of the file.
            for chain in tree.tables.iter_mut().flat_map(|table| &mut table.chains) {
                chain.registration += old.registrations;
            }
            for table in &mut tree.tables {
                table.handle += old.table_handles;
            }
            tree.registrations += old.registrations;
            tree.table_handles += old.table_handles;
            tree.tables.splice(0..0, kept);
        }
        settle_elements_of_kept(&mut tree, self.started.unwrap_or(now), now);
        let program = compile(&tree, sources)?;
        let plan = plan_adoption(&self.listing, &program.listing, true);
        Ok(RulesetUpdate {
            base: Arc::clone(&self.listing),
            program: Some(Box::new(program)),
            scope: LookupScope::All,
            moved_counters: plan.moved_counters(),
            plan,
            changes: Vec::new(),
            queries: Vec::new(),
            added: Vec::new(),
            notes: Vec::new(),
            sources: sources.clone(),
        })
    }
}

/// Errors in rules that were there before the script: it takes away what they need.
fn explain_older_rules(mut refused: RulesetError, before: &Sources) -> RulesetError {
    for diagnostic in &mut refused.diagnostics {
        if !Sources::is_newer(before, diagnostic.span) {
            diagnostic.message =
                format!("a rule of the running ruleset needs what this script deletes: {}", diagnostic.message);
            diagnostic.help = Some("delete the rule in the same script, before what it needs".to_owned());
        }
    }
    refused
}

/// Elements with a timeout get the time at which they end, and those that have ended are removed. Elements that the program keeps one by one are its own
/// from now on.
fn settle_elements(tree: &mut Ruleset, started: Instant, now: Instant) {
    for set in tree.tables.iter_mut().flat_map(|table| &mut table.sets) {
        if set.is_runtime() {
            set.elements.clear();
            continue;
        }
        let usual = set.timeout;
        for element in &mut set.elements {
            if let (None, Some(seconds)) = (element.deadline, element.ends_in(usual)) {
                element.deadline = Some(started.after(Duration::from_secs(seconds)));
            }
        }
        set.elements.retain(|element| element.deadline.is_none_or(|end| end > now));
    }
}

/// The same for the tables of scripts that a reload keeps.
fn settle_elements_of_kept(tree: &mut Ruleset, started: Instant, now: Instant) {
    let mut kept = Ruleset::default();
    for table in &mut tree.tables {
        if table.by_script {
            kept.tables.push(table.clone());
            settle_elements(&mut kept, started, now);
            if let Some(settled) = kept.tables.pop() {
                *table = settled;
            }
        }
    }
}

/// Which state of the old program belongs to what in the new one. Of a script's result by handle; of a file read again by name.
fn plan_adoption(old: &Listing, new: &Listing, reload: bool) -> AdoptPlan {
    let mut plan = AdoptPlan { drops: DropMoves::between(&old.tree, &new.tree), ..AdoptPlan::default() };
    let tables: HashMap<_, _> = old
        .tree
        .tables
        .iter()
        .zip(&old.tables)
        .map(|(tree, listed)| ((tree.family, tree.name.as_str()), (tree, listed)))
        .collect();
    for (tree, listed) in new.tree.tables.iter().zip(&new.tables) {
        let Some((old_tree, old_listed)) = tables.get(&(tree.family, tree.name.as_str())) else { continue };
        let by_name = reload && !tree.by_script;
        if by_name || tree.handle == old_tree.handle {
            plan.add_table((old_tree, old_listed), (tree, listed), by_name);
        }
    }
    plan
}

impl AdoptPlan {
    /// The new places of the counters.
    fn moved_counters(&self) -> MovedCounters {
        let number = |at: usize| u32::try_from(at).ok();
        self.counters.iter().filter_map(|(to, from)| Some((number(*from)?, number(*to)?))).collect()
    }

    fn add_table(
        &mut self,
        (old, old_listed): (&Table, &ListedTable),
        (new, listed): (&Table, &ListedTable),
        by_name: bool,
    ) {
        for set in &new.sets {
            let same = |one: &&crate::ast::Set| {
                one.name == set.name
                    && (by_name || one.handle == set.handle)
                    && (&one.key, &one.data, one.is_runtime()) == (&set.key, &set.data, set.is_runtime())
            };
            let (Some(_), Some(from)) = (old.sets.iter().find(same), old_listed.set_indices.get(&set.name)) else {
                continue;
            };
            let Some(to) = listed.set_indices.get(&set.name) else { continue };
            let moved = match (set.is_runtime(), by_name) {
                (false, _) => &mut self.element_state,
                (true, true) => &mut self.merged_sets,
                (true, false) => &mut self.sets,
            };
            moved.push((*to, *from));
        }
        // Sets of `meter` statements have no declaration of their own.
        for (name, to) in &listed.set_indices {
            let declared = new.sets.iter().any(|set| set.name == *name) || old.sets.iter().any(|set| set.name == *name);
            if let (false, Some(from)) = (declared, old_listed.set_indices.get(name)) {
                self.sets.push((*to, *from));
            }
        }
        for object in &new.objects {
            let kind = std::mem::discriminant(&object.body);
            let same = |one: &&crate::ast::Object| {
                one.name == object.name
                    && (by_name || one.handle == object.handle)
                    && std::mem::discriminant(&one.body) == kind
            };
            if old.objects.iter().find(same).is_none() {
                continue;
            }
            let quota = matches!(object.body, ObjectBody::Quota { .. });
            let find = |listed: &ListedTable| match object.body {
                ObjectBody::Counter(..) => {
                    listed.counters.iter().find(|(name, _)| *name == object.name).map(|(_, at)| *at)
                }
                _ => listed
                    .stateful
                    .iter()
                    .find(|((name, is_quota), _)| *name == object.name && *is_quota == quota)
                    .map(|(_, at)| *at),
            };
            let (Some(to), Some(from)) = (find(listed), find(old_listed)) else { continue };
            if matches!(object.body, ObjectBody::Counter(..)) { &mut self.counters } else { &mut self.stateful }
                .push((to, from));
        }
        if by_name {
            return;
        }
        for (rule, slots) in &listed.slots {
            if let Some(from) = old_listed.slots.get(rule) {
                self.add_rule(slots, from, listed);
            }
        }
    }

    fn add_rule(&mut self, to: &StateSlots, from: &StateSlots, listed: &ListedTable) {
        self.counters.extend(to.counters.clone().zip(from.counters.clone()));
        self.stateful.extend(to.stateful.clone().zip(from.stateful.clone()));
        self.numgens.extend(to.numgens.clone().zip(from.numgens.clone()));
        let named = |at: &usize| listed.set_indices.values().any(|named| named == at);
        if to.sets.len() == from.sets.len() {
            self.element_state.extend(to.sets.clone().zip(from.sets.clone()).filter(|(to, _)| !named(to)));
        }
    }
}
