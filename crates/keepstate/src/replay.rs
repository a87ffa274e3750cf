//! `keepstate replay`: a capture through the engine, on the clock of its own timestamps.
use crate::capture::{Capture, Frame};
use crate::each;
use crate::follower::Follower;
use crate::format::{self, Writer};
use crate::moment::Moment;
use crate::notes;
use crate::options::{Show, Tuning};
use crate::progress::Progress;
use anyhow::Result;
use clap::Args;
use keepstate_engine::{EventMask, Instant};
use std::io::{BufWriter, Stdout, Write};
use std::path::PathBuf;

/// Replay a capture: the table, the events, the counters, as Linux would have had them.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// pcap or pcapng, plain, .gz or .zst; - for standard input
    file: PathBuf,
    /// Print one line a packet: number, ctinfo, direction, state, timeout, reason
    #[arg(long)]
    each: bool,
    /// Stop at this time: seconds from the first packet, or a date as 2026-11-23T14:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    tuning: Tuning,
}

const EXAMPLES: &str = "\
Examples:
  keepstate replay trace.pcapng                      the table when the last packet had passed
  keepstate replay trace.pcap -o extended,id         as conntrack -L -o extended,id
  keepstate replay trace.pcap.gz --events            what conntrack -E would have printed
  keepstate replay trace.pcap --each | grep INVALID  which packets were invalid, and why
  keepstate replay trace.pcap --at 12.5 -p tcp --state ESTABLISHED
  keepstate replay trace.pcap --set nf_conntrack_tcp_loose=0 --stats
  keepstate replay trace.pcap --helper ftp           as if a rule had attached the helper to port 21
  keepstate replay trace.pcap --as-linux 5.15 --memory 4G --stats
  tcpdump -i eth0 -w - | keepstate replay - --events";

/// Events that may wait between two frames.
const EVENTS: usize = 1 << 20;

impl Replay {
    /// Replays, prints the table, events or counters on standard output and notes on standard error.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after everything up to the break was printed.
    pub fn run(&self) -> Result<()> {
        self.show.filter.check().map_err(anyhow::Error::msg)?;
        let mut follower = Follower::new(self.tuning.knobs(notes::note)?, self.tuning.secret()?);
        self.tuning.help(follower.engine_mut());
        if self.show.events {
            follower.engine_mut().listen(EventMask::ALL, EVENTS);
        }
        let mut capture = Capture::open(&self.file)?;
        let mut out = Out::new(self);
        let read = self.read(&mut capture, &mut follower, &mut out);
        follower.flush();
        self.finish(&mut follower, &mut out)?;
        notes::summary(&mut follower);
        read
    }

    fn read(&self, capture: &mut Capture, follower: &mut Follower, out: &mut Out) -> Result<()> {
        let mut progress = Progress::new(&self.file);
        let mut end = None;
        let mut offset = 0;
        let single = self.each || self.show.events;
        let result = capture.frames(|frame| {
            let end = *end.get_or_insert_with(|| self.at.map_or(u64::MAX, |at| at.after(frame.time.unwrap_or(0))));
            if frame.time.is_some_and(|time| time > end) {
                follower.flush();
                follower.advance(Instant(end));
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
        if let Some(end) = end.filter(|end| self.at.is_some() && result.is_ok() && *end > follower.now().0) {
            // The capture ended before the moment asked for: time goes on without packets.
            follower.flush();
            follower.advance(Instant(end));
        }
        result
    }

    fn finish(&self, follower: &mut Follower, out: &mut Out) -> Result<()> {
        out.events(follower)?;
        if self.show.stats {
            writeln!(out.plain(), "{}", format::stats(follower.engine().counters()).trim_end_matches('\n'))?;
        }
        if !self.show.stats && !self.show.events && !self.each {
            let shown = out.table(follower, &self.show)?;
            notes::shown(shown);
        }
        out.close()
    }
}

/// Standard output, and what is written to it.
struct Out {
    lines: BufWriter<Stdout>,
    events: Option<Writer<Box<dyn Write>>>,
    each: bool,
    show: Show,
}

impl Out {
    fn new(replay: &Replay) -> Self {
        let stdout = std::io::stdout();
        // From a pipe, events are looked at as they come; from a file, all at once.
        let live = replay.file.as_os_str() == "-";
        let sink: Box<dyn Write> =
            if live { Box::new(stdout) } else { Box::new(BufWriter::with_capacity(1 << 16, stdout)) };
        let events = replay.show.events.then(|| Writer::new(sink, replay.show.output.unwrap_or_default()).of_events());
        Out {
            lines: BufWriter::with_capacity(1 << 16, std::io::stdout()),
            events,
            each: replay.each,
            show: replay.show.clone(),
        }
    }

    /// Takes one frame and prints its line and its events.
    fn single(&mut self, follower: &mut Follower, frame: &Frame<'_>) -> Result<()> {
        // What expired before this frame came before it.
        if let Some(time) = frame.time {
            follower.advance(Instant(time));
            self.events(follower)?;
        }
        let passed = follower.take(frame);
        if self.each {
            if follower.frames == 1 {
                writeln!(self.lines, "{}", each::HEADER)?;
            }
            each::line(&mut self.lines, follower, &passed)?;
        }
        self.events(follower)
    }

    fn events(&mut self, follower: &mut Follower) -> Result<()> {
        let Some(writer) = &mut self.events else { return Ok(()) };
        while let Some(event) = follower.engine_mut().poll_event() {
            if self.show.filter.matches(&event.entry) {
                if self.each {
                    self.lines.flush()?;
                }
                writer.event(&event)?;
            }
        }
        Ok(())
    }

    fn plain(&mut self) -> &mut impl Write {
        &mut self.lines
    }

    fn table(&mut self, follower: &Follower, show: &Show) -> Result<usize> {
        table(&mut self.lines, follower, show)
    }

    fn close(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.events {
            writer.finish()?;
        }
        Ok(self.lines.flush()?)
    }
}

/// Writes the table; says how many entries it showed.
pub(crate) fn table(out: &mut impl Write, follower: &Follower, show: &Show) -> Result<usize> {
    let mut writer = Writer::new(out, show.output.unwrap_or_default()).at(follower.now());
    let mut shown = 0;
    for entry in follower.engine().entries(follower.now()).filter(|entry| show.filter.matches(entry)) {
        writer.entry(&entry)?;
        shown += 1;
    }
    writer.finish()?;
    Ok(shown)
}
