//! `keepstate check`: would the gateway take this ruleset and these services, and if not, what is wrong where?
use anyhow::Result;
use clap::Args;
use keepstate_gateway::ruleset::RulesetArgs;
use keepstate_gateway::services_file;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check an nftables ruleset, or the gateway's services: what is wrong, where, and what to write instead.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckCommand {
    /// The ruleset; - for standard input
    #[arg(required_unless_present = "services")]
    file: Option<PathBuf>,
    /// Check a file of services too
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
  # would the gateway take what nft has?
  keepstate check /etc/nftables.conf
  sudo nft list ruleset | keepstate check -
  # with a variable from outside, and includes of another folder
  keepstate check router.nft -D wan=eth0 -I /etc/nftables.d
  # and the services behind it
  keepstate check router.nft --services services.toml

Exit codes: 0 it would, 1 it would not or cannot be read, 2 wrongly asked";

/// The schema of its document.
const SCHEMA: &str = "keepstate.check/1";

impl CheckCommand {
    /// Do the options fit together?
    ///
    /// # Errors
    /// Never: there is nothing that could not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks, and says how large it is, or what is wrong.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let ruleset = self.file.as_deref().map(|file| self.check_ruleset(file)).transpose()?;
        let services = self.services.as_deref().map(check_services).transpose()?;
        let parts: Vec<FileReport> = ruleset.into_iter().chain(services).collect();
        let good = parts.iter().all(|part| part.errors.is_empty());
        let mut out = anstream::stdout().lock();
        if self.json {
            let mut document = json!({"schema": SCHEMA, "ok": good});
            for (name, count) in parts.iter().flat_map(|part| &part.counts).filter(|_| good) {
                document[format!("{name}s")] = json!(count);
            }
            let faults: Vec<_> = parts.iter().flat_map(|part| part.errors.clone()).collect();
            if !good {
                document["faults"] = json!(faults);
            }
            writeln!(out, "{document:#}")?;
        } else {
            parts.iter().try_for_each(|part| write!(out, "{}", part.text))?;
        }
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn check_ruleset(&self, file: &Path) -> Result<FileReport> {
        Ok(match self.ruleset_args.load(file)? {
            Ok(loaded) => {
                let (chains, rules, elements) = loaded.program.size();
                let tables = loaded.tree.tables.len();
                FileReport::ok_report(
                    file,
                    vec![("table", tables), ("chain", chains), ("rule", rules), ("element", elements)],
                )
            }
            Err(refused) => {
                let faults = refused.diagnostics.iter().map(|fault| {
                    let at = refused.sources.position(fault.span);
                    json!({"file": at.file, "line": at.line, "column": at.column, "what": fault.message, "instead": fault.help})
                });
                FileReport { text: refused.to_string(), errors: faults.collect(), counts: Vec::new() }
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
        Err(refused) => {
            let faults = refused.diagnostics.iter().map(|fault| {
                let (line, column) = refused.position(fault);
                json!({"file": refused.name(), "line": line, "column": column, "what": fault.message, "instead": null})
            });
            FileReport { text: refused.to_string(), errors: faults.collect(), counts: Vec::new() }
        }
    })
}

/// What a file came to.
struct FileReport {
    /// For people.
    text: String,
    /// How many there are of what.
    counts: Vec<(&'static str, usize)>,
    errors: Vec<Value>,
}

impl FileReport {
    fn ok_report(file: &Path, counts: Vec<(&'static str, usize)>) -> FileReport {
        let count = |(noun, number): &(&str, usize)| format!("{number} {noun}{}", if *number == 1 { "" } else { "s" });
        let parts: Vec<String> = counts.iter().map(count).collect();
        FileReport { text: format!("{}: good: {}\n", file.display(), parts.join(", ")), counts, errors: Vec::new() }
    }
}
