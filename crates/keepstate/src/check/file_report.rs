//! What `keepstate check` says of one file.
use keepstate_gateway::toml_file::TomlFileError;
use serde_json::{Value, json};
use std::path::Path;

/// The result of one file.
#[derive(Default)]
pub(super) struct FileReport {
    /// Human-readable.
    pub(super) text: String,
    /// Name and number of its parts.
    pub(super) counts: Vec<(&'static str, usize)>,
    pub(super) errors: Vec<Value>,
    /// What is not in force because it is not supported.
    pub(super) left_out: Vec<Value>,
    /// Tables that are the kernel's.
    pub(super) notes: Vec<Value>,
}

impl FileReport {
    pub(super) fn ok_report(file: &Path, counts: Vec<(&'static str, usize)>) -> FileReport {
        let count = |(noun, number): &(&str, usize)| format!("{number} {noun}{}", if *number == 1 { "" } else { "s" });
        let parts: Vec<String> = counts.iter().map(count).collect();
        FileReport { text: format!("{}: ok: {}\n", file.display(), parts.join(", ")), counts, ..FileReport::default() }
    }

    /// A file with errors.
    pub(super) fn refused(text: String, errors: Vec<Value>) -> FileReport {
        FileReport { text, errors, ..FileReport::default() }
    }

    /// A TOML file with errors.
    pub(super) fn of_toml(error: &TomlFileError) -> FileReport {
        let errors = error.diagnostics.iter().map(|diagnostic| {
            let (line, column) = error.position(diagnostic);
            json!({"file": error.name(), "line": line, "column": column, "what": diagnostic.message, "instead": null})
        });
        FileReport::refused(error.to_string(), errors.collect())
    }
}
