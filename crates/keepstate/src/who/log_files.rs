//! Flow logs read: files of one gateway, in the order of their first records, whatever the order of their names.
use crate::parquet_log::{self, ParquetLines};
use anyhow::{Context, Result, bail};
use keepstate_flowlog::{LogRecord, LogTime, MAX_JSON_LINE, WhoAnswer, WhoQuestion, WhoSearch, parse_json_line};
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
        ordered.push((first_time(path)?, path));
    }
    // An empty file is read first, and standard input where it stands among them: at the end.
    ordered.sort_by_key(|(time, _)| *time);
    let mut search = WhoSearch::new(question);
    for (_, path) in ordered {
        let mut records = LogRecords::open(path)?;
        while let Some((seq, record)) = records.next_record()? {
            search.push(seq, &record);
        }
    }
    Ok(search.answer())
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
