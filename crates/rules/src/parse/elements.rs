//! Elements added to a set and taken from it by commands.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::auto_merge::merge_elements;
use super::parser::{ParseResult, Parser};
use crate::ast::{SetChange, SetChangeKind, SetElement};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

type ElementKey = Vec<(u128, u128)>;

impl Parser<'_> {
    /// `[FAMILY] TABLE SET { ELEMENTS }` behind `add element`, `delete element` and so on.
    pub(super) fn parse_elements_command(
        &mut self,
        change: impl Fn(Vec<SetElement>) -> SetChangeKind,
    ) -> ParseResult<()> {
        let (table, name, span) = self.parse_table_and_name("a set name")?;
        let set = table.and_then(|table| self.set_mut(table, &name));
        let Some(set) = set else {
            return Err(Diagnostic::new(span, format!("no set or map named {name}")));
        };
        let (key, data, stateful) = (set.key.clone(), set.data.clone(), set.stateful.clone());
        self.script.names_elements = matches!(change(Vec::new()), SetChangeKind::Delete { .. });
        let elements = self.parse_elements(&key, data.as_deref());
        self.script.names_elements = false;
        let mut elements = elements?;
        for element in elements.iter_mut().filter(|element| element.stateful.is_empty()) {
            element.stateful.clone_from(&stateful);
        }
        self.change_elements(table, &name, span, change(elements))?;
        self.expect_end()
    }

    /// Changes the elements of a set: in the tree, or later in the set in use.
    pub(super) fn change_elements(
        &mut self,
        table: Option<usize>,
        name: &str,
        span: Span,
        kind: SetChangeKind,
    ) -> ParseResult<()> {
        let missing = || Diagnostic::new(span, format!("no set or map named {name}"));
        let table = table.ok_or_else(missing)?;
        let active = self.script.active;
        let set = self.set_mut(table, name).ok_or_else(missing)?;
        if active && set.is_runtime() {
            self.push_set_change(table, name, span, kind);
            return Ok(());
        }
        let (auto_merge, before) = (set.auto_merge, set.elements.len());
        match kind {
            SetChangeKind::Flush => set.elements.clear(),
            SetChangeKind::Add { elements, create } => {
                if !active && !create {
                    set.elements.extend(elements);
                    merge_elements(set, before);
                    return Ok(());
                }
                let mut known: std::collections::HashMap<Option<ElementKey>, usize> =
                    set.elements.iter().enumerate().map(|(at, element)| (element.key.clone(), at)).collect();
                for element in elements {
                    match known.get(&element.key).and_then(|at| set.elements.get_mut(*at)) {
                        Some(_) if create => {
                            return Err(Diagnostic::new(element.span, format!("{name} has this element already")));
                        }
                        Some(old) if old.has_same_data(&element) => {
                            (old.timeout, old.time_left, old.deadline) = (element.timeout, element.time_left, None);
                        }
                        Some(_) => {
                            let what = format!("{name} has this element already, with another value");
                            return Err(Diagnostic::new(element.span, what).with_help("delete it first"));
                        }
                        None => {
                            known.insert(element.key.clone(), set.elements.len());
                            set.elements.push(element);
                        }
                    }
                }
                merge_elements(set, before);
            }
            SetChangeKind::Delete { elements, must_exist } => {
                let mut gone: std::collections::HashMap<Option<ElementKey>, bool> =
                    elements.iter().map(|element| (element.key.clone(), false)).collect();
                set.elements.retain(|element| match gone.get_mut(&element.key) {
                    Some(found) => {
                        *found = true;
                        false
                    }
                    None => true,
                });
                for element in &elements {
                    if gone.get(&element.key) == Some(&true) || auto_merge && cut_out(&mut set.elements, element) {
                        continue;
                    }
                    if must_exist {
                        return Err(Diagnostic::new(element.span, format!("{name} does not have this element")));
                    }
                }
            }
        }
        self.script.tree_changed = true;
        Ok(())
    }

    /// Notes a change of a set in use; outside of scripts there is none.
    pub(super) fn push_set_change(&mut self, table: usize, set: &str, span: Span, kind: SetChangeKind) {
        let nothing = matches!(&kind, SetChangeKind::Add { elements, .. } if elements.is_empty());
        let Some(table) = self.ruleset.tables.get(table).filter(|_| self.script.active && !nothing) else { return };
        let (family, table) = (table.family, table.name.clone());
        self.script.changes.push(SetChange { family, table, set: set.to_owned(), span, kind });
    }
}

/// Cuts a range out of the merged ranges of a set, as nft does: false if it is not inside one of them.
fn cut_out(elements: &mut Vec<SetElement>, gone: &SetElement) -> bool {
    let Some([(first, last)]) = gone.key.as_deref() else { return false };
    let inside =
        |element: &SetElement| matches!(element.key.as_deref(), Some([(begin, end)]) if begin <= first && last <= end);
    let Some(at) = elements.iter().position(inside) else { return false };
    let around = elements.remove(at);
    let Some([(begin, end)]) = around.key.as_deref() else { return false };
    let piece = |begin, end| SetElement { key: Some(vec![(begin, end)]), ..around.clone() };
    if let Some(before) = first.checked_sub(1).filter(|before| begin <= before) {
        elements.push(piece(*begin, before));
    }
    if let Some(behind) = last.checked_add(1).filter(|behind| behind <= end) {
        elements.push(piece(behind, *end));
    }
    true
}
