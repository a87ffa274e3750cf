//! The command line: parser, help, manual and completions are made from it.
use crate::check::CheckCommand;
use crate::collect::Collect;
use crate::completions::Completions;
use crate::conntrack::Conntrack;
use crate::control::Control;
use crate::disable::Disable;
use crate::doctor::Doctor;
use crate::gateway::GatewayArgs;
use crate::lab::Lab;
use crate::man::Man;
use crate::mqtt::Mqtt;
use crate::replay::Replay;
use crate::serve::Serve;
use crate::simulate::Simulate;
use crate::size::SizeCommand;
use crate::sync::Sync;
use crate::top::Top;
use crate::tune::Tune;
use crate::watch::Watch;
use crate::who::WhoArgs;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Connection tracking: see, size, tune and repair Linux's table; replay captures; run a gateway.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Verbose output on stderr (-vv for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const AFTER_HELP: &str = "\
Examples:
  sudo keepstate doctor            what is wrong with the table, and how to fix it
  sudo keepstate tune --max 1M     show the changes for a larger table; tune apply makes them
  keepstate size --connections 1M  how large the table should be, and why
  sudo keepstate conntrack -L      the kernel's table, as conntrack shows it
  keepstate replay trace.pcapng    the connections of a capture
  sudo keepstate watch eth0        the same, live; q or Ctrl-C ends
  sudo keepstate top               the table live: who fills it, until when there is room
  sudo keepstate serve             metrics for Prometheus, read only
  sudo keepstate sync              Linux's table, carried to the machine that takes over
  keepstate simulate --clients 100k --memory 4G --as-linux 5.15    how a table fills
  sudo keepstate lab               a demonstration in network namespaces
  keepstate check /etc/nftables.conf    can the gateway load this ruleset?
  keepstate help gateway           a user-space router with that ruleset

Results are on standard output; notes and errors are on standard error.
Exit codes: 0 done, 1 something could not be read or written, 2 usage error;
doctor, disable and who have their own, see their --help";

impl Cli {
    /// Parses the command line of this process. On a usage error the process ends here, with a message and exit code 2.
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
            Command::Top(top) => ("top", top.check()),
            Command::Serve(serve) => ("serve", serve.check()),
            Command::Sync(sync) => ("sync", sync.check()),
            Command::Check(check) => ("check", check.check()),
            Command::Gateway(gateway) => ("gateway", gateway.check()),
            Command::Control(control) => ("control", control.check()),
            Command::Who(who) => ("who", who.check()),
            Command::Lab(lab) => ("lab", lab.check()),
            Command::Mqtt(mqtt) => ("mqtt", mqtt.check()),
        };
        if let Err(what) = checked {
            let mut command = Cli::command();
            command.build();
            let subcommand = command.find_subcommand(name).cloned();
            subcommand.unwrap_or(command).error(ErrorKind::ArgumentConflict, what).exit();
        }
        cli
    }
}

/// One module per command; its help stands with its options.
#[derive(Subcommand, Debug)]
#[allow(missing_docs, reason = "a doc comment here would replace the command's own help")]
#[allow(clippy::large_enum_variant, reason = "there is one of it, made once")]
pub enum Command {
    Doctor(Doctor),
    Tune(Tune),
    Size(SizeCommand),
    Conntrack(Conntrack),
    Disable(Disable),
    Collect(Collect),
    Simulate(Simulate),
    Replay(Replay),
    Watch(Watch),
    Top(Top),
    Serve(Serve),
    Sync(Sync),
    Check(CheckCommand),
    Gateway(GatewayArgs),
    Control(Control),
    Who(WhoArgs),
    Lab(Lab),
    Mqtt(Mqtt),
    Completions(Completions),
    Man(Man),
}
