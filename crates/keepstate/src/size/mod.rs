//! `keepstate size`: how large the table should be, and why: for a demand that is described, or for what the live table carries.
pub(crate) mod demand;
pub(crate) mod gather;
mod text_report;

use crate::shared_args::{self, KernelVersionArg};
use anyhow::{Context, Result};
use clap::Args;
use demand::DemandArgs;
pub use demand::ProfileArg;
use keepstate_advisor::size::{self, SizeAdvice, SizingMachine, Workload, kernel_defaults};
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_gateway::unit_args;
use keepstate_linux::SysRoot;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// How large should the table be, and why: for a demand, or for what this machine carries now.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SizeCommand {
    #[command(flatten)]
    demand: DemandArgs,
    /// Size for this much memory, like 4G or 512M [default: this machine's]
    #[arg(long, value_name = "SIZE", value_parser = shared_args::parse_size, help_heading = "Machine")]
    memory: Option<u64>,
    /// Size for so many processors [default: this machine's]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Machine")]
    cpus: Option<u64>,
    /// Network namespaces that share the table [default: those found]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Machine")]
    namespaces: Option<u64>,
    /// Size for this kernel's defaults and object sizes [default: this machine's]
    #[arg(long, value_name = "VERSION", help_heading = "Machine")]
    as_linux: Option<KernelVersionArg>,
    /// As if this knob were set: nf_conntrack_tcp_timeout_established=21600 (may be given several times)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = sysctl::parse_setting, help_heading = "Machine")]
    settings: Vec<String>,
    /// Read another machine's files: a directory with its proc and sys below
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    from: Option<PathBuf>,
    /// How long to watch the live counters, when no demand is given [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    interval: Option<u64>,
    /// Print one JSON document instead of a page
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # for what this machine's table carries now
  keepstate size
  # a broker with a million clients that ping each minute
  keepstate size --profile mqtt-broker --connections 1M --keepalive 60s
  # a gateway, by what passes through it
  keepstate size --profile nat-gateway --rate 2000/s --lifetime 45s --udp-rate 800/s
  # another machine: its memory and kernel, or the files of a support bundle
  keepstate size --connections 200k --lifetime 1h --memory 4G --as-linux 5.15
  keepstate size --from ./bundle --json

Of --connections, --rate and --lifetime two are enough: those that live are those that
come each second times how long they stay. Nothing is changed; to change it: keepstate tune.
Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked";

impl SizeCommand {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.interval.is_some() && self.demand.is_given() {
            return Err("--interval watches the live table, but a demand was given: leave one of them out".into());
        }
        if self.interval.is_some() && self.from.is_some() {
            return Err("--interval watches the live table; the files below --from do not change".into());
        }
        self.demand.check()
    }

    /// Prints what is advised.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self) -> Result<ExitCode> {
        let root = self.from.as_ref().map_or_else(SysRoot::live, SysRoot::at);
        if let Some(directory) = self.from.as_ref().filter(|directory| !directory.is_dir()) {
            anyhow::bail!("{} is no directory: --from takes one with proc and sys below it", directory.display());
        }
        let machine = self.machine(&root)?;
        let need = match self.demand.is_given() {
            true => Workload::Demand(self.demand.demand()),
            false => Workload::Observed(gather::observe_load(&root, self.interval.unwrap_or(2000))?),
        };
        let size = size::size(&need, &machine);
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &json_document(&need, &machine, &size))?;
            writeln!(out)?;
        } else {
            text_report::write(&mut out, &need, &machine, &size)?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// The machine sized for: this one, or one that is described.
    fn machine(&self, root: &SysRoot) -> Result<SizingMachine> {
        let mut machine = match (self.as_linux, self.memory) {
            (None, None) => gather::read_machine(root)?,
            // Another machine: nothing of how this one is set matters.
            (version, memory) => {
                let memory = memory.or_else(|| gather::read_memory(root).total).unwrap_or(8 << 30);
                let here =
                    || gather::kernel_release(root).and_then(|release| kernel_defaults::version_of_release(&release));
                let generation = version.map(KernelVersionArg::kernel_version).or_else(here).unwrap_or_default();
                SizingMachine { cpus: keepstate_linux::cpus::online(root), ..SizingMachine::new(generation, memory) }
            }
        };
        for setting in &self.settings {
            sysctl::apply_setting(setting, &mut machine.knobs).context("in --set")?;
        }
        machine.cpus = self.cpus.or(machine.cpus);
        machine.namespaces = self.namespaces.unwrap_or(machine.namespaces);
        Ok(machine)
    }
}

/// What a script reads.
fn json_document(need: &Workload, machine: &SizingMachine, size: &SizeAdvice) -> serde_json::Value {
    let (demand, observed) = match need {
        Workload::Demand(demand) => (Some(demand), None),
        Workload::Observed(seen) => (None, Some(seen)),
    };
    serde_json::json!({
        "schema": "keepstate.size/1",
        "demand": demand,
        "observed": observed,
        "machine": {
            "memory": machine.memory,
            "available": machine.available,
            "cpus": machine.cpus,
            "kernel": machine.release,
            "defaults_of": kernel_defaults::kernel_range(machine.kernel_version),
            "namespaces": machine.namespaces,
            "nf_conntrack_max": machine.max,
            "nf_conntrack_buckets": machine.buckets,
        },
        "nf_conntrack_max": size.max,
        "nf_conntrack_buckets": size.buckets,
        "hashsize": size.buckets.value,
        "headroom": size.headroom,
        "max_with_present_timeouts": size.max_with_present_timeouts,
        "load": size.load,
        "memory": size.memory,
        "lists": size.lists,
        "timeouts": size.timeouts,
        "kernel_defaults": size.defaults,
        "warnings": size.warnings,
    })
}
