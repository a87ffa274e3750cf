//! `keepstate lab`: the whole story on one machine: clients, a gateway, servers, in namespaces of their own.
//!
//! A stage is made, the story is told on it, each step with what was seen, and everything is taken away again, whatever happened.
//! It touches nothing outside of what it made.
mod builtin_servers;
mod hold;
pub mod mqtt;
mod mqtt_load;
mod peers;
mod reporter;
mod results;
mod router;
mod scenario;
mod table_full;
mod topology;
mod work_dir;

use anyhow::Result;
use clap::Args;
use router::RouterKind;
use scenario::Scenario;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Show it all on this machine: clients, a gateway, servers; NAT, firewall, balancing; a table that fills and is enlarged.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Lab {
    /// MQTT sessions that clients hold
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=70_000))]
    clients: u32,
    /// Tell it a second time with Linux's own conntrack and nftables as the gateway, and compare
    #[arg(long)]
    kernel: bool,
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
  # the same with Linux as the gateway, side by side
  sudo keepstate lab --kernel
  # as root or not: where users may make namespaces, anybody may
  keepstate lab --clients 70000

Real programs are its clients and servers where the machine has them: curl, nginx, mosquitto, dig, dnsmasq, iperf3; small ones of its own stand in.
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
        // Before there is a second thread.
        topology::ensure_netns_allowed()?;
        // The run then stops at its next check, and dropping the topology cleans up.
        let interrupted = termination_flag()?;
        let fleets = mqtt_load::process_count(self.clients)
            .max(mqtt_load::process_count(table_full::extra_clients(self.clients)));
        let mut accounts = Vec::new();
        let mut play = Scenario::set_up(RouterKind::Keepstate, fleets, &interrupted)?;
        play.print_intro();
        play.run(self.clients)?;
        accounts.push(play.results.clone());
        if self.kernel {
            // Not both at a time: they would measure each other.
            drop(play);
            play = Scenario::set_up(RouterKind::Linux, fleets, &interrupted)?;
            anstream::println!();
            play.reporter.title("The same, with Linux's own conntrack and nftables as the gateway");
            play.run(self.clients)?;
            accounts.push(play.results.clone());
        }
        anstream::println!("\n{}", results::render_table(&accounts).trim_end());
        if self.hold {
            hold::hold_until_interrupted(&play.topology, &interrupted)?;
        }
        let good = accounts.iter().all(|account| account.passed);
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set.
fn termination_flag() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}
