//! What `keepstate tune` prints.
use super::commands::{PlanWithFiles, unix_now};
use super::journal::{FileContent, Journal};
use super::paths;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use keepstate_linux::SysRoot;
use serde_json::json;
use std::io::Write;

/// The schema of its documents.
const SCHEMA: &str = "keepstate.tune/1";
const OLD: Style = AnsiColor::Red.on_default();
const NEW: Style = AnsiColor::Green.on_default();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// The plan: knobs and files as differences, each with its reasons.
pub(super) fn plan(root: &SysRoot, planned: &PlanWithFiles, persist: bool, as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let plan = &planned.plan;
    if as_json {
        let files: Vec<_> = planned
            .files
            .files
            .iter()
            .map(|(path, text, why)| json!({"path": path, "after": text, "why": why}))
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
    for (path, text, why) in &planned.files.files {
        changed |= write_file_diff(&mut out, root, path, text, why)?;
    }
    for warning in plan.warnings.iter().chain(&planned.files.warnings) {
        writeln!(out, "{BOLD}!{BOLD:#}  {warning}")?;
    }
    for refusal in &plan.refusals {
        writeln!(out, "{BOLD}refused{BOLD:#}: {refusal}")?;
    }
    if !changed && plan.refusals.is_empty() {
        writeln!(out, "nothing to change: everything is as it is wanted")?;
    } else if !persist && plan.refusals.is_empty() {
        writeln!(out, "{DIM}gone at the next boot; --persist makes it last{DIM:#}")?;
    }
    Ok(())
}

/// A file as it is and as it will be; says whether they differ.
fn write_file_diff(
    out: &mut impl Write,
    root: &SysRoot,
    path: &std::path::Path,
    text: &str,
    why: &str,
) -> Result<bool> {
    let there =
        FileContent::read(&root.path(path))?.map(|content| String::from_utf8_lossy(&content.bytes).into_owned());
    if there.as_deref() == Some(text) {
        return Ok(false);
    }
    let before = if there.is_some() { path.display().to_string() } else { "/dev/null".to_owned() };
    writeln!(out, "{BOLD}--- {before}{BOLD:#}\n{BOLD}+++ {}{BOLD:#}", path.display())?;
    let old = there.unwrap_or_default();
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

/// What was done.
pub(super) fn applied(journal: &Journal, confirm_within: Option<u64>) -> Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{NEW}applied{NEW:#}, and read back: {} knobs, {} files", journal.knobs.len(), journal.files.len())?;
    match confirm_within {
        Some(seconds) => writeln!(out, "it rolls back by itself in {seconds} s, unless: keepstate tune confirm")?,
        None => writeln!(out, "to take it back: keepstate tune rollback")?,
    }
    Ok(())
}

/// Checks, each with what was found.
pub(super) fn checks(checks: &[(String, bool, String)], as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        let rows: Vec<_> =
            checks.iter().map(|(name, good, what)| json!({"name": name, "ok": good, "found": what})).collect();
        let document = json!({"schema": SCHEMA, "ok": checks.iter().all(|(_, good, _)| *good), "checks": rows});
        serde_json::to_writer_pretty(&mut out, &document)?;
        return Ok(writeln!(out)?);
    }
    for (name, good, what) in checks {
        let (style, word) = if *good { (NEW, "ok ") } else { (OLD, "NOT") };
        writeln!(out, "{style}{word}{style:#} {name} {what}")?;
    }
    Ok(())
}

/// What was put back.
pub(super) fn rolled_back(journal: &Journal, as_json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        return Ok(writeln!(out, "{}", json!({"schema": SCHEMA, "rolled_back": journal.id}))?);
    }
    for knob in &journal.knobs {
        writeln!(out, "{} = {} again", knob.key, knob.before)?;
    }
    for file in &journal.files {
        let what = if file.before.is_some() { "as it was" } else { "removed" };
        writeln!(out, "{} {what}", file.path.display())?;
    }
    Ok(())
}

/// What stands.
pub(super) fn status(root: &SysRoot, journal: Option<&Journal>, last: Option<&str>, as_json: bool) -> Result<()> {
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
        return Ok(writeln!(out, "nothing is applied: there is no {}", paths::journal_path(root).display())?);
    };
    writeln!(out, "{:?} {} s ago", journal.stage, unix_now().saturating_sub(journal.at))?;
    for knob in &journal.knobs {
        writeln!(out, "  {} = {} (before: {})", knob.key, knob.after, knob.before)?;
    }
    for file in &journal.files {
        let before = if file.before.is_some() { "there was another before" } else { "new" };
        writeln!(out, "  {} ({before})", file.path.display())?;
    }
    if let Some(until) = journal.confirm_until {
        writeln!(
            out,
            "it rolls back by itself in {} s, unless: keepstate tune confirm",
            until.saturating_sub(unix_now())
        )?;
    }
    Ok(())
}
