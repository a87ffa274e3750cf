//! `keepstate watch`: the traffic of an interface tracked by the engine, live and passive.
use crate::checksum_args::ChecksumArgs;
use crate::replay;
use crate::shared_args::EngineArgs;
use crate::stderr;
use crate::tui::TerminalScreen;
use anyhow::{Context, Result};
use clap::Args;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_capture::packet_mmap::{LinkChange, PacketRing};
use keepstate_conntrack::OutputArgs;
use keepstate_conntrack::format::{self, FlowWriter};
use keepstate_engine::{EventMask, Instant};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Stdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

/// Watch an interface: the same as replay, live and passive, both directions.
///
/// Nothing is sent. Checksums are verified, except where the kernel has done so or says that they are not filled in yet.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// The interface, as ip link shows it
    #[arg(value_name = "DEVICE")]
    interface: String,
    /// End after this time (10s, 5m, 1h) and print the table
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Promiscuous mode: track frames for other machines too
    #[arg(long)]
    promiscuous: bool,
    #[command(flatten)]
    checksums: ChecksumArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

const EXAMPLES: &str = "\
Examples:
  # the table, redrawn each second; q or Ctrl-C ends
  sudo keepstate watch eth0
  # what conntrack -E would print on a router that sees this traffic
  sudo keepstate watch eth0 --events
  # ten seconds, then the connections without an answer
  sudo keepstate watch eth0 --for 10s -p tcp --state SYN_SENT
  # once, to run it without root
  sudo setcap cap_net_raw+ep $(which keepstate)

Timeouts are in seconds, as conntrack's.
Exit codes: 0 done, 1 something could not be read or written, 2 usage error";

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Columns that most of conntrack's lines on IPv4 fit into.
const WIDE_COLUMNS: usize = 160;
/// Rows above the table.
const HEADER_ROWS: usize = 3;
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
const EVENT_QUEUE: usize = 1 << 16;

impl Watch {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.output.check()
    }

    /// Watches until the duration ends or a signal comes.
    ///
    /// # Errors
    /// An interface that cannot be captured, and why; output that cannot be written.
    pub fn run(&self) -> Result<()> {
        let policy = self.checksums.policy(&self.engine)?;
        let mut tracker =
            CaptureTracker::new(self.engine.sysctls(stderr::note)?, self.engine.hash_secret()?).with_checksums(policy);
        self.engine.attach_helpers(tracker.engine_mut());
        self.output.missing(tracker.engine().sysctls()).into_iter().for_each(stderr::note);
        let mut ring = PacketRing::open(&self.interface, self.promiscuous)?;
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended)).context("cannot handle signals")?;
        }
        if self.output.events {
            tracker.engine_mut().subscribe(EventMask::ALL, EVENT_QUEUE);
        }
        let interactive = !self.output.events && !self.output.stats && self.duration.is_none();
        let mut screen = interactive.then(TerminalScreen::open).flatten();
        let begun = Clock::now();
        let mut writer = FlowWriter::new(std::io::stdout(), self.output.output()).for_events();
        let mut view = WatchView { watch: self, drawn_at: None, frames: 0 };
        let mut gone = Ok(());
        while !ended.load(Ordering::Relaxed) && self.duration.is_none_or(|length| begun.elapsed() < length) {
            let link = ring.wait(POLL_INTERVAL).unwrap_or_else(|error| {
                gone = Err(error);
                ended.store(true, Ordering::Relaxed);
                LinkChange::Unchanged
            });
            if link == LinkChange::WentDown && screen.is_none() {
                let interface = self.interface.escape_debug();
                stderr::note(format!("{interface} is down: no traffic until it is up (ip link set {interface} up)"));
            }
            ring.for_each_frame(|frame| tracker.queue_frame(frame));
            tracker.flush();
            tracker.advance(wall_clock());
            self.write_events(&mut tracker, &mut writer)?;
            if let Some(screen) = &mut screen {
                if screen.quit_pressed() {
                    break;
                }
                view.refresh(screen, &tracker, &mut ring)?;
            }
        }
        // The screen showed the table all the time, so it is not printed again.
        let had_screen = screen.take().is_some();
        self.write_results(&mut tracker, &mut writer, !had_screen)?;
        stderr::note(format!(
            "{} seen on {}, {} lost by the ring",
            stderr::was_or_were(tracker.frame_count, "frame"),
            self.interface.escape_debug(),
            ring.dropped()
        ));
        gone
    }

    fn write_events(&self, tracker: &mut CaptureTracker, writer: &mut FlowWriter<Stdout>) -> Result<()> {
        while let Some(event) = tracker.engine_mut().poll_event() {
            if self.output.filter.matches(&event.entry) {
                writer.write_event(&event)?;
            }
        }
        Ok(())
    }

    fn write_results(
        &self,
        tracker: &mut CaptureTracker,
        writer: &mut FlowWriter<Stdout>,
        show_table: bool,
    ) -> Result<()> {
        if self.output.events {
            writer.finish()?;
        }
        let mut out = std::io::stdout().lock();
        if self.output.stats {
            format::write_stats(&mut out, tracker.engine().counters(), &self.output.output())?;
        }
        let table = show_table && !self.output.stats && !self.output.events;
        let shown = table.then(|| replay::write_table(&mut out, tracker, &self.output)).transpose()?;
        stderr::print_tracking_report(tracker, shown);
        Ok(())
    }
}

/// What the screen shows: a line about the interface, and the part of the table that fits.
struct WatchView<'a> {
    watch: &'a Watch,
    drawn_at: Option<Clock>,
    frames: u64,
}

impl WatchView<'_> {
    /// Redraws it each second, and at once when the terminal's size has changed.
    fn refresh(&mut self, screen: &mut TerminalScreen, tracker: &CaptureTracker, ring: &mut PacketRing) -> Result<()> {
        let passed = self.drawn_at.map(|drawn| drawn.elapsed());
        if passed.is_some_and(|passed| passed < REFRESH_INTERVAL) && !screen.is_resized() {
            return Ok(());
        }
        let seconds = passed.unwrap_or(REFRESH_INTERVAL).as_secs_f64().max(0.001);
        let rate = (tracker.frame_count - self.frames) as f64 / seconds;
        (self.drawn_at, self.frames) = (Some(Clock::now()), tracker.frame_count);
        let (width, height) = screen.size();
        let room = height.saturating_sub(HEADER_ROWS);
        let (table, shown) = self.table_rows(tracker, width, room)?;
        let mut rows = vec![
            format!(
                "{}{}: {} connections, {shown} match; {rate:.0} frames/s, {} lost",
                self.watch.interface.escape_debug(),
                if ring.is_down() { " (down)" } else { "" },
                tracker.engine().count(),
                ring.dropped()
            ),
            "q or Ctrl-C ends; -p, -s, -d, --state and others filter".into(),
            String::new(),
        ];
        let fitting = if shown > room { room.saturating_sub(1) } else { room };
        rows.extend(table.into_iter().take(fitting));
        if shown > room {
            rows.push(format!("... and {} more", shown - fitting));
        }
        Ok(screen.draw(&rows)?)
    }

    /// One row per connection, up to `room`, and the number of connections: conntrack's line if it fits or a format was given, else a brief
    /// one.
    fn table_rows(&self, tracker: &CaptureTracker, width: usize, room: usize) -> Result<(Vec<String>, usize)> {
        let show = &self.watch.output;
        let brief = show.is_default_format() && width < WIDE_COLUMNS;
        let (mut rows, mut shown) = (Vec::new(), 0);
        let mut writer = FlowWriter::new(Vec::new(), show.output()).at_time(tracker.now().to_unix(0));
        for entry in tracker.engine().entries(tracker.now()).filter(|entry| show.filter.matches(entry)) {
            shown += 1;
            if shown > room {
                continue;
            } else if brief {
                rows.push(format::brief_line(&entry));
            } else {
                writer.write_entry(&entry)?;
            }
        }
        if !brief {
            writer.finish()?;
            rows = String::from_utf8_lossy(writer.beneath()).lines().map(str::to_owned).collect();
        }
        Ok((rows, shown))
    }
}

fn wall_clock() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// `10s`, `5m`, `1h`; without a letter, seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len());
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a duration like 10s, 5m or 1h".into()),
    };
    let number: f64 = digits.parse().map_err(|_| String::from("write a duration like 10s, 5m or 1h"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "write a positive duration like 10s, 5m or 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_durations() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("-1s").is_err());
    }
}
