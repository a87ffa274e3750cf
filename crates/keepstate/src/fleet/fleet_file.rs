//! The file that says which fleet this machine belongs to and how its NATS servers are reached.
use anyhow::{Context, Result, anyhow, ensure};
use keepstate_cluster::NodeName;
use keepstate_gateway::toml_file;
use keepstate_nats::NatsOptions;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where it is, if nothing else is said.
pub(crate) const DEFAULT_FLEET_FILE: &str = "/etc/keepstate/fleet.toml";

/// The keys of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FleetKeys {
    fleet: String,
    node: Option<String>,
    #[serde(default = "is_node_by_default")]
    register: bool,
    #[serde(default)]
    nodes: Vec<String>,
    servers: Vec<String>,
    credentials: Option<PathBuf>,
    user_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// A fleet, and this node in it.
#[derive(Clone, Debug)]
pub(crate) struct FleetFile {
    pub(crate) fleet: NodeName,
    pub(crate) node: NodeName,
    /// Is this machine one of its nodes? If not, it only asks.
    pub(crate) register: bool,
    /// Nodes that should be there, registered or not.
    pub(crate) expected: Vec<NodeName>,
    pub(crate) nats: NatsOptions,
}

impl FleetFile {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub(crate) fn read(path: &Path) -> Result<FleetFile> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}: it names the fleet and its NATS servers; the book's chapter on the fleet has one",
                path.display()
            )
        })?;
        let file = FleetFile::parse(path, &text)?;
        file.nats.check().with_context(|| path.display().to_string())?;
        Ok(file)
    }

    fn parse(path: &Path, text: &str) -> Result<FleetFile> {
        let keys: FleetKeys = toml_file::parse(&path.to_string_lossy(), text)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let beside = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        let named = |key: &str, name: &str| {
            name.parse::<NodeName>().map_err(|error| anyhow!("{}: {key}: {error}", path.display()))
        };
        ensure!(
            !keys.servers.is_empty(),
            "{}: servers: at least one address is needed: \"nats://HOST:4222\"",
            path.display()
        );
        let node = match &keys.node {
            Some(node) => named("node", node)?,
            None => named("node (this machine's name is not one: write node = \"NAME\")", &host_name())?,
        };
        let nats = NatsOptions {
            servers: keys.servers,
            credentials: beside(keys.credentials),
            user_file: beside(keys.user_file),
            ca_file: beside(keys.ca_file),
            certificate: beside(keys.certificate),
            key: beside(keys.key),
            client_name: format!("keepstate {node}"),
        };
        let expected = keys.nodes.iter().map(|name| named("nodes", name)).collect::<Result<_>>()?;
        Ok(FleetFile { fleet: named("fleet", &keys.fleet)?, node, register: keys.register, expected, nats })
    }
}

fn is_node_by_default() -> bool {
    true
}

/// The first part of the host's name.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn parse(text: &str) -> Result<FleetFile> {
        FleetFile::parse(Path::new("/etc/keepstate/fleet.toml"), text)
    }

    #[test]
    fn files_stand_beside_the_fleet_file() {
        let file = parse("fleet = \"site\"\nnode = \"gw1\"\nservers = [\"tls://a\"]\ncredentials = \"site.creds\"\nca-file = \"/ca.pem\"").unwrap();
        assert_eq!((file.fleet.as_str(), file.node.as_str()), ("site", "gw1"));
        assert_eq!(file.nats.credentials, Some("/etc/keepstate/site.creds".into()));
        assert_eq!(file.nats.ca_file, Some("/ca.pem".into()));
        assert!(file.register && file.expected.is_empty());
    }

    #[test]
    fn faults_are_said_with_their_place() {
        for (text, wanted) in [
            ("fleet = \"site\"", "servers"),
            ("fleet = \"site\"\nservers = []", "at least one"),
            ("fleet = \"a.b\"\nnode = \"n\"\nservers = [\"a\"]", "fleet: \"a.b\""),
            ("fleet = \"a\"\nnode = \"*\"\nservers = [\"a\"]", "node: \"*\""),
            ("fleet = \"a\"\nnode = \"n\"\nservers = [\"a\"]\nnodes = [\"b\", \"c.d\"]", "nodes: \"c.d\""),
            ("fleet = \"a\"\nserver = [\"a\"]", "did you mean `servers`"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(wanted) && error.contains("fleet.toml"), "{text}: {error}");
        }
    }
}
