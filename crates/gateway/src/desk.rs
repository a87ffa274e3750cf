//! Where the router's thread serves visitors: a bounded amount of work in each turn, so that no packet waits for whoever asks.
//!
//! A visitor's thread sends an [`Errand`], which runs on the router's thread between two turns of packets and is itself short: one connection, one batch of
//! changes, one piece of the table. All else, to decode, to format, to write to a slow reader, is done by the visitor's own thread. Listeners are handed what
//! happened in chunks; one that does not keep up loses events, is told so, and holds up nobody.
use anyhow::{Context, Result};
use keepstate_engine::{Engine, Event, EventKind, EventMask, Instant};
use keepstate_router::Router;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant as Clock};

/// Errands of one turn take no longer than this, but for the last.
const TURN: Duration = Duration::from_micros(300);
/// Errands of one turn.
const ERRANDS: usize = 64;
/// Events that the engine keeps until the next turn.
const EVENTS: usize = 1 << 16;
/// Events that wait for one listener; more are lost to him.
const WAITING: usize = 1 << 16;
/// Chunks that wait for one listener.
const CHUNKS: usize = 1024;
/// Places of the table that one errand looks at.
pub(super) const PLACES: u32 = 2048;
/// So long after an errand the router does not wait for packets.
const SERVING: Duration = Duration::from_millis(2);
/// So long after an errand the router looks often whether there is another.
const AWAKE: Duration = Duration::from_secs(2);

/// What an errand may touch.
pub(super) struct At<'a> {
    pub(super) router: &'a mut Router,
    pub(super) desk: &'a mut Desk,
    pub(super) now: Instant,
}

type Errand = Box<dyn FnOnce(&mut At<'_>) + Send>;

/// A visitor's way to the router's thread.
#[derive(Clone)]
pub(super) struct Access {
    errands: Sender<Errand>,
}

impl Access {
    /// Has something done on the router's thread, and waits for what comes of it.
    ///
    /// # Errors
    /// The router has ended.
    pub(super) fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut At<'_>) -> T + Send + 'static) -> Result<T> {
        self.begin(work)?.recv().context("the gateway has ended")
    }

    /// As [`Access::ask`], without waiting yet.
    ///
    /// # Errors
    /// The router has ended.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut At<'_>) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (answer, waits) = sync_channel(1);
        let errand: Errand = Box::new(move |at| {
            // Who asked may have gone.
            let _ = answer.send(work(at));
        });
        self.errands.send(errand).ok().context("the gateway has ended")?;
        Ok(waits)
    }
}

/// What the router's thread keeps of its visitors.
#[derive(Default)]
pub(super) struct Desk {
    listeners: Vec<(Arc<Ear>, SyncSender<Arc<Chunk>>)>,
    /// Events that the engine had lost when that was last looked at.
    lost: u64,
}

/// What happened in one turn, or by one request.
pub(super) struct Chunk {
    /// The process that asked for it; 0 where packets or time did it.
    pub(super) port: u32,
    pub(super) events: Vec<Event>,
}

/// What a listener and the router's thread share.
#[derive(Default)]
pub(super) struct Ear {
    groups: AtomicUsize,
    waiting: AtomicUsize,
    lost: AtomicU64,
    gone: AtomicBool,
}

impl Ear {
    /// Wants events of this kind too.
    pub(super) fn want(&self, kind: EventKind) {
        self.groups.fetch_or(bit(kind), Ordering::Relaxed);
    }

    pub(super) fn wants(&self, kind: EventKind) -> bool {
        self.groups.load(Ordering::Relaxed) & bit(kind) != 0
    }

    /// Wants nothing more.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// A chunk was written to him.
    pub(super) fn took(&self, chunk: &Chunk) {
        self.waiting.fetch_sub(chunk.events.len(), Ordering::Relaxed);
    }

    /// Events lost since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

fn bit(kind: EventKind) -> usize {
    match kind {
        EventKind::New => 1,
        EventKind::Update => 2,
        EventKind::Destroy => 4,
    }
}

impl Desk {
    /// Lets somebody listen from now on.
    pub(super) fn admit(&mut self, ear: Arc<Ear>, engine: &mut Engine) -> Receiver<Arc<Chunk>> {
        let (sender, receiver) = sync_channel(CHUNKS);
        self.spread(engine, 0);
        self.listeners.push((ear, sender));
        self.tune(engine);
        receiver
    }

    /// Has the engine queue what somebody wants, and nothing else.
    pub(super) fn tune(&mut self, engine: &mut Engine) {
        let wanted = |kind| self.listeners.iter().any(|(ear, _)| ear.wants(kind));
        let mask = EventMask {
            new: wanted(EventKind::New),
            update: wanted(EventKind::Update),
            destroy: wanted(EventKind::Destroy),
        };
        engine.listen(mask, if mask == EventMask::default() { 0 } else { EVENTS });
        self.lost = engine.events_lost();
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Events that have happened, and were not yet written to who listens: all listeners' together.
    pub(super) fn waiting(&self) -> usize {
        self.listeners.iter().map(|(ear, _)| ear.waiting.load(Ordering::Relaxed)).sum()
    }

    /// Hands what happened to those who listen.
    pub(super) fn spread(&mut self, engine: &mut Engine, port: u32) {
        if self.listeners.is_empty() {
            return;
        }
        let before = self.listeners.len();
        self.listeners.retain(|(ear, _)| !ear.gone.load(Ordering::Relaxed));
        let events: Vec<Event> = std::iter::from_fn(|| engine.poll_event()).take(EVENTS).collect();
        let lost = engine.events_lost() - self.lost;
        self.lost += lost;
        if !events.is_empty() || lost > 0 {
            let chunk = Arc::new(Chunk { port, events });
            self.listeners.retain(|(ear, sender)| ear.hand(sender, &chunk, lost));
        }
        if self.listeners.len() != before {
            self.tune(engine);
        }
    }
}

impl Ear {
    /// Hands a chunk over, or counts it as lost. False if nobody is there any more.
    fn hand(&self, sender: &SyncSender<Arc<Chunk>>, chunk: &Arc<Chunk>, lost: u64) -> bool {
        let length = chunk.events.len();
        self.lost.fetch_add(lost, Ordering::Relaxed);
        if length == 0 {
            return true;
        }
        let lose = || self.lost.fetch_add(length as u64, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) + length > WAITING {
            lose();
            return true;
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        match sender.try_send(Arc::clone(chunk)) {
            Ok(()) => true,
            Err(refused) => {
                self.waiting.fetch_sub(length, Ordering::Relaxed);
                lose();
                matches!(refused, std::sync::mpsc::TrySendError::Full(_))
            }
        }
    }
}

/// The router's end of all this.
pub(super) struct Service {
    errands: Receiver<Errand>,
    desk: RefCell<Desk>,
    last: RefCell<Option<Clock>>,
}

impl Service {
    pub(super) fn new() -> (Service, Access) {
        let (sender, errands) = channel();
        (Service { errands, desk: RefCell::default(), last: RefCell::default() }, Access { errands: sender })
    }

    /// One turn: what happened is handed to listeners, and some errands are run; gives how many.
    pub(super) fn turn(&self, router: &mut Router, now: Instant) -> usize {
        let Ok(mut desk) = self.desk.try_borrow_mut() else { return 0 };
        desk.spread(router.engine(), 0);
        let Ok(first) = self.errands.try_recv() else { return 0 };
        let begun = Clock::now();
        let mut at = At { router, desk: &mut desk, now };
        first(&mut at);
        let mut count = 1;
        while count < ERRANDS && begun.elapsed() < TURN {
            let Ok(errand) = self.errands.try_recv() else { break };
            errand(&mut at);
            count += 1;
        }
        self.stay_awake();
        count
    }

    /// Somebody has asked, and may ask again.
    pub(super) fn stay_awake(&self) {
        self.last.replace(Some(Clock::now()));
    }

    /// How long the router may wait for packets, in milliseconds: not at all while somebody is being served, and not long while he may ask again.
    pub(super) fn patience(&self, usual: i32) -> i32 {
        match self.last.borrow().map(|last| last.elapsed()) {
            Some(ago) if ago < SERVING => 0,
            Some(ago) if ago < AWAKE => 1,
            _ => usual,
        }
    }
}
