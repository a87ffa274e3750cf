//! `keepstate watch`: the traffic of a device through the engine, live and passive.
use crate::replay;
use crate::shared_args::EngineArgs;
use crate::stderr;
use crate::tui::TerminalScreen;
use anyhow::{Context, Result};
use clap::Args;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_capture::packet_mmap::{LinkChange, PacketRing};
use keepstate_conntrack::format::{self, FlowWriter};
use keepstate_conntrack::show::OutputArgs;
use keepstate_engine::{EventMask, Instant};
use std::io::Stdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

/// Watch a device: the same as replay, live and passive, both directions.
///
/// Frames are only listened to. Checksums are not verified unless --set nf_conntrack_checksum=1 asks for it: what leaves this machine has none yet
/// when it is seen.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// The device, as ip link shows it
    device: String,
    /// End after this time (10s, 5m, 1h) and print the table
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Take frames for other machines too
    #[arg(long)]
    promiscuous: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

const EXAMPLES: &str = "\
Examples:
  # the table, drawn anew each second; q or Ctrl-C ends
  sudo keepstate watch eth0
  # what conntrack -E would print on a router that sees this traffic
  sudo keepstate watch eth0 --events
  # ten seconds, then the connections that nobody answered yet
  sudo keepstate watch eth0 --for 10s -p tcp --state SYN_SENT
  # from then on it runs without root
  sudo setcap cap_net_raw+ep $(which keepstate)

Timeouts are in seconds, as conntrack's.
Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked";

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Most of conntrack's lines on IPv4 fit into so many columns.
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

    /// Watches until the time is over or a signal comes.
    ///
    /// # Errors
    /// A device that cannot be listened to, and why; output that cannot be written.
    pub fn run(&self) -> Result<()> {
        let mut follower =
            CaptureTracker::new(self.engine.sysctls_without_checksum(stderr::note)?, self.engine.hash_secret()?);
        self.engine.attach_helpers(follower.engine_mut());
        self.output.missing(follower.engine().sysctls()).into_iter().for_each(stderr::note);
        let mut ring = PacketRing::open(&self.device, self.promiscuous)?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        ctrlc::set_handler(move || told.store(true, Ordering::Relaxed)).context("signals cannot be waited for")?;
        if self.output.events {
            follower.engine_mut().subscribe(EventMask::ALL, EVENT_QUEUE);
        }
        let interactive = !self.output.events && !self.output.stats && self.duration.is_none();
        let mut screen = interactive.then(TerminalScreen::open).flatten();
        let begun = Clock::now();
        let mut writer = FlowWriter::new(std::io::stdout(), self.output.output()).for_events();
        let mut picture = WatchView { watch: self, drawn_at: None, frames: 0 };
        let mut gone = Ok(());
        while !ended.load(Ordering::Relaxed) && self.duration.is_none_or(|length| begun.elapsed() < length) {
            let link = ring.wait(POLL_INTERVAL).unwrap_or_else(|error| {
                gone = Err(error);
                ended.store(true, Ordering::Relaxed);
                LinkChange::Unchanged
            });
            if link == LinkChange::WentDown && screen.is_none() {
                let device = self.device.escape_debug();
                stderr::note(format!(
                    "{device} is down: nothing passes until it is up again (ip link set {device} up)"
                ));
            }
            ring.for_each_frame(|frame| follower.queue_frame(frame));
            follower.flush();
            follower.advance(wall_clock());
            self.write_events(&mut follower, &mut writer)?;
            if let Some(screen) = &mut screen {
                if screen.quit_pressed() {
                    break;
                }
                picture.refresh(screen, &follower, &mut ring)?;
            }
        }
        // The table was on the screen all the time; what is left of it is what was there before.
        let seen = screen.take().is_some();
        self.write_results(&mut follower, &mut writer, ring.dropped(), seen)?;
        gone
    }

    fn write_events(&self, follower: &mut CaptureTracker, writer: &mut FlowWriter<Stdout>) -> Result<()> {
        while let Some(event) = follower.engine_mut().poll_event() {
            if self.output.filter.matches(&event.entry) {
                writer.write_event(&event)?;
            }
        }
        Ok(())
    }

    fn write_results(
        &self,
        follower: &mut CaptureTracker,
        writer: &mut FlowWriter<Stdout>,
        lost: u64,
        seen: bool,
    ) -> Result<()> {
        if self.output.events {
            writer.finish()?;
        }
        let mut out = std::io::stdout().lock();
        if self.output.stats {
            format::write_stats(&mut out, follower.engine().counters(), &self.output.output())?;
        }
        if !self.output.stats && !self.output.events && !seen {
            let shown = replay::write_table(&mut out, follower, &self.output)?;
            stderr::print_entries_shown(shown);
        }
        stderr::print_summary(follower);
        stderr::note(format!(
            "{} seen on {}, {lost} lost by the ring",
            stderr::was_or_were(follower.frame_count, "frame"),
            self.device.escape_debug()
        ));
        Ok(())
    }
}

/// What the screen shows: a line about the device, and as much of the table as there is room for.
struct WatchView<'a> {
    watch: &'a Watch,
    drawn_at: Option<Clock>,
    frames: u64,
}

impl WatchView<'_> {
    /// Draws it anew each second, and at once when the screen has another size.
    fn refresh(&mut self, screen: &mut TerminalScreen, follower: &CaptureTracker, ring: &mut PacketRing) -> Result<()> {
        let passed = self.drawn_at.map(|drawn| drawn.elapsed());
        if passed.is_some_and(|passed| passed < REFRESH_INTERVAL) && !screen.is_resized() {
            return Ok(());
        }
        let seconds = passed.unwrap_or(REFRESH_INTERVAL).as_secs_f64().max(0.001);
        let rate = (follower.frame_count - self.frames) as f64 / seconds;
        (self.drawn_at, self.frames) = (Some(Clock::now()), follower.frame_count);
        let (width, height) = screen.size();
        let room = height.saturating_sub(HEADER_ROWS);
        let (table, shown) = self.table_rows(follower, width, room)?;
        let mut rows = vec![
            format!(
                "{}{}: {} connections, {shown} match; {rate:.0} frames/s, {} lost",
                self.watch.device.escape_debug(),
                if ring.is_down() { " (down)" } else { "" },
                follower.engine().count(),
                ring.dropped()
            ),
            "q or Ctrl-C ends; -p, -s, -d, --state and others choose what is shown".into(),
            String::new(),
        ];
        let kept = if shown > room { room.saturating_sub(1) } else { room };
        rows.extend(table.into_iter().take(kept));
        if shown > room {
            rows.push(format!("... and {} more", shown - kept));
        }
        Ok(screen.draw(&rows)?)
    }

    /// A row a connection for so many as there is room for, and how many there are: conntrack's line where it has room or a format was asked for, else
    /// what matters most of it.
    fn table_rows(&self, follower: &CaptureTracker, width: usize, room: usize) -> Result<(Vec<String>, usize)> {
        let show = &self.watch.output;
        let brief = show.is_default_format() && width < WIDE_COLUMNS;
        let (mut rows, mut shown) = (Vec::new(), 0);
        let mut writer = FlowWriter::new(Vec::new(), show.output()).at_time(follower.now());
        for entry in follower.engine().entries(follower.now()).filter(|entry| show.filter.matches(entry)) {
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
    Duration::try_from_secs_f64(number * scale).map_err(|_| "a duration is not less than nothing, nor for ever".into())
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
