//! `keepstate gateway`: a router with an nftables ruleset, between TUN interfaces, on existing interfaces, or over a capture.
//!
//! Turns the options into a [`GatewayConfig`]; the router itself is the crate `keepstate-gateway`. A capture instead of interfaces is driven here.
mod nat_args;
mod pcap_driver;

use crate::ruleset_args::RulesetArgs;
use crate::shared_args::EngineArgs;
use anyhow::Result;
use clap::Args;
use keepstate_gateway::config::{DriverConfig, GatewayConfig};
use keepstate_gateway::control_protocol::DEFAULT_SOCKET;
use keepstate_gateway::static_fib::{InterfaceConfig, RouteConfig, StaticFib};
use keepstate_gateway::tc::{self, InterfacePattern, Lifeline, OnExit, TcOptions};
use keepstate_gateway::xdp::XdpTxMode;
use keepstate_linux::xdp::XskMode;
use nat_args::NatArgs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Route packets in user space with an nftables ruleset: NAT, firewall, load balancing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GatewayArgs {
    /// The nftables ruleset; - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "detach")]
    ruleset: Option<PathBuf>,
    /// Give interfaces that a gateway has left closed back to the kernel, and end
    #[arg(long, exclusive = true)]
    detach: bool,
    #[command(flatten)]
    ruleset_args: RulesetArgs,
    /// Services file (TOML): virtual addresses and the backends behind them
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// An interface with its addresses: lan0=10.1.0.1/24,fd00:1::1/64 (repeatable); without --in it is created as a TUN interface
    #[arg(long = "device", value_name = "NAME=ADDRESS/LENGTH[,...]", required_unless_present_any = ["governed", "xdp", "queue", "detach"], help_heading = "Interfaces")]
    interfaces: Vec<InterfaceConfig>,
    /// A route: 0.0.0.0/0=wan0 (repeatable); the prefixes of --device are routes already
    #[arg(long = "route", value_name = "PREFIX=INTERFACE", help_heading = "Interfaces")]
    routes: Vec<RouteConfig>,
    /// MTU of each interface
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65_535), help_heading = "Interfaces")]
    mtu: u32,
    /// Govern existing interfaces: eth0,eth1, eth*, '*,!eth3'. Addresses, routes and neighbours are the kernel's; the machine's own packets pass the rules too. They stay closed when the gateway ends
    #[arg(long = "interface", value_name = "NAME[,...]", value_delimiter = ',', conflicts_with_all = ["interfaces", "routes", "mtu", "input", "xdp", "queue"], help_heading = "Interfaces")]
    governed: Vec<InterfacePattern>,
    /// What becomes of governed interfaces when the gateway is stopped, or dies
    #[arg(long, value_name = "STATE", value_enum, default_value_t = OnExitArg::Closed, requires = "governed", conflicts_with_all = ["interfaces", "input", "xdp", "queue"], help_heading = "Interfaces")]
    on_exit: OnExitArg,
    /// An interface on which SSH to this machine stays possible while no gateway runs: eth0, or eth0:PORT
    #[arg(long, value_name = "NAME[:PORT]", requires = "governed", conflicts_with_all = ["interfaces", "input", "xdp", "queue"], help_heading = "Interfaces")]
    lifeline: Option<Lifeline>,
    /// Whether packets of established connections go on in the kernel, where the rules provably judge them alike
    #[arg(long, value_name = "STATE", value_enum, default_value_t = OffloadArg::On, requires = "governed", conflicts_with_all = ["interfaces", "input", "xdp", "queue"], help_heading = "Interfaces")]
    offload: OffloadArg,
    /// Use existing interfaces by AF_XDP: eth0,eth1. Addresses, routes and neighbours are the kernel's
    #[arg(long, value_name = "NAME[,...]", value_delimiter = ',', conflicts_with_all = ["interfaces", "routes", "mtu", "input"], help_heading = "Interfaces")]
    xdp: Vec<String>,
    /// Take packets from this NFQUEUE (iptables -j NFQUEUE, nft queue). Addresses and routes are the kernel's
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["interfaces", "routes", "mtu", "input", "xdp"], help_heading = "Interfaces")]
    queue: Option<u16>,
    /// AF_XDP copy mode
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpModeArg::Auto, requires = "xdp", conflicts_with_all = ["interfaces", "input", "governed", "queue"], help_heading = "Interfaces")]
    xdp_mode: XdpModeArg,
    /// How frames are sent in AF_XDP copy mode
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpSendArg::Auto, requires = "xdp", conflicts_with_all = ["interfaces", "input", "governed", "queue"], help_heading = "Interfaces")]
    xdp_send: XdpSendArg,
    /// Busy-poll this many µs before sleeping (lower latency, more CPU)
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000), conflicts_with = "input", help_heading = "Interfaces")]
    spin: u64,
    /// Route the packets of a capture instead, by its timestamps; a packet comes in by the interface that leads back to its source
    #[arg(long = "in", value_name = "CAPTURE", requires = "output", help_heading = "Capture")]
    input: Option<PathBuf>,
    /// Write forwarded packets to this pcap file (raw IP); an existing file is overwritten
    #[arg(long = "out", value_name = "CAPTURE", requires = "input", help_heading = "Capture")]
    output: Option<PathBuf>,
    /// Listen on a control socket, for keepstate control and keepstate conntrack --gateway
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = DEFAULT_SOCKET, conflicts_with = "input", help_heading = "Control")]
    control: Option<PathBuf>,
    /// Keep the connection table in this file (or a file in this directory): connections survive a restart and a crash
    #[arg(long, value_name = "PATH", conflicts_with = "input", help_heading = "Control")]
    state: Option<PathBuf>,
    /// Print a line for each packet: incoming interface and verdict
    #[arg(long, requires = "input", help_heading = "Capture")]
    each: bool,
    #[command(flatten)]
    nat_args: NatArgs,
    #[command(flatten)]
    tuning: EngineArgs,
}

/// What becomes of governed interfaces.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnExitArg {
    /// Nothing passes until a gateway runs again, but connections that the kernel has, and the lifeline
    Closed,
    /// The kernel has them again, without the ruleset; if the gateway was killed, after ten seconds
    Open,
}

/// Whether flows are offloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OffloadArg {
    /// They are
    On,
    /// Every packet passes the rules
    Off,
}

impl From<OnExitArg> for OnExit {
    fn from(state: OnExitArg) -> OnExit {
        match state {
            OnExitArg::Closed => OnExit::Closed,
            OnExitArg::Open => OnExit::Open,
        }
    }
}

/// AF_XDP copy mode.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum XdpModeArg {
    /// Zero-copy where the driver supports it
    Auto,
    /// The kernel copies; works everywhere
    Copy,
    /// The NIC writes to our memory; an error where the driver cannot
    ZeroCopy,
}

/// How frames are sent in copy mode.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum XdpSendArg {
    /// In batches where the interface supports it
    Auto,
    /// One by one, by the AF_XDP sockets
    Sockets,
}

impl From<XdpModeArg> for XskMode {
    fn from(mode: XdpModeArg) -> XskMode {
        match mode {
            XdpModeArg::Auto => XskMode::Auto,
            XdpModeArg::Copy => XskMode::Copy,
            XdpModeArg::ZeroCopy => XskMode::ZeroCopy,
        }
    }
}

impl From<XdpSendArg> for XdpTxMode {
    fn from(mode: XdpSendArg) -> XdpTxMode {
        match mode {
            XdpSendArg::Auto => XdpTxMode::Auto,
            XdpSendArg::Sockets => XdpTxMode::Sockets,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  # try a ruleset on a capture
  keepstate gateway --ruleset router.nft --in a.pcap --out b.pcap --each \\
      --device lan0=10.1.0.1/24 --device wan0=192.0.2.1/24 --route 0.0.0.0/0=wan0
  # route between two TUN interfaces, created by the gateway
  sudo keepstate gateway --ruleset router.nft \\
      --device lan0=10.1.0.1/24 --device wan0=192.0.2.1/24 --route 0.0.0.0/0=wan0
  # a router and firewall at the kernel's own hooks, for forwarded packets and the machine's own
  sudo keepstate gateway --ruleset /etc/nftables.conf --interface eth0,eth1 --control
  # route between two existing interfaces by AF_XDP
  sudo keepstate gateway --ruleset /etc/nftables.conf --xdp eth0,eth1 --control
  # route what kernel rules queue: on any host, beside its own rules
  sudo iptables -t raw -I PREROUTING -i lan0 -j NFQUEUE --queue-num 0     # and the same for -i wan0
  sudo keepstate gateway --ruleset router.nft --queue 0

With --state, connections survive a restart: start the gateway again with the same file, however it ended.
With --control, keepstate control lists connections, shows rules and counters, sets sysctls.
With --services, virtual addresses are load-balanced; keepstate control services lists them, drain takes a backend out.
SIGHUP reloads ruleset and services; connections are kept. If either has an error, nothing changes.
Exit codes: 0 success, 1 I/O error or an error in the ruleset, 2 usage error";

impl GatewayArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.nat_args.check()?;
        self.fib().build().map(drop)
    }

    /// Routes until the end of the capture, or until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// What cannot be read or written; errors in the ruleset.
    pub fn run(&self) -> Result<ExitCode> {
        if self.detach {
            let count = tc::detach()?;
            tracing::info!("{count} interfaces given back to the kernel; no ruleset of keepstate's is in force there");
            return Ok(ExitCode::SUCCESS);
        }
        let config = self.config()?;
        match (&self.input, &self.output) {
            (Some(input), Some(output)) => {
                let (router, _) = config.router()?;
                pcap_driver::route_capture(router, &self.interfaces, input, output, self.each)?;
            }
            _ => config.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn fib(&self) -> StaticFib {
        StaticFib { interfaces: self.interfaces.clone(), routes: self.routes.clone(), mtu: self.mtu }
    }

    fn config(&self) -> Result<GatewayConfig> {
        let driver = if self.input.is_some() {
            DriverConfig::External
        } else if !self.xdp.is_empty() {
            DriverConfig::Xdp { interfaces: self.xdp.clone(), mode: self.xdp_mode.into(), tx: self.xdp_send.into() }
        } else if !self.governed.is_empty() {
            DriverConfig::Tc {
                interfaces: self.governed.clone(),
                options: TcOptions {
                    on_exit: self.on_exit.into(),
                    offload: self.offload == OffloadArg::On,
                    lifeline: self.lifeline.clone(),
                },
            }
        } else if let Some(number) = self.queue {
            DriverConfig::Nfqueue(number)
        } else {
            DriverConfig::Tun
        };
        Ok(GatewayConfig {
            ruleset: self.ruleset.clone().unwrap_or_default(),
            ruleset_options: self.ruleset_args.options(),
            services: self.services.clone(),
            driver,
            fib: self.fib(),
            busy_poll: Duration::from_micros(self.spin),
            control_socket: self.control.clone(),
            state_file: self.state.clone(),
            nat: self.nat_args.policy(),
            sysctls: self.tuning.sysctls(|note| tracing::info!("{note}"))?,
            helpers: self.tuning.helpers(),
            secret: self.tuning.hash_secret()?,
        })
    }
}
