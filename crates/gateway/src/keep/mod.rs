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
pub mod file;
mod journal;
mod restore;

pub use restore::import;

use crate::notes;
use anyhow::{Context, Result, bail};
use file::{Moment, Writing};
use journal::{Journal, Placing};
use keepstate_engine::{Engine, Instant};
use keepstate_linux::uptime;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in a folder.
const NAME: &str = "gateway.table";
/// Changes that are written in one turn; others wait for the next.
const CHANGES: usize = 8192;
/// Connections a second that a next file takes in: one in a few tens of microseconds, so that packets do not feel it.
const PACE: u64 = 100_000;
/// The most in one turn: a third of a millisecond's work.
const MOST: u64 = 2048;
/// Places without a connection that are passed over for the price of one with.
const EMPTY: u64 = 8;
/// A journal shorter than this is no reason for a next file.
const SHORT: u64 = 4 << 20;
/// Nor is one younger than this, unless it is long: ten minutes.
const YOUNG: u64 = 600 * SECOND;
/// From one beat to the next.
const BEAT: u64 = SECOND;
/// From one try to the next, if the disk is full.
const PATIENCE: u64 = 30 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// A table that is kept. See the module's words.
pub struct Keep {
    path: PathBuf,
    /// Held as long as this lives: nobody else writes there.
    _lock: File,
    boot: [u8; 16],
    /// The file in its place, if it is one of ours and right.
    current: Option<Journal>,
    /// How long it was when it was whole.
    snapshot: u64,
    next: Option<Next>,
    frame: Writing,
    /// By the clock since boot: the last turn, the last beat, when the current file was begun, when to try again.
    turned: u64,
    beaten: u64,
    begun: u64,
    again: Option<u64>,
}

/// A file in the making.
struct Next {
    journal: Journal,
    stage: Stage,
}

/// How far it is.
enum Stage {
    /// Connections from this place on are not in it.
    Walking(u32),
    /// It is whole, and on its way to its place.
    Placing(Placing),
}

/// What a gateway found when it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Connections that go on.
    pub connections: usize,
    /// Those whose time was over meanwhile.
    pub expired: usize,
    /// Those that could not be entered, by the reason.
    pub refused: Vec<(String, usize)>,
    /// What else is to be said.
    pub words: Vec<String>,
}

impl Keep {
    /// Takes the file at `path` (or in that folder) for its own, brings what it holds into `engine`, and begins to keep that.
    ///
    /// # Errors
    /// Another gateway has it; what is there is no table or is damaged; the folder cannot be written to.
    pub fn open(path: &Path, engine: &mut Engine, now: Instant) -> Result<(Keep, Restored)> {
        let path = place(path)?;
        let lock = lock(&path)?;
        let boot = uptime::boot_id().context("which boot this is")?;
        let mut keep = Keep {
            path,
            _lock: lock,
            boot,
            current: None,
            snapshot: 0,
            next: None,
            frame: Writing::default(),
            turned: 0,
            beaten: 0,
            begun: 0,
            again: None,
        };
        let moment = keep.moment(now);
        keep.turned = moment.since_boot;
        let restored = restore::restore(&keep.path, engine, &moment, now)?;
        // All at once: nobody waits for packets yet, and from the first of them on a sudden end costs nothing.
        let begun = keep.begin(engine, &moment).and_then(|()| keep.walk(engine, &moment, now, u64::MAX));
        if let Err(error) = begun {
            keep.give_up(engine, &moment, &error);
        }
        Ok((keep, restored))
    }

    /// What is to be done between two batches of packets: a bounded piece of work.
    pub fn turn(&mut self, engine: &mut Engine, now: Instant) {
        let moment = self.moment(now);
        let passed = moment.since_boot.saturating_sub(self.turned);
        self.turned = moment.since_boot;
        if let Err(error) = self.work(engine, &moment, now, passed) {
            self.give_up(engine, &moment, &error);
        }
    }

    fn work(&mut self, engine: &mut Engine, moment: &Moment, now: Instant, passed: u64) -> io::Result<()> {
        self.follow(engine, moment, now)?;
        let budget = passed.saturating_mul(PACE) / SECOND;
        self.walk(engine, moment, now, budget.clamp(EMPTY, MOST))?;
        self.settle(moment)?;
        if moment.since_boot.saturating_sub(self.beaten) >= BEAT {
            self.beaten = moment.since_boot;
            self.current.iter().try_for_each(|journal| journal.beat(moment, false))?;
            self.next.iter().try_for_each(|next| next.journal.beat(moment, false))?;
        }
        if self.next.is_none() && self.is_due(moment) {
            self.begin(engine, moment)?;
        }
        Ok(())
    }

    /// Is it time for a next file?
    fn is_due(&self, moment: &Moment) -> bool {
        let Some(current) = &self.current else { return self.again.is_none_or(|again| moment.since_boot >= again) };
        let grown = current.length().saturating_sub(self.snapshot);
        let old = moment.since_boot.saturating_sub(self.begun) >= YOUNG;
        grown > self.snapshot.max(SHORT) || old && grown > 0
    }

    /// Writes down what has changed.
    fn follow(&mut self, engine: &mut Engine, moment: &Moment, now: Instant) -> io::Result<()> {
        for _ in 0..CHANGES {
            let Some(place) = engine.poll_change() else { break };
            match engine.export_place(place, now) {
                Some(described) => self.frame.put(place, |out| described.encode(out)),
                None => self.frame.gone(place),
            }
        }
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = self.frame.close(moment);
        let written = self.current.iter_mut().try_for_each(|journal| journal.add(frame));
        let written = written.and_then(|()| self.next.iter_mut().try_for_each(|next| next.journal.add(frame)));
        self.frame.clear();
        written
    }

    /// Begins a next file. From here on changes are noted, if they were not before.
    fn begin(&mut self, engine: &mut Engine, moment: &Moment) -> io::Result<()> {
        if self.current.is_none() {
            engine.note_changes(true);
        }
        let journal = Journal::begin(&beside(&self.path, "new"), moment)?;
        self.next = Some(Next { journal, stage: Stage::Walking(0) });
        self.begun = moment.since_boot;
        Ok(())
    }

    /// Takes some connections more into the next file.
    fn walk(&mut self, engine: &Engine, moment: &Moment, now: Instant, budget: u64) -> io::Result<()> {
        let Some(Next { journal, stage: stage @ Stage::Walking(_) }) = &mut self.next else { return Ok(()) };
        let Stage::Walking(cursor) = stage else { return Ok(()) };
        let mut left = budget.saturating_mul(EMPTY);
        while left > 0 && *cursor < engine.places() {
            // A frame is one turn's at most, even if there is no end to the budget.
            let mut frame = MOST.saturating_mul(EMPTY).min(left);
            while frame > 0 && *cursor < engine.places() {
                let cost = match engine.export_place(*cursor, now) {
                    Some(described) => {
                        self.frame.put(*cursor, |out| described.encode(out));
                        EMPTY
                    }
                    None => 1,
                };
                frame = frame.saturating_sub(cost);
                left = left.saturating_sub(cost);
                *cursor += 1;
            }
            if *cursor >= engine.places() {
                self.frame.whole();
            }
            let written = if self.frame.is_empty() { Ok(()) } else { journal.add(self.frame.close(moment)) };
            self.frame.clear();
            written?;
        }
        if engine.places() == 0 {
            self.frame.whole();
            let written = journal.add(self.frame.close(moment));
            self.frame.clear();
            written?;
        }
        if *cursor >= engine.places() {
            self.snapshot = journal.length();
            *stage = Stage::Placing(journal.place(&beside(&self.path, "new"), &self.path)?);
        }
        Ok(())
    }

    /// The next file takes over, once it is in its place.
    fn settle(&mut self, moment: &Moment) -> io::Result<()> {
        let Some(Next { stage: Stage::Placing(placing), .. }) = &self.next else { return Ok(()) };
        let Some(placed) = placing.done() else { return Ok(()) };
        placed?;
        self.current = self.next.take().map(|next| next.journal);
        if self.again.take().is_some() {
            notes::note(format!("the table is kept in {} again", self.path.display()));
        }
        self.beaten = moment.since_boot;
        Ok(())
    }

    /// Goes on without, for a while. What stands in its place stays there: it says when it was written last, and is better than nothing.
    fn give_up(&mut self, engine: &mut Engine, moment: &Moment, error: &io::Error) {
        if self.again.is_none() {
            notes::note(format!(
                "the table cannot be kept in {}: {error}. Packets are routed as before, and this is tried again every {} seconds; until it works, a sudden end \
                 would lose connections that have begun since",
                self.path.display(),
                PATIENCE / SECOND
            ));
        }
        self.again = Some(moment.since_boot.saturating_add(PATIENCE));
        self.current = None;
        self.next = None;
        self.frame.clear();
        engine.note_changes(false);
        // It may be what has filled the disk.
        let _ = fs::remove_file(beside(&self.path, "new"));
    }

    /// Writes all of it once more, with everything as it stands.
    pub fn end(mut self, engine: &mut Engine, now: Instant) {
        let moment = self.moment(now);
        if let Err(error) = self.finish(engine, &moment, now) {
            notes::note(format!(
                "the table could not be written to {} at the end: {error}; what was written before stands there",
                self.path.display()
            ));
            let _ = fs::remove_file(beside(&self.path, "new"));
        }
    }

    fn finish(&mut self, engine: &Engine, moment: &Moment, now: Instant) -> io::Result<()> {
        if let Some(Next { stage: Stage::Placing(placing), .. }) = self.next.take() {
            // Else it would take the last one's place. What became of it matters no more.
            let _ = placing.wait();
        }
        let path = beside(&self.path, "new");
        let mut last = Journal::begin(&path, moment)?;
        self.frame.clear();
        for place in 0..engine.places() {
            if let Some(described) = engine.export_place(place, now) {
                self.frame.put(place, |out| described.encode(out));
            }
            if u64::from(place) % MOST == MOST - 1 && !self.frame.is_empty() {
                last.add(self.frame.close(moment))?;
                self.frame.clear();
            }
        }
        self.frame.whole();
        last.add(self.frame.close(moment))?;
        last.beat(moment, true)?;
        last.place_now(&path, &self.path)
    }

    fn moment(&self, now: Instant) -> Moment {
        let since_boot = u64::try_from(uptime::since_boot().as_nanos()).unwrap_or(u64::MAX);
        Moment { boot: self.boot, since_boot, wall: now.0 }
    }
}

impl Drop for Keep {
    /// A file on its way to its place arrives before the lock is given up: it must not take the place of somebody else's later.
    fn drop(&mut self) {
        if let Some(Next { stage: Stage::Placing(placing), .. }) = self.next.take() {
            let _ = placing.wait();
        }
    }
}

/// The file that is meant: in a folder it has a name of its own.
fn place(path: &Path) -> Result<PathBuf> {
    let folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let place = if folder { path.join(NAME) } else { path.to_owned() };
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("--state {}: {} cannot be made", path.display(), parent.display()))?;
    }
    Ok(place)
}

/// `path` with another word behind its name.
fn beside(path: &Path, word: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(word);
    name.into()
}

/// Makes sure that nobody else writes there. The lock is a file of its own, because the table's is always a new one; it goes with its process, however that ends.
fn lock(path: &Path) -> Result<File> {
    let place = beside(path, "lock");
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
