//! `cargo xtask oracle`: the same packets through the running kernel's conntrack and through the engine, and a comparison of all they say.
//!
//! Packet by packet: what `ct state` and `ct direction` match. Connection by connection: tuples, state, status bits, remaining time,
//! counters. Where they differ, the shortest story that shows it is printed, and the exit code is 1.
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod capture;
mod comparator;
mod conntrack_max;
mod coverage;
mod ctnetlink_dump;
mod expectation_row;
mod grammar;
mod kernel;
mod packet_builder;
mod rng;
mod row;
mod run;
mod scenario;
mod scenario_file;
mod shrink;
mod step;
mod syscalls;
mod table_full;
mod verdict;

use comparator::{Comparator, CompareMode};
use grammar::Grammar;
use kernel::Routes;

/// Hold the engine against the running kernel, packet by packet.
#[derive(Args)]
pub struct Oracle {
    /// How many packets to send.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// The seed of the traffic; the same seed, the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// IPv4 only.
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only.
    #[arg(long)]
    ipv6: bool,
    /// Which traffic; all kinds in turn if none is named.
    #[arg(long)]
    grammar: Vec<Grammar>,
    /// How many different divergences to make short and print.
    #[arg(long, default_value_t = 10)]
    show: usize,
    /// Play one written ledger instead.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Play one capture (pcap, pcapng) instead.
    #[arg(long)]
    capture: Option<PathBuf>,
    /// Also fill the table: lowers nf_conntrack_max of the whole machine for a moment.
    #[arg(long)]
    full: bool,
    /// Succeed where the kernel cannot be asked.
    #[arg(long)]
    skip_ok: bool,
}

impl Oracle {
    /// Runs it, and says how it went.
    pub fn run(self) -> Result<ExitCode> {
        let missing = missing_requirements();
        if !missing.is_empty() {
            eprintln!("SKIPPED: oracle (needs root, /dev/net/tun, nft and ip): {}", missing.join("; "));
            return Ok(if self.skip_ok { ExitCode::SUCCESS } else { ExitCode::from(2) });
        }
        let limit = if self.full { Some(conntrack_max::ConntrackMax::open()?) } else { None };
        let routes = if self.capture.is_some() { Routes::OneWay } else { Routes::TwoNetworks };
        let mut kernel = kernel::KernelNetns::create(routes)?;
        if let Some(limit) = &limit {
            table_full::run(&mut kernel, limit)?;
        }
        let mut judges = Comparator::new(kernel)?;
        if let Some(path) = &self.scenario {
            return run_scenario_file(&mut judges, path);
        }
        if let Some(path) = &self.capture {
            let divergences = run::run_capture(&mut judges, &capture::read_capture(path)?)?;
            return Ok(if divergences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let families = match (self.ipv4, self.ipv6) {
            (true, _) => vec![false],
            (_, true) => vec![true],
            _ => vec![false, true],
        };
        let grammars = if self.grammar.is_empty() {
            vec![
                Grammar::Mixed,
                Grammar::Tcp,
                Grammar::Mixed,
                Grammar::Fragments,
                Grammar::Mixed,
                Grammar::Sctp,
                Grammar::Tcp,
                Grammar::Icmp,
                Grammar::Ftp,
            ]
        } else {
            self.grammar
        };
        let plan = run::OracleConfig { packets: self.packets, seed: self.seed, families, grammars, show: self.show };
        let divergences = run::run(&mut judges, &plan)?;
        Ok(if divergences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What keeps us from asking the kernel, and what to do about it.
fn missing_requirements() -> Vec<&'static str> {
    let runs = |program| Command::new(program).arg("-V").output().is_ok();
    let mut missing = Vec::new();
    for (there, what) in [
        (syscalls::is_root(), "not root"),
        (Path::new("/dev/net/tun").exists(), "no /dev/net/tun (modprobe tun)"),
        (runs("nft"), "no nft (apt-get install nftables)"),
        (runs("ip"), "no ip (apt-get install iproute2)"),
    ] {
        if !there {
            missing.push(what);
        }
    }
    missing
}

/// Plays a ledger and prints what both say of each line.
fn run_scenario_file(judges: &mut Comparator, path: &Path) -> Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let story = scenario_file::read_scenario(&text).with_context(|| path.display().to_string())?;
    for (step, remark) in story.steps.iter().zip(run::annotate(judges, &story)?) {
        println!("{}   {remark}", scenario_file::describe(step));
    }
    let divergences = judges.run_scenario(&story, CompareMode::EveryStep)?.divergences;
    for divergence in &divergences {
        println!(
            "line {}: {}\n  kernel: {}\n  engine: {}",
            divergence.step_index + 1,
            divergence.kind,
            divergence.kernel,
            divergence.engine
        );
    }
    Ok(if divergences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
