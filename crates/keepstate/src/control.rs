//! `keepstate control`: asks a running gateway, or tells it something.
use crate::gateway::control::Asked;
use crate::gateway::door::{self, Reply, Request, VERSION};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Ask a running gateway, or tell it something: its connections, counters, rules, knobs.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Control {
    /// The gateway's control socket
    #[arg(long, value_name = "PATH", default_value = door::USUAL)]
    socket: PathBuf,
    #[command(subcommand)]
    asked: Asked,
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

The socket is made by keepstate gateway --control.
Exit codes: 0 done, 1 refused, or nobody listens, 2 wrongly asked";

impl Control {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.asked {
            Asked::List(show) if show.events || show.stats => {
                Err("list shows the table: --events and --stats are no part of it".into())
            }
            Asked::List(show) => show.check(),
            _ => Ok(()),
        }
    }

    /// Asks, and prints the answer.
    ///
    /// # Errors
    /// Nobody listens, or what was asked is refused.
    pub fn run(&self) -> Result<ExitCode> {
        let path = self.socket.display();
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("{path}: no gateway listens there. keepstate gateway --control {path} does"))?;
        let mut request = serde_json::to_vec(&Request { v: VERSION, words: self.words() })?;
        request.push(b'\n');
        stream.write_all(&request).context("the gateway hung up")?;
        let mut answer = BufReader::new(stream);
        let mut head = String::new();
        answer.read_line(&mut head).context("the gateway said nothing")?;
        let head: Reply = serde_json::from_str(&head).context("this is no gateway's answer")?;
        if let Some(error) = head.error {
            bail!("{}", error.trim_end());
        }
        std::io::copy(&mut answer, &mut std::io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }

    /// The words behind `control`, as they were typed, without the socket's.
    fn words(&self) -> Vec<String> {
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
