//! A shard's highest epoch on this machine's disk, written by a thread that can do nothing else: whoever waits for a disk renews no lease.
use super::config::ClusterConfig;
use anyhow::{Context, Result, anyhow};
use keepstate_cluster::{Epoch, StateTransport};
use keepstate_linux::SysRoot;
use keepstate_linux::atomic_file;
use keepstate_linux::file_access::FileAccess;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// What names are looked up by, and the system's certificates.
const READ_BY_TRANSPORT: [&str; 4] = ["/etc", "/usr/share", "/usr/lib", "/proc"];

/// The thread that writes epochs.
pub(super) struct EpochWriter {
    /// The one on the disk at the start.
    pub(super) stored: Epoch,
    wanted: Sender<Epoch>,
    done: Receiver<Result<Epoch, String>>,
}

/// Starts that thread and, with the same few rights to files, the transport.
///
/// # Errors
/// The directory or the file in it cannot be used; the transport's files cannot be.
pub(super) fn start(config: &ClusterConfig) -> Result<(EpochWriter, Box<dyn StateTransport>)> {
    let directory = std::path::absolute(&config.directory)?;
    fs::create_dir_all(&directory)
        .with_context(|| format!("cluster: cannot make the directory {}", directory.display()))?;
    let path = directory.join(format!("{}.{}.epoch", config.cluster, config.shard));
    let stored = read_epoch(&path)?;
    // Before anything is decided by it: a disk that cannot be written is told now.
    write_epoch(&path, stored)?;
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
            write_all(&path, &requests, &answers);
        }
    })?;
    let transport = transport.recv().context("the cluster's thread has ended")??;
    Ok((EpochWriter { stored, wanted, done }, transport))
}

fn write_all(path: &Path, requests: &Receiver<Epoch>, answers: &Sender<Result<Epoch, String>>) {
    while let Ok(epoch) = requests.recv() {
        let written = write_epoch(path, epoch).map(|()| epoch).map_err(|error| format!("{error:#}"));
        if answers.send(written).is_err() {
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
    /// Asks for an epoch to be written.
    pub(super) fn store(&self, epoch: Epoch) {
        // A thread that has ended answers nothing, so nobody becomes active by this epoch.
        let _ = self.wanted.send(epoch);
    }

    /// What has been written, or why not.
    pub(super) fn poll(&self) -> Option<Result<Epoch, String>> {
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
