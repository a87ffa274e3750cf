//! `keepstate simulate`: the engine in virtual time, under a traffic model or a capture: how the table fills, and who is refused.
mod plot;
mod report;
mod traffic;

use crate::shared_args::EngineArgs;
use crate::stderr;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keepstate_advisor::simulate::{ClientStats, Simulation, Timeseries, TrafficModel, summarize};
use keepstate_capture::Capture;
use keepstate_capture::capture_tracker::{CaptureTracker, FrameResult};
use keepstate_engine::{Instant, Sysctl, Sysctls};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use traffic::TrafficArgs;

/// Fill the table in virtual time: with a traffic model or a capture, by a kernel's rules and your knobs.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Take the traffic from this capture instead of a model; - for standard input
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Processors of the machine, for the record: a kernel computes its defaults from memory alone
    #[arg(long, value_name = "NUMBER", value_parser = keepstate_gateway::unit_args::parse_count)]
    cpus: Option<u64>,
    /// Print the samples as CSV: seconds, connections, by state, dropped
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print one JSON document instead of a page
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tuning: EngineArgs,
}

const EXAMPLES: &str = "\
Examples:
  # a broker with 8 cores and 4 GB, by the defaults of 5.15: no new connection after 65,536
  keepstate simulate --profile mqtt-broker --clients 100k --as-linux 5.15 --memory 4G --cpus 8
  # the same with a larger table; then with half of all clients cut off after six hours
  keepstate simulate --profile mqtt-broker --clients 100k --set nf_conntrack_max=160000
  keepstate simulate --clients 100k --keepalive 60s --storm 6h:50%:outage --duration 12h
  # what a shorter timeout does to a gateway
  keepstate simulate --profile nat-gateway --duration 6h --set nf_conntrack_tcp_timeout_established=7440
  # a capture through a table of ten entries, as CSV
  keepstate simulate --capture trace.pcapng --set nf_conntrack_max=10 --csv

Every packet goes through the engine. Of a client's words only those are sent that could matter to
the table (one in half of the established timeout, and the last); --every-packet sends all: slow.
Exit codes: 0 done, 1 something could not be read or written, 2 wrongly asked";

/// Pieces of a long simulation, between which the progress is shown.
const STEPS: u64 = 240;
const MILLISECOND: u64 = 1_000_000;

/// What is told at the end.
struct SimulationReport<'a> {
    model: Option<&'a TrafficModel>,
    knobs: &'a Sysctls,
    cpus: Option<u64>,
    memory: u64,
    timeseries: &'a Timeseries,
    stats: Option<&'a ClientStats>,
    summary: Vec<String>,
    duration: u64,
}

impl Simulate {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.capture {
            Some(_) if self.traffic.is_given() => {
                Err("a capture has its own traffic: leave out --capture, or the options of the model".into())
            }
            Some(_) => Ok(()),
            None if self.tuning.has_helpers() => {
                Err("the simulated clients speak no FTP: --helper needs --capture".into())
            }
            None => self.traffic.model()?.check(),
        }
    }

    /// Simulates, and prints what came of it.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after everything up to the break was told.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.capture {
            Some(path) => self.run_capture(path)?,
            None => self.run_model()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_model(&self) -> Result<()> {
        let model = self.traffic.model().map_err(anyhow::Error::msg)?;
        let knobs = self.tuning.sysctls(stderr::note)?;
        let duration = model.duration;
        let made = Simulation::new(model, knobs, self.tuning.hash_secret()?);
        let mut simulation = made.map_err(anyhow::Error::msg)?;
        let bar = progress_bar(duration);
        for step in 1..=STEPS {
            simulation.advance(u64::try_from(u128::from(duration) * u128::from(step) / u128::from(STEPS))?);
            bar.set_position(step);
            tracing::trace!(step, connections = simulation.engine().count(), "simulated");
        }
        bar.finish_and_clear();
        let (record, tally) = (simulation.timeseries(), simulation.stats());
        self.print_report(&SimulationReport {
            model: Some(simulation.model()),
            knobs: simulation.engine().sysctls(),
            cpus: self.cpus,
            memory: self.tuning.memory(),
            timeseries: record,
            stats: Some(tally),
            summary: summarize(record, Some(tally), duration),
            duration,
        })
    }

    fn run_capture(&self, path: &Path) -> Result<()> {
        let mut follower = CaptureTracker::new(self.tuning.sysctls(stderr::note)?, self.tuning.hash_secret()?);
        self.tuning.attach_helpers(follower.engine_mut());
        let mut capture = Capture::open(path)?;
        let mut record = Timeseries::new(follower.engine_mut(), None);
        let mut first = None;
        let mut refused = 0_u64;
        let read = capture.for_each_frame(|frame| {
            if let Some(time) = frame.time {
                let begin = *first.get_or_insert(time);
                advance_to_frame(&mut follower, &mut record, begin, time);
            }
            let passed = follower.track_frame(&frame);
            refused += u64::from(matches!(passed, FrameResult::Rejected(_)));
            let at = milliseconds_since(first, follower.now());
            record.record_packet(follower.engine_mut(), at);
            Ok(true)
        });
        let duration = milliseconds_since(first, follower.now());
        stderr::note(format!(
            "{} of {} could not be read as packets",
            refused,
            stderr::was_or_were(follower.frame_count, "frame").trim_end_matches(" was").trim_end_matches(" were")
        ));
        self.print_report(&SimulationReport {
            model: None,
            knobs: follower.engine().sysctls(),
            cpus: self.cpus,
            memory: self.tuning.memory(),
            timeseries: &record,
            stats: None,
            summary: summarize(&record, None, duration),
            duration,
        })?;
        stderr::print_capture_warnings(&follower);
        read
    }

    fn print_report(&self, told: &SimulationReport<'_>) -> Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report::json_document(told))?;
            writeln!(out)?;
        } else if self.csv {
            report::csv(&mut out, told.timeseries)?;
        } else {
            report::write(&mut out, told)?;
        }
        Ok(out.flush()?)
    }
}

/// Time goes on to a frame's; samples that were due on the way are taken at their own times.
fn advance_to_frame(follower: &mut CaptureTracker, record: &mut Timeseries, begin: u64, time: u64) {
    loop {
        let due = begin.saturating_add(record.next_sample_at().saturating_mul(MILLISECOND));
        if due > time {
            break;
        }
        follower.advance(Instant(due));
        let at = record.next_sample_at();
        record.record_poll(follower.engine_mut(), at);
        record.take_sample(follower.engine(), Instant(due));
    }
    follower.advance(Instant(time));
    let at = milliseconds_since(Some(begin), follower.now());
    record.record_poll(follower.engine_mut(), at);
}

/// Milliseconds from the first frame.
fn milliseconds_since(first: Option<u64>, now: Instant) -> u64 {
    first.map_or(0, |first| now.0.saturating_sub(first) / MILLISECOND)
}

/// A bar on a terminal, for those who wait.
fn progress_bar(duration: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || duration == 0 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} simulated {percent} % {wide_bar} {eta}");
    ProgressBar::new(STEPS).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl SimulationReport<'_> {
    /// The limit, as it is to be drawn.
    fn limit(&self) -> u64 {
        u64::from(self.knobs[Sysctl::Max])
    }
}
