//! A reader of the kernel's events: one thread does nothing but empty the socket's buffer, so that a slow terminal does not lose events
//! too early. If the buffer overruns all the same, a warning is printed and the buffer grows, unless its size was given.
//!
//! It reads from when it is opened until a signal (INT, TERM, HUP).
use super::error::{self, ConntrackError, Operation, print_message};
use keepstate_engine::UnixTime;
use keepstate_linux::ctnetlink::CtEventSocket;
use keepstate_linux::netlink::NetlinkError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

/// The socket's buffer at first, in bytes, if no size was given.
const INITIAL_BUFFER: usize = 4 << 20;
/// It grows to no more than this.
const MAX_BUFFER: usize = 256 << 20;
/// Chunks that may wait to be written.
const QUEUE_LEN: usize = 4096;
/// How often the reader checks for a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct EventReader {
    receiver: Receiver<ReaderMessage>,
}

/// Netlink messages, and when they were read.
pub(super) struct EventChunk {
    pub(super) bytes: Vec<u8>,
    pub(super) read_at: UnixTime,
}

/// What the reading thread sends.
enum ReaderMessage {
    Chunk(EventChunk),
    /// Events were lost; the new size of the buffer.
    Overrun(usize),
    Failed(ConntrackError),
}

impl EventReader {
    /// Starts reading, with a buffer of `size` bytes if that is given.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn open(events: io::Result<CtEventSocket>, size: Option<u32>) -> Result<EventReader, ConntrackError> {
        let failed = |error: io::Error| ConntrackError::from_kernel(Operation::Monitor, &error.into());
        let mut events = events.map_err(failed)?;
        let wanted = size.map_or(INITIAL_BUFFER, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let got = events.socket().set_recv_buffer_size(wanted).map_err(failed)?;
        if size.is_some() {
            error::print_line(&format!("NOTICE: Netlink socket buffer size has been set to {got} bytes."));
        }
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| ConntrackError::Failed(format!("cannot handle signal {signal}: {error}")))?;
        }
        let (sender, receiver) = sync_channel(QUEUE_LEN);
        thread::spawn(move || read_loop(events, size.is_none(), &stop, &sender));
        Ok(EventReader { receiver })
    }

    /// The next chunk; `None` after a signal. If there is none yet, `idle` is called first.
    ///
    /// # Errors
    /// The system's error; the error of `idle`.
    pub(super) fn next_chunk(
        &self,
        idle: impl FnOnce() -> io::Result<()>,
    ) -> Result<Option<EventChunk>, ConntrackError> {
        let mut received = match self.receiver.try_recv() {
            Err(TryRecvError::Empty) => {
                idle()?;
                self.receiver.recv().ok()
            }
            received => received.ok(),
        };
        loop {
            match received {
                None => return Ok(None),
                Some(ReaderMessage::Chunk(chunk)) => return Ok(Some(chunk)),
                Some(ReaderMessage::Failed(error)) => return Err(error),
                Some(ReaderMessage::Overrun(size)) => {
                    print_message(format!(
                        "WARNING: events were lost: they came faster than they were read (ENOBUFS). The socket buffer is now {size} bytes; \
                         -b sets its size, -e and filters reduce the number of events."
                    ));
                    received = self.receiver.recv().ok();
                }
            }
        }
    }
}

/// Empties the socket until `stop` is set.
fn read_loop(mut events: CtEventSocket, may_grow: bool, stop: &AtomicBool, sender: &SyncSender<ReaderMessage>) {
    while !stop.load(Ordering::Relaxed) {
        let message = match events.receive(POLL_INTERVAL) {
            Ok(None) => continue,
            Ok(Some(bytes)) => ReaderMessage::Chunk(EventChunk { bytes: bytes.to_vec(), read_at: wall_clock() }),
            Err(failure) if failure.errno() == Some(libc::ENOBUFS) => {
                ReaderMessage::Overrun(grow_buffer(&mut events, may_grow))
            }
            Err(failure) => ReaderMessage::Failed(ConntrackError::from_kernel(Operation::Monitor, &failure)),
        };
        let failed = matches!(message, ReaderMessage::Failed(_));
        if sender.send(message).is_err() || failed {
            return;
        }
    }
    // What is still in the buffer came before the signal.
    while let Ok(Some(bytes)) = events.receive(Duration::ZERO) {
        if sender.send(ReaderMessage::Chunk(EventChunk { bytes: bytes.to_vec(), read_at: wall_clock() })).is_err() {
            return;
        }
    }
}

/// Doubles the buffer, if it may grow; returns its size.
fn grow_buffer(events: &mut CtEventSocket, may_grow: bool) -> usize {
    let socket = events.socket();
    let size = socket.recv_buffer_size().unwrap_or(0);
    // The kernel doubles the size it is given, so setting the current size doubles it.
    let grown = (may_grow && size < MAX_BUFFER).then(|| socket.set_recv_buffer_size(size));
    match grown {
        Some(Ok(size)) => size,
        Some(Err(_)) | None => size,
    }
}

/// The program behind a netlink port, if it still runs: a program's first socket has its process id.
pub(super) fn program_of_port(port: u32) -> Option<String> {
    if port == 0 {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{port}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

fn wall_clock() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// The error of a malformed message.
pub(super) fn malformed_error(error: keepstate_linux::netlink::MalformedNetlink) -> ConntrackError {
    ConntrackError::from_kernel(Operation::Monitor, &NetlinkError::from(error))
}
