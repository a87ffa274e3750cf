//! The ear at the kernel's events: one thread does nothing but empty the kernel's buffer, so that a slow terminal loses no event before
//! its time. Where the buffer runs over all the same, that is said, and the buffer grows, unless its size was given.
//!
//! It listens from when it is opened until a signal (INT, TERM, HUP) comes.
use super::fault::{self, Doing, Fault, say};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::Events;
use keepstate_linux::netlink::Failure;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

/// The kernel's buffer at first, in octets, where the size was not given.
const BUFFER: usize = 4 << 20;
/// It grows to no more than this.
const LARGEST_BUFFER: usize = 256 << 20;
/// So many reads may wait to be written.
const WAITING: usize = 4096;
/// How long the reader waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Listens; see the module.
pub(super) struct Ear {
    heard: Receiver<Heard>,
}

/// Messages, and when they were read.
pub(super) struct Piece {
    pub(super) octets: Vec<u8>,
    pub(super) at: Instant,
}

/// What the reader hands on.
enum Heard {
    Piece(Piece),
    /// Events were lost; the buffer's size from now on.
    Lost(usize),
    Failed(Fault),
}

impl Ear {
    /// Begins to listen, with a buffer of `size` octets if that was given.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(events: io::Result<Events>, size: Option<u32>) -> Result<Ear, Fault> {
        let refused = |error: io::Error| Fault::kernel(Doing::Listen, &error.into());
        let mut events = events.map_err(refused)?;
        let wanted = size.map_or(BUFFER, |octets| usize::try_from(octets).unwrap_or(usize::MAX));
        let got = events.socket().set_buffer_size(wanted).map_err(refused)?;
        if size.is_some() {
            fault::line(&format!("NOTICE: Netlink socket buffer size has been set to {got} bytes."));
        }
        let over = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&over);
        ctrlc::set_handler(move || signal.store(true, Ordering::Relaxed))
            .map_err(|error| Fault::Failed(format!("signals cannot be waited for: {error}")))?;
        let (hand, heard) = sync_channel(WAITING);
        thread::spawn(move || read(events, size.is_none(), &over, &hand));
        Ok(Ear { heard })
    }

    /// What came next; `None` when it is over. Where nothing has come yet, `idle` is called first.
    ///
    /// # Errors
    /// What the system says; what `idle` says.
    pub(super) fn next(&self, idle: impl FnOnce() -> io::Result<()>) -> Result<Option<Piece>, Fault> {
        let mut heard = match self.heard.try_recv() {
            Err(TryRecvError::Empty) => {
                idle()?;
                self.heard.recv().ok()
            }
            heard => heard.ok(),
        };
        loop {
            match heard {
                None => return Ok(None),
                Some(Heard::Piece(piece)) => return Ok(Some(piece)),
                Some(Heard::Failed(fault)) => return Err(fault),
                Some(Heard::Lost(size)) => {
                    say(format!(
                        "WARNING: events were lost: they came faster than they were read (ENOBUFS). The socket's buffer has {size} bytes from now on; \
                         -b sets it, -e and filters make events fewer."
                    ));
                    heard = self.heard.recv().ok();
                }
            }
        }
    }
}

/// Empties the socket until it is over.
fn read(mut events: Events, may_grow: bool, over: &AtomicBool, hand: &SyncSender<Heard>) {
    while !over.load(Ordering::Relaxed) {
        let heard = match events.read(PATIENCE) {
            Ok(None) => continue,
            Ok(Some(octets)) => Heard::Piece(Piece { octets: octets.to_vec(), at: clock() }),
            Err(failure) if failure.errno() == Some(libc::ENOBUFS) => Heard::Lost(grow(&mut events, may_grow)),
            Err(failure) => Heard::Failed(Fault::kernel(Doing::Listen, &failure)),
        };
        let failed = matches!(heard, Heard::Failed(_));
        if hand.send(heard).is_err() || failed {
            return;
        }
    }
    // What waits in the kernel came before the signal.
    while let Ok(Some(octets)) = events.read(Duration::ZERO) {
        if hand.send(Heard::Piece(Piece { octets: octets.to_vec(), at: clock() })).is_err() {
            return;
        }
    }
}

/// Doubles the buffer, if it may grow; gives its size.
fn grow(events: &mut Events, may_grow: bool) -> usize {
    let socket = events.socket();
    let size = socket.buffer_size().unwrap_or(0);
    // The kernel doubles what it is asked for, so to ask for its size is to double it.
    let grown = (may_grow && size < LARGEST_BUFFER).then(|| socket.set_buffer_size(size));
    match grown {
        Some(Ok(size)) => size,
        Some(Err(_)) | None => size,
    }
}

/// The program behind a netlink port, if it still runs: a program's first socket has its process id.
pub(super) fn program(port: u32) -> Option<String> {
    if port == 0 {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{port}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

fn clock() -> Instant {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// A malformed message of the kernel.
pub(super) fn malformed(error: keepstate_linux::netlink::Malformed) -> Fault {
    Fault::kernel(Doing::Listen, &Failure::from(error))
}
