//! `keepstate lab`: the whole story on one machine: clients, a gateway, servers, in namespaces of their own.
//!
//! A stage is made, the story is told on it, each step with what was seen, and everything is taken away again, whatever happened.
//! It touches nothing outside of what it made.
mod stage;
mod story;

use anyhow::Result;
use clap::Args;
use stage::Stage;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Show it all on this machine: clients, a gateway, servers; a table that fills and is enlarged; NAT, firewall, balancing.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Lab {
    /// Sessions that clients hold
    #[arg(long, value_name = "NUMBER", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=400))]
    clients: u32,
    /// Keep it up afterwards, to play with: prints what to type; Ctrl-C ends it
    #[arg(long)]
    hold: bool,
}

const EXAMPLES: &str = "\
Examples:
  # the story, in half a minute
  sudo keepstate lab
  # and then try things yourself
  sudo keepstate lab --hold

It makes three network namespaces and takes them away again; nothing else on the machine is touched.
Exit codes: 0 everything was as it should be, 1 something was not, or namespaces may not be made, 2 wrongly asked";

impl Lab {
    /// Do the options fit together?
    ///
    /// # Errors
    /// Never: there is nothing that could not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Tells the story.
    ///
    /// # Errors
    /// The namespaces cannot be made, or the gateway does not come up.
    pub fn run(&self) -> Result<ExitCode> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        // Even then everything is taken away: the stage is a value of this function's.
        ctrlc::set_handler(move || told.store(true, Ordering::Relaxed))?;
        let mut stage = Stage::build()?;
        let good = story::tell(&mut stage, self.clients, &ended)?;
        if self.hold && !ended.load(Ordering::Relaxed) {
            stage.describe();
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
