//! The kernel's interfaces, addresses and routes, followed by a thread of its own: it reads the kernel's messages and tells them as changes of the router's FIB.
//!
//! Its life: opened and read once by the driver, so that the first packet finds its route; started when the gateway runs; ends with its handle. The main loop applies what it
//! tells in bounded pieces. When the kernel had more to tell than fits into the socket's buffer, everything is read again, and that is said.
mod link_log;

use super::kernel_fib::{self, FollowUp, KernelLinks};
use anyhow::{Context, Result};
use keepstate_linux::rtnetlink::{RtMessage, RtMonitor};
use keepstate_router::{FibChange, FibTable};
use link_log::LinkLog;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant as Clock};

/// Changes in one batch: the router is locked for one at a time.
pub(super) const CHANGES_PER_BATCH: usize = 512;
/// Batches that wait for the main loop. Then the kernel's buffer fills.
const MAX_BATCHES: usize = 64;
/// How often the thread looks whether it is still needed.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Readings of what waits before everything is read.
const MAX_DRAINS: usize = 64;
/// After a message that tells less than the kernel then does: it has done it by then.
const RESYNC_DELAY: Duration = Duration::from_millis(200);
/// Between two attempts to read everything.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the router is to take over.
#[derive(Debug)]
pub(super) enum FibUpdate {
    /// Everything, instead of what it has.
    Table(Box<FibTable>),
    /// Changes, in order; [`CHANGES_PER_BATCH`] at most.
    Changes(Vec<FibChange>),
}

/// Sees each message of the kernel; a complete reading comes as one slice.
pub(super) type MessageObserver = Box<dyn FnMut(Seen<'_>) + Send>;

/// What an observer sees.
pub(super) enum Seen<'a> {
    /// Everything that there is.
    All(&'a [RtMessage]),
    /// One change.
    Change(&'a RtMessage),
}

/// Follows the kernel.
pub(super) struct RouteFollower {
    state: FollowerState,
    stop: Arc<AtomicBool>,
    /// Readable once the thread has told something that was not polled yet.
    news: UnixStream,
    /// The thread's end of it.
    bell: UnixStream,
}

enum FollowerState {
    /// Read, and not started.
    Opened(Box<(RtMonitor, KernelLinks, LinkLog)>),
    Started(Receiver<FibUpdate>),
    /// In between.
    Starting,
}

impl RouteFollower {
    /// Reads everything that the kernel has in this thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open() -> Result<(RouteFollower, FibTable, Vec<RtMessage>)> {
        let mut monitor = RtMonitor::open().context("opening a route socket")?;
        let messages = monitor.dump_all().context("reading the kernel's interfaces and routes")?;
        let (links, fib) = kernel_fib::build_fib(messages.clone());
        let log = LinkLog::of_dump(&messages);
        let state = FollowerState::Opened(Box::new((monitor, links, log)));
        let (news, bell) = UnixStream::pair().context("opening a pair of sockets")?;
        [&news, &bell].into_iter().try_for_each(|end| end.set_nonblocking(true)).context("a pair of sockets")?;
        Ok((RouteFollower { state, stop: Arc::default(), news, bell }, fib, messages))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn start(&mut self, observer: MessageObserver) -> Result<()> {
        let FollowerState::Opened(opened) = std::mem::replace(&mut self.state, FollowerState::Starting) else {
            return Ok(());
        };
        let (monitor, links, log) = *opened;
        let (updates, received) = sync_channel(MAX_BATCHES);
        let bell = self.bell.try_clone().context("a pair of sockets")?;
        let mut thread = FollowerThread { monitor, links, log, updates, bell, observer, stop: Arc::clone(&self.stop) };
        std::thread::Builder::new()
            .name("routes".into())
            .spawn(move || thread.run())
            .context("starting the thread that follows routes")?;
        self.state = FollowerState::Started(received);
        Ok(())
    }

    /// Readable when there may be something to poll.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// What has changed, a batch at a time; never waits. Call it until there is nothing more.
    pub(super) fn poll(&self) -> Option<FibUpdate> {
        match &self.state {
            FollowerState::Started(updates) => {
                // It rings after it has told: what is told after this will ring again.
                while (&self.news).read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
                updates.try_recv().ok()
            }
            FollowerState::Opened(_) | FollowerState::Starting => None,
        }
    }
}

impl Drop for RouteFollower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct FollowerThread {
    monitor: RtMonitor,
    links: KernelLinks,
    log: LinkLog,
    updates: SyncSender<FibUpdate>,
    bell: UnixStream,
    observer: MessageObserver,
    stop: Arc<AtomicBool>,
}

impl FollowerThread {
    fn run(&mut self) {
        // When everything is read again.
        let mut resync: Option<Clock> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let due = resync.map(|at| at.saturating_duration_since(Clock::now()));
            let step = match due {
                Some(Duration::ZERO) => self.read_all().map(|()| resync = None),
                _ => self.follow(due.unwrap_or(STOP_CHECK_INTERVAL)).map(|next| resync = next.or(resync)),
            };
            if let Err(error) = step {
                tracing::warn!("routes: {error:#}; all are read again");
                resync = Some(Clock::now() + RETRY_INTERVAL);
                std::thread::sleep(RETRY_INTERVAL);
            }
        }
    }

    /// Waits for changes, and tells them. Gives the time at which everything is to be read again.
    fn follow(&mut self, longest: Duration) -> Result<Option<Clock>> {
        let news =
            self.monitor.wait_changes(longest.min(STOP_CHECK_INTERVAL)).context("following the kernel's routes")?;
        if news.needs_resync {
            tracing::warn!("routes: the kernel had more changes to tell than its buffer holds; all are read again");
            return Ok(Some(Clock::now()));
        }
        let (mut changes, mut resync) = (Vec::new(), None);
        let is_news = !news.messages.is_empty();
        for message in news.messages {
            self.observe(Seen::Change(&message));
            if self.links.apply(message, &mut changes) == FollowUp::Resync {
                resync = Some(Clock::now() + RESYNC_DELAY);
            }
        }
        self.links.finish(&mut changes);
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            self.send(FibUpdate::Changes(changes.by_ref().take(CHANGES_PER_BATCH).collect()));
        }
        if is_news {
            // The observer may have seen something that is no change of routes.
            self.ring();
        }
        Ok(resync)
    }

    fn read_all(&mut self) -> Result<()> {
        // What waits is older than what was lost, and must not be applied after the dump.
        for _ in 0..MAX_DRAINS {
            let news = self.monitor.wait_changes(Duration::ZERO).context("following the kernel's routes")?;
            if news.messages.is_empty() && !news.needs_resync {
                break;
            }
        }
        let messages = self.monitor.dump_all().context("reading the kernel's interfaces and routes")?;
        self.observe(Seen::All(&messages));
        let (links, fib) = kernel_fib::build_fib(messages);
        self.links = links;
        self.send(FibUpdate::Table(Box::new(fib)));
        Ok(())
    }

    /// Logs what has changed, and shows it to the observer.
    fn observe(&mut self, seen: Seen<'_>) {
        let lines = match &seen {
            Seen::All(messages) => self.log.observe_all(messages, Clock::now()),
            Seen::Change(message) => self.log.observe_change(message, Clock::now()),
        };
        lines.iter().for_each(|line| tracing::info!("{line}"));
        (self.observer)(seen);
    }

    fn send(&self, update: FibUpdate) {
        // Without a receiver the gateway has ended.
        if self.updates.send(update).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.ring();
    }

    fn ring(&self) {
        // If it is full, it rings already.
        let _ = (&self.bell).write(&[1]);
    }
}

#[cfg(test)]
mod tests;
