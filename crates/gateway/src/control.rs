//! What a running gateway can be asked and told.
use super::control_services as services;
use super::load::Load;
use anyhow::{Context, Result};
use keepstate_conntrack::show::Show;
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_engine::{Instant, Knob, Knobs};
use keepstate_router::Router;
use std::io::Write;

/// One request, by the words of the command line.
#[cfg(feature = "clap")]
#[cfg_attr(feature = "clap", derive(clap::Parser))]
#[derive(Debug)]
#[cfg_attr(feature = "clap", command(name = "keepstate control", no_binary_name = true, disable_help_flag = true))]
struct Words {
    #[cfg_attr(feature = "clap", command(subcommand))]
    asked: Asked,
}

/// What is asked.
#[cfg_attr(feature = "clap", derive(clap::Subcommand))]
#[derive(Clone, Debug)]
pub enum Asked {
    /// The connections, in the lines of conntrack -L
    List(Box<Show>),
    /// How many connections there are
    Count,
    /// Packets in, out and lost; the counters of conntrack -S; what stands; each reason for which packets were refused
    Stats {
        /// As one object of JSON
        #[cfg_attr(feature = "clap", arg(long))]
        json: bool,
    },
    /// Connections as they begin, change and end, until you hang up (Ctrl-C)
    Events(Box<Show>),
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
    Services(services::Words),
}

impl Asked {
    /// What these words ask for.
    ///
    /// # Errors
    /// Why they ask for nothing, in words for whoever said them.
    pub fn read(words: &[String]) -> Result<Asked, String> {
        #[cfg(not(feature = "clap"))]
        return Err(format!("{words:?}: this build of the gateway has no parser for words (feature `clap`)"));
        #[cfg(feature = "clap")]
        match <Words as clap::Parser>::try_parse_from(words) {
            Ok(words) => Ok(words.asked),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Answers a request.
pub(super) fn answer(
    words: &[String],
    router: &mut Router,
    load: impl Fn() -> Result<Load>,
    now: Instant,
) -> Result<Vec<u8>, String> {
    let asked = Asked::read(words)?;
    done(&asked, router, load, now).map_err(|error| format!("{error:#}"))
}

fn done(asked: &Asked, router: &mut Router, load: impl Fn() -> Result<Load>, now: Instant) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match asked {
        // What may be longer than a turn is told by the visitor's own thread.
        Asked::List(_)
        | Asked::Events(_)
        | Asked::Proc
        | Asked::Stats { .. }
        | Asked::Flush
        | Asked::DrainAll { .. } => (),
        Asked::Count => writeln!(out, "{}", router.engine().count())?,
        Asked::Rules => {
            write!(out, "{}", router.program().list())?;
        }
        Asked::Shortages => {
            for (shortage, shortfall) in router.engine().shortages() {
                writeln!(
                    out,
                    "address={} peer={} port={} protocol={} refused={}",
                    shortage.address, shortage.peer, shortage.peer_port, shortage.protocol, shortfall.refused
                )?;
            }
        }
        Asked::Get { key } => {
            let name = key.rsplit('.').next().unwrap_or_default();
            let knob = Knob::named(name).with_context(|| format!("there is no knob {key}"))?;
            writeln!(out, "{}", router.engine().knobs()[knob])?;
        }
        Asked::Set { setting } => {
            let mut probe = Knobs::default();
            sysctl::set(setting, &mut probe)?;
            let name = setting
                .split_once('=')
                .map_or("", |(key, _)| key)
                .trim()
                .rsplit(['.', '/'])
                .next()
                .unwrap_or_default()
                .to_owned();
            let knob = Knob::named(&name).with_context(|| format!("there is no knob {name}"))?;
            router.engine().set(knob, u64::from(probe[knob]))?;
            writeln!(out, "{} = {}", knob.name(), router.engine().knobs()[knob])?;
        }
        Asked::Services(words) => words.answer(router, now, &mut out)?,
        Asked::Reload => {
            load().context("the ruleset stays as it was")?.put_to_work(router, now);
            let (chains, rules, elements) = router.program().size();
            writeln!(out, "loaded: {chains} chains, {rules} rules, {elements} elements; connections live on")?;
        }
    }
    Ok(out)
}
