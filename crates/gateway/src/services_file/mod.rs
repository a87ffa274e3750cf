//! The services file: TOML with virtual addresses and the backends behind them.
//!
//! A file is read whole and checked before it is used: [`load`] gives services that fit together, or all errors, each with its line and column, the
//! text underlined, and what to do.
mod toml_schema;

pub use toml_schema::parse_backend_address;

use crate::sandbox;
use anyhow::{Result, anyhow};
use keepstate_router::service::{ServiceConfig, validate};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml_schema::ServicesFile;

/// The errors of a services file.
#[derive(Clone, Debug)]
pub struct ServicesFileError {
    name: String,
    text: String,
    /// All of them, in the order of the text.
    pub diagnostics: Vec<ServicesFileDiagnostic>,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesFileDiagnostic {
    /// The byte range of the text that it is about.
    pub span: Range<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reads a file. The inner error is what is wrong with its text.
///
/// # Errors
/// The file cannot be read.
pub fn load(path: &Path) -> Result<Result<Vec<ServiceConfig>, ServicesFileError>> {
    let text = fs::read_to_string(path).map_err(|error| {
        let hint = sandbox::denied_hint(&error);
        anyhow!("cannot read {}: {error}{hint}", path.display())
    })?;
    Ok(parse(&path.to_string_lossy(), &text))
}

/// Parses the text of a file called `name`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(name: &str, text: &str) -> Result<Vec<ServiceConfig>, ServicesFileError> {
    let error_of = |diagnostics: Vec<ServicesFileDiagnostic>| ServicesFileError {
        name: name.to_owned(),
        text: text.to_owned(),
        diagnostics,
    };
    let file: ServicesFile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        error_of(vec![ServicesFileDiagnostic { span, message: error.message().to_owned() }])
    })?;
    let services: Vec<ServiceConfig> = file.service.iter().map(|entry| entry.get_ref().to_config()).collect();
    let mut diagnostics: Vec<ServicesFileDiagnostic> = validate(&services)
        .into_iter()
        .filter_map(|error| {
            let entry = file.service.get(error.service)?;
            let backend = error.backend.and_then(|backend| entry.get_ref().backends.get(backend));
            let span = backend.map_or_else(|| entry.get_ref().name.span(), toml::Spanned::span);
            Some(ServicesFileDiagnostic { span, message: error.message })
        })
        .collect();
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    if diagnostics.is_empty() { Ok(services) } else { Err(error_of(diagnostics)) }
}

impl ServicesFileError {
    /// Line and column, from 1, of an error.
    pub fn position(&self, diagnostic: &ServicesFileDiagnostic) -> (usize, usize) {
        let before = self.text.get(..diagnostic.span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        (line, column)
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Position and message, then the line with the text underlined.
    fn render(&self, diagnostic: &ServicesFileDiagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position(diagnostic);
        // A message of several lines is printed as one.
        writeln!(f, "{}:{line}:{column}: {}", self.name, diagnostic.message.replace('\n', ", "))?;
        let source_line = self.text.lines().nth(line - 1).unwrap_or_default();
        let gutter = line.to_string();
        // Tabs before the text are kept, so that the marks are below it.
        let blank = |letter: char| if letter == '\t' { '\t' } else { ' ' };
        let before: String = source_line.chars().take(column - 1).map(blank).collect();
        let marked = self.text.get(diagnostic.span.clone()).and_then(|text| text.lines().next()).unwrap_or_default();
        let marks = "^".repeat(marked.chars().count().max(1));
        writeln!(f, "{gutter} | {source_line}\n{} | {before}{marks}", " ".repeat(gutter.len()))
    }
}

impl fmt::Display for ServicesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostics.iter().try_for_each(|diagnostic| self.render(diagnostic, f))
    }
}

impl std::error::Error for ServicesFileError {}

#[cfg(test)]
mod tests;
