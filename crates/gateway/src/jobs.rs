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
const JOB_TIME_BUDGET: Duration = Duration::from_micros(300);
/// Errands of one turn.
const MAX_JOBS_PER_TURN: usize = 64;
/// Events that the engine keeps until the next turn.
const ENGINE_EVENT_QUEUE: usize = 1 << 16;
/// Events that wait for one listener; more are lost to him.
const SUBSCRIBER_MAX_EVENTS: usize = 1 << 16;
/// Chunks that wait for one listener.
const SUBSCRIBER_MAX_BATCHES: usize = 1024;
/// Places of the table that one errand looks at.
pub(super) const SLOTS_PER_JOB: u32 = 2048;
/// So long after an errand the router does not wait for packets.
const NO_WAIT_AFTER_JOB: Duration = Duration::from_millis(2);
/// So long after an errand the router looks often whether there is another.
const SHORT_WAIT_AFTER_JOB: Duration = Duration::from_secs(2);

/// What an errand may touch.
pub(super) struct JobCtx<'a> {
    pub(super) router: &'a mut Router,
    pub(super) hub: &'a mut EventHub,
    pub(super) now: Instant,
}

type Job = Box<dyn FnOnce(&mut JobCtx<'_>) + Send>;

/// A visitor's way to the router's thread.
#[derive(Clone)]
pub(super) struct JobSender {
    jobs: Sender<Job>,
}

impl JobSender {
    /// Has something done on the router's thread, and waits for what comes of it.
    ///
    /// # Errors
    /// The router has ended.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut JobCtx<'_>) -> T + Send + 'static) -> Result<T> {
        self.submit(work)?.recv().context("the gateway has ended")
    }

    /// As [`Access::ask`], without waiting yet.
    ///
    /// # Errors
    /// The router has ended.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut JobCtx<'_>) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (answer, waits) = sync_channel(1);
        let errand: Job = Box::new(move |at| {
            // Who asked may have gone.
            let _ = answer.send(work(at));
        });
        self.jobs.send(errand).ok().context("the gateway has ended")?;
        Ok(waits)
    }
}

/// What the router's thread keeps of its visitors.
#[derive(Default)]
pub(super) struct EventHub {
    subscribers: Vec<(Arc<Subscriber>, SyncSender<Arc<EventBatch>>)>,
    /// Events that the engine had lost when that was last looked at.
    engine_lost: u64,
}

/// What happened in one turn, or by one request.
pub(super) struct EventBatch {
    /// The process that asked for it; 0 where packets or time did it.
    pub(super) portid: u32,
    pub(super) events: Vec<Event>,
}

/// What a listener and the router's thread share.
#[derive(Default)]
pub(super) struct Subscriber {
    kinds: AtomicUsize,
    queued: AtomicUsize,
    lost: AtomicU64,
    closed: AtomicBool,
}

impl Subscriber {
    /// Wants events of this kind too.
    pub(super) fn subscribe_to(&self, kind: EventKind) {
        self.kinds.fetch_or(kind_bit(kind), Ordering::Relaxed);
    }

    pub(super) fn is_subscribed_to(&self, kind: EventKind) -> bool {
        self.kinds.load(Ordering::Relaxed) & kind_bit(kind) != 0
    }

    /// Wants nothing more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A chunk was written to him.
    pub(super) fn consumed(&self, chunk: &EventBatch) {
        self.queued.fetch_sub(chunk.events.len(), Ordering::Relaxed);
    }

    /// Events lost since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

fn kind_bit(kind: EventKind) -> usize {
    match kind {
        EventKind::New => 1,
        EventKind::Update => 2,
        EventKind::Destroy => 4,
    }
}

impl EventHub {
    /// Lets somebody listen from now on.
    pub(super) fn subscribe(&mut self, ear: Arc<Subscriber>, engine: &mut Engine) -> Receiver<Arc<EventBatch>> {
        let (sender, receiver) = sync_channel(SUBSCRIBER_MAX_BATCHES);
        self.publish(engine, 0);
        self.subscribers.push((ear, sender));
        self.update_event_mask(engine);
        receiver
    }

    /// Has the engine queue what somebody wants, and nothing else.
    pub(super) fn update_event_mask(&mut self, engine: &mut Engine) {
        let wanted = |kind| self.subscribers.iter().any(|(ear, _)| ear.is_subscribed_to(kind));
        let mask = EventMask {
            new: wanted(EventKind::New),
            update: wanted(EventKind::Update),
            destroy: wanted(EventKind::Destroy),
        };
        engine.subscribe(mask, if mask == EventMask::default() { 0 } else { ENGINE_EVENT_QUEUE });
        self.engine_lost = engine.events_lost();
    }

    /// How many listen.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Events that have happened, and were not yet written to who listens: all listeners' together.
    pub(super) fn queued(&self) -> usize {
        self.subscribers.iter().map(|(ear, _)| ear.queued.load(Ordering::Relaxed)).sum()
    }

    /// Hands what happened to those who listen.
    pub(super) fn publish(&mut self, engine: &mut Engine, port: u32) {
        if self.subscribers.is_empty() {
            return;
        }
        let before = self.subscribers.len();
        self.subscribers.retain(|(ear, _)| !ear.closed.load(Ordering::Relaxed));
        let events: Vec<Event> = std::iter::from_fn(|| engine.poll_event()).take(ENGINE_EVENT_QUEUE).collect();
        let lost = engine.events_lost() - self.engine_lost;
        self.engine_lost += lost;
        if !events.is_empty() || lost > 0 {
            let chunk = Arc::new(EventBatch { portid: port, events });
            self.subscribers.retain(|(ear, sender)| ear.push(sender, &chunk, lost));
        }
        if self.subscribers.len() != before {
            self.update_event_mask(engine);
        }
    }
}

impl Subscriber {
    /// Hands a chunk over, or counts it as lost. False if nobody is there any more.
    fn push(&self, sender: &SyncSender<Arc<EventBatch>>, chunk: &Arc<EventBatch>, lost: u64) -> bool {
        let length = chunk.events.len();
        self.lost.fetch_add(lost, Ordering::Relaxed);
        if length == 0 {
            return true;
        }
        let lose = || self.lost.fetch_add(length as u64, Ordering::Relaxed);
        if self.queued.load(Ordering::Relaxed) + length > SUBSCRIBER_MAX_EVENTS {
            lose();
            return true;
        }
        self.queued.fetch_add(length, Ordering::Relaxed);
        match sender.try_send(Arc::clone(chunk)) {
            Ok(()) => true,
            Err(refused) => {
                self.queued.fetch_sub(length, Ordering::Relaxed);
                lose();
                matches!(refused, std::sync::mpsc::TrySendError::Full(_))
            }
        }
    }
}

/// The router's end of all this.
pub(super) struct JobRunner {
    jobs: Receiver<Job>,
    hub: RefCell<EventHub>,
    last_job: RefCell<Option<Clock>>,
}

impl JobRunner {
    pub(super) fn new() -> (JobRunner, JobSender) {
        let (sender, errands) = channel();
        (JobRunner { jobs: errands, hub: RefCell::default(), last_job: RefCell::default() }, JobSender { jobs: sender })
    }

    /// One turn: what happened is handed to listeners, and some errands are run; gives how many.
    pub(super) fn run_jobs(&self, router: &mut Router, now: Instant) -> usize {
        let Ok(mut desk) = self.hub.try_borrow_mut() else { return 0 };
        desk.publish(router.engine_mut(), 0);
        let Ok(first) = self.jobs.try_recv() else { return 0 };
        let begun = Clock::now();
        let mut at = JobCtx { router, hub: &mut desk, now };
        first(&mut at);
        let mut count = 1;
        while count < MAX_JOBS_PER_TURN && begun.elapsed() < JOB_TIME_BUDGET {
            let Ok(errand) = self.jobs.try_recv() else { break };
            errand(&mut at);
            count += 1;
        }
        self.mark_active();
        count
    }

    /// Somebody has asked, and may ask again.
    pub(super) fn mark_active(&self) {
        self.last_job.replace(Some(Clock::now()));
    }

    /// How long the router may wait for packets, in milliseconds: not at all while somebody is being served, and not long while he may ask again.
    pub(super) fn poll_timeout(&self, usual: i32) -> i32 {
        match self.last_job.borrow().map(|last| last.elapsed()) {
            Some(ago) if ago < NO_WAIT_AFTER_JOB => 0,
            Some(ago) if ago < SHORT_WAIT_AFTER_JOB => 1,
            _ => usual,
        }
    }
}
