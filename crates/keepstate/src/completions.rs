//! `keepstate completions`: what a shell needs to complete our command lines, made from the same definition as the parser.
use crate::cli::Cli;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use std::io::Write;

/// Print what a shell needs to complete keepstate's command lines.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  # in this shell, until it ends
  source <(keepstate completions bash)
  # for good, for everybody
  keepstate completions bash > /usr/share/bash-completion/completions/keepstate
  keepstate completions zsh > /usr/local/share/zsh/site-functions/_keepstate
  keepstate completions fish > /usr/share/fish/vendor_completions.d/keepstate.fish";

impl Completions {
    /// Do the options fit together? They always do.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Prints the script.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn run(&self) -> Result<()> {
        // Made whole first: the generator would panic at a closed pipe.
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "keepstate", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}
