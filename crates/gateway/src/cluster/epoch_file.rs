//! The highest epochs of a gateway's shards on this machine's disk, a file each, written by a thread that can do nothing else: whoever waits for a disk renews no lease.
use super::config::{ClusterConfig, ShardConfig};
use anyhow::{Context, Result, anyhow};
use keepstate_cluster::{Epoch, StateTransport};
use keepstate_linux::SysRoot;
use keepstate_linux::atomic_file;
use keepstate_linux::file_access::FileAccess;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// What names are looked up by, and the system's certificates.
const READ_BY_TRANSPORT: [&str; 4] = ["/etc", "/usr/share", "/usr/lib", "/proc"];

/// The thread that writes epochs.
pub(super) struct EpochWriter {
    /// Those on the disk at the start, by shard.
    pub(super) stored: Vec<Epoch>,
    wanted: Sender<(usize, Epoch)>,
    done: Receiver<WrittenEpoch>,
}

/// Of a shard, an epoch that was written, or why not.
pub(super) type WrittenEpoch = (usize, Result<Epoch, String>);

/// Starts that thread and, with the same few rights to files, the transport.
///
/// # Errors
/// The directory or the file in it cannot be used; the transport's files cannot be.
pub(super) fn start(config: &ClusterConfig) -> Result<(EpochWriter, Box<dyn StateTransport>)> {
    let directory = std::path::absolute(&config.directory)?;
    fs::create_dir_all(&directory)
        .with_context(|| format!("cluster: cannot make the directory {}", directory.display()))?;
    let path = |shard: &ShardConfig| directory.join(format!("{}.{}.epoch", config.cluster, shard.name));
    let paths: Vec<PathBuf> = config.shards().map(path).collect();
    let stored = paths.iter().map(|path| read_epoch(path)).collect::<Result<Vec<Epoch>>>()?;
    // Before anything is decided by them: a disk that cannot be written is told now.
    paths.iter().zip(&stored).try_for_each(|(path, epoch)| write_epoch(path, *epoch))?;
    let mut access =
        READ_BY_TRANSPORT.iter().fold(FileAccess::default().write(&directory), |all, path| all.read(*path));
    for file in config.servers.files() {
        access = access.read(file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    }
    let (wanted, requests) = channel();
    let (answers, done) = channel();
    let (started, transport) = sync_channel(1);
    let config = config.clone();
    let thread = std::thread::Builder::new().name("epoch".into());
    thread.spawn(move || {
        let transport = access.limit_thread().context("limiting access to files").and_then(|_| {
            let starter = config.transport.as_ref().ok_or_else(|| anyhow!("cluster: nothing carries its frames"))?;
            (starter.0)(&config)
        });
        if started.send(transport).is_ok() {
            write_all(&paths, &requests, &answers);
        }
    })?;
    let transport = transport.recv().context("the cluster's thread has ended")??;
    Ok((EpochWriter { stored, wanted, done }, transport))
}

fn write_all(paths: &[PathBuf], requests: &Receiver<(usize, Epoch)>, answers: &Sender<WrittenEpoch>) {
    while let Ok((shard, epoch)) = requests.recv() {
        let Some(path) = paths.get(shard) else { continue };
        let written = write_epoch(path, epoch).map(|()| epoch).map_err(|error| format!("{error:#}"));
        if answers.send((shard, written)).is_err() {
            return;
        }
    }
}

/// The epoch in a file; 0 if there is none.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn read_epoch(path: &Path) -> Result<Epoch> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Epoch).map_err(|_| {
            anyhow!(
                "{} is no epoch: it must hold one number. Write the highest epoch that keepstate control cluster shows on the other gateways into it",
                path.display()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Epoch(0)),
        Err(error) => Err(error).with_context(|| format!("cluster: cannot read {}", path.display())),
    }
}

/// Writes it, whole and for good.
///
/// # Errors
/// The system's.
pub fn write_epoch(path: &Path, epoch: Epoch) -> Result<()> {
    Ok(atomic_file::write(&SysRoot::live(), path, format!("{epoch}\n").as_bytes(), 0o600)?)
}

impl EpochWriter {
    /// Asks for an epoch of a shard to be written.
    pub(super) fn store(&self, shard: usize, epoch: Epoch) {
        // A thread that has ended answers nothing, so nobody becomes active by this epoch.
        let _ = self.wanted.send((shard, epoch));
    }

    /// What has been written, or why not.
    pub(super) fn poll(&self) -> Option<WrittenEpoch> {
        self.done.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.main.epoch");
        assert_eq!(read_epoch(&path).unwrap(), Epoch(0));
        write_epoch(&path, Epoch(u64::MAX)).unwrap();
        assert_eq!(read_epoch(&path).unwrap(), Epoch(u64::MAX));
        for text in ["", "-1", "1 2", "18446744073709551616"] {
            fs::write(&path, text).unwrap();
            assert!(read_epoch(&path).is_err_and(|error| error.to_string().contains("is no epoch")), "{text:?}");
        }
    }
}
