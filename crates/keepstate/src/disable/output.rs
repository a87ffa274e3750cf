//! Output: standard output, or a file that is written atomically.
use anyhow::Result;
use keepstate_linux::{SysRoot, atomic_file};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

/// Prints text; colours only if the terminal wants them.
pub fn print_text(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a JSON document.
pub fn print_json(document: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes a file's text to `path` or to standard output.
pub fn write_text(path: Option<&Path>, text: &str) -> Result<()> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        return Ok(out.flush()?);
    };
    Ok(atomic_file::write(&SysRoot::live(), &std::path::absolute(path)?, text.as_bytes(), 0o644)?)
}
