//! `keepstate doctor`: a diagnosis of a conntrack table, with causes, evidence and remedies.
//!
//! The life of a run: gather observations of the machine or its files, apply the rules, print the findings, exit with the status.
//! Nothing is changed, and the table is never dumped as a whole unless requested.
mod changes;
pub mod gateway;
pub mod gather;
mod machine;
mod namespace_state;
pub(crate) mod report;
mod text_report;

use crate::fleet::{self, FleetArgs};
use crate::unit_args;
use anyhow::Result;
use clap::Args;
use gather::GatherOptions;
use keepstate_bundle::Bundle;
use report::DoctorReport;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Diagnose conntrack problems: what is wrong, how certain, and what to do now and permanently.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    /// Diagnose another machine by its files: a bundle of `keepstate collect`, a copy of its /, or an sos report
    #[arg(long, value_name = "DIR or FILE", conflicts_with_all = ["netns", "watch"])]
    from: Option<PathBuf>,
    /// Diagnose only this network namespace: a name from `ip netns`, or a process id
    #[arg(long, value_name = "NAME or PID")]
    netns: Option<String>,
    /// Diagnose a running keepstate gateway by its control socket
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = gateway::default_socket(), conflicts_with_all = ["from", "netns", "log"])]
    gateway: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Read the counters twice, this long apart; 0 reads them once
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = unit_args::parse_interval)]
    interval: Duration,
    /// Repeat at this interval and mark changes; end with Ctrl-C
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10s", value_parser = unit_args::parse_interval)]
    watch: Option<Duration>,
    /// With --watch: end after this many runs
    #[arg(long, value_name = "NUMBER", requires = "watch")]
    times: Option<u64>,
    /// Print one JSON document (schema keepstate.doctor/1); with --watch one per line
    #[arg(long)]
    json: bool,
    /// Read at most this many entries of each table
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    sample: usize,
    /// Read every entry: a large table takes seconds of kernel CPU time
    #[arg(long, conflicts_with = "sample")]
    whole_table: bool,
    /// Read at most this many network namespaces
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    namespaces: usize,
    /// Read the kernel log from this file (output of dmesg or journalctl -k)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  # diagnose this machine
  sudo keepstate doctor
  # for monitoring: the exit code, or the names of the findings
  keepstate doctor --json | jq -r '.findings[].name'
  # the namespace of a container or pod, by name or by a process in it
  sudo keepstate doctor --netns blue
  sudo keepstate doctor --netns $(pidof nginx)
  # a running keepstate gateway
  sudo keepstate doctor --gateway
  # every 30 s
  sudo keepstate doctor --watch=30s
  # all nodes of a fleet, the worst first
  keepstate doctor --fleet
  # another machine: collect there, diagnose here
  sudo keepstate collect -o host.tar.gz
  keepstate doctor --from host.tar.gz

Without root some inputs are missing: they are listed with the reason.
Exit codes: 0 ok, 1 warning, 2 critical (also: usage error), 3 unknown (too little
could be read)";

impl Doctor {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.fleet.fleet.is_some() {
            let others = [
                (self.from.is_some(), "--from"),
                (self.netns.is_some(), "--netns"),
                (self.gateway.is_some(), "--gateway"),
                (self.watch.is_some(), "--watch"),
                (self.log.is_some(), "--log"),
            ];
            if let Some((_, other)) = others.iter().find(|(is_given, _)| *is_given) {
                return Err(format!("--fleet asks other machines: it cannot be used with {other}"));
            }
        }
        if self.sample == 0 {
            return Err("--sample must be at least 1".into());
        }
        Ok(())
    }

    /// Diagnoses, and prints the findings on standard output.
    ///
    /// # Errors
    /// If standard output cannot be written. Inputs that cannot be read give the exit code 3.
    pub fn run(&self) -> Result<ExitCode> {
        if let Some(file) = &self.fleet.fleet {
            return fleet::doctor::run(file, self.json).or_else(|error| Ok(report_unknown(&error)));
        }
        let bundle = match self.from.as_deref().map(Bundle::open).transpose() {
            Ok(bundle) => bundle,
            Err(error) => return Ok(report_unknown(&error)),
        };
        let Some(every) = self.watch else {
            let report = match self.diagnose(bundle.as_ref()) {
                Ok(report) => report,
                Err(error) => return Ok(report_unknown(&error)),
            };
            self.print_report(&report, None)?;
            return Ok(ExitCode::from(report.report.status.exit_code()));
        };
        self.watch(every)
    }

    /// Repeats the diagnosis; the exit code is the last one's.
    fn watch(&self, every: Duration) -> Result<ExitCode> {
        let mut last: Option<DoctorReport> = None;
        let mut times = 0;
        loop {
            let begun = std::time::Instant::now();
            let report = match self.diagnose(None) {
                Ok(report) => report,
                Err(error) => return Ok(report_unknown(&error)),
            };
            self.print_report(&report, last.as_ref())?;
            times += 1;
            let code = report.report.status.exit_code();
            last = Some(report);
            if self.times.is_some_and(|most| times >= most) {
                return Ok(ExitCode::from(code));
            }
            std::thread::sleep(every.saturating_sub(begun.elapsed()));
        }
    }

    fn diagnose(&self, bundle: Option<&Bundle>) -> Result<DoctorReport> {
        if let Some(socket) = &self.gateway {
            let sample = if self.whole_table { usize::MAX - 1 } else { self.sample };
            let seen = gateway::gather(socket, sample, self.interval)?;
            let mut report = keepstate_advisor::doctor::diagnose(&seen);
            gateway::rewrite_steps(&mut report, &seen, socket);
            return Ok(DoctorReport { report, observations: seen, from: None });
        }
        let wanted = GatherOptions {
            netns: self.netns.clone(),
            interval: self.interval,
            sample: if self.whole_table { usize::MAX } else { self.sample },
            namespaces: self.namespaces,
            log: self.log.clone(),
        };
        let seen = match bundle {
            Some(bundle) => gather::gather_bundle(bundle, &wanted)?,
            None => gather::gather_live(&wanted)?,
        };
        let from = self.from.as_ref().map(|path| path.display().to_string());
        Ok(DoctorReport { report: keepstate_advisor::doctor::diagnose(&seen), observations: seen, from })
    }

    fn print_report(&self, report: &DoctorReport, last: Option<&DoctorReport>) -> Result<()> {
        if self.json {
            let mut out = std::io::stdout().lock();
            let document = report.json(last);
            if self.watch.is_some() {
                writeln!(out, "{document}")?;
            } else {
                writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
            }
        } else {
            text_report::write(&mut anstream::stdout().lock(), report, last)?;
        }
        Ok(())
    }
}

/// Nothing could be read: prints the error and returns the exit code of `unknown`.
fn report_unknown(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::from(keepstate_advisor::doctor::HealthStatus::Unknown.exit_code())
}
