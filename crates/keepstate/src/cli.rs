//! The command line, as data: parser, help and completion come from here.
use crate::check::CheckCommand;
use crate::collect::Collect;
use crate::completions::Completions;
use crate::conntrack::Conntrack;
use crate::control::Control;
use crate::disable::Disable;
use crate::doctor::Doctor;
use crate::gateway::GatewayArgs;
use crate::man::Man;
use crate::replay::Replay;
use crate::simulate::Simulate;
use crate::size::SizeCommand;
use crate::tune::Tune;
use crate::watch::Watch;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use keepstate_lab::Lab;
use keepstate_lab::mqtt::Mqtt;

/// Connection tracking done right: see, explain, size, tune and mend Linux's table, and replay what it would have made of your traffic.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say on standard error what is being done; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const AFTER_HELP: &str = "\
Examples:
  sudo keepstate doctor            what is wrong with the table, and what to do
  keepstate size --connections 1M  how large the table should be, and why
  sudo keepstate tune --max 1M     what that would change; tune apply does it
  sudo keepstate conntrack -L      Linux's own table, as conntrack shows it
  keepstate replay trace.pcapng    the connections a capture leaves
  sudo keepstate watch eth0        the same, live; q or Ctrl-C ends
  keepstate simulate --clients 100k --memory 4G --as-linux 5.15    how it fills, in virtual time
  sudo keepstate lab               all of it on this machine, in namespaces
  keepstate check /etc/nftables.conf    would the gateway take this ruleset?
  keepstate help gateway           route packets by it, in user space

What was asked for is on standard output; notes and errors are on standard error.
Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked;
doctor and disable have their own, told by their --help";

impl Cli {
    /// The command line of this process. A wrong one ends it here, with an error that says what to do, and exit code 2.
    pub fn parse_and_check() -> Cli {
        let cli = Cli::parse();
        let (name, checked) = match &cli.command {
            Command::Replay(replay) => ("replay", replay.check()),
            Command::Watch(watch) => ("watch", watch.check()),
            Command::Disable(disable) => ("disable", disable.check()),
            Command::Doctor(doctor) => ("doctor", doctor.check()),
            Command::Collect(collect) => ("collect", collect.check()),
            Command::Conntrack(_) => ("conntrack", Ok(())),
            Command::Completions(completions) => ("completions", completions.check()),
            Command::Man(man) => ("man", man.check()),
            Command::Size(size) => ("size", size.check()),
            Command::Tune(tune) => ("tune", tune.check()),
            Command::Simulate(simulate) => ("simulate", simulate.check()),
            Command::Check(check) => ("check", check.check()),
            Command::Gateway(gateway) => ("gateway", gateway.check()),
            Command::Control(control) => ("control", control.check()),
            Command::Lab(lab) => ("lab", lab.check()),
            Command::Mqtt(mqtt) => ("mqtt", mqtt.check()),
        };
        if let Err(what) = checked {
            let mut command = Cli::command();
            command.build();
            let asked = command.find_subcommand(name).cloned();
            asked.unwrap_or(command).error(ErrorKind::ArgumentConflict, what).exit();
        }
        cli
    }
}

/// One module a command; each says what it does where its options are.
#[derive(Subcommand, Debug)]
#[allow(missing_docs, reason = "a doc comment here would replace the command's own help")]
#[allow(clippy::large_enum_variant, reason = "there is one of it, made once")]
pub enum Command {
    Doctor(Doctor),
    Collect(Collect),
    Size(SizeCommand),
    Simulate(Simulate),
    Tune(Tune),
    Disable(Disable),
    Conntrack(Conntrack),
    Replay(Replay),
    Watch(Watch),
    Check(CheckCommand),
    Gateway(GatewayArgs),
    Control(Control),
    Lab(Lab),
    Mqtt(Mqtt),
    Completions(Completions),
    Man(Man),
}
