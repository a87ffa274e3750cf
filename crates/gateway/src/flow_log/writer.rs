//! The thread of one log: takes events and records from its queue, encodes them, writes them.
//!
//! While its file or collector fails it takes nothing: records wait in the queue, and those that it does not hold are lost. Loss is counted by whoever fills the queue; this thread
//! tells it in the log, before what it writes next.
use super::config::{FlowLogConfig, FlowLogTarget, LogBackends, LogFormat};
use super::convert::{log_time, record_of_event};
use super::sink::{LogSink, SinkState, directory_of};
use super::subjects::waiting_line;
use crate::clock::{SystemTimeSource, TimeSource};
use crate::flow_log_counters::FlowLogCounters;
use crate::jobs::{EventBatch, Subscriber};
use anyhow::{Context, Result, anyhow};
use keepstate_flowlog::{IpfixExporter, LogEvent, LogRecord, LogTime, SyslogFormat, json_line};
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::privileges::{self, CapabilitySet};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

/// How long it waits for records before it looks around.
const IDLE: Duration = Duration::from_millis(100);
/// Batches of events that are encoded before they are written.
const MAX_BATCHES: usize = 64;
/// Bytes that are written at once, to a file or a stream.
const CHUNK: usize = 64 * 1024;
/// How often templates are sent again over UDP (RFC 7011, 8.4).
const TEMPLATE_INTERVAL: Duration = Duration::from_secs(60);

/// How names are looked up, and whom the system trusts.
const SYSTEM_FILES: [&str; 3] = ["/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"];

/// What a thread gets from the main loop, once that runs.
pub(super) struct AttachedEvents {
    pub(super) events: Option<(Arc<Subscriber>, Receiver<Arc<EventBatch>>)>,
    /// Connections that were there already.
    pub(super) connections: u64,
}

/// The queues of a log.
pub(super) struct WriterInput {
    pub(super) attached: Receiver<AttachedEvents>,
    pub(super) records: Receiver<LogRecord>,
    pub(super) lost: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
}

/// One log, as its thread has it.
pub(super) struct LogWriter {
    config: FlowLogConfig,
    counters: Arc<FlowLogCounters>,
    sink: LogSink,
    encoder: Encoder,
    /// The number of the last record.
    seq: u64,
    /// What is to be written: bytes, and how many records they are.
    pending: VecDeque<(Vec<u8>, u64)>,
    templates_sent: Clock,
    instance: u64,
    /// Lost records that the log does not tell yet.
    untold: u64,
}

enum Encoder {
    Json,
    Subjects,
    Syslog(SyslogFormat),
    Ipfix(Box<IpfixExporter>),
}

impl LogWriter {
    /// Opens a file; a collector may be away still.
    ///
    /// # Errors
    /// The file cannot be opened, or one with keys cannot be used; no random numbers.
    pub(super) fn new(
        config: FlowLogConfig,
        counters: Arc<FlowLogCounters>,
        backends: &LogBackends,
    ) -> Result<LogWriter> {
        let mut sink = LogSink::new(&config, backends).with_context(|| format!("flow log {}", config.target))?;
        let folder = match &config.target {
            FlowLogTarget::File(path) => Some(directory_of(path)),
            _ => None,
        };
        if let Some(folder) = folder
            && let SinkState::Failed(error) = sink.prepare()
        {
            return Err(anyhow!(
                "flow log {}: {error}; is the directory {} there, and may this process write to it?",
                config.target,
                folder.display()
            ));
        }
        let instance = getrandom::u64().map_err(|error| anyhow!("the kernel gives no random numbers: {error}"))?;
        let encoder = match config.format {
            LogFormat::Json if matches!(config.target, FlowLogTarget::Subjects(_)) => Encoder::Subjects,
            // The hour's file becomes one when the hour is over.
            LogFormat::Json | LogFormat::Parquet => Encoder::Json,
            LogFormat::Syslog => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                Encoder::Syslog(SyslogFormat::new(host.trim(), std::process::id()))
            }
            // A new observation domain each time: a collector must not take the templates and sequence of before for these.
            LogFormat::Ipfix => {
                Encoder::Ipfix(Box::new(IpfixExporter::new(u32::try_from(instance >> 32).unwrap_or(0).max(1))))
            }
        };
        let templates_sent = Clock::now();
        let pending = VecDeque::new();
        Ok(LogWriter { config, counters, sink, encoder, seq: 0, pending, templates_sent, instance, untold: 0 })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// There is none, or it cannot be limited.
    pub(super) fn spawn(self, input: WriterInput) -> io::Result<JoinHandle<()>> {
        let (needed, access) = match &self.config.target {
            FlowLogTarget::File(path) => {
                let is_other_users = privileges::is_other_users(path);
                let needed = if is_other_users { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
                (needed, FileAccess::default().write(directory_of(path)))
            }
            FlowLogTarget::Hourly(directory) => {
                let is_other_users = privileges::is_other_users(directory);
                let needed = if is_other_users { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
                (needed, FileAccess::default().write(directory))
            }
            // Whoever carries the messages connects again and again: by names, with certificates.
            FlowLogTarget::Subjects(_) => {
                let access = SYSTEM_FILES.iter().fold(FileAccess::default(), |access, path| access.read(*path));
                let access = self.config.access.files().fold(access, |access, file| access.read(directory_of(file)));
                (CapabilitySet::empty(), access)
            }
            FlowLogTarget::Udp(_) | FlowLogTarget::Tcp(_) | FlowLogTarget::Tls(_) => {
                (CapabilitySet::empty(), FileAccess::default())
            }
        };
        let (limited, is_limited) = channel();
        let thread = std::thread::Builder::new().name("flow-log".into()).spawn(move || {
            let result = privileges::keep_capabilities(needed).and_then(|()| access.limit_thread());
            let failed = result.is_err();
            if limited.send(result).is_ok() && !failed {
                self.run(&input);
            }
        })?;
        is_limited.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))?;
        Ok(thread)
    }

    fn run(mut self, input: &WriterInput) {
        // The gateway may end before its main loop runs.
        let Ok(AttachedEvents { events, connections }) = input.attached.recv() else { return };
        self.push(LogRecord { at: wall_clock(), event: LogEvent::LogStart { instance: self.instance, connections } });
        loop {
            // First, so that what came before the stop is seen below.
            let stop = input.stop.load(Ordering::Acquire);
            let ready = self.prepare();
            if ready {
                self.take(input, events.as_ref(), stop);
            } else if !stop {
                std::thread::sleep(IDLE);
            }
            let lost = input.lost.swap(0, Ordering::Relaxed)
                + events.as_ref().map_or(0, |(subscriber, _)| subscriber.take_lost());
            self.count_lost(lost);
            if stop {
                self.end(ready, events.as_ref(), input);
                return;
            }
            if ready {
                self.tell_lost();
                self.resend_templates();
                self.flush();
            }
        }
    }

    /// Takes what waits, or waits a moment for something.
    fn take(&mut self, input: &WriterInput, events: Option<&(Arc<Subscriber>, Receiver<Arc<EventBatch>>)>, stop: bool) {
        let wait = if stop { Duration::ZERO } else { IDLE };
        match events {
            Some((subscriber, batches)) => {
                let first = batches.recv_timeout(wait).ok();
                let most = if stop { usize::MAX } else { MAX_BATCHES };
                for batch in first.into_iter().chain(batches.try_iter()).take(most) {
                    subscriber.consumed(&batch);
                    let sessions = self.config.sessions;
                    batch
                        .events
                        .iter()
                        .filter_map(|event| record_of_event(event, sessions))
                        .for_each(|record| self.push(record));
                }
            }
            None => match input.records.recv_timeout(wait) {
                Ok(record) => self.push(record),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => (),
            },
        }
        input.records.try_iter().for_each(|record| self.push(record));
    }

    /// The gateway ends: what could not be written is lost.
    fn end(&mut self, ready: bool, events: Option<&(Arc<Subscriber>, Receiver<Arc<EventBatch>>)>, input: &WriterInput) {
        if ready {
            self.tell_lost();
            self.push(LogRecord { at: wall_clock(), event: LogEvent::LogEnd });
            self.flush();
        }
        let unread = events.map_or(0, |(_, batches)| batches.try_iter().map(|batch| batch.events.len()).sum::<usize>());
        let unread = unread + input.records.try_iter().count();
        let unwritten: u64 = self.pending.iter().map(|(_, records)| records).sum();
        self.count_lost(unwritten + u64::try_from(unread).unwrap_or(0));
        if self.untold > 0 {
            tracing::error!("flow log {}: {} records lost: they were never written", self.config.target, self.untold);
        }
    }

    /// Opens the file or connects to the collector, if need be, and says when that begins to fail or to work. Can something be written?
    fn prepare(&mut self) -> bool {
        match self.sink.prepare() {
            SinkState::Ready => true,
            SinkState::Opened => {
                if self.counters.is_failing() {
                    tracing::info!("flow log {}: writing again", self.config.target);
                    self.counters.set_failing(false);
                }
                self.send_templates();
                true
            }
            SinkState::Waiting => false,
            SinkState::Failed(error) => {
                self.say_failed(&error);
                false
            }
        }
    }

    fn say_failed(&self, error: &io::Error) {
        if !self.counters.is_failing() {
            self.counters.set_failing(true);
            tracing::error!(
                "flow log {}: {error}; retrying every second. Records wait in memory meanwhile; those that it does not hold will be lost, and counted",
                self.config.target
            );
        }
    }

    fn count_lost(&mut self, lost: u64) {
        self.untold += lost;
        self.counters.add_lost(lost);
    }

    /// Says in the log what is missing from it.
    fn tell_lost(&mut self) {
        let lost = std::mem::take(&mut self.untold);
        if lost > 0 {
            self.push(LogRecord {
                at: wall_clock(),
                event: LogEvent::RecordsLost { lost, total: self.counters.lost() },
            });
        }
    }

    /// Encodes a record.
    fn push(&mut self, mut record: LogRecord) {
        self.config.privacy.apply(&mut record);
        self.seq += 1;
        let seq = self.seq;
        let is_packets = matches!(self.config.target, FlowLogTarget::Udp(_));
        let pending = &mut self.pending;
        match &mut self.encoder {
            Encoder::Ipfix(exporter) => {
                exporter.push(&record, wall_clock().secs(), &mut |message, records| {
                    add_chunk(pending, message, records.into(), is_packets);
                });
            }
            Encoder::Json => {
                let mut line = json_line(seq, &record);
                line.push('\n');
                add_chunk(pending, line.as_bytes(), 1, is_packets);
            }
            Encoder::Subjects => {
                let line = waiting_line(record.event.name(), &json_line(seq, &record));
                add_chunk(pending, line.as_bytes(), 1, is_packets);
            }
            Encoder::Syslog(format) => {
                let text = if is_packets { format.message(seq, &record) } else { format.framed(seq, &record) };
                add_chunk(pending, text.as_bytes(), 1, is_packets);
            }
        }
    }

    fn resend_templates(&mut self) {
        let is_udp = matches!(self.config.target, FlowLogTarget::Udp(_));
        if is_udp && self.templates_sent.elapsed() >= TEMPLATE_INTERVAL {
            self.send_templates();
        }
    }

    fn send_templates(&mut self) {
        self.templates_sent = Clock::now();
        let is_packets = matches!(self.config.target, FlowLogTarget::Udp(_));
        if let Encoder::Ipfix(exporter) = &mut self.encoder {
            let mut templates = VecDeque::new();
            exporter.resend_templates(wall_clock().secs(), &mut |message, records| {
                add_chunk(&mut templates, message, records.into(), is_packets);
            });
            // Before the records that need them.
            while let Some(chunk) = templates.pop_back() {
                self.pending.push_front(chunk);
            }
        }
    }

    /// Writes what is encoded.
    fn flush(&mut self) {
        if let Encoder::Ipfix(exporter) = &mut self.encoder {
            let is_packets = matches!(self.config.target, FlowLogTarget::Udp(_));
            let pending = &mut self.pending;
            exporter.flush(wall_clock().secs(), &mut |message, records| {
                add_chunk(pending, message, records.into(), is_packets);
            });
        }
        while let Some((bytes, records)) = self.pending.pop_front() {
            match self.sink.write(&bytes) {
                Ok(()) => self.counters.add_written(records),
                Err(error) => {
                    if matches!(self.config.target, FlowLogTarget::File(_) | FlowLogTarget::Hourly(_)) {
                        // Nothing of it is in the file.
                        self.pending.push_front((bytes, records));
                    } else {
                        // A part of it may have arrived; it is not sent twice.
                        self.count_lost(records);
                    }
                    return self.say_failed(&error);
                }
            }
        }
    }
}

/// Adds bytes to what is to be written: a packet of their own, or behind those before.
fn add_chunk(pending: &mut VecDeque<(Vec<u8>, u64)>, bytes: &[u8], records: u64, is_packets: bool) {
    match pending.back_mut().filter(|(chunk, _)| !is_packets && chunk.len() + bytes.len() <= CHUNK) {
        Some((chunk, count)) => {
            chunk.extend_from_slice(bytes);
            *count += records;
        }
        None => pending.push_back((bytes.to_vec(), records)),
    }
}

fn wall_clock() -> LogTime {
    log_time(SystemTimeSource.unix_time())
}
