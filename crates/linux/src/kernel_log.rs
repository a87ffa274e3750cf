//! Kernel log lines about connection tracking: from the ring buffer or a log file.
//!
//! Only matching lines are kept, a limited number of them. It never waits for new lines.
use crate::sysroot::{FileError, SysRoot};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lines of a log about connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelLog {
    /// In the log's order.
    pub lines: Vec<KernelLogLine>,
    /// Lines read.
    pub lines_read: usize,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLogLine {
    /// Seconds since boot, where the log counts them.
    pub uptime: Option<u64>,
    /// The text, without time and host.
    pub text: String,
    /// `table full`: of which namespace? The initial one has no number.
    pub table_full: Option<TableFullNetns>,
}

/// The namespace whose table was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFullNetns {
    /// The initial namespace's.
    Initial,
    /// Those of the namespace with this inode.
    Netns(u64),
}

/// More lines than this say nothing new; the latest are kept.
const MAX_LINES: usize = 2000;

/// Of a longer file the end is read.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The ring buffer of the running kernel: what is there now.
///
/// # Errors
/// Permission denied (`kernel.dmesg_restrict` requires CAP_SYSLOG).
pub fn read_kmsg() -> Result<KernelLog, FileError> {
    let path = Path::new("/dev/kmsg");
    let failed = |source| FileError { path: path.to_owned(), operation: "read", source };
    let mut device = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut log = KernelLog::default();
    // One read gives one record; a longer one than this there is not.
    let mut record = [0; 8192];
    loop {
        match device.read(&mut record) {
            Ok(0) => break,
            Ok(length) => log.push_record(&String::from_utf8_lossy(record.get(..length).unwrap_or(&record))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // EPIPE: the record was overwritten before it was read; the next read goes on behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe || error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(log)
}

/// A file that holds a log: of `dmesg`, of `journalctl -k`, or a syslog.
///
/// # Errors
/// Why it cannot be read.
pub fn read_file(root: &SysRoot, path: impl AsRef<Path>) -> Result<KernelLog, FileError> {
    let path = path.as_ref();
    let failed = |source| FileError { path: root.path(path), operation: "read", source };
    // On this machine the user names it, and it may be a pipe.
    let mut file = if root.is_live() { File::open(root.path(path)).map_err(failed)? } else { root.open_file(path)? };
    if file.metadata().is_ok_and(|found| found.is_file() && found.len() > MAX_FILE_BYTES) {
        file.seek(SeekFrom::End(-MAX_FILE_BYTES.cast_signed())).map_err(failed)?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// A log as text.
pub fn parse(text: &str) -> KernelLog {
    let mut log = KernelLog::default();
    for line in text.lines() {
        log.push_line(line, parse_uptime(line));
    }
    log
}

impl KernelLog {
    /// A record of `/dev/kmsg`: `priority,sequence,microseconds,flags;text`, and lines of facts about it.
    fn push_record(&mut self, record: &str) {
        let Some((head, text)) = record.split_once(';') else { return };
        let micros: Option<u64> = head.split(',').nth(2).and_then(|time| time.parse().ok());
        self.push_line(text.lines().next().unwrap_or_default(), micros.map(|micros| micros / 1_000_000));
    }

    fn push_line(&mut self, line: &str, uptime: Option<u64>) {
        self.lines_read += 1;
        // A line begins where its subsystem does; before it stand times, hosts and levels.
        let start = ["nf_conntrack", "nf_ct_", "conntrack", "nf_nat"].iter().filter_map(|word| line.find(word)).min();
        let Some(text) = start.and_then(|start| line.get(start..)) else { return };
        if self.lines.len() == MAX_LINES {
            self.lines.remove(0);
        }
        self.lines.push(KernelLogLine { uptime, text: text.trim_end().to_owned(), table_full: parse_table_full(text) });
    }
}

/// `[ 2208.339896]`, in which `dmesg` counts seconds since boot.
fn parse_uptime(line: &str) -> Option<u64> {
    let inside = line.split_once('[')?.1.split_once(']')?.0.trim();
    let (seconds, micros) = inside.split_once('.')?;
    if micros.len() == 6 { seconds.parse().ok() } else { None }
}

fn parse_table_full(text: &str) -> Option<TableFullNetns> {
    let (_, rest) = text.split_once("table full")?;
    let number = rest.split_once("in netns ").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    match number {
        Some(number) => number.and_then(|number| number.parse().ok()).map(TableFullNetns::Netns),
        None => Some(TableFullNetns::Initial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_dmesg_journal_and_syslog_lines() {
        let log = parse(
            "[    1.000001] Linux version 6.18\n\
             [22082.339896] nf_conntrack: nf_conntrack: table full in netns 4026532177, dropping packet\n\
             Nov 23 18:57:01 gw kernel: [ 2201.100000] nf_conntrack: table full, dropping packet\n\
             Nov 23 18:57:01 gw kernel: nf_conntrack: table full, dropping packet.\n\
             [Mon Nov 23 18:57:01 2026] nf_conntrack: default automatic helper assignment has been turned off\n",
        );
        let seen: Vec<_> = log.lines.iter().map(|line| (line.uptime, line.table_full)).collect();
        let inside = Some(TableFullNetns::Netns(4_026_532_177));
        let initial = Some(TableFullNetns::Initial);
        assert_eq!(seen, [(Some(22082), inside), (Some(2201), initial), (None, initial), (None, None)]);
        assert_eq!(log.lines_read, 5);
        assert_eq!(log.lines[2].text, "nf_conntrack: table full, dropping packet.");
    }

    #[test]
    fn parses_kmsg_records() {
        let mut log = KernelLog::default();
        log.push_record(
            "4,1234,22082339896,-;nf_conntrack: nf_conntrack: table full, dropping packet\n SUBSYSTEM=net\n",
        );
        log.push_record("no record");
        assert_eq!((log.lines[0].uptime, log.lines[0].table_full), (Some(22082), Some(TableFullNetns::Initial)));
        assert_eq!(log.lines.len(), 1);
    }

    #[test]
    fn keeps_only_the_latest_lines() {
        let many: String = (0..MAX_LINES + 5).map(|at| format!("nf_conntrack: line {at}\n")).collect();
        let log = parse(&many);
        assert_eq!((log.lines.len(), log.lines[0].text.as_str()), (MAX_LINES, "nf_conntrack: line 5"));
    }
}
