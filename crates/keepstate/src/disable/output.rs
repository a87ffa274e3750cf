//! Where results go: standard output, or a file that is there whole or not at all.
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;

/// Text for people: colours only where they are wanted.
pub fn print_text(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A document for programs.
pub fn print_json(document: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// A file's text, to `path` or to standard output.
pub fn write_text(path: Option<&Path>, text: &str) -> Result<()> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        return Ok(out.flush()?);
    };
    let whole = || format!("{} cannot be written", path.display());
    // Under another name first, so that a reader never finds half of it.
    let mut half = path.as_os_str().to_owned();
    half.push(format!(".{}", std::process::id()));
    let written = fs::write(&half, text).and_then(|()| fs::rename(&half, path));
    if written.is_err() {
        let _ = fs::remove_file(&half);
    }
    written.with_context(whole)
}
