//! What a running gateway can be asked and told.
use super::load::Load;
use super::services;
use crate::format::{self, Writer};
use crate::options::Show;
use crate::sysctl;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use keepstate_engine::{Instant, Knob, Knobs};
use keepstate_gateway::Router;
use std::io::Write;

/// One request, by the words of the command line.
#[derive(Parser, Debug)]
#[command(name = "keepstate control", no_binary_name = true, disable_help_flag = true)]
struct Words {
    #[command(subcommand)]
    asked: Asked,
}

/// What is asked.
#[derive(Subcommand, Clone, Debug)]
pub enum Asked {
    /// The connections, in the lines of conntrack -L
    List(Box<Show>),
    /// How many connections there are
    Count,
    /// Packets in, out and lost; the counters of conntrack -S
    Stats,
    /// Every rule that counts: its place, packets, octets
    Rules,
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
    #[command(flatten)]
    Services(services::Words),
}

/// Answers a request.
pub(super) fn answer(
    words: &[String],
    router: &mut Router,
    load: impl Fn() -> Result<Load>,
    now: Instant,
) -> Result<Vec<u8>, String> {
    let asked = Words::try_parse_from(words).map_err(|error| error.to_string())?.asked;
    done(&asked, router, load, now).map_err(|error| format!("{error:#}"))
}

fn done(asked: &Asked, router: &mut Router, load: impl Fn() -> Result<Load>, now: Instant) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match asked {
        Asked::List(show) => {
            let mut writer = Writer::new(&mut out, show.output()).at(now);
            for entry in router.engine().entries(now).filter(|entry| show.filter.matches(entry)) {
                writer.entry(&entry)?;
            }
            writer.finish()?;
        }
        Asked::Count => writeln!(out, "{}", router.engine().count())?,
        Asked::Stats => {
            let counters = *router.counters();
            writeln!(
                out,
                "received={} forwarded={} delivered={} answered={} lost={}",
                counters.received, counters.forwarded, counters.delivered, counters.answered, counters.lost
            )?;
            format::stats(&mut out, router.engine().counters(), &Default::default())?;
            for (why, count) in router.engine().reasons().filter(|(_, count)| *count > 0) {
                writeln!(out, "{}={count}", why.name())?;
            }
        }
        Asked::Rules => {
            for (place, packets, octets) in router.program().counters() {
                writeln!(out, "{place} packets {packets} bytes {octets}")?;
            }
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
        Asked::Flush => {
            let count = router.engine().count();
            router.engine().flush(now);
            writeln!(out, "{count} connections were removed")?;
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
