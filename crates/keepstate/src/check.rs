//! `keepstate check`: would the gateway take this ruleset, and if not, what is wrong where?
use crate::ruleset::Reading;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check an nftables ruleset: what is wrong, where, and what to write instead.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// The ruleset; - for standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
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

Exit codes: 0 it would, 1 it would not or cannot be read, 2 wrongly asked";

/// The schema of its document.
const SCHEMA: &str = "keepstate.check/1";

impl Check {
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
    /// The file cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let mut out = anstream::stdout().lock();
        match self.reading.load(&self.file)? {
            Ok(loaded) => {
                let (chains, rules, elements) = loaded.program.size();
                let tables = loaded.tree.tables.len();
                if self.json {
                    let document = json!({
                        "schema": SCHEMA, "ok": true, "tables": tables, "chains": chains, "rules": rules, "elements": elements,
                    });
                    writeln!(out, "{document:#}")?;
                } else {
                    let count =
                        |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
                    let parts = [
                        count(tables, "table"),
                        count(chains, "chain"),
                        count(rules, "rule"),
                        count(elements, "element"),
                    ];
                    writeln!(out, "{}: good: {}", self.file.display(), parts.join(", "))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => {
                if self.json {
                    let faults: Vec<_> = refused
                        .faults
                        .iter()
                        .map(|fault| {
                            let at = refused.sources.position(fault.span);
                            json!({"file": at.file, "line": at.line, "column": at.column, "what": fault.what, "instead": fault.instead})
                        })
                        .collect();
                    writeln!(out, "{:#}", json!({"schema": SCHEMA, "ok": false, "faults": faults}))?;
                } else {
                    write!(out, "{refused}")?;
                }
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
