//! A model that is fed: one thread reads events, one reads dumps, one looks at size and counters each second.
//!
//! Its life: opened, it subscribes to events and then reads a first dump as fast as it can, because somebody waits for it; later ones rest in between. If events were lost, or the model has drifted from the owner's
//! count, or its counters are old, another dump follows, but never so often that dumps take more than a small share of the time. If the owner goes away, that is said
//! and it is tried again each second. Dropped, it ends its threads. It never writes to the table.
use crate::dump_reader::read_table;
use crate::occupancy::OccupancySample;
use crate::owner_gather;
use crate::source::{SourceSettings, TableSource};
use crate::table::LiveTable;
use keepstate_linux::ctnetlink::{CtClient, CtEvent, CtEventSocket, CtFlow, CtObject, EventKind, for_each_flow};
use keepstate_linux::netlink::{NetlinkError, NlMessages};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The event socket's buffer at first, in bytes, and at most.
const EVENT_BUFFER: usize = 8 << 20;
const MAX_EVENT_BUFFER: usize = 128 << 20;
/// How often threads look whether they are to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A reader gets the lock within this time.
const READER_PAUSE: Duration = Duration::from_micros(100);
/// Between two looks at size and counters, and between two attempts to reach the owner.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A dump for lost events may take more.
const RESYNC_SHARE: u32 = 10;
/// No two dumps are closer.
const DUMP_LEAST: Duration = Duration::from_secs(2);
/// A dump that nobody waits for rests for one part in so many of the time that it works.
const REST_SHARE: u32 = 4;
/// How often the first dump looks whether events are subscribed to.
const SUBSCRIPTION_PAUSE: Duration = Duration::from_millis(2);
/// Looks in a row after which a difference between the owner's count and the model's is no chance.
const DRIFT_LOOKS: u32 = 3;

/// Who owns what is read for so long after somebody has asked for it, at most so often, and for at most one part in so many of the time.
const OWNERS_WANTED: Duration = Duration::from_secs(10);
const OWNERS_INTERVAL: Duration = Duration::from_secs(3);
const OWNERS_SHARE: u32 = 20;

/// How a table is followed.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// Room for this many connections; further ones are counted only.
    pub most: usize,
    /// Dumps that refresh counters and timeouts take at most one part in so many of the time.
    pub refresh_share: u32,
}

impl Default for FeedOptions {
    fn default() -> FeedOptions {
        FeedOptions { most: 4 << 20, refresh_share: 100 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LiveFeed {
    shared: Arc<FeedShared>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct FeedShared {
    table: Mutex<LiveTable>,
    /// How many wait to look at it. A dump takes the lock again and again, and would let none of them in.
    readers: AtomicU32,
    /// Told after each change.
    changed: Condvar,
    begun: Instant,
    source: TableSource,
    options: FeedOptions,
    settings: Mutex<SourceSettings>,
    /// When namespaces and containers were asked for last.
    owners_wanted: Mutex<Option<Instant>>,
    stop: AtomicBool,
    subscribed: AtomicBool,
    resync: AtomicBool,
    /// Nanoseconds that the last dump took.
    dump_cost: AtomicU64,
}

impl LiveFeed {
    /// Begins to follow a table.
    ///
    /// # Errors
    /// The table cannot be opened; no thread can be made.
    pub fn open(source: TableSource, options: FeedOptions) -> std::io::Result<LiveFeed> {
        let shared = Arc::new(FeedShared {
            table: Mutex::new(LiveTable::new(options.most)),
            readers: AtomicU32::new(0),
            changed: Condvar::new(),
            begun: Instant::now(),
            settings: Mutex::new(source.settings()),
            owners_wanted: Mutex::new(None),
            source,
            options,
            stop: AtomicBool::new(false),
            subscribed: AtomicBool::new(false),
            resync: AtomicBool::new(true),
            dump_cost: AtomicU64::new(0),
        });
        let socket = shared.source.open()?;
        let mut feed = LiveFeed { shared: Arc::clone(&shared), threads: Vec::new() };
        let mut first = Some(socket);
        let events = Arc::clone(&shared);
        let dumps = Arc::clone(&shared);
        feed.threads.push(thread::Builder::new().name("live-events".into()).spawn(move || {
            events.keep_trying(|| {
                let socket = first.take().map_or_else(|| events.source.open(), Ok)?;
                events.read_events(socket)
            });
        })?);
        feed.threads.push(thread::Builder::new().name("live-dump".into()).spawn(move || dumps.read_dumps())?);
        let owners = Arc::clone(&shared);
        feed.threads.push(thread::Builder::new().name("live-owners".into()).spawn(move || owners.read_owners())?);
        feed.threads.push(thread::Builder::new().name("live-sample".into()).spawn(move || {
            shared.keep_trying(|| shared.read_samples());
        })?);
        Ok(feed)
    }

    /// The model; as long as the guard lives nothing is added. It comes before what is waiting to be added.
    pub fn table(&self) -> MutexGuard<'_, LiveTable> {
        self.shared.readers.fetch_add(1, Ordering::SeqCst);
        let guard = self.shared.table();
        self.shared.readers.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    /// The model's clock.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Where it is fed from.
    pub fn source(&self) -> &TableSource {
        &self.shared.source
    }

    /// The owner's settings, as of a second ago.
    pub fn settings(&self) -> SourceSettings {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Namespaces and containers are looked at: this machine's sockets are read now and again for a while.
    pub fn want_owners(&self) {
        *self.shared.owners_wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits until the model is as wanted; false if it is not within `timeout`.
    pub fn wait_until(&self, timeout: Duration, wanted: impl Fn(&LiveTable) -> bool) -> bool {
        let guard = self.shared.table();
        let waited = self.shared.changed.wait_timeout_while(guard, timeout, |table| !wanted(table));
        waited.is_ok_and(|(_, result)| !result.timed_out())
    }

    /// Reads the table again as soon as its cost allows.
    pub fn resync(&self) {
        self.shared.resync.store(true, Ordering::Relaxed);
    }
}

impl Drop for LiveFeed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl FeedShared {
    fn table(&self) -> MutexGuard<'_, LiveTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The model, to be changed, once nobody waits to look at it.
    fn table_to_change(&self) -> MutexGuard<'_, LiveTable> {
        while self.readers.load(Ordering::SeqCst) > 0 && !self.is_stopped() {
            thread::sleep(READER_PAUSE);
        }
        self.table()
    }

    /// Changes the model, and tells who waits for that.
    fn change(&self, change: impl FnOnce(&mut LiveTable)) {
        change(&mut self.table_to_change());
        self.changed.notify_all();
    }

    /// Rests, in pieces, until the time is over or the feed ends.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    /// Runs `work` again a second after it failed, and says why it did.
    fn keep_trying(&self, mut work: impl FnMut() -> Result<(), NetlinkError>) {
        while !self.is_stopped() {
            if let Err(error) = work() {
                let text = explain(&error);
                self.change(|table| table.failed(text));
                self.resync.store(true, Ordering::Relaxed);
                self.rest(SAMPLE_INTERVAL);
            }
        }
    }

    fn read_events(&self, socket: keepstate_linux::netlink::NetlinkSocket) -> Result<(), NetlinkError> {
        let kinds = [EventKind::New, EventKind::Update, EventKind::Destroy];
        let mut events = CtEventSocket::subscribe_connections(socket, kinds)?;
        // A gateway's socket has no such buffer to size.
        let _ = events.socket().set_recv_buffer_size(EVENT_BUFFER);
        self.subscribed.store(true, Ordering::Release);
        while !self.is_stopped() {
            match events.receive(POLL_INTERVAL) {
                Ok(None) => (),
                Ok(Some(chunk)) => self.apply_events(chunk)?,
                Err(error) if error.errno() == Some(libc::ENOBUFS) => {
                    let now = self.now();
                    self.change(|table| table.events_lost(now));
                    self.resync.store(true, Ordering::Relaxed);
                    let socket = events.socket();
                    let size = socket.recv_buffer_size().unwrap_or(MAX_EVENT_BUFFER);
                    if size < MAX_EVENT_BUFFER {
                        // The kernel doubles what it is given.
                        let _ = socket.set_recv_buffer_size(size);
                    }
                }
                Err(error) => {
                    self.subscribed.store(false, Ordering::Release);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn apply_events(&self, chunk: &[u8]) -> Result<(), NetlinkError> {
        let mut decoded = Vec::new();
        for message in NlMessages::new(chunk) {
            if let Some(CtEvent { event_type, object: CtObject::Connection(flow), .. }) = CtEvent::decode(&message?)? {
                decoded.push((event_type, flow));
            }
        }
        let now = self.now();
        self.change(|table| decoded.iter().for_each(|(kind, flow)| table.event(*kind, flow, now)));
        Ok(())
    }

    fn read_dumps(&self) {
        let mut last: Option<Instant> = None;
        while !self.is_stopped() {
            let cost = Duration::from_nanos(self.dump_cost.load(Ordering::Relaxed));
            let passed = last.map(|last| last.elapsed());
            let is_due = |share: u32| passed.is_none_or(|passed| passed >= (cost * share).max(DUMP_LEAST));
            let wanted = self.resync.load(Ordering::Relaxed);
            if !self.subscribed.load(Ordering::Acquire)
                || !(wanted && is_due(RESYNC_SHARE) || is_due(self.options.refresh_share))
            {
                thread::sleep(if last.is_none() { SUBSCRIPTION_PAUSE } else { POLL_INTERVAL });
                continue;
            }
            self.resync.store(false, Ordering::Relaxed);
            let begun = Instant::now();
            match self.read_dump() {
                Ok(busy) => {
                    self.dump_cost.store(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
                    let now = self.now();
                    self.change(|table| {
                        table.end_dump(now);
                        // Events lost meanwhile: what they told is missing still.
                        if !table.state().is_complete {
                            self.resync.store(true, Ordering::Relaxed);
                        }
                    });
                }
                Err(error) => {
                    let text = explain(&error);
                    self.change(|table| table.abort_dump(text));
                    self.resync.store(true, Ordering::Relaxed);
                }
            }
            last = Some(begun);
        }
    }

    /// Reads the table once; returns the processor time that it took.
    fn read_dump(&self) -> Result<Duration, NetlinkError> {
        let mut client = CtClient::from_socket(self.source.open()?);
        let (entries, _) = client.count()?;
        let mut is_first = false;
        self.change(|table| {
            is_first = table.state().dumps == 0;
            table.reserve(entries as usize);
            table.begin_dump();
        });
        let rest = |worked: Duration| {
            if !is_first {
                self.rest(worked / REST_SHARE);
            }
        };
        let mut flow = CtFlow::default();
        read_table(client, rest, |chunks| {
            let now = self.now();
            let mut table = self.table_to_change();
            for chunk in chunks {
                let _ = for_each_flow(chunk, &mut flow, &mut |flow| {
                    table.dump_flow(flow, now);
                    ControlFlow::Continue(())
                })?;
            }
            drop(table);
            self.changed.notify_all();
            Ok(if self.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    fn read_owners(&self) {
        let mut due = Instant::now();
        while !self.is_stopped() {
            let wanted = *self.owners_wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() < due || wanted.is_none_or(|at| at.elapsed() >= OWNERS_WANTED) {
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            let begun = Instant::now();
            if let Ok(owners) = owner_gather::gather(self.source.netns()) {
                self.change(|table| table.set_owners(owners));
            }
            due = Instant::now() + (begun.elapsed() * OWNERS_SHARE).max(OWNERS_INTERVAL);
        }
    }

    fn read_samples(&self) -> Result<(), NetlinkError> {
        let mut client = CtClient::from_socket(self.source.open()?);
        let mut drifted = 0;
        while !self.is_stopped() {
            self.source.check()?;
            let (entries, limit) = client.count()?;
            let stats = client.cpu_stats()?;
            let reasons = self.source.reasons()?;
            *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = self.source.settings();
            let at = self.now();
            let sample = OccupancySample { at, entries: u64::from(entries), limit: limit.map(u64::from) };
            self.change(|table| {
                table.sample(sample);
                table.counters.add_cpu_stats(&stats, at);
                table.reasons.set(&reasons, at);
                let there = table.len() as u64 + table.state().left_out;
                let is_off = sample.entries.abs_diff(there) > 16 + sample.entries / 50;
                drifted = if is_off && table.state().dumped.is_none() { drifted + 1 } else { 0 };
            });
            if drifted >= DRIFT_LOOKS {
                drifted = 0;
                self.resync.store(true, Ordering::Relaxed);
            }
            self.rest(SAMPLE_INTERVAL);
        }
        Ok(())
    }
}

/// An error for the user: what to do about the usual ones.
fn explain(error: &NetlinkError) -> String {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => "no permission: run as root, or with CAP_NET_ADMIN".into(),
        Some(libc::EPROTONOSUPPORT | libc::EINVAL) => {
            format!("{error} (is the module loaded? modprobe nf_conntrack_netlink)")
        }
        _ => match error {
            // It says by itself what it is about.
            NetlinkError::Io(error) if error.raw_os_error().is_none() => error.to_string(),
            error => error.to_string(),
        },
    }
}
