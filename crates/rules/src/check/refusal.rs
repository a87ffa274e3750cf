//! Why a statement is refused, before it is known where it stands.
use crate::ast::Rule;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// Why a statement is refused; the place is added by who knows it.
pub(super) struct Refusal {
    message: String,
    help: String,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), help: help.into() }
    }

    pub(super) fn at(self, span: Span) -> Diagnostic {
        Diagnostic::new(span, self.message).with_help(self.help)
    }
}

/// Place of a rule's statement.
pub(super) fn place(rule: &Rule, statement: usize) -> Span {
    rule.places.get(statement).copied().unwrap_or(rule.span)
}
