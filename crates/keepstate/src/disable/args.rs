//! Options of `keepstate disable`.
use super::mgmt_port::{self, MgmtPort};
use super::service::ServicePort;
use clap::Args;
use std::path::PathBuf;

/// Check whether connection tracking can be turned off here, and exempt single services from it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Disable {
    /// Print nftables notrack rules for these services: tcp/1883,tcp/8883
    #[arg(long, value_name = "PROTOCOL/PORT", value_delimiter = ',')]
    pub(super) ports: Vec<ServicePort>,
    /// Exempt only connections to this machine; forwarded ones, and its own to other servers, stay tracked
    #[arg(long, requires = "ports")]
    pub(super) server_only: bool,
    /// Keep this service reachable when the table is full: PROTOCOL/PORT, or none [default: the port of this SSH session]
    #[arg(long, value_name = "SERVICE", requires = "ports", value_parser = mgmt_port::parse)]
    pub(super) lifeline: Option<MgmtPort>,
    /// Write the rules to this file instead of standard output
    #[arg(short = 'o', long = "output", value_name = "FILE.nft", requires = "ports")]
    pub(super) file: Option<PathBuf>,
    /// Load the rules now, all or none, as table inet keepstate_notrack, replacing an earlier one
    #[arg(long, requires = "ports")]
    pub(super) apply: bool,
    /// Remove table inet keepstate_notrack
    #[arg(long, conflicts_with_all = ["ports", "unload", "json"])]
    pub(super) remove: bool,
    /// Print the commands that unload the module and block it; refused if anything depends on it
    #[arg(long, conflicts_with_all = ["ports", "netns"])]
    pub(super) unload: bool,
    /// Only this network namespace: its name, or the id of a process in it
    #[arg(long, value_name = "NAME")]
    pub(super) netns: Option<String>,
    /// Go on although rules may conflict; a rule that translates exactly this port is never ignored
    #[arg(long, requires = "ports")]
    pub(super) force: bool,
    /// Check at most this many network namespaces
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    pub(super) namespaces: usize,
    /// Print one JSON document (schema keepstate.disable/1)
    #[arg(long)]
    pub(super) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # what depends on connection tracking, in every network namespace
  sudo keepstate disable
  # notrack rules for an MQTT broker, to read first
  sudo keepstate disable --ports tcp/1883,tcp/8883 -o notrack.nft
  # load them now, keeping SSH reachable; and remove them
  sudo keepstate disable --ports tcp/1883,tcp/8883 --lifeline tcp/22 --apply
  sudo keepstate disable --remove
  # in another namespace
  sudo keepstate disable --netns broker --ports tcp/1883 --server-only
  # how to unload the module
  sudo keepstate disable --unload

Without --apply and --remove nothing is changed. What could not be checked is
listed: without root, that is most of it.
Exit codes: 0 it can be turned off, or done; 1 something depends on it or conflicts;
2 usage error; 3 unknown, too little could be checked";

impl Disable {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.namespaces == 0 {
            return Err("--namespaces must be at least 1".into());
        }
        if self.json && self.file.is_some() {
            return Err("--json includes the rules: it cannot be combined with -o".into());
        }
        Ok(())
    }
}
