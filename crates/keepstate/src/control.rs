//! `keepstate control`: asks a running gateway, or tells it something.
use anyhow::{Context, Result};
use clap::Args;
use keepstate_gateway::control_command::ControlCommand;
use keepstate_gateway::{control_client, control_server};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Ask a running gateway, or tell it something: its connections, counters, rules, knobs.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Control {
    /// The gateway's control socket
    #[arg(long, value_name = "PATH", default_value = control_server::DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: ControlCommand,
}

const EXAMPLES: &str = "\
Examples:
  # the gateway's connections, as conntrack shows the kernel's
  keepstate control list -p tcp --state ESTABLISHED
  # is it full? make it larger, while it runs
  keepstate control count
  keepstate control set nf_conntrack_max=1000000
  # which rules were met, and where ports ran out
  keepstate control rules
  keepstate control shortages
  # before it is stopped: no new connections, and wait until the last has ended
  keepstate control drain-all --wait
  # all of conntrack on the gateway's table: change, delete, watch
  keepstate conntrack --gateway -E -p tcp

The socket is made by keepstate gateway --control.
Exit codes: 0 done, 1 refused, or nobody listens, 2 wrongly asked";

/// Prints what comes as it comes. (`std::io::copy` would let the kernel splice from socket to pipe, which keeps the pipe locked while it waits
/// for more: whoever reads our output would not see the last line before the next one has come.)
fn copy_to_stdout(answer: &mut impl Read) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match answer.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.context("the gateway has ended in the middle of its answer")?,
        };
        out.write_all(buffer.get(..length).unwrap_or_default())?;
        out.flush()?;
    }
}

impl Control {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            ControlCommand::List(show) if show.events || show.stats => {
                Err("list shows the table: --events and --stats are no part of it".into())
            }
            ControlCommand::Events(show) if show.stats => {
                Err("events shows what happens: --stats is no part of it".into())
            }
            ControlCommand::List(show) | ControlCommand::Events(show) => show.check(),
            _ => Ok(()),
        }
    }

    /// Asks, and prints the answer.
    ///
    /// # Errors
    /// Nobody listens, or what was asked is refused.
    pub fn run(&self) -> Result<ExitCode> {
        let mut answer = control_client::send_command(&self.socket, self.command_args())?;
        copy_to_stdout(&mut answer)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The words behind `control`, as they were typed, without the socket's.
    fn command_args(&self) -> Vec<String> {
        let mut words = std::env::args().skip_while(|word| word != "control").skip(1).peekable();
        let mut left = Vec::new();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--socket" if left.is_empty() => drop(words.next()),
                socket if socket.starts_with("--socket=") && left.is_empty() => (),
                verbose if left.is_empty() && verbose.starts_with('-') => (),
                _ => left.push(word),
            }
        }
        left
    }
}
