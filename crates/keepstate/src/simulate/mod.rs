//! `keepstate simulate`: the engine in virtual time, under a traffic model or a capture: how the table fills, and what is dropped.
mod compare;
mod plot;
mod report;
mod traffic;

use crate::checksum_args::{self, ChecksumArgs};
use crate::gateway::table_args::TableArgs;
use crate::shared_args::EngineArgs;
use crate::stderr;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keepstate_advisor::simulate::{ChoiceOutcome, Simulation, Timeseries, TrafficModel, summarize};
use keepstate_capture::capture_tracker::{CaptureTracker, FrameResult};
use keepstate_engine::{AdmissionPolicy, Instant, Sysctls};
use report::SimulationReport;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use traffic::TrafficArgs;

/// Simulate how a table fills in virtual time, with a traffic model or a capture, and the sysctls you choose.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Use the traffic of this capture instead of a model; - reads standard input
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// CPUs of the machine, shown in the output only: kernel defaults depend on memory alone
    #[arg(long, value_name = "NUMBER", value_parser = crate::unit_args::parse_count)]
    cpus: Option<u64>,
    /// Show the choices for a full table side by side: Linux's, and those given below, or all with usual values
    #[arg(long, conflicts_with_all = ["capture", "csv"])]
    compare: bool,
    /// Print the samples as CSV: seconds, connections, dropped, by state
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    checksums: ChecksumArgs,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    tuning: EngineArgs,
}

const EXAMPLES: &str = "\
Examples:
  # an MQTT broker with 4 GB and the defaults of Linux 5.15: no new connections after 65,536
  keepstate simulate --profile mqtt-broker --clients 100k --as-linux 5.15 --memory 4G --cpus 8
  # the same with a larger table; then with an outage for half of the clients after six hours
  keepstate simulate --profile mqtt-broker --clients 100k --set nf_conntrack_max=160000
  keepstate simulate --clients 100k --keepalive 60s --storm 6h:50%:outage --duration 12h
  # a NAT gateway with a shorter timeout
  keepstate simulate --profile nat-gateway --duration 6h --set nf_conntrack_tcp_timeout_established=7440
  # choices for a full table, side by side: a broker, and a NAT gateway with a scan from inside
  keepstate simulate --compare --clients 100k --as-linux 5.15 --memory 4G --duration 30min
  keepstate simulate --compare --profile nat-gateway --scan-rate 1k --set nf_conntrack_max=65536
  # a capture through a table of ten entries, as CSV
  keepstate simulate --capture trace.pcapng --set nf_conntrack_max=10 --csv

Every packet goes through the engine. Of a client's messages only those are sent that can change the
table (one per half of the established timeout, and the last); --every-packet sends all: slow.
Exit codes: 0 done, 1 read or write error, 2 usage error";

/// Steps of a simulation, for the progress bar.
const STEPS: u64 = 240;
const MILLISECOND: u64 = 1_000_000;

impl Simulate {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.capture {
            Some(_) if self.traffic.is_given() => {
                Err("--capture cannot be combined with options of the traffic model".into())
            }
            Some(_) => Ok(()),
            None if self.tuning.has_helpers() => {
                Err("--helper needs --capture: simulated clients do not use FTP".into())
            }
            None => self.traffic.model()?.check(),
        }
    }

    /// Simulates, and prints the result.
    ///
    /// # Errors
    /// What could not be read or written; a broken capture after the result of its readable part was printed.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.capture {
            Some(path) => self.run_capture(path)?,
            None if self.compare => self.run_choices()?,
            None => self.run_model()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_model(&self) -> Result<()> {
        let model = self.traffic.model().map_err(anyhow::Error::msg)?;
        let knobs = self.tuning.sysctls(stderr::note)?;
        let duration = model.duration;
        let policy = self.table.settings().policy(&knobs)?;
        let simulation = self.simulate(model, knobs, policy)?;
        let (timeseries, stats) = (simulation.timeseries(), simulation.stats());
        self.print_report(&SimulationReport {
            model: Some(simulation.model()),
            knobs: simulation.engine().sysctls(),
            cpus: self.cpus,
            memory: self.tuning.memory(),
            timeseries,
            stats: Some(stats),
            summary: summarize(timeseries, Some(stats), duration),
            duration,
        })
    }

    /// The model to its end.
    fn simulate(&self, model: TrafficModel, knobs: Sysctls, policy: AdmissionPolicy) -> Result<Simulation> {
        let duration = model.duration;
        let made = Simulation::new(model, knobs, self.tuning.hash_secret()?);
        let made = made.and_then(|simulation| simulation.with_admission(policy));
        let mut simulation = made.map_err(anyhow::Error::msg)?;
        let bar = progress_bar(duration);
        for step in 1..=STEPS {
            simulation.advance(u64::try_from(u128::from(duration) * u128::from(step) / u128::from(STEPS))?);
            bar.set_position(step);
            tracing::trace!(step, connections = simulation.engine().count(), "simulated");
        }
        bar.finish_and_clear();
        Ok(simulation)
    }

    fn run_choices(&self) -> Result<()> {
        let model = self.traffic.model().map_err(anyhow::Error::msg)?.with_operator();
        let knobs = self.tuning.sysctls(stderr::note)?;
        let mut compared = Vec::new();
        for choice in compare::choices(&self.table.settings(), &knobs)? {
            let simulation = self.simulate(model.clone(), knobs.clone(), choice.policy.clone())?;
            compared.push((choice, ChoiceOutcome::of(&simulation)));
        }
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &compare::json_document(&model, &compared))?;
            writeln!(out)?;
        } else {
            compare::write(&mut out, &compared)?;
        }
        Ok(out.flush()?)
    }

    fn run_capture(&self, path: &Path) -> Result<()> {
        let mut policy = self.checksums.policy(&self.tuning)?;
        let sysctls = self.tuning.sysctls(stderr::note)?;
        let mut capture = checksum_args::open_sampled(path, &mut policy, false)?;
        let admission = self.table.settings().policy(&sysctls)?;
        let mut tracker = CaptureTracker::new(sysctls, self.tuning.hash_secret()?).with_checksums(policy);
        tracker.engine_mut().set_admission(admission, Instant(0))?;
        self.tuning.attach_helpers(tracker.engine_mut());
        let mut record = Timeseries::new(tracker.engine_mut(), None);
        let mut first = None;
        let mut rejected = 0_u64;
        let read = capture.for_each_frame(|frame| {
            if let Some(time) = frame.time {
                let begin = *first.get_or_insert(time);
                advance_to_frame(&mut tracker, &mut record, begin, time);
            }
            let result = tracker.track_frame(&frame);
            rejected += u64::from(matches!(result, FrameResult::Rejected(_)));
            let at = milliseconds_since(first, tracker.now());
            record.record_packet(tracker.engine_mut(), at);
            Ok(true)
        });
        let duration = milliseconds_since(first, tracker.now());
        stderr::note(format!("frames: {}, not readable as packets: {}", tracker.frame_count, rejected));
        self.print_report(&SimulationReport {
            model: None,
            knobs: tracker.engine().sysctls(),
            cpus: self.cpus,
            memory: self.tuning.memory(),
            timeseries: &record,
            stats: None,
            summary: summarize(&record, None, duration),
            duration,
        })?;
        stderr::print_capture_warnings(&tracker);
        read?;
        stderr::ensure_readable(&tracker, path)
    }

    fn print_report(&self, report_data: &SimulationReport<'_>) -> Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report::json_document(report_data))?;
            writeln!(out)?;
        } else if self.csv {
            report::csv(&mut out, report_data.timeseries)?;
        } else {
            report::write(&mut out, report_data)?;
        }
        Ok(out.flush()?)
    }
}

/// Advances the time to that of a frame; samples on the way are taken at their own times.
fn advance_to_frame(tracker: &mut CaptureTracker, record: &mut Timeseries, begin: u64, time: u64) {
    loop {
        let due = begin.saturating_add(record.next_sample_at().saturating_mul(MILLISECOND));
        if due > time {
            break;
        }
        tracker.advance(Instant(due));
        let at = record.next_sample_at();
        record.record_poll(tracker.engine_mut(), at);
        record.take_sample(tracker.engine(), Instant(due));
    }
    tracker.advance(Instant(time));
    let at = milliseconds_since(Some(begin), tracker.now());
    record.record_poll(tracker.engine_mut(), at);
}

/// Milliseconds from the first frame.
fn milliseconds_since(first: Option<u64>, now: Instant) -> u64 {
    first.map_or(0, |first| now.0.saturating_sub(first) / MILLISECOND)
}

/// A progress bar, if standard error is a terminal.
fn progress_bar(duration: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || duration == 0 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} simulated {percent} % {wide_bar} {eta}");
    ProgressBar::new(STEPS).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
