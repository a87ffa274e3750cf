//! `keepstate completions`: completion scripts for shells, made from the same definition as the parser.
use anyhow::Result;
use clap::{Arg, ArgAction, Args, Command};
use clap_complete::{Shell, generate};
use keepstate_conntrack::command::{CompletedOption, completed_options};
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
        let mut program = program.clone().mut_subcommand("conntrack", with_conntrack_options);
        generate(self.shell, &mut program, "keepstate", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}

/// conntrack's options, which its own parser reads: clap learns them only to write the scripts.
fn with_conntrack_options(command: Command) -> Command {
    let command = command.disable_version_flag(true);
    completed_options().into_iter().fold(command, |command, option| command.arg(conntrack_arg(&option)))
}

fn conntrack_arg(option: &CompletedOption) -> Arg {
    let mut arg =
        Arg::new(option.long).long(option.long).visible_aliases(option.aliases.clone()).help(option.help.clone());
    if let Some(letter) = option.short {
        arg = arg.short(letter);
    }
    match (option.takes_value, option.values) {
        (false, _) => arg.action(ArgAction::SetTrue),
        (true, []) => arg.num_args(0..=1),
        (true, values) => arg.num_args(0..=1).value_parser(values.to_vec()),
    }
}
