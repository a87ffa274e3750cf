//! The table kept over a restart: what is in it is on file a turn later, and comes back when a gateway is started with the same file.
//!
//! ```text
//! open   the lock ▶ the file read, whole or not at all ▶ its connections imported ▶ a first file of our own
//! turn   what has changed since the last turn ▶ one frame ▶ the file (and the next one, if one is being made)
//!        the next one: a few hundred connections a turn, until all that stand are in it ▶ safe on the disk ▶ into its place
//! end    all of it once more, as it stands, marked as ended in order
//! ```
//! A [`Keep`] lives as long as its gateway. A file is a snapshot with its journal behind it; once the journal has grown as long as the snapshot (or some minutes
//! old), the next file is begun. It must never hold up packets, judge a connection, or touch a file that it does not know. A disk that is full ends
//! nothing: the gateway goes on without, says so, and tries again.
mod journal;
mod restore;
pub mod state_file;

pub use restore::import_snapshot;

use crate::notes;
use anyhow::{Context, Result, bail};
use journal::{Journal, PendingRename};
use keepstate_engine::{Engine, Instant};
use keepstate_linux::uptime;
use state_file::{ClockPair, FrameWriter};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in a folder.
const DEFAULT_NAME: &str = "gateway.table";
/// Changes that are written in one turn; others wait for the next.
const CHANGES_PER_POLL: usize = 8192;
/// Connections a second that a next file takes in: one in a few tens of microseconds, so that packets do not feel it.
const SNAPSHOT_RATE: u64 = 100_000;
/// The most in one turn: a third of a millisecond's work.
const SNAPSHOT_MAX_BATCH: u64 = 2048;
/// Places without a connection that are passed over for the price of one with.
const EMPTY_SLOTS_PER_CONNECTION: u64 = 8;
/// A journal shorter than this is no reason for a next file.
const MIN_JOURNAL_LEN: u64 = 4 << 20;
/// Nor is one younger than this, unless it is long: ten minutes.
const MIN_SNAPSHOT_AGE: u64 = 600 * SECOND;
/// From one beat to the next.
const HEARTBEAT_INTERVAL: u64 = SECOND;
/// From one try to the next, if the disk is full.
const RETRY_INTERVAL: u64 = 30 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// A table that is kept. See the module's words.
pub struct StateStore {
    path: PathBuf,
    /// Held as long as this lives: nobody else writes there.
    _lock: File,
    boot: [u8; 16],
    /// The file in its place, if it is one of ours and right.
    current: Option<Journal>,
    /// How long it was when it was whole.
    snapshot_len: u64,
    next: Option<NextFile>,
    frame: FrameWriter,
    /// By the clock since boot: the last turn, the last beat, when the current file was begun, when to try again.
    last_poll: u64,
    last_heartbeat: u64,
    snapshot_started: u64,
    retry_at: Option<u64>,
}

/// A file in the making.
struct NextFile {
    journal: Journal,
    stage: NextFileStage,
}

/// How far it is.
enum NextFileStage {
    /// Connections from this place on are not in it.
    Snapshotting(u32),
    /// It is whole, and on its way to its place.
    Renaming(PendingRename),
}

/// What a gateway found when it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Connections that go on.
    pub connections: usize,
    /// Those whose time was over meanwhile.
    pub expired: usize,
    /// Those that could not be entered, by the reason.
    pub refused: Vec<(String, usize)>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

impl StateStore {
    /// Takes the file at `path` (or in that folder) for its own, brings what it holds into `engine`, and begins to keep that.
    ///
    /// # Errors
    /// Another gateway has it; what is there is no table or is damaged; the folder cannot be written to.
    pub fn open(path: &Path, engine: &mut Engine, now: Instant) -> Result<(StateStore, RestoreReport)> {
        let path = state_path(path)?;
        let lock = lock_state_file(&path)?;
        let boot = uptime::boot_id().context("which boot this is")?;
        let mut keep = StateStore {
            path,
            _lock: lock,
            boot,
            current: None,
            snapshot_len: 0,
            next: None,
            frame: FrameWriter::default(),
            last_poll: 0,
            last_heartbeat: 0,
            snapshot_started: 0,
            retry_at: None,
        };
        let moment = keep.clocks(now);
        keep.last_poll = moment.since_boot;
        let restored = restore::restore(&keep.path, engine, &moment, now)?;
        // All at once: nobody waits for packets yet, and from the first of them on a sudden end costs nothing.
        let begun =
            keep.start_snapshot(engine, &moment).and_then(|()| keep.snapshot_step(engine, &moment, now, u64::MAX));
        if let Err(error) = begun {
            keep.suspend(engine, &moment, &error);
        }
        Ok((keep, restored))
    }

    /// What is to be done between two batches of packets: a bounded piece of work.
    pub fn poll(&mut self, engine: &mut Engine, now: Instant) {
        let moment = self.clocks(now);
        let passed = moment.since_boot.saturating_sub(self.last_poll);
        self.last_poll = moment.since_boot;
        if let Err(error) = self.step(engine, &moment, now, passed) {
            self.suspend(engine, &moment, &error);
        }
    }

    fn step(&mut self, engine: &mut Engine, moment: &ClockPair, now: Instant, passed: u64) -> io::Result<()> {
        self.journal_changes(engine, moment, now)?;
        let budget = passed.saturating_mul(SNAPSHOT_RATE) / SECOND;
        self.snapshot_step(engine, moment, now, budget.clamp(EMPTY_SLOTS_PER_CONNECTION, SNAPSHOT_MAX_BATCH))?;
        self.finish_rename(moment)?;
        if moment.since_boot.saturating_sub(self.last_heartbeat) >= HEARTBEAT_INTERVAL {
            self.last_heartbeat = moment.since_boot;
            self.current.iter().try_for_each(|journal| journal.heartbeat(moment, false))?;
            self.next.iter().try_for_each(|next| next.journal.heartbeat(moment, false))?;
        }
        if self.next.is_none() && self.needs_new_snapshot(moment) {
            self.start_snapshot(engine, moment)?;
        }
        Ok(())
    }

    /// Is it time for a next file?
    fn needs_new_snapshot(&self, moment: &ClockPair) -> bool {
        let Some(current) = &self.current else { return self.retry_at.is_none_or(|again| moment.since_boot >= again) };
        let grown = current.length().saturating_sub(self.snapshot_len);
        let old = moment.since_boot.saturating_sub(self.snapshot_started) >= MIN_SNAPSHOT_AGE;
        grown > self.snapshot_len.max(MIN_JOURNAL_LEN) || old && grown > 0
    }

    /// Writes down what has changed.
    fn journal_changes(&mut self, engine: &mut Engine, moment: &ClockPair, now: Instant) -> io::Result<()> {
        for _ in 0..CHANGES_PER_POLL {
            let Some(place) = engine.poll_dirty_slot() else { break };
            match engine.export_slot(place, now) {
                Some(described) => self.frame.put(place, |out| described.encode(out)),
                None => self.frame.delete(place),
            }
        }
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = self.frame.finish(moment);
        let written = self.current.iter_mut().try_for_each(|journal| journal.append(frame));
        let written = written.and_then(|()| self.next.iter_mut().try_for_each(|next| next.journal.append(frame)));
        self.frame.clear();
        written
    }

    /// Begins a next file. From here on changes are noted, if they were not before.
    fn start_snapshot(&mut self, engine: &mut Engine, moment: &ClockPair) -> io::Result<()> {
        if self.current.is_none() {
            engine.track_dirty(true);
        }
        let journal = Journal::create(&with_suffix(&self.path, "new"), moment)?;
        self.next = Some(NextFile { journal, stage: NextFileStage::Snapshotting(0) });
        self.snapshot_started = moment.since_boot;
        Ok(())
    }

    /// Takes some connections more into the next file.
    fn snapshot_step(&mut self, engine: &Engine, moment: &ClockPair, now: Instant, budget: u64) -> io::Result<()> {
        let Some(NextFile { journal, stage: stage @ NextFileStage::Snapshotting(_) }) = &mut self.next else {
            return Ok(());
        };
        let NextFileStage::Snapshotting(cursor) = stage else { return Ok(()) };
        let mut left = budget.saturating_mul(EMPTY_SLOTS_PER_CONNECTION);
        while left > 0 && *cursor < engine.slot_count() {
            // A frame is one turn's at most, even if there is no end to the budget.
            let mut frame = SNAPSHOT_MAX_BATCH.saturating_mul(EMPTY_SLOTS_PER_CONNECTION).min(left);
            while frame > 0 && *cursor < engine.slot_count() {
                let cost = match engine.export_slot(*cursor, now) {
                    Some(described) => {
                        self.frame.put(*cursor, |out| described.encode(out));
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
            let written = if self.frame.is_empty() { Ok(()) } else { journal.append(self.frame.finish(moment)) };
            self.frame.clear();
            written?;
        }
        if engine.slot_count() == 0 {
            self.frame.end_snapshot();
            let written = journal.append(self.frame.finish(moment));
            self.frame.clear();
            written?;
        }
        if *cursor >= engine.slot_count() {
            self.snapshot_len = journal.length();
            *stage = NextFileStage::Renaming(journal.rename_async(&with_suffix(&self.path, "new"), &self.path)?);
        }
        Ok(())
    }

    /// The next file takes over, once it is in its place.
    fn finish_rename(&mut self, moment: &ClockPair) -> io::Result<()> {
        let Some(NextFile { stage: NextFileStage::Renaming(placing), .. }) = &self.next else { return Ok(()) };
        let Some(placed) = placing.try_result() else { return Ok(()) };
        placed?;
        self.current = self.next.take().map(|next| next.journal);
        if self.retry_at.take().is_some() {
            notes::note(format!("the table is kept in {} again", self.path.display()));
        }
        self.last_heartbeat = moment.since_boot;
        Ok(())
    }

    /// Goes on without, for a while. What stands in its place stays there: it says when it was written last, and is better than nothing.
    fn suspend(&mut self, engine: &mut Engine, moment: &ClockPair, error: &io::Error) {
        if self.retry_at.is_none() {
            notes::note(format!(
                "the table cannot be kept in {}: {error}. Packets are routed as before, and this is tried again every {} seconds; until it works, a sudden end \
                 would lose connections that have begun since",
                self.path.display(),
                RETRY_INTERVAL / SECOND
            ));
        }
        self.retry_at = Some(moment.since_boot.saturating_add(RETRY_INTERVAL));
        self.current = None;
        self.next = None;
        self.frame.clear();
        engine.track_dirty(false);
        // It may be what has filled the disk.
        let _ = fs::remove_file(with_suffix(&self.path, "new"));
    }

    /// Writes all of it once more, with everything as it stands.
    pub fn close(mut self, engine: &mut Engine, now: Instant) {
        let moment = self.clocks(now);
        if let Err(error) = self.write_final(engine, &moment, now) {
            notes::note(format!(
                "the table could not be written to {} at the end: {error}; what was written before stands there",
                self.path.display()
            ));
            let _ = fs::remove_file(with_suffix(&self.path, "new"));
        }
    }

    fn write_final(&mut self, engine: &Engine, moment: &ClockPair, now: Instant) -> io::Result<()> {
        if let Some(NextFile { stage: NextFileStage::Renaming(placing), .. }) = self.next.take() {
            // Else it would take the last one's place. What became of it matters no more.
            let _ = placing.wait();
        }
        let path = with_suffix(&self.path, "new");
        let mut last = Journal::create(&path, moment)?;
        self.frame.clear();
        for place in 0..engine.slot_count() {
            if let Some(described) = engine.export_slot(place, now) {
                self.frame.put(place, |out| described.encode(out));
            }
            if u64::from(place) % SNAPSHOT_MAX_BATCH == SNAPSHOT_MAX_BATCH - 1 && !self.frame.is_empty() {
                last.append(self.frame.finish(moment))?;
                self.frame.clear();
            }
        }
        self.frame.end_snapshot();
        last.append(self.frame.finish(moment))?;
        last.heartbeat(moment, true)?;
        last.rename_now(&path, &self.path)
    }

    fn clocks(&self, now: Instant) -> ClockPair {
        let since_boot = u64::try_from(uptime::since_boot().as_nanos()).unwrap_or(u64::MAX);
        ClockPair { boot: self.boot, since_boot, wall: now.0 }
    }
}

impl Drop for StateStore {
    /// A file on its way to its place arrives before the lock is given up: it must not take the place of somebody else's later.
    fn drop(&mut self) {
        if let Some(NextFile { stage: NextFileStage::Renaming(placing), .. }) = self.next.take() {
            let _ = placing.wait();
        }
    }
}

/// The file that is meant: in a folder it has a name of its own.
fn state_path(path: &Path) -> Result<PathBuf> {
    let folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let place = if folder { path.join(DEFAULT_NAME) } else { path.to_owned() };
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("--state {}: {} cannot be made", path.display(), parent.display()))?;
    }
    Ok(place)
}

/// `path` with another word behind its name.
fn with_suffix(path: &Path, word: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(word);
    name.into()
}

/// Makes sure that nobody else writes there. The lock is a file of its own, because the table's is always a new one; it goes with its process, however that ends.
fn lock_state_file(path: &Path) -> Result<File> {
    let place = with_suffix(path, "lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place);
    let mut file =
        opened.with_context(|| format!("{} cannot be made: the table cannot be kept there", place.display()))?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(20).read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map_or(String::new(), |process| format!(" (process {process})"));
            bail!(
                "another gateway{holder} keeps its table in {}: end that one first, or choose another --state",
                path.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{} cannot be locked", place.display()));
        }
    }
    // For whoever comes second; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
