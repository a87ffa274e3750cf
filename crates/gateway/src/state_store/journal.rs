//! One state file while it is written: created under a temporary name, completed with a snapshot, renamed, and appended to until the next file replaces it.
//!
//! All of this is done by a thread of its own ([`FileWriter`]), in order: whoever hands over a change never waits for the disk. What waits is bounded; a disk that does not keep up is an error
//! like a full one. What the thread has written is in the page cache, and survives this process; another thread syncs it to the disk before the rename, so that it survives the machine
//! too. A file whose write failed is never appended to again.
use super::state_file::{self, ClockPair};
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::privileges::{self, CapabilitySet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that wait to be written, at most: what a `kill -9` can lose beside the changes of the last turn.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// Sends work to the thread that writes.
#[derive(Clone)]
pub(super) struct FileWriter {
    work: Sender<FileOp>,
    queued_bytes: Arc<AtomicUsize>,
}

/// What the thread does.
enum FileOp {
    Create {
        path: PathBuf,
        header: Vec<u8>,
        file: SharedFile,
    },
    Append(Vec<u8>, SharedFile),
    Heartbeat(Vec<u8>, SharedFile),
    Rename {
        from: PathBuf,
        to: PathBuf,
        file: SharedFile,
        done: Sender<io::Result<()>>,
    },
    Remove(PathBuf),
    /// All before it is done: tell so.
    Flush(Sender<()>),
}

/// A file, and what became of it. Only the thread opens and writes it.
type SharedFile = Arc<Mutex<FileState>>;

enum FileState {
    NotCreated,
    /// Open, with the length of what was written completely.
    Open(File, u64),
    /// A write has failed, and nothing is written any more.
    Failed(io::Error),
}

impl FileWriter {
    /// Starts the thread, which can do nothing but write files in the directory of `path`. It ends with the last handle.
    pub(super) fn start(path: &Path) -> io::Result<FileWriter> {
        let (work, queued) = channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queued_bytes);
        let (needed, access) = (needed_capabilities(path), FileAccess::default().write(directory_of(path)));
        let (limited, is_limited) = channel();
        let write = move || {
            let result = privileges::keep_capabilities(needed).and_then(|()| access.limit_thread());
            let failed = result.is_err();
            if limited.send(result).is_ok() && !failed {
                write_files(&queued, &counter);
            }
        };
        std::thread::Builder::new().name("state-write".into()).spawn(write)?;
        is_limited.recv().unwrap_or_else(|_| Err(thread_gone()))?;
        Ok(FileWriter { work, queued_bytes })
    }

    /// Waits until all that was handed over is written.
    pub(super) fn flush(&self) {
        let (done, written) = channel();
        if self.work.send(FileOp::Flush(done)).is_ok() {
            let _ = written.recv();
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: PathBuf) {
        let _ = self.work.send(FileOp::Remove(path));
    }

    fn send(&self, op: FileOp, bytes: usize) -> io::Result<()> {
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued.saturating_add(bytes) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(io::Error::other(format!("the disk is too slow: {} MB wait to be written", queued >> 20)));
        }
        self.work.send(op).map_err(|_| thread_gone())
    }
}

/// A file being written.
pub(super) struct Journal {
    writer: FileWriter,
    file: SharedFile,
    /// The length of what was handed over, in bytes.
    length: u64,
}

impl Journal {
    /// Creates a file at `path`; an unfinished one of an earlier gateway is removed. An error of that comes with a later call.
    pub(super) fn create(writer: &FileWriter, path: &Path, now: &ClockPair) -> io::Result<Journal> {
        let header = state_file::new_header(now).to_vec();
        let (length, file) = (header.len(), Arc::new(Mutex::new(FileState::NotCreated)));
        writer.send(FileOp::Create { path: path.to_owned(), header, file: Arc::clone(&file) }, length)?;
        Ok(Journal { writer: writer.clone(), file, length: length as u64 })
    }

    /// Appends a frame, completely or not at all.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.check()?;
        self.writer.send(FileOp::Append(frame.to_vec(), Arc::clone(&self.file)), frame.len())?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Updates the time at which the writer was last alive; `clean` marks a clean shutdown.
    pub(super) fn heartbeat(&self, now: &ClockPair, clean: bool) -> io::Result<()> {
        self.check()?;
        let bytes = state_file::heartbeat_bytes(now, clean).to_vec();
        let length = bytes.len();
        self.writer.send(FileOp::Heartbeat(bytes, Arc::clone(&self.file)), length)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// What went wrong since the last call, if anything did.
    pub(super) fn check(&self) -> io::Result<()> {
        // Held by the thread while it writes: then nothing is known yet.
        let Ok(state) = self.file.try_lock() else { return Ok(()) };
        match &*state {
            FileState::Failed(error) => Err(copy_error(error)),
            FileState::NotCreated | FileState::Open(..) => Ok(()),
        }
    }

    /// Syncs it to the disk and renames it from `from` to `to`, after what was handed over; until the result is known it has one name or the other.
    pub(super) fn rename_async(&self, from: &Path, to: &Path) -> io::Result<PendingRename> {
        let (done, result) = channel();
        let (from, to) = (from.to_owned(), to.to_owned());
        self.writer.send(FileOp::Rename { from, to, file: Arc::clone(&self.file), done }, 0)?;
        Ok(PendingRename(result))
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
    io::Error::other("the thread that writes the state file is gone")
}

/// The same error once more.
fn copy_error(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// The thread.
fn write_files(queued: &Receiver<FileOp>, queued_bytes: &AtomicUsize) {
    while let Ok(op) = queued.recv() {
        let done = |bytes: usize| queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        match op {
            FileOp::Create { path, header, file } => {
                done(header.len());
                let mut state = file.lock().unwrap_or_else(PoisonError::into_inner);
                *state = match create_file(&path, &header) {
                    Ok(file) => FileState::Open(file, header.len() as u64),
                    Err(error) => FileState::Failed(error),
                };
            }
            FileOp::Append(frame, file) => {
                done(frame.len());
                update_file(&file, |file, length| {
                    if let Err(error) = file.write_all(&frame) {
                        // A reader would cut half a frame off; better that it is not there.
                        let _ = file.set_len(*length);
                        return Err(error);
                    }
                    *length += frame.len() as u64;
                    Ok(())
                });
            }
            FileOp::Heartbeat(bytes, file) => {
                done(bytes.len());
                update_file(&file, |file, _| file.write_all_at(&bytes, state_file::HEARTBEAT_OFFSET as u64));
            }
            FileOp::Rename { from, to, file, done } => start_rename(&file, from, to, done),
            FileOp::Remove(path) => drop(fs::remove_file(path)),
            FileOp::Flush(done) => drop(done.send(())),
        }
    }
}

/// Writes to a file, unless an earlier write has failed.
fn update_file(file: &SharedFile, work: impl FnOnce(&mut File, &mut u64) -> io::Result<()>) {
    let mut state = file.lock().unwrap_or_else(PoisonError::into_inner);
    if let FileState::Open(file, length) = &mut *state
        && let Err(error) = work(file, length)
    {
        *state = FileState::Failed(error);
    }
}

fn create_file(path: &Path, header: &[u8]) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(header)?;
    Ok(file)
}

/// On a thread of its own: meanwhile changes are appended to this file and to the current one.
fn start_rename(file: &SharedFile, from: PathBuf, to: PathBuf, done: Sender<io::Result<()>>) {
    let state = file.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = match &*state {
        FileState::Open(file, _) => file.try_clone(),
        FileState::Failed(error) => Err(copy_error(error)),
        FileState::NotCreated => Err(io::Error::other("it was never created")),
    };
    drop(state);
    let failed = done.clone();
    let started = copy.and_then(|file| {
        let thread = std::thread::Builder::new().name("state-sync".into());
        thread.spawn(move || drop(done.send(sync_and_rename(&file, &from, &to)))).map(drop)
    });
    if let Err(error) = started {
        let _ = failed.send(Err(error));
    }
}

fn sync_and_rename(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    // The name is durable once its directory is synced.
    File::open(directory_of(to))?.sync_all()
}

/// The directory that a file is in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Root writes the files of another user only with CAP_DAC_OVERRIDE.
fn needed_capabilities(path: &Path) -> CapabilitySet {
    if privileges::is_other_users(path) { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn a_disk_that_stands_still_makes_nobody_wait_and_what_was_accepted_is_written() {
        const FRAME: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let writer = FileWriter::start(&path).unwrap();
        let mut journal = Journal::create(&writer, &path, &ClockPair::default()).unwrap();
        writer.flush();
        // The thread cannot write now. If handing over waited for it, this would never end.
        let file = Arc::clone(&journal.file);
        let held = file.lock().unwrap();
        let mut accepted = 0;
        let error = loop {
            match journal.append(&[7; FRAME]) {
                Ok(()) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("too slow") && accepted >= MAX_QUEUED_BYTES / FRAME, "{accepted}: {error}");
        drop(held);
        writer.flush();
        assert_eq!(fs::metadata(&path).unwrap().len(), (state_file::HEADER_LEN + accepted * FRAME) as u64);
        journal.append(&[7; FRAME]).unwrap();
        writer.flush();
        assert_eq!(fs::metadata(&path).unwrap().len(), journal.length());
    }

    #[test]
    fn the_error_of_a_write_comes_with_a_later_call() {
        let path = Path::new("/nonexistent/table");
        let writer = FileWriter::start(path).unwrap();
        let mut journal = Journal::create(&writer, path, &ClockPair::default()).unwrap();
        writer.flush();
        assert_eq!(journal.append(b"frame").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(journal.append(b"frame").is_err(), "and never works again");
    }
}
