//! The ruleset as JSON, in the schema of libnftables (`nft -j`).
//!
//! Out: a [`RulesetSnapshot`](crate::RulesetSnapshot) is listed as a document. In: a document of commands becomes a script in nft's language, which is parsed like any other; so both ways of writing a
//! ruleset have one meaning. The schema's types are in `expression`, `statement` and `object`.
mod expression;
mod object;
mod read_command;
mod read_expression;
mod read_statement;
mod stateful;
mod statement;
mod write_expression;
mod write_object;
mod write_ruleset;
mod write_statement;
mod write_value;

pub use read_command::json_to_script;

/// Why a document cannot be read: what, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonScriptError(String);

impl JsonScriptError {
    fn new(what: impl Into<String>) -> JsonScriptError {
        JsonScriptError(what.into())
    }

    /// The same, inside of this part of the document.
    fn inside(self, place: &str) -> JsonScriptError {
        JsonScriptError(format!("{place}: {}", self.0))
    }
}

impl std::fmt::Display for JsonScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonScriptError {}
