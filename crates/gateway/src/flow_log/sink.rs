//! Where the bytes of a log go: a file that somebody may move away at any time, or a collector that may be away.
//!
//! A sink that fails is tried again after a while; meanwhile records wait in the log's queue, as many as it holds.
use super::config::{FlowLogConfig, FlowLogTarget, LogBackends};
use super::hourly::{self, HourlyConverter, ParquetConverter};
use super::subjects::{self, CarrierStarter, SubjectCarrier};
use super::tls::{TlsConnector, TlsStream};
use crate::cluster::ClusterServers;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Clock};

/// After a failure it is tried again not sooner.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is checked whether the file has been moved away.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A line is not longer: so much of a file's end is looked through for a half line.
const MAX_TAIL: u64 = 8192;

/// The way out.
pub(super) struct LogSink {
    way: Way,
    open: Option<OpenSink>,
    retry_at: Option<Clock>,
}

/// A target, with all that is needed to open it again.
enum Way {
    File(PathBuf),
    Hourly { directory: PathBuf, converter: ParquetConverter, thread: Option<HourlyConverter> },
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr, TlsConnector),
    Subjects { subject: String, carrier: CarrierStarter, servers: ClusterServers },
}

enum OpenSink {
    File { file: File, path: PathBuf, id: (u64, u64), checked: Clock },
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    Subjects(Box<dyn SubjectCarrier>, String),
}

/// Is it ready?
#[derive(Debug)]
pub(super) enum SinkState {
    /// As before.
    Ready,
    /// It was opened just now: what a new reader must know comes first.
    Opened,
    /// Not yet again.
    Waiting,
    /// It has failed just now.
    Failed(io::Error),
}

impl LogSink {
    /// Reads what is needed to open it, and opens nothing.
    ///
    /// # Errors
    /// A file with keys cannot be used; the program has nothing that it would be written with.
    pub(super) fn new(config: &FlowLogConfig, backends: &LogBackends) -> Result<LogSink> {
        let way = match config.target.clone() {
            FlowLogTarget::File(path) => Way::File(path),
            FlowLogTarget::Udp(address) => Way::Udp(address),
            FlowLogTarget::Tcp(address) => Way::Tcp(address),
            FlowLogTarget::Tls(address) => Way::Tls(address, TlsConnector::new(&config.access, address)?),
            FlowLogTarget::Subjects(subject) => {
                let carrier = backends.carrier.clone().context("this program has no NATS")?;
                Way::Subjects { subject, carrier, servers: config.access.servers.clone() }
            }
            FlowLogTarget::Hourly(directory) => {
                let converter = backends.converter.clone().context(
                    "this keepstate was built without Parquet: build it by cargo build --release --features parquet, or log to a file",
                )?;
                Way::Hourly { directory, converter, thread: None }
            }
        };
        Ok(LogSink { way, open: None, retry_at: None })
    }

    /// Opens it, if need be; a file that was moved away is made anew.
    pub(super) fn prepare(&mut self) -> SinkState {
        if self.is_stale() {
            self.open = None;
        }
        if self.open.is_some() {
            return SinkState::Ready;
        }
        if self.retry_at.is_some_and(|at| Clock::now() < at) {
            return SinkState::Waiting;
        }
        match self.way.open() {
            Ok(open) => {
                (self.open, self.retry_at) = (Some(open), None);
                SinkState::Opened
            }
            Err(error) => {
                self.fail();
                SinkState::Failed(error)
            }
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Nothing of it, or a part, was written: of a file nothing.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match &mut self.open {
            None => Err(io::ErrorKind::NotConnected.into()),
            Some(OpenSink::File { file, .. }) => append(file, bytes),
            Some(OpenSink::Udp(socket)) => socket.send(bytes).map(drop),
            Some(OpenSink::Tcp(stream)) => stream.write_all(bytes),
            Some(OpenSink::Tls(stream)) => stream.write_all(bytes),
            Some(OpenSink::Subjects(carrier, subject)) => carrier.publish(subjects::messages(subject, bytes)),
        };
        if written.is_err() {
            self.fail();
        }
        written
    }

    fn fail(&mut self) {
        self.open = None;
        self.retry_at = Some(Clock::now() + RETRY_INTERVAL);
    }

    /// Is the file another one by now, is the hour over, or has the collector hung up?
    fn is_stale(&mut self) -> bool {
        match &mut self.open {
            Some(OpenSink::File { path, id, checked, .. }) => {
                if checked.elapsed() < REOPEN_INTERVAL {
                    return false;
                }
                *checked = Clock::now();
                let is_it = fs::metadata(&*path).is_ok_and(|found| (found.dev(), found.ino()) == *id);
                !is_it || self.way.file().is_none_or(|now| now != *path)
            }
            Some(OpenSink::Tcp(stream)) => has_hung_up(stream),
            Some(OpenSink::Tls(stream)) => stream.has_hung_up(),
            _ => false,
        }
    }
}

impl Way {
    /// The file that is written now.
    fn file(&self) -> Option<PathBuf> {
        match self {
            Way::File(path) => Some(path.clone()),
            Way::Hourly { directory, .. } => Some(hourly::file_of(directory, hourly::current_hour())),
            _ => None,
        }
    }

    fn open(&mut self) -> io::Result<OpenSink> {
        Ok(match self {
            Way::File(path) => open_file(path.clone())?,
            Way::Hourly { directory, converter, thread } => {
                let path = hourly::file_of(directory, hourly::current_hour());
                let opened = open_file(path.clone())?;
                let thread = match thread {
                    Some(thread) => thread,
                    None => thread.insert(HourlyConverter::start(directory, converter.clone())?),
                };
                thread.begin(&path);
                opened
            }
            Way::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(*address)?;
                OpenSink::Udp(socket)
            }
            Way::Tcp(address) => OpenSink::Tcp(connect(address)?),
            Way::Tls(address, connector) => OpenSink::Tls(Box::new(connector.handshake(connect(address)?)?)),
            Way::Subjects { subject, carrier, servers } => {
                let carrier = (carrier.0)(servers).map_err(|error| io::Error::other(format!("{error:#}")))?;
                OpenSink::Subjects(carrier, subject.clone())
            }
        })
    }
}

fn connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

/// Opens a file to append to. Half a line at its end, of a machine that lost its power, is cut off.
fn open_file(path: PathBuf) -> io::Result<OpenSink> {
    let mut options = OpenOptions::new();
    // A FIFO or a device would make the thread wait, or worse.
    let mut file =
        options.read(true).append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(&path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let tail_begin = found.len().saturating_sub(MAX_TAIL);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(tail_begin))?;
    (&mut file).take(MAX_TAIL).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < tail.len() {
        file.set_len(tail_begin + u64::try_from(whole).unwrap_or(0))?;
    }
    Ok(OpenSink::File { file, path, id: (found.dev(), found.ino()), checked: Clock::now() })
}

/// All of it, or nothing: half a line would not be readable.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| {
        let _ = file.set_len(length);
    })
}

/// A collector says nothing: if there is something to read, it is the end.
fn has_hung_up(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut byte));
    let is_blocking = stream.set_nonblocking(false);
    match peeked {
        Ok(count) => count == 0 || is_blocking.is_err(),
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::TcpListener;

    fn sink_to(target: FlowLogTarget) -> LogSink {
        LogSink::new(&FlowLogConfig::to(target), &LogBackends::default()).unwrap()
    }

    #[test]
    fn what_the_program_was_built_without_is_said() {
        let refused =
            |target| LogSink::new(&FlowLogConfig::to(target), &LogBackends::default()).err().unwrap().to_string();
        assert!(refused(FlowLogTarget::Hourly("/tmp".into())).contains("--features parquet"));
        assert!(refused(FlowLogTarget::Subjects("a".into())).contains("no NATS"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_half_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        fs::write(&path, "one\nha").unwrap();
        let mut sink = sink_to(FlowLogTarget::File(path.clone()));
        assert!(matches!(sink.prepare(), SinkState::Opened));
        sink.write(b"two\n").unwrap();
        fs::rename(&path, &old).unwrap();
        while !matches!(sink.prepare(), SinkState::Opened) {
            std::thread::yield_now();
        }
        sink.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink_to(FlowLogTarget::File(folder.path().to_owned()));
        assert!(matches!(sink.prepare(), SinkState::Failed(_)));
        assert!(matches!(sink.prepare(), SinkState::Waiting));
        assert!(sink.write(b"x").is_err());
    }

    #[test]
    fn a_collector_that_hung_up_is_noticed_before_the_next_write() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sink = sink_to(FlowLogTarget::Tcp(listener.local_addr().unwrap()));
        assert!(matches!(sink.prepare(), SinkState::Opened));
        let (mut first, _) = listener.accept().unwrap();
        sink.write(b"one").unwrap();
        let mut read = [0; 3];
        first.read_exact(&mut read).unwrap();
        drop(first);
        while !matches!(sink.prepare(), SinkState::Opened) {
            std::thread::yield_now();
        }
        sink.write(b"two").unwrap();
        listener.accept().unwrap().0.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"two");
    }
}
