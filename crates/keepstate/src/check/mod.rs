//! `keepstate check`: checks a ruleset, a services file, or a gateway's file with all that it names, as the gateway does, and prints every error with its position.
mod file_report;
mod gateway_file;
mod one_file;

use crate::ruleset_args::RulesetArgs;
use anyhow::Result;
use clap::Args;
use file_report::FileReport;
use one_file::{check_ruleset, check_services};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check the gateway's file, an nftables ruleset or a services file: errors, positions, suggestions
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckCommand {
    /// The nftables ruleset, - for standard input; or the gateway's file, with all that it names: gateway.toml
    #[arg(required_unless_present = "services")]
    file: Option<PathBuf>,
    /// Check a services file too
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// Of the gateway's file, check this machine too: interfaces, directories, what this user may do
    #[arg(long, requires = "file")]
    environment: bool,
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
  # the gateway's file, and the ruleset and services that it names
  keepstate check /etc/keepstate/gateway.toml
  # and whether this machine has what it asks for
  sudo keepstate check --environment /etc/keepstate/gateway.toml

Exit codes: 0 no errors, 1 errors, or a file cannot be read, 2 usage error";

/// The schema of the JSON document.
const SCHEMA: &str = "keepstate.check/1";

impl CheckCommand {
    /// Do the options fit together?
    ///
    /// # Errors
    /// `--environment` without a gateway's file.
    pub fn check(&self) -> Result<(), String> {
        let is_gateway_file = |file: &Path| file.extension().is_some_and(|extension| extension == "toml");
        if self.environment && !self.file.as_deref().is_some_and(is_gateway_file) {
            return Err(
                "--environment needs the gateway's file, which ends in .toml: /etc/keepstate/gateway.toml".into()
            );
        }
        Ok(())
    }

    /// Checks the files and prints their size, or their errors.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let named = self.file.as_deref().map(|file| self.check_file(file)).transpose()?;
        let services = self.services.as_deref().map(check_services).transpose()?;
        let parts: Vec<FileReport> = named.into_iter().flatten().chain(services).collect();
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

    /// A ruleset, or a gateway's file with all that it names.
    fn check_file(&self, file: &Path) -> Result<Vec<FileReport>> {
        if file.extension().is_some_and(|extension| extension == "toml") {
            return gateway_file::check(file, self.ruleset_args.gateway_settings(), self.environment);
        }
        check_ruleset(file, &self.ruleset_args.options()).map(|report| vec![report])
    }
}
