//! `keepstate replay`: a capture tracked by the engine, on the clock of its own timestamps.
use crate::checksum_args::{self, ChecksumArgs};
use crate::per_packet;
use crate::progress::Progress;
use crate::shared_args::EngineArgs;
use crate::stderr;
use crate::time_arg::TimeArg;
use anyhow::Result;
use clap::Args;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_capture::{Capture, Frame};
use keepstate_conntrack::OutputArgs;
use keepstate_conntrack::format::{self, FlowWriter};
use keepstate_engine::{EventMask, Instant};
use std::io::{BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};

/// Replay a capture: the table, the events, the counters, as Linux would have had them.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// pcap or pcapng, plain, .gz or .zst; - for standard input
    file: PathBuf,
    /// Print one line a packet: number, ctinfo, direction, state, timeout, reason
    #[arg(long)]
    each: bool,
    /// Stop at this time: seconds from the first packet (12.5) or a date (2026-11-23T14:00:00Z). After the last packet, timeouts run on
    #[arg(long, value_name = "TIME")]
    at: Option<TimeArg>,
    #[command(flatten)]
    checksums: ChecksumArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

const EXAMPLES: &str = "\
Examples:
  # the table after the last packet, in the lines of conntrack -L
  keepstate replay trace.pcapng
  # what conntrack -E -o timestamp would have printed
  keepstate replay trace.pcap.gz --events -o timestamp
  # which packets were invalid, and why
  keepstate replay trace.pcap --each | grep INVALID
  # some connections, as they were 12.5 seconds after the first packet
  keepstate replay trace.pcap --at 12.5 -p tcp --state ESTABLISHED
  # what another sysctl, another kernel or a helper would have changed
  keepstate replay trace.pcap --set nf_conntrack_tcp_loose=0 --stats
  keepstate replay trace.pcap --as-linux 5.15 --memory 4G --stats
  keepstate replay trace.pcap --helper ftp
  # while it is being captured
  tcpdump -i eth0 -U -w - | keepstate replay - --events

Timeouts are in seconds, as conntrack's; times are the capture's own.
A broken capture is replayed up to where it breaks. --each prints a line if its
connection passes the filters.
Exit codes: 0 done, 1 something could not be read or written, 2 usage error";

/// Events that may wait between two frames.
const EVENT_QUEUE: usize = 1 << 20;

impl Replay {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.each && self.output.events && self.output.is_document() {
            return Err("--each and --events with -o xml or json exclude each other: a document of events has no place for lines".into());
        }
        self.output.check()
    }

    /// Replays, prints the table, events or counters on standard output and notes on standard error.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after everything up to the break was printed.
    pub fn run(&self) -> Result<()> {
        let mut policy = self.checksums.policy(&self.engine)?;
        let sysctls = self.engine.sysctls(stderr::note)?;
        let mut capture = checksum_args::open_sampled(&self.file, &mut policy, self.each || self.output.events)?;
        let mut tracker = CaptureTracker::new(sysctls, self.engine.hash_secret()?).with_checksums(policy);
        self.engine.attach_helpers(tracker.engine_mut());
        self.output.missing(tracker.engine().sysctls()).into_iter().for_each(stderr::note);
        if self.output.events {
            tracker.engine_mut().subscribe(EventMask::ALL, EVENT_QUEUE);
        }
        let mut out = ReplayOutput::new(self);
        let read = self.read_capture(&mut capture, &mut tracker, &mut out);
        tracker.flush();
        let shown = self.write_results(&mut tracker, &mut out)?;
        stderr::print_tracking_report(&mut tracker, shown);
        read?;
        stderr::ensure_readable(&tracker, &self.file)
    }

    fn read_capture(
        &self,
        capture: &mut Capture,
        tracker: &mut CaptureTracker,
        out: &mut ReplayOutput<'_>,
    ) -> Result<()> {
        let mut progress = Progress::new(&self.file);
        let mut end = None;
        let mut offset = 0;
        let single = self.each || self.output.events;
        let result = capture.for_each_frame(|frame| {
            if let (Some(at), None, Some(first)) = (self.at, end, frame.time) {
                end = Some(at.resolve(first));
            }
            if end.zip(frame.time).is_some_and(|(end, time)| time > end) {
                return Ok(false);
            }
            offset += frame.data.len() as u64 + 16;
            progress.update(tracker.frame_count, offset);
            if single {
                out.process_frame(tracker, &frame).map(|()| true)
            } else {
                tracker.queue_frame(&frame);
                Ok(true)
            }
        });
        progress.finish();
        if let Some(end) = end.filter(|_| result.is_ok()) {
            // Until the given time, timeouts run on without packets.
            tracker.flush();
            tracker.advance(Instant(end));
            if tracker.frame_count == 0 {
                stderr::note("--at is before the first packet: the table is empty");
            }
        }
        result
    }

    /// Writes what is left; returns the number of entries if the table was shown.
    fn write_results(&self, tracker: &mut CaptureTracker, out: &mut ReplayOutput<'_>) -> Result<Option<usize>> {
        out.write_events(tracker)?;
        out.writer.finish()?;
        if self.output.stats {
            format::write_stats(out.writer.beneath(), tracker.engine().counters(), &self.output.output())?;
        }
        let table = !self.output.stats && !self.output.events && !self.each;
        let shown = table.then(|| write_table(out.writer.beneath(), tracker, &self.output)).transpose()?;
        out.writer.beneath().flush()?;
        Ok(shown)
    }
}

/// Standard output, and what is written to it as frames pass.
struct ReplayOutput<'a> {
    replay: &'a Replay,
    writer: FlowWriter<BufWriter<Stdout>>,
    /// The capture is still being written: each line is flushed at once.
    live: bool,
}

impl<'a> ReplayOutput<'a> {
    fn new(replay: &'a Replay) -> Self {
        let path = if replay.file.as_os_str() == "-" { Path::new("/dev/stdin") } else { &replay.file };
        let live = !path.metadata().is_ok_and(|file| file.is_file());
        let lines = BufWriter::with_capacity(1 << 16, std::io::stdout());
        ReplayOutput { replay, writer: FlowWriter::new(lines, replay.output.output()).for_events(), live }
    }

    /// Takes one frame and prints its line and its events.
    fn process_frame(&mut self, tracker: &mut CaptureTracker, frame: &Frame<'_>) -> Result<()> {
        // Events of timeouts before this frame come before it.
        if let Some(time) = frame.time {
            tracker.advance(Instant(time));
            self.write_events(tracker)?;
        }
        let result = tracker.track_frame(frame);
        if self.replay.each {
            if tracker.frame_count == 1 {
                writeln!(self.writer.beneath(), "{}", per_packet::HEADER)?;
            }
            let entry = per_packet::tracked_entry(tracker, &result);
            let filter = &self.replay.output.filter;
            if entry.as_ref().map_or(filter.is_empty(), |entry| filter.matches(entry)) {
                per_packet::write_line(self.writer.beneath(), tracker.frame_count, &result, entry.as_ref())?;
            }
        }
        self.write_events(tracker)?;
        if self.live {
            self.writer.beneath().flush()?;
        }
        Ok(())
    }

    fn write_events(&mut self, tracker: &mut CaptureTracker) -> Result<()> {
        while let Some(event) = tracker.engine_mut().poll_event() {
            if self.replay.output.filter.matches(&event.entry) {
                self.writer.write_event(&event)?;
            }
        }
        Ok(())
    }
}

/// Writes the table; returns the number of entries.
pub(crate) fn write_table(out: &mut impl Write, tracker: &CaptureTracker, show: &OutputArgs) -> Result<usize> {
    let mut writer = FlowWriter::new(out, show.output()).at_time(tracker.now().to_unix(0));
    let mut shown = 0;
    for entry in tracker.engine().entries(tracker.now()).filter(|entry| show.filter.matches(entry)) {
        writer.write_entry(&entry)?;
        shown += 1;
    }
    writer.finish()?;
    Ok(shown)
}
