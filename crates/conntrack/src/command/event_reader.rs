//! The ear at the kernel's events: one thread does nothing but empty the kernel's buffer, so that a slow terminal loses no event before
//! its time. Where the buffer runs over all the same, that is said, and the buffer grows, unless its size was given.
//!
//! It listens from when it is opened until a signal (INT, TERM, HUP) comes.
use super::error::{self, ConntrackError, Operation, print_message};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::CtEventSocket;
use keepstate_linux::netlink::NetlinkError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

/// The kernel's buffer at first, in octets, where the size was not given.
const INITIAL_BUFFER: usize = 4 << 20;
/// It grows to no more than this.
const MAX_BUFFER: usize = 256 << 20;
/// So many reads may wait to be written.
const QUEUE_LEN: usize = 4096;
/// How long the reader waits before it looks whether it is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Listens; see the module.
pub(super) struct EventReader {
    receiver: Receiver<ReaderMessage>,
}

/// Messages, and when they were read.
pub(super) struct EventChunk {
    pub(super) bytes: Vec<u8>,
    pub(super) read_at: Instant,
}

/// What the reader hands on.
enum ReaderMessage {
    Chunk(EventChunk),
    /// Events were lost; the buffer's size from now on.
    Overrun(usize),
    Failed(ConntrackError),
}

impl EventReader {
    /// Begins to listen, with a buffer of `size` octets if that was given.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(events: io::Result<CtEventSocket>, size: Option<u32>) -> Result<EventReader, ConntrackError> {
        let refused = |error: io::Error| ConntrackError::from_kernel(Operation::Monitor, &error.into());
        let mut events = events.map_err(refused)?;
        let wanted = size.map_or(INITIAL_BUFFER, |octets| usize::try_from(octets).unwrap_or(usize::MAX));
        let got = events.socket().set_recv_buffer_size(wanted).map_err(refused)?;
        if size.is_some() {
            error::print_line(&format!("NOTICE: Netlink socket buffer size has been set to {got} bytes."));
        }
        let over = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&over);
        ctrlc::set_handler(move || signal.store(true, Ordering::Relaxed))
            .map_err(|error| ConntrackError::Failed(format!("signals cannot be waited for: {error}")))?;
        let (hand, heard) = sync_channel(QUEUE_LEN);
        thread::spawn(move || read_loop(events, size.is_none(), &over, &hand));
        Ok(EventReader { receiver: heard })
    }

    /// What came next; `None` when it is over. Where nothing has come yet, `idle` is called first.
    ///
    /// # Errors
    /// What the system says; what `idle` says.
    pub(super) fn next_chunk(
        &self,
        idle: impl FnOnce() -> io::Result<()>,
    ) -> Result<Option<EventChunk>, ConntrackError> {
        let mut heard = match self.receiver.try_recv() {
            Err(TryRecvError::Empty) => {
                idle()?;
                self.receiver.recv().ok()
            }
            heard => heard.ok(),
        };
        loop {
            match heard {
                None => return Ok(None),
                Some(ReaderMessage::Chunk(piece)) => return Ok(Some(piece)),
                Some(ReaderMessage::Failed(fault)) => return Err(fault),
                Some(ReaderMessage::Overrun(size)) => {
                    print_message(format!(
                        "WARNING: events were lost: they came faster than they were read (ENOBUFS). The socket's buffer has {size} bytes from now on; \
                         -b sets it, -e and filters make events fewer."
                    ));
                    heard = self.receiver.recv().ok();
                }
            }
        }
    }
}

/// Empties the socket until it is over.
fn read_loop(mut events: CtEventSocket, may_grow: bool, over: &AtomicBool, hand: &SyncSender<ReaderMessage>) {
    while !over.load(Ordering::Relaxed) {
        let heard = match events.receive(POLL_INTERVAL) {
            Ok(None) => continue,
            Ok(Some(octets)) => ReaderMessage::Chunk(EventChunk { bytes: octets.to_vec(), read_at: wall_clock() }),
            Err(failure) if failure.errno() == Some(libc::ENOBUFS) => {
                ReaderMessage::Overrun(grow_buffer(&mut events, may_grow))
            }
            Err(failure) => ReaderMessage::Failed(ConntrackError::from_kernel(Operation::Monitor, &failure)),
        };
        let failed = matches!(heard, ReaderMessage::Failed(_));
        if hand.send(heard).is_err() || failed {
            return;
        }
    }
    // What waits in the kernel came before the signal.
    while let Ok(Some(octets)) = events.receive(Duration::ZERO) {
        if hand.send(ReaderMessage::Chunk(EventChunk { bytes: octets.to_vec(), read_at: wall_clock() })).is_err() {
            return;
        }
    }
}

/// Doubles the buffer, if it may grow; gives its size.
fn grow_buffer(events: &mut CtEventSocket, may_grow: bool) -> usize {
    let socket = events.socket();
    let size = socket.recv_buffer_size().unwrap_or(0);
    // The kernel doubles what it is asked for, so to ask for its size is to double it.
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

fn wall_clock() -> Instant {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// A malformed message of the kernel.
pub(super) fn malformed_error(error: keepstate_linux::netlink::MalformedNetlink) -> ConntrackError {
    ConntrackError::from_kernel(Operation::Monitor, &NetlinkError::from(error))
}
