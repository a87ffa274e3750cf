//! `keepstate mqtt`: thousands of MQTT sessions, to load a table, a gateway or a broker.
use anyhow::Result;
use clap::{Args, Subcommand};
use keepstate_lab::mqtt::{ChurnLoad, SessionLoad, churn, hold_sessions, hold_steadily, serve_sessions};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// Hold thousands of MQTT sessions: the clients, or a server for them
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Mqtt {
    #[command(subcommand)]
    mode: MqttMode,
}

const EXAMPLES: &str = "\
Examples:
  # accept every session on this address; Ctrl-C ends it and prints the totals
  keepstate mqtt accept 127.0.0.1:1883
  # hold 10,000 sessions there, half of them with MQTT 5; a line `ping` on standard input pings all of them
  keepstate mqtt fleet --to 127.0.0.1:1883 --sessions 10000
  # the same, each of which pings every five seconds; a line `take` prints how long each has waited for its answers
  keepstate mqtt fleet --to 127.0.0.1:1883 --sessions 10000 --interval 5s
  # 500 connections a second, each opened, used once and closed; a line `take` prints what became of them
  keepstate mqtt churn --to 127.0.0.1:1883 --rate 500

A client address has about 28,000 ports towards one server address: for more sessions, give more addresses.
Exit codes: 0 done, 1 sessions failed or were lost, or an address cannot be used, 2 usage error";

#[derive(Subcommand, Debug)]
enum MqttMode {
    /// Accept sessions and answer their requests; no message is delivered
    Accept {
        /// Addresses to listen on
        #[arg(required = true, value_name = "ADDRESS:PORT", value_parser = crate::unit_args::parse_address_port)]
        at: Vec<SocketAddr>,
    },
    /// Open sessions and hold them until standard input ends; each line `ping` there pings all of them
    Fleet {
        /// Servers, in turns
        #[arg(long, required = true, value_delimiter = ',', value_name = "ADDRESS:PORT[,...]", value_parser = crate::unit_args::parse_address_port)]
        to: Vec<SocketAddr>,
        /// Local source addresses, in turns
        #[arg(long, value_delimiter = ',', value_name = "ADDRESS[,...]")]
        from: Vec<IpAddr>,
        /// Number of sessions
        #[arg(long, default_value_t = 1000)]
        sessions: usize,
        /// Seconds until a session that does not open has failed
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        patience: u64,
        /// Stop opening sessions after this many have failed
        #[arg(long, value_name = "NUMBER")]
        refused: Option<usize>,
        /// Ping all sessions once in this time, one after the other. Then a line `take` on standard input prints open and lost sessions and the longest wait of each for an answer in milliseconds since the last `take`, and lost ones reconnect; `waiting 1500` prints how many wait for 1500 ms or longer
        #[arg(long, value_name = "TIME", value_parser = crate::unit_args::parse_interval)]
        interval: Option<Duration>,
    },
    /// Open, use and close connections at a rate until standard input ends; each line `take` there prints what became of them, `rate 50` sets the rate
    Churn {
        /// The server
        #[arg(long, required = true, value_name = "ADDRESS:PORT", value_parser = crate::unit_args::parse_address_port)]
        to: SocketAddr,
        /// Local source addresses, in turns
        #[arg(long, value_delimiter = ',', value_name = "ADDRESS[,...]")]
        from: Vec<IpAddr>,
        /// Connections begun each second
        #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=100_000))]
        rate: u32,
    },
}

impl Mqtt {
    /// Nothing to check: all options can be combined.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Accepts sessions until Ctrl-C, or holds them, or makes connections, until standard input ends.
    ///
    /// # Errors
    /// An address cannot be used, or the limit of open files is too low.
    pub fn run(&self) -> Result<ExitCode> {
        let passed = match &self.mode {
            MqttMode::Accept { at } => serve_sessions(at).map(|()| true)?,
            MqttMode::Fleet { to, from, sessions, patience, refused, interval } => {
                let load = SessionLoad {
                    servers: to.clone(),
                    sources: from.clone(),
                    sessions: *sessions,
                    timeout: Duration::from_secs(*patience),
                    max_failed: *refused,
                };
                match interval {
                    None => hold_sessions(&load)?,
                    Some(interval) => hold_steadily(&load, *interval)?,
                }
            }
            MqttMode::Churn { to, from, rate } => {
                churn(&ChurnLoad { server: *to, sources: from.clone(), rate: *rate })?
            }
        };
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
