//! Options of `keepstate tune`: what to change, and on which machine.
use crate::shared_args;
use crate::size::demand::DemandArgs;
use crate::unit_args;
use anyhow::{Result, bail};
use clap::Args;
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_linux::SysRoot;
use std::path::PathBuf;

/// This machine, or the files of another one.
#[derive(Args, Clone, Debug, Default)]
pub struct RootArgs {
    /// Work on the files of an image, below this directory
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// What to change, and where.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub demand: DemandArgs,
    /// Set nf_conntrack_max, the limit
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Sysctls")]
    pub max: Option<u64>,
    /// Set nf_conntrack_buckets [default: same as the limit, if that is changed]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Sysctls")]
    pub buckets: Option<u64>,
    /// Set another sysctl: nf_conntrack_tcp_timeout_established=21600 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = sysctl::parse_setting, help_heading = "Sysctls")]
    pub settings: Vec<String>,
    /// Keep the values over a reboot: write our own files in /etc
    #[arg(long)]
    pub persist: bool,
    /// Allow a limit below the current number of connections
    #[arg(long)]
    pub force: bool,
    /// Size for this much memory instead of this machine's
    #[arg(long, value_name = "SIZE", value_parser = shared_args::parse_size, hide = true)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub here: RootArgs,
}

impl PlanArgs {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.demand.is_given() { self.demand.check() } else { Ok(()) }
    }
}

impl RootArgs {
    /// The root to work on.
    ///
    /// # Errors
    /// If the directory does not exist.
    pub fn root(&self) -> Result<SysRoot> {
        match &self.root {
            None => Ok(SysRoot::live()),
            Some(directory) if directory.is_dir() => {
                let root = SysRoot::at(directory);
                if root.is_live() || root.is_live_by_another_name() {
                    bail!(
                        "--root {} is this machine's /: leave --root out to change this machine",
                        directory.display()
                    );
                }
                Ok(root)
            }
            Some(directory) => bail!("--root {}: no such directory", directory.display()),
        }
    }
}
