//! Restoring the connections of a state file into an engine.
use super::state_file::{ClockGap, ClockPair, Snapshot};
use anyhow::{Context, Result, bail};
use keepstate_engine::{ConnSnapshot, Engine, ImportError, Instant, WindowTrust};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// What was restored of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Connections restored.
    pub connections: usize,
    /// Connections that have expired meanwhile.
    pub expired: usize,
    /// Connections that could not be restored, by the reason.
    pub refused: Vec<(String, usize)>,
    /// What else the user should know.
    pub notes: Vec<String>,
}

/// Reads the file, if there is one, and imports what has not expired meanwhile.
///
/// # Errors
/// It cannot be read, or is not used at all: why, and what to do.
pub(super) fn restore(path: &Path, engine: &mut Engine, clocks: &ClockPair, now: Instant) -> Result<RestoreReport> {
    // Without waiting: it may be a FIFO.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let bytes = match opened.and_then(|file| Ok((file.metadata()?, file))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(RestoreReport::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot access {}", path.display())),
        Ok((found, _)) if !found.is_file() => {
            bail!("{} is not a regular file: choose another --state", path.display())
        }
        Ok((found, file)) => read_file(file, found.len()).with_context(|| format!("cannot read {}", path.display()))?,
    };
    // Created by an administrator in advance, for its owner or its mode.
    if bytes.is_empty() {
        return Ok(RestoreReport::default());
    }
    let snapshot = match Snapshot::parse(&bytes) {
        Ok(snapshot) => snapshot,
        Err(error) => bail!(
            "{}: {error}. The file is left as it is and not used. To start with an empty table, move it away: mv {} {}.old; or choose another --state",
            path.display(),
            path.display(),
            path.display()
        ),
    };
    let gap = snapshot.last_alive.gap_to(clocks);
    let mut restored = import_snapshot(&snapshot, engine, gap.duration(), now);
    restored.notes = describe(&snapshot, gap);
    Ok(restored)
}

fn read_file(file: File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(length).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Imports the connections of a file into an engine. Masters come before their children.
pub fn import_snapshot(snapshot: &Snapshot<'_>, engine: &mut Engine, gap: Duration, now: Instant) -> RestoreReport {
    let mut restored = RestoreReport::default();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut children = Vec::new();
    let mut import = |connection: &ConnSnapshot| match engine.import(connection, gap, WindowTrust::Lenient, now) {
        Ok(_) => restored.connections += 1,
        Err(ImportError::Expired) => restored.expired += 1,
        Err(other) => *refused.entry(other.to_string()).or_default() += 1,
    };
    let mut undecodable: BTreeMap<String, usize> = BTreeMap::new();
    for bytes in snapshot.connections() {
        match ConnSnapshot::decode(bytes) {
            Ok(connection) if connection.master.is_some() => children.push(connection),
            Ok(connection) => import(&connection),
            Err(error) => *undecodable.entry(error.to_string()).or_default() += 1,
        }
    }
    children.iter().for_each(&mut import);
    refused.extend(undecodable);
    restored.refused = refused.into_iter().collect();
    restored
}

/// What the user should know about the file.
fn describe(snapshot: &Snapshot<'_>, gap: ClockGap) -> Vec<String> {
    let mut notes = Vec::new();
    if snapshot.truncated_bytes > 0 {
        notes.push(format!(
            "state file: incomplete last write of {} bytes ignored, as a crash leaves it; all before it is used",
            snapshot.truncated_bytes
        ));
    }
    match gap {
        ClockGap::SameBoot(_) => (),
        ClockGap::Rebooted(gap) => {
            notes.push(format!("state file: written before a reboot, {} s ago by the wall clock", gap.as_secs()));
        }
        ClockGap::Unknown => notes.push(
            "state file: written before a reboot, and the wall clock was set back: its age is unknown, timeouts are restored in full".into(),
        ),
    }
    notes
}

impl RestoreReport {
    /// Lines for the user; none if there was nothing to restore.
    pub fn lines(&self, path: &Path) -> Vec<String> {
        let refused: usize = self.refused.iter().map(|(_, count)| count).sum();
        if self.connections + self.expired + refused == 0 && self.notes.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "{}: connections restored {}, expired {}, not restored {refused}",
            path.display(),
            self.connections,
            self.expired
        )];
        for (reason, count) in &self.refused {
            lines.push(format!("state file: connections not restored {count}: {reason}"));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}
