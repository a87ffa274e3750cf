//! One file of a kept table while it is written: begun beside the place where it will stand, made whole, put there, and added to until the next takes over.
//!
//! What is written is in the kernel's hands when the call returns, and outlives this process; that it outlives the machine too is waited for by a thread of
//! its own, before the file takes its place. A file that could not be written to is never added to again.
use super::state_file::{self, ClockPair};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

/// A file that is written.
pub(super) struct Journal {
    file: File,
    /// Octets that are right.
    length: u64,
}

impl Journal {
    /// Begins a file at `path`; what a predecessor has left there unfinished is gone.
    pub(super) fn create(path: &Path, now: &ClockPair) -> io::Result<Journal> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let head = state_file::new_header(now);
        file.write_all(&head)?;
        Ok(Journal { file, length: head.len() as u64 })
    }

    /// Adds a frame, whole or not at all.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(frame) {
            // Half a frame would be cut off by the reader; better that it is not there.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Says that the writer lives, or has ended in order.
    pub(super) fn heartbeat(&self, now: &ClockPair, in_order: bool) -> io::Result<()> {
        self.file.write_all_at(&state_file::heartbeat_bytes(now, in_order), state_file::HEARTBEAT_OFFSET as u64)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Begins to put it from `path` to `place`, once it is safe on the disk; until told otherwise it is at one or the other.
    pub(super) fn rename_async(&self, path: &Path, place: &Path) -> io::Result<PendingRename> {
        let (file, path, place) = (self.file.try_clone()?, path.to_owned(), place.to_owned());
        let (sender, told) = channel();
        std::thread::Builder::new().name("keep".into()).spawn(move || {
            let _ = sender.send(sync_and_rename(&file, &path, &place));
        })?;
        Ok(PendingRename(told))
    }

    /// As [`Journal::place`], and waits for it.
    pub(super) fn rename_now(&self, path: &Path, place: &Path) -> io::Result<()> {
        sync_and_rename(&self.file, path, place)
    }
}

/// A file on its way to its place.
pub(super) struct PendingRename(Receiver<io::Result<()>>);

impl PendingRename {
    /// Is it there? `None` as long as that is not known.
    pub(super) fn try_result(&self) -> Option<io::Result<()>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(thread_gone())),
        }
    }

    /// Waits until it is.
    pub(super) fn wait(self) -> io::Result<()> {
        self.0.recv().unwrap_or_else(|_| Err(thread_gone()))
    }
}

fn thread_gone() -> io::Error {
    io::Error::other("the thread that was to put it in its place is gone")
}

fn sync_and_rename(file: &File, path: &Path, place: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(path, place)?;
    // The name is not safe before its directory is.
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
