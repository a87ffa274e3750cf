//! Flow logs read: those of each gateway in the order of their first records, whatever the order of their names; those of several gateways side by side, in the order of time.
use crate::parquet_log::{self, ParquetLines};
use anyhow::{Context, Result, bail};
use keepstate_flowlog::{LogRecord, LogTime, MAX_JSON_LINE, WhoAnswer, WhoQuestion, WhoSearch, parse_json_line};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Asks these logs.
///
/// # Errors
/// A file cannot be read, or has a line that is no record: which file and line.
pub(super) fn ask(files: &[PathBuf], question: WhoQuestion) -> Result<WhoAnswer> {
    let mut ordered = Vec::new();
    for path in files {
        ordered.push((first_time(path)?, path.clone()));
    }
    // An empty file is read first, and standard input where it stands among them: at the end.
    ordered.sort_by_key(|(time, _)| *time);
    let mut by_log: BTreeMap<PathBuf, RotatedLog> = BTreeMap::new();
    for (time, path) in ordered {
        by_log.entry(log_of(&path)).or_default().files.push_back((time, path));
    }
    let mut logs: Vec<RotatedLog> = by_log.into_values().collect();
    let mut search = WhoSearch::new(question);
    // The log whose next record is the oldest.
    while let Some((_, at)) = logs.iter().enumerate().filter_map(|(at, log)| Some((log.next_time()?, at))).min() {
        if let Some(log) = logs.get_mut(at) {
            match log.next_record()? {
                Some((seq, record)) => search.push_of(at, seq, &record),
                None => search.end_log(at),
            }
            if log.next_time().is_none() {
                search.end_log(at);
            }
        }
    }
    Ok(search.answer())
}

/// The log that a file is of: its name without what logrotate and hourly files add. `gw1/flows.jsonl.2.gz` is of `gw1/flows.jsonl`, `flows-2026-11-30T06.parquet` of `flows`.
fn log_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut name = name.as_str();
    let compressed = [".gz", ".zst", ".parquet"];
    name = compressed.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((before, _)) = name.rsplit_once('.').filter(|(_, number)| is_number(number)) {
        name = before;
    }
    // `-20261130`, `-20261130-1796025600`; of hourly files `-2026-11-30T06`, before `.jsonl` while the hour lasts.
    let is_date = |letter: char| letter.is_ascii_digit() || letter == '-' || letter == 'T';
    let stem = name.strip_suffix(".jsonl").unwrap_or(name);
    for undated in [name, stem].map(|name| name.trim_end_matches(is_date)) {
        if undated.len() + 9 <= name.len() && name.get(undated.len()..).is_some_and(|date| date.starts_with('-')) {
            return path.with_file_name(undated);
        }
    }
    path.with_file_name(name)
}

/// The files of one log, the next one of which is open.
#[derive(Default)]
struct RotatedLog {
    /// By the times of their first records.
    files: VecDeque<(LogTime, PathBuf)>,
    open: Option<LogRecords>,
    /// Read ahead.
    next: Option<(u64, LogRecord)>,
}

impl RotatedLog {
    /// The time of the next record; `None` at the end.
    fn next_time(&self) -> Option<LogTime> {
        match &self.next {
            Some((_, record)) => Some(record.at),
            None => self.files.front().map(|(time, _)| *time),
        }
    }

    /// The next record; `None` where there is none though a file's first record was looked at before: an empty file.
    fn next_record(&mut self) -> Result<Option<(u64, LogRecord)>> {
        let taken = match self.next.take() {
            Some(next) => Some(next),
            None => self.read()?,
        };
        self.next = self.read()?;
        Ok(taken)
    }

    fn read(&mut self) -> Result<Option<(u64, LogRecord)>> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(record) = open.next_record()?
            {
                return Ok(Some(record));
            }
            self.open = None;
            let Some((_, path)) = self.files.pop_front() else { return Ok(None) };
            self.open = Some(LogRecords::open(&path)?);
        }
    }
}

/// The time of the first record; the latest for standard input, which is read once only.
fn first_time(path: &Path) -> Result<LogTime> {
    if path.as_os_str() == "-" {
        return Ok(LogTime(u64::MAX));
    }
    Ok(LogRecords::open(path)?.next_record()?.map_or(LogTime(0), |(_, record)| record.at))
}

/// The records of one file, whatever it is.
enum LogRecords {
    Lines(LogLines),
    Parquet { path: PathBuf, lines: ParquetLines, row: u64 },
}

impl LogRecords {
    fn open(path: &Path) -> Result<LogRecords> {
        let failed = || format!("{} cannot be read", path.display());
        if path.as_os_str() == "-" || !parquet_log::is_parquet(path).with_context(failed)? {
            return LogLines::open(path).map(LogRecords::Lines);
        }
        let file = File::open(path).with_context(failed)?;
        let lines = parquet_log::read(file).with_context(failed)?;
        Ok(LogRecords::Parquet { path: path.to_owned(), lines, row: 0 })
    }

    /// The next record, with its sequence number.
    fn next_record(&mut self) -> Result<Option<(u64, LogRecord)>> {
        match self {
            LogRecords::Lines(lines) => {
                let Some(line) = lines.next_line()? else { return Ok(None) };
                let parsed = parse_json_line(line);
                parsed.map(Some).with_context(|| lines.place())
            }
            LogRecords::Parquet { path, lines, row } => {
                let Some(line) = lines.next() else { return Ok(None) };
                *row += 1;
                let parsed = line.and_then(|line| Ok(parse_json_line(&line)?));
                parsed.map(Some).with_context(|| format!("{}, row {row}", path.display()))
            }
        }
    }
}

/// The lines of one file.
struct LogLines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

impl LogLines {
    fn open(path: &Path) -> Result<LogLines> {
        let bytes: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?)
        };
        let plain = keepstate_capture::decompressed(bytes);
        let (plain, _) = plain.with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(LogLines { path: path.to_owned(), reader: Box::new(BufReader::new(plain)), line: Vec::new(), number: 0 })
    }

    /// The next line that is complete: the gateway may be writing the last one just now.
    fn next_line(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        self.number += 1;
        let most = u64::try_from(MAX_JSON_LINE).unwrap_or(u64::MAX) + 1;
        let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line);
        let length = read.with_context(|| format!("{} cannot be read", self.path.display()))?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            return Ok(Some(&self.line));
        }
        if length > MAX_JSON_LINE {
            bail!("{}: longer than {MAX_JSON_LINE} bytes: not a flow log", self.place());
        }
        Ok(None)
    }

    /// `flows.jsonl:17`
    fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_log_are_known_by_their_names() {
        let of = |name: &str| log_of(Path::new(name)).display().to_string();
        for name in [
            "gw1/flows.jsonl",
            "gw1/flows.jsonl.1",
            "gw1/flows.jsonl.12.gz",
            "gw1/flows.jsonl.2.zst",
            "gw1/flows.jsonl-20261130",
            "gw1/flows.jsonl-20261130-1796025600.gz",
        ] {
            assert_eq!(of(name), "gw1/flows.jsonl", "{name}");
        }
        for name in ["flows-2026-11-30T06.parquet", "flows-2026-11-30T07.jsonl"] {
            assert_eq!(of(name), "flows", "{name}");
        }
        // Other gateways.
        for name in ["gw2/flows.jsonl", "gw-1.jsonl", "gw-2.jsonl", "gw1-flows.jsonl", "-", "flows0.jsonl"] {
            assert_eq!(of(name), name);
        }
    }
}
