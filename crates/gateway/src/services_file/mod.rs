//! The services file: TOML with virtual addresses and the backends behind them.
//!
//! A file is read whole and checked before it is used: [`load`] gives services that fit together, or all errors, each with its line and column, the
//! text underlined, and what to do.
mod toml_schema;

pub use toml_schema::parse_backend_address;

use crate::sandbox;
use crate::toml_file::{self, TomlDiagnostic, TomlFileError};
use anyhow::{Result, anyhow};
use keepstate_router::service::{ServiceConfig, validate};
use std::fs;
use std::path::Path;
use toml_schema::ServicesFile;

/// Reads a file. The inner error is what is wrong with its text.
///
/// # Errors
/// The file cannot be read.
pub fn load(path: &Path) -> Result<Result<Vec<ServiceConfig>, TomlFileError>> {
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
pub fn parse(name: &str, text: &str) -> Result<Vec<ServiceConfig>, TomlFileError> {
    let (file, mut faults) = toml_file::parse_all::<ServicesFile>(text);
    let Some(file) = file else { return Err(TomlFileError::new(name, text, faults)) };
    let services: Vec<ServiceConfig> = file.service.iter().map(|entry| entry.get_ref().to_config()).collect();
    faults.extend(validate(&services).into_iter().filter_map(|error| {
        let entry = file.service.get(error.service)?;
        let backend = error.backend.and_then(|backend| entry.get_ref().backends.get(backend));
        let span = backend.map_or_else(|| entry.get_ref().name.span(), toml::Spanned::span);
        Some(TomlDiagnostic { span, message: error.message })
    }));
    if faults.is_empty() { Ok(services) } else { Err(TomlFileError::new(name, text, faults)) }
}

#[cfg(test)]
mod tests;
