//! The file of `keepstate sync`: `version = 1` and the table `[cluster]` of a gateway's file.
use crate::gateway::cluster_transport;
use anyhow::{Context, Result, ensure};
use keepstate_cluster::{Epoch, StateTransport};
use keepstate_gateway::cluster::{self, ClusterConfig};
use keepstate_gateway::gateway_file::{ClusterSettings, SettingOrigin};
use keepstate_gateway::toml_file::{self, TomlDiagnostic, TomlFileError};
use keepstate_sync::StoreEpoch;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Another one than a gateway's: both may be in one cluster, and neither can use the other's table.
const DEFAULT_SHARD: &str = "linux";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncKeys {
    version: u64,
    cluster: ClusterSettings,
}

/// One machine's settings.
pub(super) struct SyncFile {
    pub(super) cluster: ClusterConfig,
    epoch_file: PathBuf,
}

impl SyncFile {
    /// Reads and checks it, with the files that it names.
    pub(super) fn read(path: &Path) -> Result<SyncFile> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}: it names the cluster and its NATS servers; keepstate sync --help has one",
                path.display()
            )
        })?;
        SyncFile::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<SyncFile> {
        let name = path.to_string_lossy();
        let mut keys: SyncKeys = toml_file::parse(&name, text)?;
        ensure!(keys.version == 1, "{name}: this keepstate reads version 1 of the format, not {}", keys.version);
        keys.cluster.resolve_paths(path.parent().unwrap_or(Path::new(".")));
        let mut found = keys.cluster.faults();
        if let Some(shards) = &keys.cluster.shards {
            let message = "keepstate sync has one shard, the whole table of this machine: write shard and address";
            found.push((Some(shards.origin.clone()), message.to_owned()));
        }
        if let Some(takeover) = &keys.cluster.takeover {
            let message = "keepstate sync moves no address: leave takeover out, keepalived or the like does it";
            found.push((Some(takeover.origin.clone()), message.to_owned()));
        }
        let faults: Vec<TomlDiagnostic> = found.into_iter().map(diagnostic).collect();
        if !faults.is_empty() {
            return Err(TomlFileError::new(&name, text, faults).into());
        }
        let is_named = keys.cluster.shard.is_some();
        let mut cluster = keys.cluster.config()?;
        if !is_named {
            cluster.first_shard.name = DEFAULT_SHARD.parse()?;
        }
        cluster_transport::check(&cluster).with_context(|| name.into_owned())?;
        let epoch_file = cluster.directory.join(format!("sync.{}.{}.epoch", cluster.cluster, cluster.first_shard.name));
        Ok(SyncFile { cluster, epoch_file })
    }

    /// The epoch on this machine's disk; a disk that cannot be written is told now.
    pub(super) fn stored_epoch(&self) -> Result<Epoch> {
        let folder = &self.cluster.directory;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let stored = cluster::read_epoch(&self.epoch_file)?;
        cluster::write_epoch(&self.epoch_file, stored)?;
        Ok(stored)
    }

    /// What writes epochs there.
    pub(super) fn epoch_store(&self) -> StoreEpoch {
        let path = self.epoch_file.clone();
        Box::new(move |epoch| {
            cluster::write_epoch(&path, epoch).map_err(|error| io::Error::other(format!("{error:#}")))
        })
    }

    /// What carries the frames.
    pub(super) fn transport(&self) -> Result<Box<dyn StateTransport>> {
        cluster_transport::start(&self.cluster)
    }
}

fn diagnostic((origin, message): (Option<SettingOrigin>, String)) -> TomlDiagnostic {
    let span = match origin {
        Some(SettingOrigin::File(span)) => span,
        _ => 0..0,
    };
    TomlDiagnostic { span, message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn parse(text: &str) -> Result<SyncFile> {
        SyncFile::parse(Path::new("/etc/keepstate/sync.toml"), text)
    }

    #[test]
    fn a_file_names_the_cluster_and_nothing_else() {
        let file = parse("version = 1\n[cluster]\nnode = \"fw1\"\nservers = [\"nats://a:4222\"]\ndirectory = \"here\"")
            .unwrap();
        assert_eq!(file.epoch_file, Path::new("/etc/keepstate/here/sync.keepstate.linux.epoch"));
        for (text, wanted) in [
            ("[cluster]\nnode = \"a\"", "version"),
            (
                "version = 1\n[cluster]\nnode = \"a\"\nservers = [\"nats://a\"]\nshards = [{ name = \"x\", address = [\"192.0.2.1\"] }]",
                "keepstate sync has one shard",
            ),
            ("version = 2\n[cluster]\nnode = \"a\"\nservers = [\"a\"]", "not 2"),
            ("version = 1", "cluster"),
            ("version = 1\n[cluster]\nservers = [\"nats://a\"]", "node = \"NAME\""),
            ("version = 1\n[cluster]\nnode = \"a\"\nservers = []", "servers"),
            ("version = 1\nruleset = \"r\"\n[cluster]\nnode = \"a\"\nservers = [\"a\"]", "ruleset"),
            ("version = 1\n[cluster]\nnode = \"a.b\"\nservers = [\"a\"]", "a.b"),
            ("version = 1\n[cluster]\nnode = \"a\"\nserver = \"a\"", "sync.toml"),
        ] {
            let error = format!("{:#}", parse(text).err().unwrap());
            assert!(error.contains(wanted) && error.contains("sync.toml"), "{text}: {error}");
        }
    }
    #[test]
    fn the_books_file_is_taken() {
        let page =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src/two-firewalls.md"));
        let page = page.unwrap();
        let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        // Its files are those of the machine it is for.
        let block: String =
            block.lines().filter(|line| !line.contains("-file =")).map(|line| format!("{line}\n")).collect();
        let file = parse(&block.replace("tls://", "nats://")).unwrap();
        assert_eq!((file.cluster.node.as_str(), file.cluster.first_shard.addresses.len()), ("fw1", 2));
    }
}
