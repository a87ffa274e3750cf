//! Named objects: compiled, and found by the rules and maps that name them.
use super::compile::{CompileResult, Compiler};
use super::instr::Instr;
use crate::ast::{self, ObjectBody, ObjectKind, StatefulSpec};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use keepstate_engine::Helper;

impl Compiler {
    pub(super) fn compile_object(&mut self, object: &ast::Object) {
        let name = object.name.clone();
        match &object.body {
            ObjectBody::Counter(packets, bytes) => {
                let at = self.add_counter(*packets, *bytes);
                self.scope.counters.insert(name, at);
            }
            ObjectBody::Quota { over, bytes, used } => {
                let at = self.add_stateful(&StatefulSpec::Quota { over: *over, bytes: *bytes, used: *used });
                self.scope.stateful.insert((name, true), at);
            }
            ObjectBody::Limit(limit) => {
                let at = self.add_stateful(&StatefulSpec::Limit(*limit));
                self.scope.stateful.insert((name, false), at);
            }
            ObjectBody::CtHelper(kind, _) => {
                // The others are noted: they follow nothing.
                let instr = Helper::from_name(kind).map_or(Instr::Nop, Instr::CtHelper);
                self.scope.choices.push((ObjectKind::CtHelper, name, instr));
            }
            ObjectBody::CtTimeout(timeout) => {
                let choice = Instr::CtTimeout(timeout.clone());
                self.scope.choices.push((ObjectKind::CtTimeout, name.clone(), choice));
                self.scope.timeouts.insert(name, timeout.clone());
            }
            ObjectBody::CtExpectation(policy) => {
                self.scope.choices.push((ObjectKind::CtExpectation, name, Instr::CtExpectation(*policy)));
            }
            ObjectBody::SecMark(_) => self.scope.choices.push((ObjectKind::SecMark, name, Instr::Nop)),
            ObjectBody::Synproxy(proxy) => {
                self.scope.choices.push((ObjectKind::Synproxy, name.clone(), Instr::Synproxy(*proxy)));
                self.scope.synproxies.insert(name, *proxy);
            }
        }
    }

    /// Index of the object that a map's element names.
    pub(super) fn object_index(&self, kinds: &[DataType], name: &str, span: Span) -> CompileResult<usize> {
        let place = match kinds {
            [DataType::Object(ObjectKind::Counter)] => self.scope.counters.get(name),
            [DataType::Object(ObjectKind::Quota)] => self.scope.stateful.get(&(name.to_owned(), true)),
            [DataType::Object(ObjectKind::Limit)] => self.scope.stateful.get(&(name.to_owned(), false)),
            _ => None,
        };
        let choice = || {
            let [DataType::Object(kind)] = kinds else { return None };
            self.scope.choices.iter().filter(|(known, ..)| known == kind).position(|(_, known, _)| known == name)
        };
        place
            .copied()
            .or_else(choice)
            .ok_or_else(|| Diagnostic::new(span, format!("no object named {name} of this type in this table")))
    }

    pub(super) fn compile_object_ref(&self, kind: ObjectKind, name: &str, span: Span) -> CompileResult<Instr> {
        let instr = match kind {
            ObjectKind::Counter => self.scope.counters.get(name).map(|at| Instr::Counter(*at)),
            ObjectKind::Quota => self.scope.stateful.get(&(name.to_owned(), true)).map(|at| Instr::Stateful(*at)),
            ObjectKind::Limit => self.scope.stateful.get(&(name.to_owned(), false)).map(|at| Instr::Stateful(*at)),
            ObjectKind::Synproxy => self.scope.synproxies.get(name).map(|proxy| Instr::Synproxy(*proxy)),
            ObjectKind::CtExpectation | ObjectKind::CtHelper | ObjectKind::SecMark => {
                let mut choices = self.scope.choices.iter();
                choices.find(|(of, known, _)| *of == kind && known == name).map(|(.., does)| does.clone())
            }
            // `ct timeout set` has a statement of its own.
            ObjectKind::CtTimeout => None,
        };
        instr.ok_or_else(|| Diagnostic::new(span, format!("no object named {name} of this type in this table")))
    }
}
