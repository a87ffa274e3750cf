//! The services' file: TOML that names virtual addresses and the backends behind them.
//!
//! A file is read whole and judged before anything is done with it: [`load`] gives services that fit together, or what is wrong with the file, with its place, the
//! piece underlined, and what to do.
mod toml_schema;

pub(crate) use toml_schema::parse_backend_address;

use anyhow::{Context, Result};
use keepstate_router::service::{ServiceConfig, validate};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml_schema::ServicesFile;

/// What is wrong with a services' file.
#[derive(Clone, Debug)]
pub struct ServicesFileError {
    name: String,
    text: String,
    /// Every fault, in the order of the text.
    pub diagnostics: Vec<ServicesFileDiagnostic>,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesFileDiagnostic {
    /// The octets of the text that it is about.
    pub span: Range<usize>,
    /// What is wrong with them, and what to do.
    pub message: String,
}

/// Reads a file. The inner result is what is wrong with it.
///
/// # Errors
/// It cannot be read.
pub fn load(path: &Path) -> Result<Result<Vec<ServiceConfig>, ServicesFileError>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(parse(&path.to_string_lossy(), &text))
}

/// The services of a text that is called `name`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Vec<ServiceConfig>, ServicesFileError> {
    let refuse = |faults: Vec<ServicesFileDiagnostic>| ServicesFileError {
        name: name.to_owned(),
        text: text.to_owned(),
        diagnostics: faults,
    };
    let file: ServicesFile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        refuse(vec![ServicesFileDiagnostic { span, message: error.message().to_owned() }])
    })?;
    let services: Vec<ServiceConfig> = file.service.iter().map(|told| told.get_ref().to_config()).collect();
    let mut faults: Vec<ServicesFileDiagnostic> = validate(&services)
        .into_iter()
        .filter_map(|misfit| {
            let told = file.service.get(misfit.service)?;
            let backend = misfit.backend.and_then(|backend| told.get_ref().backends.get(backend));
            let span = backend.map_or_else(|| told.get_ref().name.span(), toml::Spanned::span);
            Some(ServicesFileDiagnostic { span, message: misfit.message })
        })
        .collect();
    faults.sort_by_key(|fault| fault.span.start);
    if faults.is_empty() { Ok(services) } else { Err(refuse(faults)) }
}

impl ServicesFileError {
    /// Line and column, from 1, of a fault.
    pub fn position(&self, fault: &ServicesFileDiagnostic) -> (usize, usize) {
        let before = self.text.get(..fault.span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        (line, column)
    }

    /// The file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For people: place and words, the line with the piece underlined.
    fn render(&self, fault: &ServicesFileDiagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position(fault);
        // What the parser says of several lines is said in one.
        writeln!(f, "{}:{line}:{column}: {}", self.name, fault.message.replace('\n', ", "))?;
        let whole = self.text.lines().nth(line - 1).unwrap_or_default();
        let gutter = line.to_string();
        // What is before the piece keeps its tabs, so that the marks stand below the piece.
        let blank = |letter: char| if letter == '\t' { '\t' } else { ' ' };
        let before: String = whole.chars().take(column - 1).map(blank).collect();
        let piece = self.text.get(fault.span.clone()).and_then(|piece| piece.lines().next()).unwrap_or_default();
        let marks = "^".repeat(piece.chars().count().max(1));
        writeln!(f, "{gutter} | {whole}\n{} | {before}{marks}", " ".repeat(gutter.len()))
    }
}

impl fmt::Display for ServicesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostics.iter().try_for_each(|fault| self.render(fault, f))
    }
}

impl std::error::Error for ServicesFileError {}

#[cfg(test)]
mod tests;
