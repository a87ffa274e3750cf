//! The text and JSON output of `keepstate tune`.
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use keepstate_linux::SysRoot;
use keepstate_tune::{FileContent, Journal, PersistentFile, PlanWithFiles, VerifyCheck, journal_path, unix_now};
use serde_json::json;
use std::io::Write;

/// The schema of the JSON documents.
const SCHEMA: &str = "keepstate.tune/1";
const OLD: Style = AnsiColor::Red.on_default();
const NEW: Style = AnsiColor::Green.on_default();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// The plan: sysctls and files as differences, each with its reason.
pub fn plan(root: &SysRoot, planned: &PlanWithFiles, persist: bool, as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let plan = &planned.plan;
    if as_json {
        let files: Vec<_> = planned
            .files
            .files
            .iter()
            .map(|file| json!({"path": file.path, "after": file.text, "why": file.why}))
            .collect();
        let document = json!({
            "schema": SCHEMA, "changes": plan.changes, "kept": plan.unchanged, "files": files,
            "refusals": plan.refusals, "warnings": plan.warnings.iter().chain(&planned.files.warnings).collect::<Vec<_>>(),
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        return Ok(writeln!(out)?);
    }
    let mut changed = !plan.changes.is_empty();
    for change in &plan.changes {
        let before = change.before.map_or_else(|| "not a number".to_owned(), |value| value.to_string());
        writeln!(out, "{OLD}-{} = {before}{OLD:#}", change.key)?;
        writeln!(out, "{NEW}+{} = {}{NEW:#}", change.key, change.after)?;
        writeln!(out, "   {DIM}why {DIM:#} {}", change.why)?;
        writeln!(out, "   {DIM}cost{DIM:#} {}", change.cost)?;
        writeln!(out, "   {DIM}risk{DIM:#} {}", change.risk)?;
    }
    for file in &planned.files.files {
        changed |= write_file_diff(&mut out, root, file)?;
    }
    for warning in plan.warnings.iter().chain(&planned.files.warnings) {
        writeln!(out, "{BOLD}!{BOLD:#}  {warning}")?;
    }
    for refusal in &plan.refusals {
        writeln!(out, "{BOLD}refused{BOLD:#}: {refusal}")?;
    }
    if !changed && plan.refusals.is_empty() {
        writeln!(out, "nothing to change: all values are set already")?;
    } else if !persist && plan.refusals.is_empty() {
        writeln!(out, "{DIM}not persistent: gone at the next boot; add --persist to keep it{DIM:#}")?;
    }
    Ok(())
}

/// A file before and after; true if they differ.
fn write_file_diff(out: &mut impl Write, root: &SysRoot, file: &PersistentFile) -> Result<bool> {
    let PersistentFile { path, text, why } = file;
    let found = FileContent::read(root, path)?;
    let found = found.map(|content| String::from_utf8_lossy(&content.bytes).into_owned());
    if found.as_ref() == Some(text) {
        return Ok(false);
    }
    let before = if found.is_some() { path.display().to_string() } else { "/dev/null".to_owned() };
    writeln!(out, "{BOLD}--- {before}{BOLD:#}\n{BOLD}+++ {}{BOLD:#}", path.display())?;
    let old = found.unwrap_or_default();
    for line in old.lines().filter(|line| !text.lines().any(|other| other == *line)) {
        writeln!(out, "{OLD}-{line}{OLD:#}")?;
    }
    for line in text.lines() {
        let mark = if old.lines().any(|other| other == line) { " " } else { "+" };
        writeln!(out, "{NEW}{mark}{line}{NEW:#}")?;
    }
    writeln!(out, "   {DIM}why {DIM:#} {why}")?;
    Ok(true)
}

/// What was applied.
pub fn applied(journal: &Journal, confirm_within: Option<u64>) -> Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{NEW}applied{NEW:#} and verified: {} sysctls, {} files", journal.knobs.len(), journal.files.len())?;
    match confirm_within {
        Some(seconds) => writeln!(out, "rolls back in {seconds} s unless confirmed: keepstate tune confirm")?,
        None => writeln!(out, "to undo: keepstate tune rollback")?,
    }
    Ok(())
}

/// The checks of `verify`.
pub fn checks(checks: &[VerifyCheck], as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        let rows: Vec<_> =
            checks.iter().map(|check| json!({"name": check.name, "ok": check.ok, "found": check.found})).collect();
        let document = json!({"schema": SCHEMA, "ok": checks.iter().all(|check| check.ok), "checks": rows});
        serde_json::to_writer_pretty(&mut out, &document)?;
        return Ok(writeln!(out)?);
    }
    for VerifyCheck { name, ok, found } in checks {
        let (style, word) = if *ok { (NEW, "ok  ") } else { (OLD, "FAIL") };
        writeln!(out, "{style}{word}{style:#} {name} {found}")?;
    }
    Ok(())
}

/// What was restored.
pub fn rolled_back(journal: &Journal, as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        return Ok(writeln!(out, "{}", json!({"schema": SCHEMA, "rolled_back": journal.id}))?);
    }
    for changed in &journal.knobs {
        writeln!(out, "{} = {} restored", changed.key, changed.before)?;
    }
    for file in &journal.files {
        let what = if file.before.is_some() { "restored" } else { "removed" };
        writeln!(out, "{} {what}", file.path.display())?;
    }
    Ok(())
}

/// What is applied now.
pub fn status(root: &SysRoot, journal: Option<&Journal>, last: Option<&str>, as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        let files = journal.map(|journal| journal.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>());
        let document = json!({
            "schema": SCHEMA, "stage": journal.map(|journal| journal.stage), "at": journal.map(|journal| journal.at),
            "knobs": journal.map(|journal| &journal.knobs), "files": files,
            "confirm_until": journal.and_then(|journal| journal.confirm_until), "last": last,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        return Ok(writeln!(out)?);
    }
    if let Some(last) = last {
        writeln!(out, "{}", last.trim_end())?;
    }
    let Some(journal) = journal else {
        return Ok(writeln!(out, "nothing is applied: {} does not exist", root.path(journal_path()).display())?);
    };
    writeln!(out, "{} {} s ago", journal.stage.name(), unix_now().saturating_sub(journal.at))?;
    for changed in &journal.knobs {
        writeln!(out, "  {} = {} (before: {})", changed.key, changed.after, changed.before)?;
    }
    for file in &journal.files {
        let before = if file.before.is_some() { "replaced" } else { "new" };
        writeln!(out, "  {} ({before})", file.path.display())?;
    }
    if let Some(until) = journal.confirm_until {
        writeln!(out, "rolls back in {} s unless confirmed: keepstate tune confirm", until.saturating_sub(unix_now()))?;
    }
    Ok(())
}
