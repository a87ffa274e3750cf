//! What a parser has left out on request.
use crate::diagnostic::Diagnostic;

/// What was left out so far.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Something may be left out.
    pub(super) active: bool,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Sets and objects: index of the table and name.
    pub(super) names: Vec<(usize, String)>,
}
