//! The main loop's end of the logs: hands them the engine's events, and once a second what has no event: ports exhausted, a full table.
use super::config::{FlowLogConfig, LogBackends, LoggedSessions};
use super::convert::{exhausted, log_time, record_of_port_block};
use super::writer::{AttachedEvents, LogWriter, WriterInput};
use crate::flow_log_counters::FlowLogCounters;
use crate::jobs::{JobRunner, Subscriber};
use crate::shared::SharedGateway;
use crate::turns::TurnKind;
use anyhow::{Context, Result};
use keepstate_engine::{EventKind, ExhaustionKey, Instant, PortBlockEvent, Reason, Sysctl, UnixTime};
use keepstate_flowlog::{LogEvent, LogRecord};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

/// Events that wait for one log, at most.
const MAX_QUEUED_EVENTS: usize = 1 << 17;
/// Batches of events that wait, at most.
const MAX_QUEUED_BATCHES: usize = 1 << 16;
/// Records without an event that wait, at most.
const MAX_QUEUED_RECORDS: usize = 1 << 16;
/// How often what has no event is looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// All logs of a gateway.
pub(crate) struct FlowLogs {
    logs: Vec<RunningLog>,
    /// Hands events on where there is no control socket.
    own_jobs: Option<JobRunner>,
    looked: Clock,
    /// What was told already.
    exhausted: Vec<(ExhaustionKey, u64)>,
    table_full: u64,
    blocks_lost: u64,
}

struct RunningLog {
    config: FlowLogConfig,
    counters: Arc<FlowLogCounters>,
    attach: SyncSender<AttachedEvents>,
    records: SyncSender<LogRecord>,
    /// Records that its queue did not hold, and that its thread has not told yet.
    lost: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl FlowLogs {
    /// Starts the threads; each can do nothing but write its log.
    ///
    /// # Errors
    /// A file cannot be opened, or there is no thread.
    pub(crate) fn start(configs: &[FlowLogConfig], backends: &LogBackends) -> Result<FlowLogs> {
        let logs = configs.iter().map(|config| RunningLog::start(config, backends)).collect::<Result<_>>()?;
        Ok(FlowLogs {
            logs,
            own_jobs: None,
            looked: Clock::now(),
            exhausted: Vec::new(),
            table_full: 0,
            blocks_lost: 0,
        })
    }

    /// Subscribes the logs to the events of the engine; `jobs` serves the control clients, if there are any.
    pub(crate) fn attach(&mut self, gateway: &SharedGateway, jobs: Option<&JobRunner>) {
        if self.logs.is_empty() {
            return;
        }
        if jobs.is_none() {
            self.own_jobs = Some(JobRunner::new().0);
        }
        let Some(jobs) = jobs.or(self.own_jobs.as_ref()) else { return };
        let mut turn = gateway.lock(TurnKind::Upkeep);
        let engine = turn.router.engine_mut();
        self.table_full = table_full(engine.reason_counts());
        self.exhausted = engine.exhaustion_stats().map(|(key, stats)| (*key, stats.failures)).collect();
        self.blocks_lost = engine.port_block_events_lost();
        let connections = u64::try_from(engine.count()).unwrap_or(u64::MAX);
        for log in &self.logs {
            let events = (log.config.sessions != LoggedSessions::None).then(|| {
                let subscriber = Arc::new(Subscriber::with_limits(MAX_QUEUED_EVENTS, MAX_QUEUED_BATCHES));
                subscriber.subscribe_to(EventKind::New);
                subscriber.subscribe_to(EventKind::Destroy);
                let batches = jobs.subscribe(Arc::clone(&subscriber), engine);
                (subscriber, batches)
            });
            // The thread waits for it.
            let _ = log.attach.send(AttachedEvents { events, connections });
        }
        jobs.show_flow_logs(self.counters());
    }

    /// How the logs are doing.
    pub(crate) fn counters(&self) -> Vec<Arc<FlowLogCounters>> {
        self.logs.iter().map(|log| Arc::clone(&log.counters)).collect()
    }

    /// One turn of the main loop.
    pub(crate) fn poll(&mut self, gateway: &SharedGateway) {
        if self.logs.is_empty() {
            return;
        }
        if let Some(jobs) = &self.own_jobs {
            let now = gateway.now();
            let finished = jobs.run_jobs(&mut gateway.lock(TurnKind::Control).router, &gateway.turns, now);
            finished.answer();
        }
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.looked = Clock::now();
            self.look(gateway);
        }
    }

    /// Are port blocks wanted?
    pub(crate) fn want_port_blocks(&self) -> bool {
        self.logs.iter().any(|log| log.config.port_blocks)
    }

    /// Port blocks that were allocated and released, with their times by the wall clock.
    pub(crate) fn add_port_blocks(&self, events: &[(PortBlockEvent, UnixTime)]) {
        for (event, at) in events {
            let record = record_of_port_block(event, *at);
            self.logs.iter().filter(|log| log.config.port_blocks).for_each(|log| log.send(record.clone()));
        }
    }

    /// Ports exhausted, a full table, port blocks whose events the engine has lost: since the last look.
    fn look(&mut self, gateway: &SharedGateway) {
        let (found, full, limit, blocks_lost, at) = {
            let turn = gateway.lock(TurnKind::Upkeep);
            let engine = turn.router.engine();
            let found: Vec<_> = engine.exhaustion_stats().map(|(key, stats)| (*key, stats.failures)).collect();
            let now: Instant = gateway.now();
            let at = turn.router.unix_time(now);
            let limit = u64::from(engine.sysctls()[Sysctl::Max]);
            (found, table_full(engine.reason_counts()), limit, engine.port_block_events_lost(), at)
        };
        let mut events = Vec::new();
        for (key, failures) in &found {
            let before = self.exhausted.iter().find(|(known, _)| known == key).map_or(0, |(_, failures)| *failures);
            let refused = failures.saturating_sub(before);
            if refused > 0 {
                events.push(exhausted(key, refused));
            }
        }
        let refused = full.saturating_sub(self.table_full);
        if refused > 0 {
            events.push(LogEvent::LimitReached { limit, refused });
        }
        for event in events {
            let record = LogRecord { at: log_time(at), event };
            self.logs.iter().for_each(|log| log.send(record.clone()));
        }
        let lost = blocks_lost.saturating_sub(self.blocks_lost);
        for log in self.logs.iter().filter(|log| log.config.port_blocks && lost > 0) {
            log.lost.fetch_add(lost, Ordering::Relaxed);
        }
        (self.exhausted, self.table_full, self.blocks_lost) = (found, full, blocks_lost);
    }

    /// Writes what waits, and ends the logs.
    pub(crate) fn finish(mut self, gateway: &SharedGateway, jobs: Option<&JobRunner>) {
        if self.logs.is_empty() {
            return;
        }
        self.look(gateway);
        if let Some(jobs) = jobs.or(self.own_jobs.as_ref()) {
            jobs.publish_all(&mut gateway.lock(TurnKind::Control).router);
        }
        self.logs.iter().for_each(|log| log.stop.store(true, Ordering::Release));
        for RunningLog { thread, records, counters, .. } in self.logs {
            drop(records);
            let ended = thread.join().is_ok();
            let (written, lost) = (counters.written(), counters.lost());
            tracing::debug!(
                "flow log {}: {written} records, {lost} lost{}",
                counters.target,
                if ended { "" } else { "; its thread has failed" }
            );
        }
    }
}

fn table_full(counts: impl Iterator<Item = (Reason, u64)>) -> u64 {
    counts.filter(|(reason, _)| *reason == Reason::TableFull).map(|(_, count)| count).sum()
}

impl RunningLog {
    fn start(config: &FlowLogConfig, backends: &LogBackends) -> Result<RunningLog> {
        let counters = Arc::new(FlowLogCounters::new(config.target.to_string()));
        let (attach, attached) = sync_channel(1);
        let (records, queued) = sync_channel(MAX_QUEUED_RECORDS);
        let (lost, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let input = WriterInput { attached, records: queued, lost: Arc::clone(&lost), stop: Arc::clone(&stop) };
        let writer = LogWriter::new(config.clone(), Arc::clone(&counters), backends)?;
        let thread = writer.spawn(input).with_context(|| format!("flow log {}", config.target))?;
        Ok(RunningLog { config: config.clone(), counters, attach, records, lost, stop, thread })
    }

    fn send(&self, record: LogRecord) {
        if let Err(TrySendError::Full(_)) = self.records.try_send(record) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
