//! Elements of sets in use, added and deleted one by one, all or none.
//!
//! A change is prepared away from the packets; [`apply_changes`] takes as long as the script has elements, whatever the size of the set.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled::ListedTable;
use super::set::{CompiledSet, DynElement, ElementValue};
use super::set_lookup::{LookupRange, LookupScope};
use super::state::StatefulExpr;
use crate::ast::{ElementData, SetChange, SetChangeKind, SetElement};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use keepstate_engine::Instant;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A change with the set by its index.
#[derive(Debug)]
pub(super) struct PreparedChange {
    set: usize,
    name: String,
    kind: PreparedKind,
}

#[derive(Debug)]
enum PreparedKind {
    Add { elements: Vec<PreparedElement>, create: bool },
    Delete { elements: Vec<(ElementKey, Span)>, must_exist: bool },
    Flush,
}

/// The parts of the key; `None` for the element `*`.
type ElementKey = Option<Box<[u128]>>;

#[derive(Debug)]
struct PreparedElement {
    key: ElementKey,
    span: Span,
    element: DynElement,
}

/// Resolves the sets of a script's changes.
pub(super) fn prepare_changes(
    changes: Vec<SetChange>,
    tables: &[ListedTable],
) -> Result<Vec<PreparedChange>, Diagnostic> {
    let prepare = |change: SetChange| {
        let table = tables.iter().find(|table| table.family == change.family && table.name == change.table);
        let set = table.and_then(|table| table.set_indices.get(&change.set));
        let missing = || Diagnostic::new(change.span, format!("no set or map named {}", change.set));
        let set = *set.ok_or_else(missing)?;
        let kind = match change.kind {
            SetChangeKind::Flush => PreparedKind::Flush,
            SetChangeKind::Delete { elements, must_exist } => {
                let elements: Result<_, Diagnostic> =
                    elements.iter().map(|element| Ok((exact_key(element)?, element.span))).collect();
                PreparedKind::Delete { elements: elements?, must_exist }
            }
            SetChangeKind::Add { elements, create } => {
                let elements: Result<_, Diagnostic> = elements.iter().map(prepare_element).collect();
                PreparedKind::Add { elements: elements?, create }
            }
        };
        Ok(PreparedChange { set, name: change.set, kind })
    };
    changes.into_iter().map(prepare).collect()
}

fn exact_key(element: &SetElement) -> Result<ElementKey, Diagnostic> {
    let Some(key) = &element.key else { return Ok(None) };
    if key.iter().any(|(first, last)| first != last) {
        return Err(Diagnostic::new(element.span, "this set has no ranges")
            .with_help("create it with `flags interval` to have ranges and prefixes"));
    }
    Ok(Some(key.iter().map(|(first, _)| *first).collect()))
}

fn prepare_element(element: &SetElement) -> Result<PreparedElement, Diagnostic> {
    let value = match &element.data {
        Some(ElementData::Values(values)) => ElementValue::Values(values.clone().into()),
        // Maps to verdicts and objects are changed in the tree.
        _ => ElementValue::Present,
    };
    let stateful = element.stateful.iter().map(StatefulExpr::new).collect();
    let timeout = element.timeout.filter(|seconds| *seconds > 0);
    let prepared = DynElement {
        timeout,
        time_left: element.time_left,
        declared: false,
        expires_at: None,
        stateful,
        value,
        comment: element.comment.clone(),
    };
    Ok(PreparedElement { key: exact_key(element)?, span: element.span, element: prepared })
}

/// How to take a change back.
enum Undo {
    Remove(usize, Box<[u128]>),
    Insert(usize, Box<[u128]>, DynElement),
    Expiry(usize, Box<[u128]>, Option<u64>, Option<Instant>),
    Catchall(usize, Option<DynElement>),
    All(usize, HashMap<Box<[u128]>, DynElement>),
}

/// Carries out the changes; if one is impossible, the sets are left as they were. Gives the lookups that find something else now.
pub(super) fn apply_changes(
    sets: &mut [CompiledSet],
    changes: Vec<PreparedChange>,
    now: Instant,
) -> Result<LookupScope, Diagnostic> {
    let mut undo = Vec::new();
    let result = changes.into_iter().try_for_each(|change| apply_change(sets, change, now, &mut undo));
    match result {
        Ok(()) => Ok(scope_of(&undo, sets)),
        Err(diagnostic) => {
            undo.into_iter().rev().for_each(|step| step.take_back(sets));
            Err(diagnostic)
        }
    }
}

/// The lookups that find something else since these steps.
fn scope_of(steps: &[Undo], sets: &[CompiledSet]) -> LookupScope {
    let mut keys: HashMap<usize, Vec<LookupRange>> = HashMap::new();
    // A flush is compared with what there is in the end.
    let mut flushed = HashSet::new();
    for step in steps {
        let at = step.set();
        if flushed.contains(&at) {
            continue;
        }
        let Some(set) = sets.get(at) else { continue };
        let Some(number) = set.number else { continue };
        let changed = keys.entry(at).or_default();
        match step {
            Undo::Remove(_, key) | Undo::Insert(_, key, _) | Undo::Expiry(_, key, ..) => {
                changed.push(LookupRange::of_key(number, key));
            }
            Undo::Catchall(_, before) => {
                let stays = match (before, &set.catchall) {
                    (Some(old), Some(new)) => old.is_like(new),
                    (old, new) => old.is_none() && new.is_none(),
                };
                changed.extend((!stays).then(|| LookupRange::whole_set(number)));
            }
            // What was flushed and added again is as it was.
            Undo::All(_, before) => {
                flushed.insert(at);
                let gone =
                    before.iter().filter(|(key, old)| !set.dynamic.get(*key).is_some_and(|new| old.is_like(new)));
                let came = set.dynamic.iter().filter(|(key, _)| !before.contains_key(*key));
                changed.extend(gone.chain(came).map(|(key, _)| LookupRange::of_key(number, key)));
            }
        }
    }
    let mut scope = LookupScope::default();
    for (at, changed) in keys {
        if let Some(number) = sets.get(at).and_then(|set| set.number) {
            scope.add_of_set(number, changed.into_iter());
        }
    }
    scope
}

fn apply_change(
    sets: &mut [CompiledSet],
    change: PreparedChange,
    now: Instant,
    undo: &mut Vec<Undo>,
) -> Result<(), Diagnostic> {
    let PreparedChange { set: at, name, kind } = change;
    let Some(set) = sets.get_mut(at) else { return Ok(()) };
    match kind {
        PreparedKind::Flush => {
            undo.push(Undo::Catchall(at, set.catchall.take()));
            undo.push(Undo::All(at, std::mem::take(&mut set.dynamic)));
            Ok(())
        }
        PreparedKind::Delete { elements, must_exist } => elements.into_iter().try_for_each(|(key, span)| {
            let found = match key {
                None => {
                    let old = set.catchall.take();
                    let found = old.as_ref().is_some_and(|old| old.lives(now));
                    undo.push(Undo::Catchall(at, old));
                    found
                }
                Some(key) => match set.dynamic.remove(&key) {
                    Some(old) => {
                        let lives = old.expires_at.is_none_or(|until| until > now);
                        undo.push(Undo::Insert(at, key, old));
                        lives
                    }
                    None => false,
                },
            };
            match found || !must_exist {
                true => Ok(()),
                false => Err(Diagnostic::new(span, format!("{name} does not have this element"))),
            }
        }),
        PreparedKind::Add { elements, create } => {
            elements.into_iter().try_for_each(|added| add_element(set, (at, &name), added, create, now, undo))
        }
    }
}

fn add_element(
    set: &mut CompiledSet,
    (at, name): (usize, &str),
    added: PreparedElement,
    create: bool,
    now: Instant,
    undo: &mut Vec<Undo>,
) -> Result<(), Diagnostic> {
    let PreparedElement { key, span, mut element } = added;
    let exists = || Diagnostic::new(span, format!("{name} has this element already"));
    let other_value = || {
        Diagnostic::new(span, format!("{name} has this element already, with another value"))
            .with_help("delete it first")
    };
    let timeout = element.time_left.or(element.timeout).or(set.timeout);
    element.expires_at = timeout.map(|seconds| now.after(Duration::from_secs(seconds)));
    let Some(key) = key else {
        let old = set.catchall.as_ref().filter(|old| old.lives(now));
        match old {
            Some(_) if create => return Err(exists()),
            Some(old) if old.value != element.value => return Err(other_value()),
            // Counters and limits go on.
            Some(old) => element.stateful = old.stateful.clone(),
            None => (),
        }
        set.has_state = true;
        undo.push(Undo::Catchall(at, set.catchall.replace(element)));
        return Ok(());
    };
    if let Some(old) = set.dynamic.get_mut(&key)
        && old.expires_at.is_none_or(|until| until > now)
    {
        if create {
            return Err(exists());
        }
        if old.value != element.value {
            return Err(other_value());
        }
        // As in Linux since 6.12: the timeout is renewed; counters and limits go on.
        undo.push(Undo::Expiry(at, key, old.timeout, old.expires_at));
        set.has_state = true;
        (old.timeout, old.expires_at) = (element.timeout, element.expires_at);
        return Ok(());
    }
    if set.max_size.is_some_and(|most| set.dynamic.len() >= most) {
        set.dynamic.retain(|_, element| element.expires_at.is_none_or(|until| until > now));
        if set.max_size.is_some_and(|most| set.dynamic.len() >= most) {
            return Err(Diagnostic::new(span, format!("{name} is full")).with_help("create it with a larger `size`"));
        }
    }
    set.has_state = true;
    undo.push(match set.dynamic.insert(key.clone(), element) {
        Some(expired) => Undo::Insert(at, key, expired),
        None => Undo::Remove(at, key),
    });
    Ok(())
}

impl Undo {
    /// The index of the set that was changed.
    fn set(&self) -> usize {
        let (Undo::Remove(at, _)
        | Undo::Insert(at, ..)
        | Undo::Expiry(at, ..)
        | Undo::Catchall(at, _)
        | Undo::All(at, _)) = self;
        *at
    }

    fn take_back(self, sets: &mut [CompiledSet]) {
        let Some(set) = sets.get_mut(self.set()) else { return };
        match self {
            Undo::Remove(_, key) => {
                set.dynamic.remove(&key);
            }
            Undo::Insert(_, key, element) => {
                set.dynamic.insert(key, element);
            }
            Undo::Expiry(_, key, timeout, until) => {
                if let Some(element) = set.dynamic.get_mut(&key) {
                    (element.timeout, element.expires_at) = (timeout, until);
                }
            }
            Undo::Catchall(_, value) => set.catchall = value,
            Undo::All(_, elements) => set.dynamic = elements,
        }
    }
}
