//! The state store: keeps the connection table over a restart. A change is in the state file one turn later, and a gateway started with the same file restores it.
//!
//! ```text
//! open    take the lock ▶ read the file, completely or not at all ▶ import its connections ▶ write a first file of our own
//! poll    changes since the last turn ▶ one frame ▶ the file (and the next one, if one is being written)
//!         the next file: a few hundred connections a turn, until all are in it ▶ synced to the disk ▶ renamed
//! close   all connections once more, marked as a clean shutdown
//! ```
//! The file is written by a thread of its own (`journal.rs`).
//!
//! A [`StateStore`] lives as long as its gateway. A file is a snapshot followed by a journal; once the journal is as long as the snapshot (or some minutes
//! old), the next file is started. It must never delay packets, decide about a connection, or change a file of another format. A full disk stops
//! nothing: the gateway goes on without the file, logs that, and tries again.
mod journal;
mod restore;
pub mod state_file;

pub use restore::{RestoreReport, import_snapshot};

use crate::clock::{SystemTimeSource, TimeSource};
use anyhow::{Context, Result, bail};
use journal::{FileWriter, Journal, PendingRename};
use keepstate_engine::{Engine, Instant};
use keepstate_linux::uptime;
use state_file::{ClockPair, FrameWriter};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in a directory.
const DEFAULT_NAME: &str = "gateway.table";
/// Changes handed over in one turn; others wait for the next.
const CHANGES_PER_POLL: usize = 2048;
/// Connections a second written to a next file: one in some tens of microseconds, so that packets are not delayed.
const SNAPSHOT_RATE: u64 = 100_000;
/// The most in one turn: about a third of a millisecond.
const SNAPSHOT_MAX_BATCH: u64 = 2048;
/// Empty slots that cost as much as one connection.
const EMPTY_SLOTS_PER_CONNECTION: u64 = 8;
/// A shorter journal does not start a next file, in bytes.
const MIN_JOURNAL_LEN: u64 = 4 << 20;
/// Nor does a younger one, unless it is long: ten minutes.
const MIN_SNAPSHOT_AGE: u64 = 600 * SECOND;
/// Between two heartbeats.
const HEARTBEAT_INTERVAL: u64 = SECOND;
/// Between two attempts after a write error.
const RETRY_INTERVAL: u64 = 30 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// Gives boot id, time since boot and wall clock at a time of the gateway.
pub type ClockSource = Box<dyn Fn(Instant) -> ClockPair + Send>;

/// Writes the connection table to its file; see the module.
pub struct StateStore {
    path: PathBuf,
    /// Held as long as this lives: nobody else writes there.
    _lock: File,
    clock_source: ClockSource,
    writer: FileWriter,
    /// The file under its final name, unless a write failed.
    current: Option<Journal>,
    /// Its length when the snapshot was complete.
    snapshot_len: u64,
    next: Option<NextFile>,
    frame: FrameWriter,
    /// By the clock since boot: the last turn, the last heartbeat, the start of the newest file, the next attempt.
    last_poll: u64,
    last_heartbeat: u64,
    snapshot_started: u64,
    retry_at: Option<u64>,
}

/// A file being written under its temporary name.
struct NextFile {
    journal: Journal,
    stage: NextFileStage,
}

/// How far it is.
enum NextFileStage {
    /// Connections from this slot on are not in it yet.
    Snapshotting(u32),
    /// It is complete and being renamed.
    Renaming(PendingRename),
}

impl StateStore {
    /// Locks the file at `path` (or in that directory), imports its connections into `engine`, and starts to write changes.
    ///
    /// # Errors
    /// Another gateway uses it; it is not a state file or is damaged; the directory cannot be written to.
    pub fn open(path: &Path, engine: &mut Engine, now: Instant) -> Result<(StateStore, RestoreReport)> {
        let boot = uptime::boot_id().context("reading the boot id")?;
        let time = SystemTimeSource;
        let system_clocks = move |_| ClockPair { boot, since_boot: time.now().0, wall: time.unix_time().0 };
        StateStore::open_with_clocks(path, engine, Box::new(system_clocks), now)
    }

    /// As [`StateStore::open`], on other clocks than the system's.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub fn open_with_clocks(
        path: &Path,
        engine: &mut Engine,
        clock_source: ClockSource,
        now: Instant,
    ) -> Result<(StateStore, RestoreReport)> {
        let path = state_path(path)?;
        let lock = lock_state_file(&path)?;
        let writer = FileWriter::start(&path).context("starting the thread that writes the state file")?;
        let mut store = StateStore {
            path,
            writer,
            _lock: lock,
            clock_source,
            current: None,
            snapshot_len: 0,
            next: None,
            frame: FrameWriter::default(),
            last_poll: 0,
            last_heartbeat: 0,
            snapshot_started: 0,
            retry_at: None,
        };
        let clocks = store.clocks(now);
        store.last_poll = clocks.since_boot;
        let restored = restore::restore(&store.path, engine, &clocks, now)?;
        // All at once: no packets come yet, and from the first one on a crash loses nothing.
        let written =
            store.start_snapshot(engine, &clocks).and_then(|()| store.snapshot_step(engine, &clocks, now, u64::MAX));
        store.flush();
        let written = written.and_then(|()| store.next.iter().try_for_each(|next| next.journal.check()));
        if let Err(error) = written {
            store.suspend(engine, &clocks, &error);
        }
        Ok((store, restored))
    }

    /// Waits until what was handed over so far is written. A running gateway never waits.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// Hands over what has changed, between two batches of packets: a bounded amount of work, without a system call. The file has it as soon as its thread has written it.
    /// True if there may be more.
    pub fn poll(&mut self, engine: &mut Engine, now: Instant) -> bool {
        let clocks = self.clocks(now);
        let passed = clocks.since_boot.saturating_sub(self.last_poll);
        self.last_poll = clocks.since_boot;
        self.step(engine, &clocks, now, passed).unwrap_or_else(|error| {
            self.suspend(engine, &clocks, &error);
            false
        })
    }

    fn step(&mut self, engine: &mut Engine, clocks: &ClockPair, now: Instant, passed: u64) -> io::Result<bool> {
        let more = self.journal_changes(engine, clocks, now)?;
        let budget = passed.saturating_mul(SNAPSHOT_RATE) / SECOND;
        self.snapshot_step(engine, clocks, now, budget.clamp(EMPTY_SLOTS_PER_CONNECTION, SNAPSHOT_MAX_BATCH))?;
        self.finish_rename(clocks)?;
        if clocks.since_boot.saturating_sub(self.last_heartbeat) >= HEARTBEAT_INTERVAL {
            self.last_heartbeat = clocks.since_boot;
            self.current.iter().try_for_each(|journal| journal.heartbeat(clocks, false))?;
            self.next.iter().try_for_each(|next| next.journal.heartbeat(clocks, false))?;
        }
        if self.next.is_none() && self.needs_new_snapshot(clocks) {
            self.start_snapshot(engine, clocks)?;
        }
        Ok(more)
    }

    /// Did the last attempt to write fail? Then it is tried again later.
    pub fn is_suspended(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Is a next file due?
    fn needs_new_snapshot(&self, clocks: &ClockPair) -> bool {
        let Some(current) = &self.current else { return self.retry_at.is_none_or(|again| clocks.since_boot >= again) };
        let grown = current.length().saturating_sub(self.snapshot_len);
        let old = clocks.since_boot.saturating_sub(self.snapshot_started) >= MIN_SNAPSHOT_AGE;
        grown > self.snapshot_len.max(MIN_JOURNAL_LEN) || old && grown > 0
    }

    /// Appends some changes to the journal; true if there may be more.
    fn journal_changes(&mut self, engine: &mut Engine, clocks: &ClockPair, now: Instant) -> io::Result<bool> {
        let mut left = CHANGES_PER_POLL;
        while let Some(slot) = (left > 0).then(|| engine.poll_dirty_slot()).flatten() {
            left -= 1;
            match engine.export_slot(slot, now) {
                Some(snapshot) => self.frame.put(slot, |out| snapshot.encode(out)),
                None => self.frame.delete(slot),
            }
        }
        if self.frame.is_empty() {
            return Ok(false);
        }
        let frame = self.frame.finish(clocks);
        let written = self.current.iter_mut().try_for_each(|journal| journal.append(frame));
        let written = written.and_then(|()| self.next.iter_mut().try_for_each(|next| next.journal.append(frame)));
        self.frame.clear();
        written.map(|()| left == 0)
    }

    /// Starts a next file. From here on the engine tracks changes, if it did not before.
    fn start_snapshot(&mut self, engine: &mut Engine, clocks: &ClockPair) -> io::Result<()> {
        if self.current.is_none() {
            engine.track_dirty(true);
        }
        let journal = Journal::create(&self.writer, &with_suffix(&self.path, "new"), clocks)?;
        self.next = Some(NextFile { journal, stage: NextFileStage::Snapshotting(0) });
        self.snapshot_started = clocks.since_boot;
        Ok(())
    }

    /// Writes some more connections to the next file.
    fn snapshot_step(&mut self, engine: &Engine, clocks: &ClockPair, now: Instant, budget: u64) -> io::Result<()> {
        let Some(NextFile { journal, stage: stage @ NextFileStage::Snapshotting(_) }) = &mut self.next else {
            return Ok(());
        };
        let NextFileStage::Snapshotting(cursor) = stage else { return Ok(()) };
        let mut left = budget.saturating_mul(EMPTY_SLOTS_PER_CONNECTION);
        while left > 0 && *cursor < engine.slot_count() {
            // A frame holds one turn's connections at most, even if the budget is unlimited.
            let mut frame = SNAPSHOT_MAX_BATCH.saturating_mul(EMPTY_SLOTS_PER_CONNECTION).min(left);
            while frame > 0 && *cursor < engine.slot_count() {
                let cost = match engine.export_slot(*cursor, now) {
                    Some(snapshot) => {
                        self.frame.put(*cursor, |out| snapshot.encode(out));
                        EMPTY_SLOTS_PER_CONNECTION
                    }
                    None => 1,
                };
                frame = frame.saturating_sub(cost);
                left = left.saturating_sub(cost);
                *cursor += 1;
            }
            if *cursor >= engine.slot_count() {
                self.frame.end_snapshot();
            }
            let written = if self.frame.is_empty() { Ok(()) } else { journal.append(self.frame.finish(clocks)) };
            self.frame.clear();
            written?;
            if budget == u64::MAX {
                // At the start no packet waits, and the queue is smaller than a large table.
                self.writer.flush();
            }
        }
        if engine.slot_count() == 0 {
            self.frame.end_snapshot();
            let written = journal.append(self.frame.finish(clocks));
            self.frame.clear();
            written?;
        }
        if *cursor >= engine.slot_count() {
            self.snapshot_len = journal.length();
            *stage = NextFileStage::Renaming(journal.rename_async(&with_suffix(&self.path, "new"), &self.path)?);
        }
        Ok(())
    }

    /// Switches to the next file, once it is renamed.
    fn finish_rename(&mut self, clocks: &ClockPair) -> io::Result<()> {
        let Some(NextFile { stage: NextFileStage::Renaming(rename), .. }) = &self.next else { return Ok(()) };
        let Some(result) = rename.try_result() else { return Ok(()) };
        result?;
        self.current = self.next.take().map(|next| next.journal);
        if self.retry_at.take().is_some() {
            tracing::info!("state file {}: writing again", self.path.display());
        }
        self.last_heartbeat = clocks.since_boot;
        Ok(())
    }

    /// Goes on without the file for a while. The last complete one stays: it has the time of its last write, and is better than none.
    fn suspend(&mut self, engine: &mut Engine, clocks: &ClockPair, error: &io::Error) {
        if self.retry_at.is_none() {
            tracing::error!(
                "state file {}: write error: {error}; retrying every {} s. Packets are routed as before; connections created from now on will not survive a crash",
                self.path.display(),
                RETRY_INTERVAL / SECOND
            );
        }
        self.retry_at = Some(clocks.since_boot.saturating_add(RETRY_INTERVAL));
        self.current = None;
        self.next = None;
        self.frame.clear();
        engine.track_dirty(false);
        // It may be what filled the disk.
        self.writer.remove(with_suffix(&self.path, "new"));
    }

    /// Writes all connections once more, marked as a clean shutdown.
    pub fn close(mut self, engine: &mut Engine, now: Instant) {
        let clocks = self.clocks(now);
        if let Err(error) = self.write_final(engine, &clocks, now) {
            tracing::error!(
                "state file {}: final write failed: {error}; the file of before stays",
                self.path.display()
            );
            let _ = fs::remove_file(with_suffix(&self.path, "new"));
        }
    }

    fn write_final(&mut self, engine: &Engine, clocks: &ClockPair, now: Instant) -> io::Result<()> {
        if let Some(NextFile { stage: NextFileStage::Renaming(rename), .. }) = self.next.take() {
            // Otherwise it would replace the final file. Its result does not matter.
            let _ = rename.wait();
        }
        let path = with_suffix(&self.path, "new");
        let mut last = Journal::create(&self.writer, &path, clocks)?;
        self.frame.clear();
        for slot in 0..engine.slot_count() {
            if let Some(snapshot) = engine.export_slot(slot, now) {
                self.frame.put(slot, |out| snapshot.encode(out));
            }
            if u64::from(slot) % SNAPSHOT_MAX_BATCH == SNAPSHOT_MAX_BATCH - 1 && !self.frame.is_empty() {
                last.append(self.frame.finish(clocks))?;
                self.frame.clear();
                // No packet waits any more.
                self.writer.flush();
            }
        }
        self.frame.end_snapshot();
        last.append(self.frame.finish(clocks))?;
        last.heartbeat(clocks, true)?;
        last.rename_async(&path, &self.path)?.wait()
    }

    fn clocks(&self, now: Instant) -> ClockPair {
        (self.clock_source)(now)
    }
}

impl Drop for StateStore {
    /// A rename in progress ends before the lock is released: it must not replace a file of the next owner.
    fn drop(&mut self) {
        if let Some(NextFile { stage: NextFileStage::Renaming(rename), .. }) = self.next.take() {
            let _ = rename.wait();
        }
        self.writer.flush();
    }
}

/// The file of `--state PATH`: in a directory it has the default name.
fn state_path(path: &Path) -> Result<PathBuf> {
    let is_dir = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let file = if is_dir { path.join(DEFAULT_NAME) } else { path.to_owned() };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("--state {}: cannot create directory {}", path.display(), parent.display()))?;
    }
    Ok(file)
}

/// `path.suffix`
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Makes sure that no other gateway writes there. The lock is a file of its own, because the state file is replaced again and again; it ends with its process, however that ends.
fn lock_state_file(path: &Path) -> Result<File> {
    let lock = with_suffix(path, "lock");
    // Somebody else may have put a link or a FIFO there: the file is emptied below.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut open = OpenOptions::new();
    let opened = open.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&lock);
    let mut file =
        opened.with_context(|| format!("cannot create {}: the state file cannot be locked", lock.display()))?;
    if !file.metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1) {
        bail!("{} is not a file of the gateway: remove it, or choose another --state", lock.display());
    }
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(20).read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map_or(String::new(), |process| format!(" (process {process})"));
            bail!(
                "another gateway{holder} uses state file {}: stop it first, or choose another --state",
                path.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", lock.display()));
        }
    }
    // For the error message of a second gateway; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_engine::{Secret, Sysctls};
    use std::os::unix::fs::symlink;

    /// What a `kill -9` loses is what was not handed over, or waits for the disk: each turn hands over a fixed number of changes, the oldest first, until none is left.
    #[test]
    fn every_change_is_handed_over_after_as_many_turns_as_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let now = Instant::from_secs(100);
        let clocks = Box::new(|_| ClockPair { boot: [1; 16], since_boot: 100 * SECOND, wall: 100 * SECOND });
        let (mut store, _) = StateStore::open_with_clocks(&path, &mut engine, clocks, now).unwrap();
        store.poll(&mut engine, now);
        let count = 2 * CHANGES_PER_POLL + 1;
        for number in 0..count {
            let [.., high, low] = number.to_be_bytes();
            let mut packet =
                vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, high, low, 10, 2, 0, 9, 16, 0, 0, 53, 0, 8, 0, 0];
            let sum: u32 = packet.chunks(2).take(10).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let packet = keepstate_wire::Packet::parse(&packet).unwrap();
            engine.handle(&packet, Default::default(), now);
        }
        assert_eq!(engine.count(), count);
        let turns: Vec<bool> = (0..3).map(|_| store.poll(&mut engine, now)).collect();
        assert_eq!(turns, [true, true, false], "whether there may be more");
        store.flush();
        // The first file gets its name when the disk has it.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !path.exists() {
            assert!(std::time::Instant::now() < until, "the file was never renamed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let bytes = fs::read(&path).unwrap();
        assert_eq!(state_file::Snapshot::parse(&bytes).unwrap().connections().count(), count);
    }

    #[test]
    fn a_lock_that_is_no_file_of_ours_is_refused_and_left_alone() {
        let there = tempfile::tempdir().unwrap();
        let (victim, state) = (there.path().join("victim"), there.path().join("state"));
        fs::write(&victim, "precious").unwrap();
        let lock = with_suffix(&state, "lock");
        symlink(&victim, &lock).unwrap();
        assert!(lock_state_file(&state).is_err());
        fs::remove_file(&lock).unwrap();
        fs::hard_link(&victim, &lock).unwrap();
        assert!(lock_state_file(&state).unwrap_err().to_string().contains("is not a file of the gateway"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(&lock).unwrap();
        assert!(lock_state_file(&state).is_ok());
    }
}
