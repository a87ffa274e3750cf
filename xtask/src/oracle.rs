//! `cargo xtask oracle`: sends the same packets through the running kernel's conntrack and through the engine, and compares the results.
//!
//! Packet by packet: what `ct state` and `ct direction` match. Connection by connection: tuples, state, status bits, remaining time,
//! counters. For a difference, the shortest scenario that shows it is printed, and the exit code is 1.
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod capture;
mod capture_rewrite;
mod comparator;
mod conntrack_max;
mod coverage;
mod ctnetlink_dump;
mod ctnetlink_events;
mod divergence;
mod event_row;
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

/// Compare the engine with the running kernel's conntrack, packet by packet
#[derive(Args)]
pub struct Oracle {
    /// Number of packets to send
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Seed of the generated traffic
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// IPv4 only
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(long)]
    ipv6: bool,
    /// Kind of traffic; all kinds in turn by default
    #[arg(long)]
    grammar: Vec<Grammar>,
    /// Run one scenario of the seed alone: its number, as a divergence names it; with the same --grammar, --ipv4 and --ipv6
    #[arg(long)]
    number: Option<usize>,
    /// Number of different divergences to shrink and print
    #[arg(long, default_value_t = 10)]
    show: usize,
    /// Run one scenario file instead
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Run one capture (pcap, pcapng) instead
    #[arg(long)]
    capture: Option<PathBuf>,
    /// Also test a full table; lowers nf_conntrack_max of the whole machine for a moment
    #[arg(long)]
    full: bool,
    /// Exit with 0, not 2, if the requirements are missing
    #[arg(long)]
    skip_ok: bool,
}

impl Oracle {
    /// Exit code 0: no divergence; 1: divergences; 2: skipped.
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
        let mut comparator = Comparator::new(kernel)?;
        if let Some(path) = &self.scenario {
            return run_scenario_file(&mut comparator, path);
        }
        if let Some(path) = &self.capture {
            let divergences = run::run_capture(&mut comparator, &capture::read_capture(path)?)?;
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
        let plan = run::OracleConfig {
            packets: self.packets,
            seed: self.seed,
            families,
            grammars,
            show: self.show,
            number: self.number,
        };
        let divergences = run::run(&mut comparator, &plan)?;
        Ok(if divergences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Missing requirements, and how to install them.
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

/// Runs a scenario file and prints both verdicts of each line.
fn run_scenario_file(comparator: &mut Comparator, path: &Path) -> Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let scenario = scenario_file::read_scenario(&text).with_context(|| path.display().to_string())?;
    for (step, remark) in scenario.steps.iter().zip(run::annotate(comparator, &scenario)?) {
        println!("{}   {remark}", scenario_file::describe(step));
    }
    let divergences = comparator.run_scenario(&scenario, CompareMode::EveryStep)?.divergences;
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
