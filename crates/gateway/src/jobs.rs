//! Work for control clients on the main loop's thread: a bounded amount in each turn, so that no packet waits for a client.
//!
//! A client's thread sends a job, which runs on the main loop's thread between two batches of packets and is itself short: one connection, one batch of
//! changes, one piece of the table. All else (decoding, formatting, writing to a slow reader) is done by the client's own thread. Subscribers get events
//! in batches; one that does not keep up loses events, is told so, and delays nobody.
use super::cluster::ClusterHandle;
use super::flow_log_counters::FlowLogCounters;
use super::turns::TurnTimes;
use anyhow::{Context, Result};
use keepstate_engine::{Engine, Event, EventKind, EventMask, Instant};
use keepstate_router::Router;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant as Clock};

/// No job of a turn starts later than this.
const JOB_TIME_BUDGET: Duration = Duration::from_micros(300);
/// Jobs of one turn.
const MAX_JOBS_PER_TURN: usize = 64;
/// Events that the engine queues until the next turn.
const ENGINE_EVENT_QUEUE: usize = 1 << 16;
/// Events handed to subscribers in one turn.
const MAX_EVENTS_PER_TURN: usize = 4096;
/// Events queued for one subscriber; further ones are lost to it.
const SUBSCRIBER_MAX_EVENTS: usize = 1 << 16;
/// Batches queued for one subscriber.
const SUBSCRIBER_MAX_BATCHES: usize = 1024;
/// Slots of the table that one job reads.
pub(super) const SLOTS_PER_JOB: u32 = 2048;
/// For this long after a job the main loop does not wait for packets.
const NO_WAIT_AFTER_JOB: Duration = Duration::from_millis(2);
/// For this long after a job the main loop looks often for another.
const SHORT_WAIT_AFTER_JOB: Duration = Duration::from_secs(2);

/// What a job may use.
pub(super) struct JobCtx<'a> {
    pub(super) router: &'a mut Router,
    pub(super) hub: &'a mut EventHub,
    pub(super) turns: &'a TurnTimes,
    pub(super) now: Instant,
}

type Job = Box<dyn FnOnce(&mut JobCtx<'_>) -> JobAnswer + Send>;

/// Hands a job's result to who waits for it.
type JobAnswer = Box<dyn FnOnce()>;

/// The jobs of one turn, which nobody has an answer of yet: first the data path must know what they have changed.
#[must_use = "clients wait for the answers"]
#[derive(Default)]
pub(super) struct FinishedJobs(Vec<JobAnswer>);

impl FinishedJobs {
    /// Tells those who wait. From now on what was changed is in force for every packet.
    pub(super) fn answer(self) {
        self.0.into_iter().for_each(|answer| answer());
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Sends jobs to the main loop's thread.
#[derive(Clone)]
pub(super) struct JobSender {
    jobs: Sender<Job>,
}

impl JobSender {
    /// Runs a job on the main loop's thread and waits for its result.
    ///
    /// # Errors
    /// The gateway has ended.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut JobCtx<'_>) -> T + Send + 'static) -> Result<T> {
        self.submit(work)?.recv().context("the gateway has ended")
    }

    /// As [`JobSender::run`], without waiting for the result.
    ///
    /// # Errors
    /// The gateway has ended.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut JobCtx<'_>) -> T + Send + 'static,
    ) -> Result<Receiver<T>> {
        let (sender, result) = sync_channel(1);
        let job: Job = Box::new(move |at| {
            let done = work(at);
            // The client may have hung up.
            Box::new(move || drop(sender.send(done)))
        });
        self.jobs.send(job).ok().context("the gateway has ended")?;
        Ok(result)
    }
}

/// The event subscribers, on the main loop's thread.
#[derive(Default)]
pub(super) struct EventHub {
    subscribers: Vec<(Arc<Subscriber>, SyncSender<Arc<EventBatch>>)>,
    /// Events that the engine had lost at the last look.
    engine_lost: u64,
    /// The flow logs, to show how they are doing.
    flow_logs: Vec<Arc<FlowLogCounters>>,
    /// The cluster's shard.
    cluster: Option<ClusterHandle>,
}

/// The events of one turn, or of one request.
pub(super) struct EventBatch {
    /// The process id of the client whose request caused them; 0 for packets and time.
    pub(super) portid: u32,
    pub(super) events: Vec<Event>,
}

/// What a subscriber's thread and the main loop share.
pub(super) struct Subscriber {
    max_events: usize,
    max_batches: usize,
    kinds: AtomicUsize,
    queued: AtomicUsize,
    lost: AtomicU64,
    closed: AtomicBool,
}

impl Default for Subscriber {
    fn default() -> Subscriber {
        Subscriber::with_limits(SUBSCRIBER_MAX_EVENTS, SUBSCRIBER_MAX_BATCHES)
    }
}

impl Subscriber {
    /// One for which so many events, in so many batches, are queued at most.
    pub(super) fn with_limits(max_events: usize, max_batches: usize) -> Subscriber {
        Subscriber {
            max_events,
            max_batches,
            kinds: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Adds a kind of events.
    pub(super) fn subscribe_to(&self, kind: EventKind) {
        self.kinds.fetch_or(kind_bit(kind), Ordering::Relaxed);
    }

    pub(super) fn is_subscribed_to(&self, kind: EventKind) -> bool {
        self.kinds.load(Ordering::Relaxed) & kind_bit(kind) != 0
    }

    /// Ends the subscription.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A batch was written to the client.
    pub(super) fn consumed(&self, batch: &EventBatch) {
        self.queued.fetch_sub(batch.events.len(), Ordering::Relaxed);
    }

    /// Events lost since the last call.
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
    /// Adds a subscriber.
    pub(super) fn subscribe(&mut self, subscriber: Arc<Subscriber>, engine: &mut Engine) -> Receiver<Arc<EventBatch>> {
        let (sender, receiver) = sync_channel(subscriber.max_batches);
        self.publish(engine, 0);
        self.subscribers.push((subscriber, sender));
        self.update_event_mask(engine);
        receiver
    }

    /// Has the engine queue the kinds of events that are subscribed to, and no others.
    pub(super) fn update_event_mask(&mut self, engine: &mut Engine) {
        let wanted = |kind| self.subscribers.iter().any(|(subscriber, _)| subscriber.is_subscribed_to(kind));
        let mask = EventMask {
            new: wanted(EventKind::New),
            update: wanted(EventKind::Update),
            destroy: wanted(EventKind::Destroy),
        };
        engine.subscribe(mask, if mask == EventMask::default() { 0 } else { ENGINE_EVENT_QUEUE });
        self.engine_lost = engine.events_lost();
    }

    /// The cluster's shard, if there is one.
    pub(super) fn cluster(&self) -> Option<&ClusterHandle> {
        self.cluster.as_ref()
    }

    /// The flow logs.
    pub(super) fn flow_logs(&self) -> &[Arc<FlowLogCounters>] {
        &self.flow_logs
    }

    /// The number of subscribers.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Events queued and not yet written, of all subscribers together.
    pub(super) fn queued(&self) -> usize {
        self.subscribers.iter().map(|(subscriber, _)| subscriber.queued.load(Ordering::Relaxed)).sum()
    }

    /// Hands the events so far to the subscribers, as caused by `portid`.
    pub(super) fn publish(&mut self, engine: &mut Engine, portid: u32) {
        self.publish_some(engine, portid, ENGINE_EVENT_QUEUE);
    }

    /// As [`EventHub::publish`], so many at most.
    fn publish_some(&mut self, engine: &mut Engine, portid: u32, most: usize) {
        if self.subscribers.is_empty() {
            return;
        }
        let before = self.subscribers.len();
        self.subscribers.retain(|(ear, _)| !ear.closed.load(Ordering::Relaxed));
        let events: Vec<Event> = std::iter::from_fn(|| engine.poll_event()).take(most).collect();
        let lost = engine.events_lost() - self.engine_lost;
        self.engine_lost += lost;
        if !events.is_empty() || lost > 0 {
            let batch = Arc::new(EventBatch { portid, events });
            self.subscribers.retain(|(subscriber, sender)| subscriber.push(sender, &batch, lost));
        }
        if self.subscribers.len() != before {
            self.update_event_mask(engine);
        }
    }
}

impl Subscriber {
    /// Queues a batch, or counts it as lost. False if the subscriber has gone.
    fn push(&self, sender: &SyncSender<Arc<EventBatch>>, batch: &Arc<EventBatch>, lost: u64) -> bool {
        let length = batch.events.len();
        self.lost.fetch_add(lost, Ordering::Relaxed);
        if length == 0 {
            return true;
        }
        let lose = || self.lost.fetch_add(length as u64, Ordering::Relaxed);
        if self.queued.load(Ordering::Relaxed) + length > self.max_events {
            lose();
            return true;
        }
        self.queued.fetch_add(length, Ordering::Relaxed);
        match sender.try_send(Arc::clone(batch)) {
            Ok(()) => true,
            Err(error) => {
                self.queued.fetch_sub(length, Ordering::Relaxed);
                lose();
                matches!(error, std::sync::mpsc::TrySendError::Full(_))
            }
        }
    }
}

/// Runs the jobs: the main loop's end.
pub(super) struct JobRunner {
    jobs: Receiver<Job>,
    hub: RefCell<EventHub>,
    last_job: RefCell<Option<Clock>>,
}

impl JobRunner {
    pub(super) fn new() -> (JobRunner, JobSender) {
        let (sender, jobs) = channel();
        (JobRunner { jobs, hub: RefCell::default(), last_job: RefCell::default() }, JobSender { jobs: sender })
    }

    /// One turn: hands events to subscribers and runs some jobs.
    pub(super) fn run_jobs(&self, router: &mut Router, turns: &TurnTimes, now: Instant) -> FinishedJobs {
        let Ok(mut hub) = self.hub.try_borrow_mut() else { return FinishedJobs::default() };
        hub.publish_some(router.engine_mut(), 0, MAX_EVENTS_PER_TURN);
        let Ok(first) = self.jobs.try_recv() else { return FinishedJobs::default() };
        let started = Clock::now();
        let mut at = JobCtx { router, hub: &mut hub, turns, now };
        let mut answers = vec![first(&mut at)];
        while answers.len() < MAX_JOBS_PER_TURN && started.elapsed() < JOB_TIME_BUDGET {
            let Ok(job) = self.jobs.try_recv() else { break };
            answers.push(job(&mut at));
        }
        self.mark_active();
        FinishedJobs(answers)
    }

    /// Adds a subscriber of the gateway's own.
    pub(super) fn subscribe(&self, subscriber: Arc<Subscriber>, engine: &mut Engine) -> Receiver<Arc<EventBatch>> {
        self.hub.borrow_mut().subscribe(subscriber, engine)
    }

    /// Shows how these logs are doing.
    pub(super) fn show_flow_logs(&self, logs: Vec<Arc<FlowLogCounters>>) {
        self.hub.borrow_mut().flow_logs = logs;
    }

    /// Shows how the cluster is doing.
    pub(super) fn show_cluster(&self, cluster: ClusterHandle) {
        self.hub.borrow_mut().cluster = Some(cluster);
    }

    /// Hands all events to the subscribers: the gateway ends.
    pub(super) fn publish_all(&self, router: &mut Router) {
        self.hub.borrow_mut().publish(router.engine_mut(), 0);
    }

    /// A client has sent a request, and may send another.
    pub(super) fn mark_active(&self) {
        self.last_job.replace(Some(Clock::now()));
    }

    /// How long the main loop may wait for packets, in milliseconds: not at all while a client is served, and not long while it may send more.
    pub(super) fn poll_timeout(&self, usual: i32) -> i32 {
        match self.last_job.borrow().map(|last| last.elapsed()) {
            Some(ago) if ago < NO_WAIT_AFTER_JOB => 0,
            Some(ago) if ago < SHORT_WAIT_AFTER_JOB => 1,
            _ => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_engine::{Secret, Sysctls};
    use keepstate_router::FibTable;
    use keepstate_rules::Program;
    use std::sync::mpsc::TryRecvError;

    /// A client that has its answer may send a packet at once: what it has changed must hold for that packet.
    #[test]
    fn nobody_has_an_answer_before_the_data_path_knows() {
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let mut router = Router::new(engine, Program::default(), FibTable::default(), (1, 2));
        let (runner, sender) = JobRunner::new();
        let before = router.flow_generation();
        let answer = sender.submit(|at: &mut JobCtx<'_>| at.router.revoke_flows()).unwrap();
        let finished = runner.run_jobs(&mut router, &TurnTimes::default(), Instant(0));
        assert_eq!((finished.count(), answer.try_recv()), (1, Err(TryRecvError::Empty)));
        // Here the main loop tells the data path.
        assert_ne!(router.flow_generation(), before);
        finished.answer();
        assert_eq!(answer.try_recv(), Ok(()));
    }
}
