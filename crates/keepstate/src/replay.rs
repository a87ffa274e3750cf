//! `keepstate replay`: a capture through the engine, on the clock of its own timestamps.
use crate::each;
use crate::moment::Moment;
use crate::notes;
use crate::options::Tuning;
use crate::progress::Progress;
use anyhow::Result;
use clap::Args;
use keepstate_capture::follower::Follower;
use keepstate_capture::{Capture, Frame};
use keepstate_conntrack::format::{self, Writer};
use keepstate_conntrack::show::Show;
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
    at: Option<Moment>,
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    tuning: Tuning,
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
const EVENTS: usize = 1 << 20;

impl Replay {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.each && self.show.events && self.show.is_document() {
            return Err("lines of --each are no part of a document of events: ask for one of them".into());
        }
        self.show.check()
    }

    /// Replays, prints the table, events or counters on standard output and notes on standard error.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after everything up to the break was printed.
    pub fn run(&self) -> Result<()> {
        let mut follower = Follower::new(self.tuning.knobs(notes::note)?, self.tuning.secret()?);
        self.tuning.help(follower.engine_mut());
        self.show.missing(follower.engine().knobs()).into_iter().for_each(notes::note);
        if self.show.events {
            follower.engine_mut().listen(EventMask::ALL, EVENTS);
        }
        let mut capture = Capture::open(&self.file)?;
        let mut out = Out::new(self);
        let read = self.read(&mut capture, &mut follower, &mut out);
        follower.flush();
        self.finish(&mut follower, &mut out)?;
        notes::summary(&mut follower);
        notes::capture(&follower);
        read
    }

    fn read(&self, capture: &mut Capture, follower: &mut Follower, out: &mut Out<'_>) -> Result<()> {
        let mut progress = Progress::new(&self.file);
        let mut end = None;
        let mut offset = 0;
        let single = self.each || self.show.events;
        let result = capture.frames(|frame| {
            if let (Some(at), None, Some(first)) = (self.at, end, frame.time) {
                end = Some(at.after(first));
            }
            if end.zip(frame.time).is_some_and(|(end, time)| time > end) {
                return Ok(false);
            }
            offset += frame.data.len() as u64 + 16;
            progress.at(follower.frames, offset);
            if single {
                out.single(follower, &frame).map(|()| true)
            } else {
                follower.queue(&frame);
                Ok(true)
            }
        });
        progress.finish();
        if let Some(end) = end.filter(|_| result.is_ok()) {
            // Up to the moment asked for, time goes on without packets.
            follower.flush();
            follower.advance(Instant(end));
            if follower.frames == 0 {
                notes::note("--at is before the first packet: nothing was there yet");
            }
        }
        result
    }

    fn finish(&self, follower: &mut Follower, out: &mut Out<'_>) -> Result<()> {
        out.events(follower)?;
        out.writer.finish()?;
        if self.show.stats {
            format::stats(out.writer.beneath(), follower.engine().counters(), &self.show.output())?;
        }
        if !self.show.stats && !self.show.events && !self.each {
            let shown = table(out.writer.beneath(), follower, &self.show)?;
            notes::shown(shown);
        }
        Ok(out.writer.beneath().flush()?)
    }
}

/// Standard output, and what is written to it as frames pass.
struct Out<'a> {
    replay: &'a Replay,
    writer: Writer<BufWriter<Stdout>>,
    /// The capture is being made while we read: what is known is shown at once.
    live: bool,
}

impl<'a> Out<'a> {
    fn new(replay: &'a Replay) -> Self {
        let path = if replay.file.as_os_str() == "-" { Path::new("/dev/stdin") } else { &replay.file };
        let live = !path.metadata().is_ok_and(|file| file.is_file());
        let lines = BufWriter::with_capacity(1 << 16, std::io::stdout());
        Out { replay, writer: Writer::new(lines, replay.show.output()).of_events(), live }
    }

    /// Takes one frame and prints its line and its events.
    fn single(&mut self, follower: &mut Follower, frame: &Frame<'_>) -> Result<()> {
        // What expired before this frame came before it.
        if let Some(time) = frame.time {
            follower.advance(Instant(time));
            self.events(follower)?;
        }
        let passed = follower.take(frame);
        if self.replay.each {
            if follower.frames == 1 {
                writeln!(self.writer.beneath(), "{}", each::HEADER)?;
            }
            let entry = each::entry(follower, &passed);
            let filter = &self.replay.show.filter;
            if entry.as_ref().map_or(filter.is_empty(), |entry| filter.matches(entry)) {
                each::line(self.writer.beneath(), follower.frames, &passed, entry.as_ref())?;
            }
        }
        self.events(follower)?;
        if self.live {
            self.writer.beneath().flush()?;
        }
        Ok(())
    }

    fn events(&mut self, follower: &mut Follower) -> Result<()> {
        while let Some(event) = follower.engine_mut().poll_event() {
            if self.replay.show.filter.matches(&event.entry) {
                self.writer.event(&event)?;
            }
        }
        Ok(())
    }
}

/// Writes the table; says how many entries it showed.
pub(crate) fn table(out: &mut impl Write, follower: &Follower, show: &Show) -> Result<usize> {
    let mut writer = Writer::new(out, show.output()).at(follower.now());
    let mut shown = 0;
    for entry in follower.engine().entries(follower.now()).filter(|entry| show.filter.matches(entry)) {
        writer.entry(&entry)?;
        shown += 1;
    }
    writer.finish()?;
    Ok(shown)
}
