//! The fleet: this machine as one of its nodes, and the commands that ask all of them. Nothing is changed at a node.
pub(crate) mod answers;
pub(crate) mod doctor;
mod fleet_file;
pub(crate) mod list;
mod node_list;
mod node_view;
pub(crate) mod watcher;

use anyhow::{Context, Result};
use clap::Args;
pub(crate) use fleet_file::{DEFAULT_FLEET_FILE, FleetFile};
use keepstate_cluster::NodeName;
use keepstate_nats::fleet::{FleetClient, NodeRecord};
use std::path::{Path, PathBuf};

/// `--fleet` of a command.
#[derive(Args, Clone, Debug, Default)]
pub struct FleetArgs {
    /// The fleet that this file describes: its name, its NATS servers, this node's name
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT_FLEET_FILE)]
    pub fleet: Option<PathBuf>,
}

/// A fleet that is asked.
#[derive(Debug)]
struct AskedFleet {
    client: FleetClient,
    /// Nodes that should be there.
    expected: Vec<NodeName>,
}

impl AskedFleet {
    /// Reads the file and connects.
    fn open(path: &Path) -> Result<AskedFleet> {
        AskedFleet::connect(&FleetFile::read(path)?).with_context(|| path.display().to_string())
    }

    fn connect(file: &FleetFile) -> Result<AskedFleet> {
        let client = FleetClient::connect(&file.nats, file.fleet.clone())
            .with_context(|| format!("cannot ask fleet {}", file.fleet))?;
        Ok(AskedFleet { client, expected: file.expected.clone() })
    }

    /// The nodes that have registered and those that should have, by name.
    fn nodes(&self) -> Result<Vec<NodeRecord>> {
        let mut nodes = self.client.nodes()?;
        for name in &self.expected {
            if !nodes.iter().any(|node| node.name == name.as_str()) {
                nodes.push(NodeRecord::missing(name.to_string()));
            }
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }
}

/// What a node has sent, without what a terminal would take as a command.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}
