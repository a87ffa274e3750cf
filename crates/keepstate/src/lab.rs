//! `keepstate lab`: clients, a gateway and servers in network namespaces of this machine.
use anyhow::Result;
use clap::Args;
use keepstate_lab::{ClusterLabConfig, LabConfig};
use std::process::ExitCode;
use std::time::Duration;

/// Show keepstate at work on this machine, in network namespaces: NAT, firewall, balancing, a table that fills up and is enlarged
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Lab {
    /// MQTT sessions that the clients hold [default: 10000; with --cluster 2000, at most 40000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(10..=70_000))]
    clients: Option<u32>,
    /// Run a second time with Linux's own conntrack and nftables as the router, and compare
    #[arg(long)]
    kernel: bool,
    /// Keep the laboratory up afterwards and print commands to try; Ctrl-C ends it
    #[arg(long)]
    hold: bool,
    /// Two gateways that share their table over NATS: what clients see of a planned change, a crash, NATS away, and a split
    #[arg(long, conflicts_with_all = ["kernel", "hold"])]
    cluster: bool,
    /// With --cluster: connections that clients open and close each second
    #[arg(long, value_name = "NUMBER", requires = "cluster", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    rate: u32,
    /// With --cluster: transfers that run all the time
    #[arg(long, value_name = "NUMBER", requires = "cluster", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=64))]
    transfers: u8,
    /// With --cluster: the gateways' lease in seconds: after so long without it the active one creates nothing, and the other takes over
    #[arg(long, value_name = "SECONDS", requires = "cluster", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    lease: u32,
    /// With --cluster: how long NATS is away and the link is cut, in seconds
    #[arg(long, value_name = "SECONDS", requires = "cluster", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    outage: u64,
}

/// Sessions if nothing else is said.
const DEFAULT_CLIENTS: u32 = 10_000;
/// The same of a cluster: there each pings twice a second.
const DEFAULT_CLUSTER_CLIENTS: u32 = 2_000;
/// Most sessions of a cluster: as many ports of four addresses carry.
const MAX_CLUSTER_CLIENTS: u32 = 40_000;

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
  # two gateways, one of which is killed: about a minute
  sudo keepstate lab --cluster
  # the same with a larger crowd and a longer outage
  sudo keepstate lab --cluster --clients 20000 --rate 500 --outage 60

It needs ip (iproute2) and /dev/net/tun; nft (nftables) for --kernel; nsenter (util-linux) for --hold; nats-server for --cluster.
Installed programs are its clients and servers: curl, nginx, mosquitto, dig, dnsmasq, iperf3; built-in ones replace missing ones.
It makes network namespaces and removes them again, after Ctrl-C too; nothing else on the machine is changed.
Exit codes: 0 all checks passed, 1 a check failed, or a program or permission is missing, 2 usage error";

impl Lab {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// Too many clients for a cluster.
    pub fn check(&self) -> Result<(), String> {
        match self.clients {
            Some(clients) if self.cluster && clients > MAX_CLUSTER_CLIENTS => {
                Err(format!("--clients {clients}: at most {MAX_CLUSTER_CLIENTS} with --cluster"))
            }
            _ => Ok(()),
        }
    }

    /// Runs the laboratory.
    ///
    /// # Errors
    /// A program or permission is missing, or the gateway does not start.
    pub fn run(&self) -> Result<ExitCode> {
        let passed = if self.cluster {
            keepstate_lab::run_cluster(&ClusterLabConfig {
                clients: self.clients.unwrap_or(DEFAULT_CLUSTER_CLIENTS),
                rate: self.rate,
                transfers: self.transfers,
                lease_secs: self.lease,
                outage: Duration::from_secs(self.outage),
            })?
        } else {
            keepstate_lab::run(&LabConfig {
                clients: self.clients.unwrap_or(DEFAULT_CLIENTS),
                compare_with_linux: self.kernel,
                hold: self.hold,
            })?
        };
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
