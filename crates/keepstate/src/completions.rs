//! `keepstate completions`: completion scripts for shells, made from the same definition as the parser.
use anyhow::Result;
use clap::{Args, Command};
use clap_complete::{Shell, generate};
use std::io::Write;

/// Print the completion script of a shell.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  # in this shell, until it ends
  source <(keepstate completions bash)
  # installed for all users
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

    /// Prints the script for the program `program`.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn run(&self, program: &mut Command) -> Result<()> {
        // Generated into memory first: the generator would panic at a closed pipe.
        let mut script = Vec::new();
        generate(self.shell, program, "keepstate", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}
