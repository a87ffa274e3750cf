//! One state file while it is written: created under a temporary name, completed with a snapshot, renamed, and appended to until the next file replaces it.
//!
//! What is written is in the page cache when the call returns, and survives this process; a thread syncs it to the disk before the rename, so that it survives
//! the machine too. A file whose write failed is never appended to again.
use super::state_file::{self, ClockPair};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

/// A file being written.
pub(super) struct Journal {
    file: File,
    /// The length of what was written completely, in bytes.
    length: u64,
}

impl Journal {
    /// Creates a file at `path`; an unfinished one of an earlier gateway is removed.
    pub(super) fn create(path: &Path, now: &ClockPair) -> io::Result<Journal> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let header = state_file::new_header(now);
        file.write_all(&header)?;
        Ok(Journal { file, length: header.len() as u64 })
    }

    /// Appends a frame, completely or not at all.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(frame) {
            // A reader would cut half a frame off; better that it is not there.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Updates the time at which the writer was last alive; `clean` marks a clean shutdown.
    pub(super) fn heartbeat(&self, now: &ClockPair, clean: bool) -> io::Result<()> {
        self.file.write_all_at(&state_file::heartbeat_bytes(now, clean), state_file::HEARTBEAT_OFFSET as u64)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Starts to sync it to the disk and rename it from `from` to `to`; until the result is known it has one name or the other.
    pub(super) fn rename_async(&self, from: &Path, to: &Path) -> io::Result<PendingRename> {
        let (file, from, to) = (self.file.try_clone()?, from.to_owned(), to.to_owned());
        let (sender, result) = channel();
        std::thread::Builder::new().name("state-sync".into()).spawn(move || {
            let _ = sender.send(sync_and_rename(&file, &from, &to));
        })?;
        Ok(PendingRename(result))
    }

    /// Syncs it to the disk and renames it.
    pub(super) fn rename_now(&self, from: &Path, to: &Path) -> io::Result<()> {
        sync_and_rename(&self.file, from, to)
    }
}

/// A rename in progress.
pub(super) struct PendingRename(Receiver<io::Result<()>>);

impl PendingRename {
    /// Its result, once it is known.
    pub(super) fn try_result(&self) -> Option<io::Result<()>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(thread_gone())),
        }
    }

    /// Waits for its result.
    pub(super) fn wait(self) -> io::Result<()> {
        self.0.recv().unwrap_or_else(|_| Err(thread_gone()))
    }
}

fn thread_gone() -> io::Error {
    io::Error::other("the thread that renames the state file is gone")
}

fn sync_and_rename(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    // The name is durable once its directory is synced.
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
