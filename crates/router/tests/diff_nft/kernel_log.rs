//! The kernel's log lines of one test: `/dev/kmsg` from now on, and the sysctl that lets other namespaces log, put back at the end.
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Whoever changes the sysctl holds this file's lock: it is one for the whole machine.
const NF_LOG_LOCK: &str = "/tmp/keepstate-nf-log.lock";
const NF_LOG_ALL_NETNS: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

/// While it lives, rules of every network namespace log to the kernel's log.
pub struct LogsOfAllNamespaces {
    before: String,
    _lock: File,
}

impl LogsOfAllNamespaces {
    /// `None` where this may not be set.
    pub fn enable() -> Option<LogsOfAllNamespaces> {
        let lock = File::options().create(true).truncate(false).write(true).open(NF_LOG_LOCK).ok()?;
        lock.lock().ok()?;
        let before = fs::read_to_string(NF_LOG_ALL_NETNS).ok()?;
        fs::write(NF_LOG_ALL_NETNS, "1").ok()?;
        Some(LogsOfAllNamespaces { before, _lock: lock })
    }
}

impl Drop for LogsOfAllNamespaces {
    fn drop(&mut self) {
        let _ = fs::write(NF_LOG_ALL_NETNS, &self.before);
    }
}

/// The kernel's log from now on, only lines with a prefix.
pub struct KernelLog {
    kmsg: File,
    prefix: String,
}

impl KernelLog {
    /// `None` where it may not be read.
    pub fn open(prefix: &str) -> Option<KernelLog> {
        let path = Path::new("/dev/kmsg");
        let mut kmsg = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        kmsg.seek(SeekFrom::End(0)).ok()?;
        Some(KernelLog { kmsg, prefix: prefix.to_owned() })
    }

    /// Level and text of the lines since the last call; waits until there are `expected`, for some seconds at most.
    pub fn read(&mut self, expected: usize) -> Vec<(u8, String)> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut lines = Vec::new();
        let mut record = [0; 16_384];
        loop {
            match self.kmsg.read(&mut record) {
                Ok(length) => lines.extend(self.parse(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if lines.len() >= expected || Instant::now() > deadline {
                        return lines;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }

    /// A record: `level,number,time,flags;text`, then fields by lines.
    fn parse(&self, record: &[u8]) -> Option<(u8, String)> {
        let record = std::str::from_utf8(record).unwrap();
        let (head, rest) = record.split_once(';').unwrap();
        let text = rest.lines().next().unwrap();
        let level: u16 = head.split(',').next().unwrap().parse().unwrap();
        text.contains(&self.prefix).then(|| ((level & 7) as u8, text.to_owned()))
    }
}
