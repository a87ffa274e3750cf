//! `keepstate size`: how large the conntrack table should be, and why: for a described load, or for the live table.
pub(crate) mod demand;
pub(crate) mod gather;
mod text_report;

use crate::shared_args::{self, KernelVersionArg};
use crate::unit_args;
use anyhow::{Context, Result};
use clap::Args;
use demand::DemandArgs;
pub use demand::ProfileArg;
use keepstate_advisor::size::{self, SizeAdvice, SizingMachine, Workload, kernel_defaults};
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_linux::SysRoot;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compute the table size and its memory, with reasons: for a described load, or for the live table.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SizeCommand {
    #[command(flatten)]
    demand: DemandArgs,
    /// Size for this much memory, like 4G or 512M [default: this machine's]
    #[arg(long, value_name = "SIZE", value_parser = shared_args::parse_size, help_heading = "Machine")]
    memory: Option<u64>,
    /// Size for this many CPUs [default: this machine's]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Machine")]
    cpus: Option<u64>,
    /// Network namespaces that share the table [default: the ones found]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Machine")]
    namespaces: Option<u64>,
    /// Size for this kernel's defaults and object sizes [default: this machine's]
    #[arg(long, value_name = "VERSION", help_heading = "Machine")]
    as_linux: Option<KernelVersionArg>,
    /// Assume this sysctl: nf_conntrack_tcp_timeout_established=21600 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = sysctl::parse_setting, help_heading = "Machine")]
    settings: Vec<String>,
    /// Read another machine's files: a directory with its proc and sys
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    from: Option<PathBuf>,
    /// Time between two readings of the live counters [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    interval: Option<u64>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # for the live table of this machine
  keepstate size
  # an MQTT broker with a million clients and a keepalive of 60 s
  keepstate size --profile mqtt-broker --connections 1M --keepalive 60s
  # a NAT gateway, by its traffic
  keepstate size --profile nat-gateway --rate 2000/s --lifetime 45s --udp-rate 800/s
  # another machine: its memory and kernel, or the files of a support bundle
  keepstate size --connections 200k --lifetime 1h --memory 4G --as-linux 5.15
  keepstate size --from ./bundle --json

Give two of --connections, --rate and --lifetime: connections = rate × lifetime.
Nothing is changed; to apply the sizes: keepstate tune.
Exit codes: 0 done, 1 read or write error, 2 usage error";

impl SizeCommand {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.interval.is_some() && self.demand.is_given() {
            return Err("--interval reads the live table and cannot be combined with a described load".into());
        }
        if self.interval.is_some() && self.from.is_some() {
            return Err("--interval reads the live table and cannot be combined with --from".into());
        }
        self.demand.check()
    }

    /// Prints the advice.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self) -> Result<ExitCode> {
        let root = self.from.as_ref().map_or_else(SysRoot::live, SysRoot::at);
        if let Some(directory) = self.from.as_ref().filter(|directory| !directory.is_dir()) {
            anyhow::bail!("{} is not a directory: --from needs a directory with proc and sys", directory.display());
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

    /// The machine to size for: this one, or a described one.
    fn machine(&self, root: &SysRoot) -> Result<SizingMachine> {
        let mut machine = match (self.as_linux, self.memory) {
            (None, None) => gather::read_machine(root)?,
            // Another machine: this one's sysctls do not matter.
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

/// The JSON document.
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
