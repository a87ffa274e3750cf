//! What a running gateway can be asked and told.
use super::control_services as services;
use super::load::LoadedConfig;
use anyhow::{Context, Result};
use keepstate_conntrack::OutputArgs;
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_engine::{Instant, Sysctl, Sysctls};
use keepstate_router::Router;
use std::io::Write;

/// One request, by the words of the command line.
#[cfg(feature = "clap")]
#[cfg_attr(feature = "clap", derive(clap::Parser))]
#[derive(Debug)]
#[cfg_attr(feature = "clap", command(name = "keepstate control", no_binary_name = true, disable_help_flag = true))]
struct CommandLine {
    #[cfg_attr(feature = "clap", command(subcommand))]
    command: ControlCommand,
}

/// What is asked.
#[cfg_attr(feature = "clap", derive(clap::Subcommand))]
#[derive(Clone, Debug)]
pub enum ControlCommand {
    /// The connections, in the lines of conntrack -L
    List(Box<OutputArgs>),
    /// How many connections there are
    Count,
    /// Packets in, out and lost; the counters of conntrack -S; what stands; each reason for which packets were refused
    Stats {
        /// As one object of JSON
        #[cfg_attr(feature = "clap", arg(long))]
        json: bool,
    },
    /// Connections as they begin, change and end, until you hang up (Ctrl-C)
    Events(Box<OutputArgs>),
    /// The connections in the format of /proc/net/nf_conntrack
    Proc,
    /// The ruleset: its rules as they were written, with what they have counted
    Rules,
    /// Take no new connections; those that are there live on
    DrainAll {
        /// Take new connections again
        #[cfg_attr(feature = "clap", arg(long))]
        off: bool,
        /// Come back only when no connection is left
        #[cfg_attr(feature = "clap", arg(long, conflicts_with = "off"))]
        wait: bool,
    },
    /// Where ports ran out: translated address, peer, how often
    Shortages,
    /// A knob, by its own name: nf_conntrack_max
    Get {
        /// The knob
        key: String,
    },
    /// Set a knob: nf_conntrack_max=100000
    Set {
        /// The knob and its value
        setting: String,
    },
    /// Remove every connection
    Flush,
    /// Load the ruleset and the services again; connections live on. If one is refused, nothing changes
    Reload,
    /// Of the services
    #[cfg_attr(feature = "clap", command(flatten))]
    Services(services::ServiceCommand),
}

impl ControlCommand {
    /// What these words ask for.
    ///
    /// # Errors
    /// Why they ask for nothing, in words for whoever said them.
    pub fn parse(words: &[String]) -> Result<ControlCommand, String> {
        #[cfg(not(feature = "clap"))]
        return Err(format!("{words:?}: this build of the gateway has no parser for words (feature `clap`)"));
        #[cfg(feature = "clap")]
        match <CommandLine as clap::Parser>::try_parse_from(words) {
            Ok(words) => Ok(words.command),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Answers a request.
pub(super) fn run_command(
    words: &[String],
    router: &mut Router,
    load: impl Fn() -> Result<LoadedConfig>,
    now: Instant,
) -> Result<Vec<u8>, String> {
    let asked = ControlCommand::parse(words)?;
    execute(&asked, router, load, now).map_err(|error| format!("{error:#}"))
}

fn execute(
    asked: &ControlCommand,
    router: &mut Router,
    load: impl Fn() -> Result<LoadedConfig>,
    now: Instant,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match asked {
        // What may be longer than a turn is told by the visitor's own thread.
        ControlCommand::List(_)
        | ControlCommand::Events(_)
        | ControlCommand::Proc
        | ControlCommand::Stats { .. }
        | ControlCommand::Flush
        | ControlCommand::DrainAll { .. } => (),
        ControlCommand::Count => writeln!(out, "{}", router.engine().count())?,
        ControlCommand::Rules => {
            write!(out, "{}", router.program().list())?;
        }
        ControlCommand::Shortages => {
            for (shortage, shortfall) in router.engine().exhaustion_stats() {
                writeln!(
                    out,
                    "address={} peer={} port={} protocol={} refused={}",
                    shortage.address, shortage.peer, shortage.peer_port, shortage.protocol, shortfall.failures
                )?;
            }
        }
        ControlCommand::Get { key } => {
            let name = key.rsplit('.').next().unwrap_or_default();
            let knob = Sysctl::from_name(name).with_context(|| format!("there is no knob {key}"))?;
            writeln!(out, "{}", router.engine().sysctls()[knob])?;
        }
        ControlCommand::Set { setting } => {
            let mut probe = Sysctls::default();
            sysctl::apply_setting(setting, &mut probe)?;
            let name = setting
                .split_once('=')
                .map_or("", |(key, _)| key)
                .trim()
                .rsplit(['.', '/'])
                .next()
                .unwrap_or_default()
                .to_owned();
            let knob = Sysctl::from_name(&name).with_context(|| format!("there is no knob {name}"))?;
            router.engine_mut().set_sysctl(knob, u64::from(probe[knob]))?;
            writeln!(out, "{} = {}", knob.name(), router.engine().sysctls()[knob])?;
        }
        ControlCommand::Services(words) => words.execute(router, now, &mut out)?,
        ControlCommand::Reload => {
            load().context("the ruleset stays as it was")?.apply(router, now);
            let (chains, rules, elements) = router.program().size();
            writeln!(out, "loaded: {chains} chains, {rules} rules, {elements} elements; connections live on")?;
        }
    }
    Ok(out)
}
