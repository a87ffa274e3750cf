//! `keepstate mqtt`: sessions of MQTT by the thousands, to see what a table, a gateway or a broker makes of them.
use super::{ClientPool, SessionTotals, StubBroker, raise_file_limit};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// Hold thousands of MQTT sessions: a fleet of clients, or who accepts them.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Mqtt {
    #[command(subcommand)]
    mode: MqttMode,
}

const EXAMPLES: &str = "\
Examples:
  # accept every session at this address; Ctrl-C ends it and says what came
  keepstate mqtt accept 127.0.0.1:1883
  # hold 10,000 sessions there, half of them of MQTT 5; `ping` on standard input asks all of them
  keepstate mqtt fleet --to 127.0.0.1:1883 --sessions 10000

A client address has about 28,000 ports towards one server address: give more of either for more sessions.
Exit codes: 0 done, 1 sessions were refused or lost, or an address cannot be used, 2 wrongly asked";

#[derive(Subcommand, Debug)]
enum MqttMode {
    /// Accept sessions, and answer what is asked in them; nothing is delivered
    Accept {
        /// Where
        #[arg(required = true, value_name = "ADDRESS:PORT")]
        at: Vec<SocketAddr>,
    },
    /// Open sessions and hold them until standard input ends; each line `ping` there pings them all
    Fleet {
        /// Servers, in turns
        #[arg(long, required = true, value_delimiter = ',', value_name = "ADDRESS:PORT[,...]")]
        to: Vec<SocketAddr>,
        /// Addresses of this machine to come from, in turns
        #[arg(long, value_delimiter = ',', value_name = "ADDRESS[,...]")]
        from: Vec<IpAddr>,
        /// How many
        #[arg(long, default_value_t = 1000)]
        sessions: usize,
        /// Seconds until a session that does not come up is one no more
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        patience: u64,
        /// Stop opening when so many were refused
        #[arg(long, value_name = "NUMBER")]
        refused: Option<usize>,
    },
}

/// Descriptors beside the sessions'.
const SPARE_FILES: u64 = 64;

impl Mqtt {
    /// Do the options fit together?
    ///
    /// # Errors
    /// Never: there is nothing that could not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Accepts until Ctrl-C, or holds until standard input ends.
    ///
    /// # Errors
    /// An address cannot be used; too few files may be open.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.mode {
            MqttMode::Accept { at } => run_broker(at),
            MqttMode::Fleet { to, from, sessions, patience, refused } => {
                require_file_limit(*sessions as u64 + SPARE_FILES)?;
                let patience = Duration::from_secs(*patience);
                let mut fleet = ClientPool::new()?;
                let tally = fleet
                    .open_sessions(*sessions, from, to, patience, refused.unwrap_or(usize::MAX))
                    .context("opening sessions")?;
                print_totals(&tally, None)?;
                for line in std::io::stdin().lock().lines() {
                    if line?.trim() == "ping" {
                        let answered = fleet.ping_all(patience)?;
                        print_totals(&fleet.totals(), Some(answered))?;
                    }
                }
                let tally = fleet.totals();
                let all = tally.refused == 0 && tally.lost == 0;
                Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

fn run_broker(at: &[SocketAddr]) -> Result<ExitCode> {
    let ended = crate::termination_flag()?;
    // As many as it may be: who comes is not known.
    let files = raise_file_limit(1 << 20)?;
    let acceptor = StubBroker::listen(at).context("listening: is the address this machine's, and free?")?;
    tracing::info!("accepting at most {files} sessions; Ctrl-C ends");
    // Whoever has started it need not guess when it is ready. That nobody reads it is no failure.
    let say = |line: String| {
        let mut out = anstream::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    say("listening".into());
    let account = acceptor.serve(&ended, |from| say(format!("from={from}")))?;
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "accepted={} most={} published={} broken={}",
        account.accepted, account.peak, account.published, account.failed
    )?;
    Ok(ExitCode::SUCCESS)
}

fn print_totals(tally: &SessionTotals, answered: Option<usize>) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let answered = answered.map_or_else(String::new, |count| format!(" answered={count}"));
    writeln!(out, "open={} refused={} lost={}{answered}", tally.open, tally.refused, tally.lost)?;
    Ok(out.flush()?)
}

fn require_file_limit(wanted: u64) -> Result<()> {
    let allowed = raise_file_limit(wanted)?;
    if allowed < wanted {
        bail!(
            "{wanted} open files are needed and {allowed} allowed. Type: ulimit -n {wanted} (as root), or ask for fewer --sessions"
        );
    }
    Ok(())
}
