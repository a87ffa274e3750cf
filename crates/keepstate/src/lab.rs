//! `keepstate lab`: clients, a gateway and servers in network namespaces of this machine.
use anyhow::Result;
use clap::Args;
use keepstate_lab::LabConfig;
use std::process::ExitCode;

/// Show keepstate at work on this machine, in network namespaces: NAT, firewall, balancing, a table that fills up and is enlarged
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Lab {
    /// MQTT sessions that the clients hold
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=70_000))]
    clients: u32,
    /// Run a second time with Linux's own conntrack and nftables as the router, and compare
    #[arg(long)]
    kernel: bool,
    /// Keep the laboratory up afterwards and print commands to try; Ctrl-C ends it
    #[arg(long)]
    hold: bool,
}

const EXAMPLES: &str = "\
Examples:
  # the whole run, about half a minute
  sudo keepstate lab
  # then try commands yourself
  sudo keepstate lab --hold
  # the same with Linux as the router, side by side
  sudo keepstate lab --kernel
  # without root, where users may make network namespaces
  keepstate lab --clients 70000

It needs ip (iproute2) and /dev/net/tun; nft (nftables) for --kernel; nsenter (util-linux) for --hold.
Installed programs are its clients and servers: curl, nginx, mosquitto, dig, dnsmasq, iperf3; built-in ones replace missing ones.
It makes three network namespaces and removes them again; nothing else on the machine is changed.
Exit codes: 0 all checks passed, 1 a check failed, or a program or permission is missing, 2 usage error";

impl Lab {
    /// Nothing to check: all options can be combined.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Runs the laboratory.
    ///
    /// # Errors
    /// A program or permission is missing, or the gateway does not start.
    pub fn run(&self) -> Result<ExitCode> {
        let config = LabConfig { clients: self.clients, compare_with_linux: self.kernel, hold: self.hold };
        Ok(if keepstate_lab::run(&config)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
