//! `keepstate check`: checks a ruleset and a services file as the gateway does, and prints every error with its position.
use crate::ruleset_args::RulesetArgs;
use anyhow::Result;
use clap::Args;
use keepstate_gateway::services_file;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check an nftables ruleset or a services file for the gateway: errors, positions, suggestions
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckCommand {
    /// The nftables ruleset; - for standard input
    #[arg(required_unless_present = "services")]
    file: Option<PathBuf>,
    /// Check a services file too
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    #[command(flatten)]
    ruleset_args: RulesetArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # does the gateway accept the rules that nft has?
  keepstate check /etc/nftables.conf
  sudo nft list ruleset | keepstate check -
  # with a variable and an include directory
  keepstate check router.nft -D wan=eth0 -I /etc/nftables.d
  # and the services file
  keepstate check router.nft --services services.toml

Exit codes: 0 no errors, 1 errors, or a file cannot be read, 2 usage error";

/// The schema of the JSON document.
const SCHEMA: &str = "keepstate.check/1";

impl CheckCommand {
    /// Do the options fit together?
    ///
    /// # Errors
    /// Never: all combinations are valid.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks the files and prints their size, or their errors.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let ruleset = self.file.as_deref().map(|file| self.check_ruleset(file)).transpose()?;
        let services = self.services.as_deref().map(check_services).transpose()?;
        let parts: Vec<FileReport> = ruleset.into_iter().chain(services).collect();
        let ok = parts.iter().all(|part| part.errors.is_empty());
        let mut out = anstream::stdout().lock();
        if self.json {
            let mut document = json!({"schema": SCHEMA, "ok": ok});
            for (name, count) in parts.iter().flat_map(|part| &part.counts).filter(|_| ok) {
                document[format!("{name}s")] = json!(count);
            }
            let errors: Vec<_> = parts.iter().flat_map(|part| part.errors.clone()).collect();
            let left_out: Vec<_> = parts.iter().flat_map(|part| part.left_out.clone()).collect();
            let notes: Vec<_> = parts.iter().flat_map(|part| part.notes.clone()).collect();
            if !notes.is_empty() {
                document["notes"] = json!(notes);
            }
            if !left_out.is_empty() {
                document["left_out"] = json!(left_out);
            }
            if !ok {
                document["faults"] = json!(errors);
            }
            writeln!(out, "{document:#}")?;
        } else {
            parts.iter().try_for_each(|part| write!(out, "{}", part.text))?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn check_ruleset(&self, file: &Path) -> Result<FileReport> {
        Ok(match self.ruleset_args.options().load(file)? {
            Ok(loaded) => {
                let (chains, rules, elements) = loaded.program.size();
                let tables = loaded.tree.tables.len();
                let counts = vec![("table", tables), ("chain", chains), ("rule", rules), ("element", elements)];
                let mut report = FileReport::ok_report(file, counts);
                for diagnostic in &loaded.tree.not_governed {
                    report.text += &format!("note: {}\n", loaded.note(diagnostic));
                    let at = loaded.sources.position(diagnostic.span);
                    report.notes.push(
                        json!({"file": at.file, "line": at.line, "column": at.column, "what": diagnostic.message}),
                    );
                }
                for diagnostic in &loaded.left_out {
                    report.text += &format!("left out: {}\n", loaded.describe(diagnostic));
                    let at = loaded.sources.position(diagnostic.span);
                    report.left_out.push(
                        json!({"file": at.file, "line": at.line, "column": at.column, "what": diagnostic.message}),
                    );
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
                FileReport { text: error.to_string(), errors: errors.collect(), ..FileReport::default() }
            }
        })
    }
}

fn check_services(file: &Path) -> Result<FileReport> {
    Ok(match services_file::load(file)? {
        Ok(services) => {
            let backends = services.iter().map(|service| service.backends.len()).sum();
            FileReport::ok_report(file, vec![("service", services.len()), ("backend", backends)])
        }
        Err(error) => {
            let errors = error.diagnostics.iter().map(|diagnostic| {
                let (line, column) = error.position(diagnostic);
                json!({"file": error.name(), "line": line, "column": column, "what": diagnostic.message, "instead": null})
            });
            FileReport { text: error.to_string(), errors: errors.collect(), ..FileReport::default() }
        }
    })
}

/// The result of one file.
#[derive(Default)]
struct FileReport {
    /// Human-readable.
    text: String,
    /// Name and number of its parts.
    counts: Vec<(&'static str, usize)>,
    errors: Vec<Value>,
    /// What is not in force because it is not supported.
    left_out: Vec<Value>,
    /// Tables that are the kernel's.
    notes: Vec<Value>,
}

impl FileReport {
    fn ok_report(file: &Path, counts: Vec<(&'static str, usize)>) -> FileReport {
        let count = |(noun, number): &(&str, usize)| format!("{number} {noun}{}", if *number == 1 { "" } else { "s" });
        let parts: Vec<String> = counts.iter().map(count).collect();
        FileReport { text: format!("{}: ok: {}\n", file.display(), parts.join(", ")), counts, ..FileReport::default() }
    }
}
