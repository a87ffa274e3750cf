//! Sets of a ruleset as they are looked up: elements that packets and scripts change stored one by one, all others built once.
use super::compile::{CompileResult, Compiler};
use super::named_set::NamedSet;
use super::set::{CompiledSet, DynElement, ElementConflict, ElementValue, kept_key};
use super::state::StatefulExpr;
use crate::ast::{self, ElementData, Expression, Set};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Compiler {
    pub(super) fn compile_set(&mut self, set: &Set) -> CompileResult<usize> {
        let most = set.most_elements().map(|most| most as usize);
        let mut compiled = CompiledSet::new(set.timeout, most);
        let mut last = Span::default();
        for element in &set.elements {
            last = element.span;
            let found = match &element.data {
                None => ElementValue::Present,
                Some(ElementData::Object(name, span)) => {
                    let at = self.object_index(set.data.as_deref().unwrap_or_default(), name, *span)? as u128;
                    ElementValue::Values([(at, at)].into())
                }
                Some(ElementData::Values(values)) => ElementValue::Values(values.clone().into()),
                Some(ElementData::Verdict(verdict)) => ElementValue::Verdict(self.compile_verdict(verdict)?),
            };
            // `*` has no key.
            let exact = match &element.key {
                None => Some(None),
                Some(key) if key.iter().all(|(first, last)| first == last) => Some(Some(key)),
                Some(_) => None,
            };
            // Elements that packets and scripts add and delete, and those with state, are stored one by one.
            if let Some(key) = exact
                && (!element.stateful.is_empty() || !set.name.is_empty() && set.is_runtime())
            {
                let stateful = element.stateful.iter().map(StatefulExpr::new).collect();
                let timeout = element.timeout.or(set.timeout).filter(|seconds| *seconds > 0);
                let element = DynElement {
                    expires_at: element.deadline,
                    timeout,
                    time_left: element.time_left,
                    declared: true,
                    stateful,
                    value: found,
                    comment: element.comment.clone(),
                };
                compiled.has_state |= timeout.is_some() || !element.stateful.is_empty();
                match key {
                    None => compiled.catchall = Some(element),
                    Some(key) => {
                        compiled.declared += 1;
                        // As in Linux, an element that is there stays as it is.
                        compiled.dynamic.entry(key.iter().map(|(first, _)| *first).collect()).or_insert(element);
                    }
                }
                continue;
            }
            let found = match &element.key {
                Some(key) if !element.stateful.is_empty() => {
                    let stateful = element.stateful.iter().map(StatefulExpr::new).collect();
                    let kept = DynElement { declared: true, stateful, value: found, ..DynElement::default() };
                    let key = kept_key(key);
                    compiled.has_kept_ranges = true;
                    compiled.dynamic.entry(key.clone()).or_insert(kept);
                    ElementValue::Kept(key)
                }
                _ => found,
            };
            let found = match element.ends_in(set.timeout) {
                Some(seconds) => ElementValue::Expiring(Box::new(found), seconds, element.deadline),
                None => found,
            };
            compiled
                .insert(element.key.as_deref(), found)
                .map_err(|conflict| conflict_diagnostic(&conflict, element.span))?;
        }
        compiled.build(set.auto_merge).map_err(|conflict| conflict_diagnostic(&conflict, last))?;
        self.program.sets.push(compiled);
        Ok(self.program.sets.len() - 1)
    }

    /// Creates the set of a meter, unless a meter of the same name has created it.
    pub(super) fn declare_meter_set(&mut self, meter: &ast::Dynset, size: u32) {
        if self.scope.sets.contains_key(&meter.set) {
            return;
        }
        self.program.sets.push(CompiledSet::new(None, Some(size as usize)));
        let key = meter.key.iter().map(Expression::data_type).collect();
        let named = NamedSet { index: self.program.sets.len() - 1, key, data: None, stateful: Vec::new() };
        self.scope.sets.insert(meter.set.clone(), named);
    }
}

fn conflict_diagnostic(conflict: &ElementConflict, span: Span) -> Diagnostic {
    match conflict {
        ElementConflict::Overlap => Diagnostic::new(span, "this element or an earlier one overlaps another element")
            .with_help("add `auto-merge;` to a set, or write ranges that do not overlap"),
        ElementConflict::DuplicateKey => Diagnostic::new(span, "this key already maps to another value"),
    }
}
