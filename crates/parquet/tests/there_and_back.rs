//! Every kind of record, written as Parquet and read again; what is no log is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../../flowlog/tests/common/mod.rs"]
mod common;

use common::{one_of_each, record, session, session_end};
use keepstate_flowlog::{LogEvent, LogRecord, json_line, parse_json_line};
use keepstate_parquet::{ParquetLogReader, ParquetLogWriter};
use std::fs::File;
use std::io::Write;

fn write(lines: &[String]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = ParquetLogWriter::new(file.reopen().unwrap()).unwrap();
    lines.iter().for_each(|line| writer.push(line.as_bytes()).unwrap());
    writer.finish().unwrap();
    file
}

fn read(file: &tempfile::NamedTempFile) -> Vec<(u64, LogRecord)> {
    let lines = ParquetLogReader::new(file.reopen().unwrap()).unwrap();
    lines.map(|line| parse_json_line(&line.unwrap()).unwrap()).collect()
}

#[test]
fn every_record_comes_back_as_it_was() {
    let mut records = one_of_each();
    records.insert(0, record(0, LogEvent::LogStart { instance: u64::MAX, connections: 3 }));
    records.push(record(1, LogEvent::LogEnd));
    let lines: Vec<String> = records.iter().zip(1..).map(|(record, seq)| json_line(seq, record)).collect();
    let expected: Vec<(u64, LogRecord)> = lines.iter().map(|line| parse_json_line(line.as_bytes()).unwrap()).collect();
    assert_eq!(read(&write(&lines)), expected);
    assert_eq!(read(&write(&[])), []);
}

/// More rows than one group has.
#[test]
fn groups_follow_each_other() {
    let lines: Vec<String> = (0..70_000_u32)
        .map(|number| json_line(u64::from(number) + 1, &record(u64::from(number), session_end(session(number), 0, 5))))
        .collect();
    let file = write(&lines);
    let size = file.as_file().metadata().unwrap().len();
    assert!(size < lines.iter().map(|line| line.len() as u64).sum::<u64>() / 4, "{size}");
    let found = read(&file);
    assert!(found.iter().zip(1..).all(|((seq, _), wanted)| *seq == wanted) && found.len() == lines.len());
}

#[test]
fn what_is_no_log_is_refused() {
    let mut writer = ParquetLogWriter::new(Vec::new()).unwrap();
    assert!(writer.push(b"nothing").unwrap_err().to_string().starts_with("not a JSON object"));
    assert!(writer.push(br#"{"seq":1,"colour":2}"#).unwrap_err().to_string().contains("colour has no column"));
    writer.push(br#"{"seq":1,"at":"yesterday","event":"log-end"}"#).unwrap();
    assert_eq!(writer.finish().unwrap_err().to_string(), "at: \"yesterday\" is not possible");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"PAR1 and nothing else, PAR1").unwrap();
    assert!(ParquetLogReader::new(File::open(file.path()).unwrap()).is_err());
}
