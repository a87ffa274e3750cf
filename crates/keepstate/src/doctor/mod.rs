//! `keepstate doctor`: one verdict on a connection table, with its causes, what shows them and what to do.
//!
//! The life of an examination: look at the machine or at its files, hand what was seen to the judge, show what it says, end with its
//! exit code. Nothing is changed, and the table is never dumped whole unless that is asked for.
mod changes;
pub mod gateway;
pub mod gather;
mod machine;
mod namespace_state;
mod report;
mod text_report;

use crate::stderr;
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

/// Examine a connection table: what is wrong, how sure, and what to do now and for good.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    /// Examine the files of another machine: a bundle of `keepstate collect`, a directory like its /, a report of sos
    #[arg(long, value_name = "DIR or FILE", conflicts_with_all = ["netns", "watch"])]
    from: Option<PathBuf>,
    /// Look into this network namespace alone: a name of `ip netns`, or a process
    #[arg(long, value_name = "NAME or PID")]
    netns: Option<String>,
    /// Examine a running gateway instead, at its control socket
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = gateway::default_socket(), conflicts_with_all = ["from", "netns", "log"])]
    gateway: Option<PathBuf>,
    /// Read the counters twice, this long apart; 0 reads them once
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = unit_args::parse_interval)]
    interval: Duration,
    /// Examine again and again, this often, and mark what has changed; Ctrl-C ends
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10s", value_parser = unit_args::parse_interval)]
    watch: Option<Duration>,
    /// With --watch: end after so many examinations
    #[arg(long, value_name = "NUMBER", requires = "watch")]
    times: Option<u64>,
    /// One document for machines, schema keepstate.doctor/1; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Look at this many entries of each table at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    sample: usize,
    /// Look at every entry: a large table takes seconds, and the kernel's processor time
    #[arg(long, conflicts_with = "sample")]
    whole_table: bool,
    /// Look into this many network namespaces at most
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    namespaces: usize,
    /// Read the kernel's log from this file, as of dmesg or journalctl -k
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  # what is wrong with this machine's table?
  sudo keepstate doctor
  # for monitoring: the exit code alone, or the names of what was found
  keepstate doctor --json | jq -r '.findings[].name'
  # one container's or pod's namespace, by its name or a process in it
  sudo keepstate doctor --netns blue
  sudo keepstate doctor --netns $(pidof nginx)
  # a running keepstate gateway, by its own numbers
  sudo keepstate doctor --gateway
  # keep an eye on it
  sudo keepstate doctor --watch=30s
  # another machine's: collect there, examine here
  sudo keepstate collect -o host.tar.gz
  keepstate doctor --from host.tar.gz

Without root it says what it could not see, and how it could.
Exit codes: 0 ok, 1 warning, 2 critical (also: wrongly asked), 3 unknown: not enough
could be seen";

impl Doctor {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.sample == 0 {
            return Err("a sample of no entries says nothing: give --sample a number from 1".into());
        }
        Ok(())
    }

    /// Examines, and shows the verdict on standard output.
    ///
    /// # Errors
    /// If standard output cannot be written. What cannot be looked at is said and gives the exit code 3.
    pub fn run(&self) -> Result<ExitCode> {
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

    /// Examines again and again; the exit code is the last one's.
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
            let mut examination = keepstate_advisor::doctor::diagnose(&seen);
            gateway::rewrite_steps(&mut examination, socket);
            return Ok(DoctorReport { report: examination, observations: seen, from: None });
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

/// Nothing could be looked at: said, and the exit code is that of not knowing, which monitoring tells from a failure found.
fn report_unknown(error: &anyhow::Error) -> ExitCode {
    stderr::note(format!("{error:#}"));
    ExitCode::from(keepstate_advisor::doctor::HealthStatus::Unknown.exit_code())
}
