//! `keepstate watch`: the traffic of a device through the engine, live and passive.
use crate::follower::Follower;
use crate::format::{self, Writer};
use crate::notes;
use crate::options::{Show, Tuning};
use crate::replay;
use crate::ring::Ring;
use anyhow::{Context, Result};
use clap::Args;
use keepstate_engine::{EventMask, Instant};
use std::io::{IsTerminal, Stdout, Write};
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
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// Take frames for other machines too
    #[arg(long)]
    promiscuous: bool,
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    tuning: Tuning,
}

const EXAMPLES: &str = "\
Examples:
  sudo keepstate watch eth0                 the table, refreshed every second; Ctrl-C ends
  sudo keepstate watch eth0 --events        what conntrack -E would print on a router that sees this traffic
  sudo keepstate watch eth0 --for 10s -p tcp --state SYN_SENT
  sudo setcap cap_net_raw+ep $(which keepstate)   then it runs without root

Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked";

const WAIT: Duration = Duration::from_millis(100);
const REFRESH: Duration = Duration::from_secs(1);
const EVENTS: usize = 1 << 16;

impl Watch {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.show.check()
    }

    /// Watches until the time is over or a signal comes.
    ///
    /// # Errors
    /// A device that cannot be listened to, and why; output that cannot be written.
    pub fn run(&self) -> Result<()> {
        let mut follower = Follower::new(self.tuning.unverified(notes::note)?, self.tuning.secret()?);
        self.tuning.help(follower.engine_mut());
        let mut ring = Ring::open(&self.device, self.promiscuous)?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        ctrlc::set_handler(move || told.store(true, Ordering::Relaxed)).context("signals cannot be waited for")?;
        if self.show.events {
            follower.engine_mut().listen(EventMask::ALL, EVENTS);
        }
        let screen = std::io::stdout().is_terminal() && !self.show.events && self.length.is_none();
        let begun = Clock::now();
        let mut writer = Writer::new(std::io::stdout(), self.show.output.unwrap_or_default()).of_events();
        let mut view = Screen::new(self);
        while !ended.load(Ordering::Relaxed) && self.length.is_none_or(|length| begun.elapsed() < length) {
            ring.wait(WAIT);
            ring.frames(|frame| follower.queue(frame));
            follower.flush();
            follower.advance(wall_clock());
            self.events(&mut follower, &mut writer)?;
            if screen {
                view.refresh(&follower, ring.lost())?;
            }
        }
        self.finish(&mut follower, &mut writer, ring.lost())
    }

    fn events(&self, follower: &mut Follower, writer: &mut Writer<Stdout>) -> Result<()> {
        while let Some(event) = follower.engine_mut().poll_event() {
            if self.show.filter.matches(&event.entry) {
                writer.event(&event)?;
            }
        }
        Ok(())
    }

    fn finish(&self, follower: &mut Follower, writer: &mut Writer<Stdout>, lost: u64) -> Result<()> {
        if self.show.events {
            writer.finish()?;
        }
        let mut out = std::io::stdout().lock();
        if self.show.stats {
            format::stats(&mut out, follower.engine().counters(), &self.show.output.unwrap_or_default())?;
        }
        if !self.show.stats && !self.show.events {
            let shown = replay::table(&mut out, follower, &self.show)?;
            notes::shown(shown);
        }
        notes::summary(follower);
        notes::note(format!(
            "{} frames seen on {}, {lost} lost by the ring",
            follower.frames,
            self.device.escape_debug()
        ));
        Ok(())
    }
}

/// The table on a terminal, drawn anew each second.
struct Screen<'a> {
    watch: &'a Watch,
    drawn: Clock,
    frames: u64,
}

impl<'a> Screen<'a> {
    fn new(watch: &'a Watch) -> Self {
        Screen { watch, drawn: Clock::now(), frames: 0 }
    }

    fn refresh(&mut self, follower: &Follower, lost: u64) -> Result<()> {
        let passed = self.drawn.elapsed();
        if passed < REFRESH {
            return Ok(());
        }
        let rate = (follower.frames - self.frames) as f64 / passed.as_secs_f64();
        (self.drawn, self.frames) = (Clock::now(), follower.frames);
        let (width, height) = terminal_size::terminal_size()
            .map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        let mut rows = Vec::new();
        let shown = replay::table(&mut rows, follower, &self.watch.show)?;
        let mut out = std::io::stdout().lock();
        let head = format!(
            "{}: {} connections, {shown} shown; {rate:.0} frames/s, {} in all, {lost} lost by the ring    (Ctrl-C ends)",
            self.watch.device.escape_debug(),
            follower.engine().count(),
            follower.frames
        );
        write!(out, "\x1b[H\x1b[2J{}\r\n\r\n", cut(&head, width))?;
        for row in String::from_utf8_lossy(&rows).lines().take(height.saturating_sub(3)) {
            write!(out, "{}\r\n", cut(row, width))?;
        }
        Ok(out.flush()?)
    }
}

/// As much of a line as the terminal is wide.
fn cut(line: &str, width: usize) -> &str {
    line.char_indices().nth(width).map_or(line, |(end, _)| &line[..end])
}

fn wall_clock() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// `10s`, `5m`, `1h`; without a letter, seconds.
fn duration(text: &str) -> Result<Duration, String> {
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
    fn durations() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn lines_are_cut_at_characters() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("äöü", 2), "äö");
        assert_eq!(cut("a", 5), "a");
    }
}
