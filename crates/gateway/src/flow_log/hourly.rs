//! A directory with one file an hour: JSON lines while the hour lasts, so that nothing is lost when the machine stops, and a Parquet file once it is over.
//!
//! ```text
//! flows-2026-11-30T06.parquet    over
//! flows-2026-11-30T07.jsonl      now, or: it could not be converted, and the log says why
//! ```
//! Conversion has a thread of its own, with what the log's thread may do; what an earlier gateway left is converted too. Nothing is ever deleted but lines that stand in a Parquet file.
use crate::clock::{SystemTimeSource, TimeSource};
use anyhow::{Context, Result};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Reads a file of JSON lines and writes them as a Parquet file; given by the program, if it was built with it.
#[derive(Clone)]
pub struct ParquetConverter(pub Arc<ConvertLog>);

/// What a [`ParquetConverter`] calls: from this file, into this one.
pub type ConvertLog = dyn Fn(&Path, &mut File) -> Result<()> + Send + Sync;

impl fmt::Debug for ParquetConverter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParquetConverter")
    }
}

const PREFIX: &str = "flows-";
const LINES: &str = "jsonl";
const HOUR_SECS: u64 = 3600;

/// The hour that it is: hours since 1970, UTC.
pub(super) fn current_hour() -> u64 {
    SystemTimeSource.unix_time().0 / 1_000_000_000 / HOUR_SECS
}

/// The file of an hour.
pub(super) fn file_of(directory: &Path, hour: u64) -> PathBuf {
    let seconds = i64::try_from(hour.saturating_mul(HOUR_SECS)).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    directory.join(format!("{PREFIX}{}.{LINES}", time.strftime("%Y-%m-%dT%H")))
}

/// Tells the thread that converts; dropped, it ends after the file that it has in hand.
pub(super) struct HourlyConverter(Sender<PathBuf>);

impl HourlyConverter {
    /// Starts the thread, which has what this one may do.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn start(directory: &Path, converter: ParquetConverter) -> std::io::Result<HourlyConverter> {
        let (current, files) = channel();
        let directory = directory.to_owned();
        let thread = std::thread::Builder::new().name("flow-log-hourly".into());
        thread.spawn(move || convert_all(&directory, &converter, &files))?;
        Ok(HourlyConverter(current))
    }

    /// This file is written now: all others are to be converted.
    pub(super) fn begin(&self, current: &Path) {
        // A thread that has failed has said so.
        let _ = self.0.send(current.to_owned());
    }
}

fn convert_all(directory: &Path, converter: &ParquetConverter, current: &Receiver<PathBuf>) {
    while let Ok(current) = current.recv() {
        for lines in old_files(directory, &current) {
            match convert(&lines, converter) {
                Ok(made) => tracing::debug!("flow log: {} made of {}", made.display(), lines.display()),
                Err(error) => tracing::error!(
                    "flow log: {} is not made a Parquet file: {error:#}; it stays as it is, and keepstate who reads it",
                    lines.display()
                ),
            }
        }
    }
}

/// The files of hours that are over.
fn old_files(directory: &Path, current: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_old = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PREFIX) && path.extension().is_some_and(|end| end == LINES) && path.as_path() != current
    };
    let mut old: Vec<PathBuf> = found.filter(is_old).collect();
    old.sort();
    old
}

/// Makes the Parquet file, whole and on the disk, before the lines go.
fn convert(lines: &Path, converter: &ParquetConverter) -> Result<PathBuf> {
    let part = lines.with_extension("parquet.part");
    let made = free_name(lines);
    let write = || -> Result<()> {
        let mut options = File::options();
        let opened = options.write(true).create(true).truncate(true).mode(0o640).open(&part);
        let mut file = opened.with_context(|| format!("{}", part.display()))?;
        (converter.0)(lines, &mut file)?;
        file.sync_all()?;
        fs::rename(&part, &made)?;
        if let Some(directory) = made.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    write().inspect_err(|_| {
        // What is half done is of no use; it would be written over.
        let _ = fs::remove_file(&part);
    })?;
    fs::remove_file(lines).with_context(|| format!("{} is made, but the lines cannot be removed", made.display()))?;
    Ok(made)
}

/// `flows-….parquet`; if the clock was set back and that is there already, with a number.
fn free_name(lines: &Path) -> PathBuf {
    let mut name = lines.with_extension("parquet");
    let mut number = 2_u32;
    while name.exists() {
        name = lines.with_extension(format!("{number}.parquet"));
        number = number.saturating_add(1);
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::io::Write;

    #[test]
    fn hours_that_are_over_are_converted_and_what_fails_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |hour| file_of(folder.path(), hour);
        assert_eq!(path(490_000).file_name().unwrap(), "flows-2025-11-24T16.jsonl");
        for (hour, text) in [(490_000, "one"), (490_001, "bad"), (490_002, "now")] {
            fs::write(path(hour), text).unwrap();
        }
        fs::write(path(490_000).with_extension("parquet"), "of before the clock was set back").unwrap();
        fs::write(folder.path().join("other.jsonl"), "not ours").unwrap();
        let converter = ParquetConverter(Arc::new(|lines: &Path, out: &mut File| {
            let text = fs::read_to_string(lines)?;
            anyhow::ensure!(text != "bad", "a line is wrong");
            Ok(out.write_all(text.to_uppercase().as_bytes())?)
        }));
        let (tell, told) = channel();
        tell.send(path(490_002)).unwrap();
        drop(tell);
        convert_all(folder.path(), &converter, &told);
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "flows-2025-11-24T16.2.parquet",
            "flows-2025-11-24T16.parquet",
            "flows-2025-11-24T17.jsonl",
            "flows-2025-11-24T18.jsonl",
            "other.jsonl",
        ];
        assert_eq!(names, expected);
        assert_eq!(fs::read_to_string(folder.path().join("flows-2025-11-24T16.2.parquet")).unwrap(), "ONE");
    }
}
