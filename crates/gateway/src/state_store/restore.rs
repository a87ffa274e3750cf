//! What a kept table holds, brought back into an engine.
use super::RestoreReport;
use super::state_file::{ClockGap, ClockPair, Snapshot};
use crate::notes::were;
use anyhow::{Context, Result, bail};
use keepstate_engine::{ConnSnapshot, Engine, ImportError, Instant, WindowTrust};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Reads the file, if there is one, and imports what has not expired meanwhile.
///
/// # Errors
/// It cannot be read, or is not used at all: what and why, and what to do.
pub(super) fn restore(path: &Path, engine: &mut Engine, moment: &ClockPair, now: Instant) -> Result<RestoreReport> {
    let octets = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(RestoreReport::default()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be looked at", path.display())),
        Ok(there) if !there.is_file() => {
            bail!("{} is no file that a table can be kept in: choose another --state", path.display())
        }
        Ok(there) => read_file(path, there.len()).with_context(|| format!("{} cannot be read", path.display()))?,
    };
    // Made by somebody in advance, for its owner or its mode.
    if octets.is_empty() {
        return Ok(RestoreReport::default());
    }
    let image = match Snapshot::parse(&octets) {
        Ok(image) => image,
        Err(refusal) => bail!(
            "{}: {refusal}. It is left as it is, and nothing of it is used. To begin with an empty table, move it away: mv {} {}.old; or choose another --state",
            path.display(),
            path.display(),
            path.display()
        ),
    };
    let gap = image.last_alive.gap_to(moment);
    let mut restored = import_snapshot(&image, engine, gap.duration(), now);
    restored.notes = describe(&image, gap);
    Ok(restored)
}

fn read_file(path: &Path, length: u64) -> std::io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    octets.try_reserve_exact(length).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    File::open(path)?.take(length as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Brings the connections of a file into an engine. Masters come before those that name one.
pub fn import_snapshot(image: &Snapshot<'_>, engine: &mut Engine, gap: Duration, now: Instant) -> RestoreReport {
    let mut restored = RestoreReport::default();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut children = Vec::new();
    let mut enter = |described: &ConnSnapshot| match engine.import(described, gap, WindowTrust::Lenient, now) {
        Ok(_) => restored.connections += 1,
        Err(ImportError::Expired) => restored.expired += 1,
        Err(other) => *refused.entry(other.to_string()).or_default() += 1,
    };
    let mut unread: BTreeMap<String, usize> = BTreeMap::new();
    for octets in image.connections() {
        match ConnSnapshot::decode(octets) {
            Ok(described) if described.master.is_some() => children.push(described),
            Ok(described) => enter(&described),
            Err(error) => *unread.entry(error.to_string()).or_default() += 1,
        }
    }
    children.iter().for_each(&mut enter);
    refused.extend(unread);
    restored.refused = refused.into_iter().collect();
    restored
}

/// What whoever starts the gateway should know of the file.
fn describe(image: &Snapshot<'_>, gap: ClockGap) -> Vec<String> {
    let mut words = Vec::new();
    if image.truncated_bytes > 0 {
        words.push(format!(
            "the last {} octets of it are torn, as a sudden end leaves them: all before them is used",
            image.truncated_bytes
        ));
    }
    match gap {
        ClockGap::SameBoot(_) => (),
        ClockGap::Rebooted(gap) => {
            words.push(format!("the machine was started again in between; by its clock, {} s have passed", gap.as_secs()));
        }
        ClockGap::Unknown => words.push(
            "the machine was started again in between and its clock was set back: how long that took is not known, and nothing is taken off the timeouts".into(),
        ),
    }
    words
}

impl RestoreReport {
    /// In words, a line each; none if there was nothing.
    pub fn lines(&self, path: &Path) -> Vec<String> {
        let counted: usize = self.refused.iter().map(|(_, count)| count).sum();
        if self.connections + self.expired + counted == 0 && self.notes.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!("{}: {} restored", path.display(), were(self.connections as u64, "connection"))];
        if self.expired > 0 {
            lines.push(format!("{} over meanwhile", were(self.expired as u64, "connection")));
        }
        for (why, count) in &self.refused {
            lines.push(format!("{} not restored: {why}", were(*count as u64, "connection")));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}
