//! `keepstate replay`: a capture through the engine, on the clock of its own timestamps.
use crate::per_packet;
use crate::progress::Progress;
use crate::shared_args::EngineArgs;
use crate::stderr;
use crate::time_arg::TimeArg;
use anyhow::Result;
use clap::Args;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_capture::{Capture, Frame};
use keepstate_conntrack::format::{self, FlowWriter};
use keepstate_conntrack::show::OutputArgs;
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
    /// Stop at this time: seconds from the first packet, or a date, as 12.5 or 2026-11-23T14:00:00Z; later than the last packet, time goes on
    #[arg(long, value_name = "TIME")]
    at: Option<TimeArg>,
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
  # some connections, as they were twelve and a half seconds after the first packet
  keepstate replay trace.pcap --at 12.5 -p tcp --state ESTABLISHED
  # what another knob, another kernel or a helper would have changed
  keepstate replay trace.pcap --set nf_conntrack_tcp_loose=0 --stats
  keepstate replay trace.pcap --as-linux 5.15 --memory 4G --stats
  keepstate replay trace.pcap --helper ftp
  # while it is being captured
  tcpdump -i eth0 -U -w - | keepstate replay - --events

Timeouts are in seconds, as conntrack's; times are the capture's own.
A broken capture is told up to where it breaks. A line of --each is shown if its
connection passes the filters.
Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked";

/// Events that may wait between two frames.
const EVENT_QUEUE: usize = 1 << 20;

impl Replay {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.each && self.output.events && self.output.is_document() {
            return Err("lines of --each are no part of a document of events: ask for one of them".into());
        }
        self.output.check()
    }

    /// Replays, prints the table, events or counters on standard output and notes on standard error.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after everything up to the break was printed.
    pub fn run(&self) -> Result<()> {
        let mut follower = CaptureTracker::new(self.engine.sysctls(stderr::note)?, self.engine.hash_secret()?);
        self.engine.attach_helpers(follower.engine_mut());
        self.output.missing(follower.engine().sysctls()).into_iter().for_each(stderr::note);
        if self.output.events {
            follower.engine_mut().subscribe(EventMask::ALL, EVENT_QUEUE);
        }
        let mut capture = Capture::open(&self.file)?;
        let mut out = ReplayOutput::new(self);
        let read = self.read_capture(&mut capture, &mut follower, &mut out);
        follower.flush();
        self.write_results(&mut follower, &mut out)?;
        stderr::print_summary(&mut follower);
        stderr::print_capture_warnings(&follower);
        read
    }

    fn read_capture(
        &self,
        capture: &mut Capture,
        follower: &mut CaptureTracker,
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
            progress.update(follower.frame_count, offset);
            if single {
                out.process_frame(follower, &frame).map(|()| true)
            } else {
                follower.queue_frame(&frame);
                Ok(true)
            }
        });
        progress.finish();
        if let Some(end) = end.filter(|_| result.is_ok()) {
            // Up to the moment asked for, time goes on without packets.
            follower.flush();
            follower.advance(Instant(end));
            if follower.frame_count == 0 {
                stderr::note("--at is before the first packet: nothing was there yet");
            }
        }
        result
    }

    fn write_results(&self, follower: &mut CaptureTracker, out: &mut ReplayOutput<'_>) -> Result<()> {
        out.write_events(follower)?;
        out.writer.finish()?;
        if self.output.stats {
            format::write_stats(out.writer.beneath(), follower.engine().counters(), &self.output.output())?;
        }
        if !self.output.stats && !self.output.events && !self.each {
            let shown = write_table(out.writer.beneath(), follower, &self.output)?;
            stderr::print_entries_shown(shown);
        }
        Ok(out.writer.beneath().flush()?)
    }
}

/// Standard output, and what is written to it as frames pass.
struct ReplayOutput<'a> {
    replay: &'a Replay,
    writer: FlowWriter<BufWriter<Stdout>>,
    /// The capture is being made while we read: what is known is shown at once.
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
    fn process_frame(&mut self, follower: &mut CaptureTracker, frame: &Frame<'_>) -> Result<()> {
        // What expired before this frame came before it.
        if let Some(time) = frame.time {
            follower.advance(Instant(time));
            self.write_events(follower)?;
        }
        let passed = follower.track_frame(frame);
        if self.replay.each {
            if follower.frame_count == 1 {
                writeln!(self.writer.beneath(), "{}", per_packet::HEADER)?;
            }
            let entry = per_packet::tracked_entry(follower, &passed);
            let filter = &self.replay.output.filter;
            if entry.as_ref().map_or(filter.is_empty(), |entry| filter.matches(entry)) {
                per_packet::write_line(self.writer.beneath(), follower.frame_count, &passed, entry.as_ref())?;
            }
        }
        self.write_events(follower)?;
        if self.live {
            self.writer.beneath().flush()?;
        }
        Ok(())
    }

    fn write_events(&mut self, follower: &mut CaptureTracker) -> Result<()> {
        while let Some(event) = follower.engine_mut().poll_event() {
            if self.replay.output.filter.matches(&event.entry) {
                self.writer.write_event(&event)?;
            }
        }
        Ok(())
    }
}

/// Writes the table; says how many entries it showed.
pub(crate) fn write_table(out: &mut impl Write, follower: &CaptureTracker, show: &OutputArgs) -> Result<usize> {
    let mut writer = FlowWriter::new(out, show.output()).at_time(follower.now());
    let mut shown = 0;
    for entry in follower.engine().entries(follower.now()).filter(|entry| show.filter.matches(entry)) {
        writer.write_entry(&entry)?;
        shown += 1;
    }
    writer.finish()?;
    Ok(shown)
}
