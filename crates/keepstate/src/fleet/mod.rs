//! The fleet: this machine as one of its nodes, and the commands that ask all of them. Nothing is changed at a node.
pub(crate) mod answers;
pub(crate) mod doctor;
mod fleet_file;
pub(crate) mod list;
mod node_list;

use anyhow::{Context, Result};
use clap::Args;
pub(crate) use fleet_file::{DEFAULT_FLEET_FILE, FleetFile};
use keepstate_nats::fleet::FleetClient;
use std::path::{Path, PathBuf};

/// `--fleet` of a command.
#[derive(Args, Clone, Debug, Default)]
pub struct FleetArgs {
    /// The fleet that this file describes: its name, its NATS servers, this node's name
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT_FLEET_FILE)]
    pub fleet: Option<PathBuf>,
}

/// Reads the file and connects.
fn connect(path: &Path) -> Result<FleetClient> {
    let file = FleetFile::read(path)?;
    let name = file.fleet.to_string();
    FleetClient::connect(&file.nats, file.fleet)
        .with_context(|| format!("cannot ask fleet {name} ({})", path.display()))
}

/// What a node has sent, without what a terminal would take as a command.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}
