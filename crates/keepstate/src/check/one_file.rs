//! One ruleset, or one services file: its size, or its errors.
use super::file_report::FileReport;
use anyhow::Result;
use keepstate_gateway::ruleset::RulesetOptions;
use keepstate_gateway::services_file;
use serde_json::json;
use std::path::Path;

/// A ruleset and what it includes.
///
/// # Errors
/// The file cannot be read.
pub(super) fn check_ruleset(file: &Path, options: &RulesetOptions) -> Result<FileReport> {
    Ok(match options.load(file)? {
        Ok(loaded) => {
            let (chains, rules, elements) = loaded.program.size();
            let tables = loaded.tree.tables.len();
            let counts = vec![("table", tables), ("chain", chains), ("rule", rules), ("element", elements)];
            let mut report = FileReport::ok_report(file, counts);
            for diagnostic in &loaded.tree.notes {
                report.text += &format!("note: {}\n", loaded.note(diagnostic));
                let at = loaded.sources.position(diagnostic.span);
                report
                    .notes
                    .push(json!({"file": at.file, "line": at.line, "column": at.column, "what": diagnostic.message}));
            }
            for diagnostic in &loaded.left_out {
                report.text += &format!("left out: {}\n", loaded.describe(diagnostic));
                let at = loaded.sources.position(diagnostic.span);
                report
                    .left_out
                    .push(json!({"file": at.file, "line": at.line, "column": at.column, "what": diagnostic.message}));
            }
            if !report.left_out.is_empty() {
                report.text += &format!("{}: {} left out, not in force\n", file.display(), report.left_out.len());
            }
            report
        }
        Err(error) => {
            let errors = error.diagnostics.iter().map(|diagnostic| {
                    let at = error.sources.position(diagnostic.span);
                    json!({"file": at.file, "line": at.line, "column": at.column, "what": diagnostic.message, "instead": diagnostic.help})
                });
            FileReport::refused(error.to_string(), errors.collect())
        }
    })
}

/// A services file.
///
/// # Errors
/// The file cannot be read.
pub(super) fn check_services(file: &Path) -> Result<FileReport> {
    Ok(match services_file::load(file)? {
        Ok(services) => {
            let backends = services.iter().map(|service| service.backends.len()).sum();
            FileReport::ok_report(file, vec![("service", services.len()), ("backend", backends)])
        }
        Err(error) => FileReport::of_toml(&error),
    })
}
