//! `keepstate gateway`: a router ruled by an nftables ruleset, between TUN devices, on real interfaces, or over a capture.
//!
//! Reads the options into a [`GatewayConfig`]; the router itself is the crate `keepstate-gateway`. A capture instead of interfaces is driven here.
mod pcap_driver;

use crate::shared_args::EngineArgs;
use crate::stderr;
use anyhow::Result;
use clap::Args;
use keepstate_gateway::config::{GatewayConfig, Source};
use keepstate_gateway::interface_args::{self, InterfaceArg, RouteArg};
use keepstate_gateway::ruleset::RulesetArgs;
use keepstate_gateway::xdp::XdpTxMode;
use keepstate_gateway::{control_server, nat_args};
use keepstate_linux::xdp::XskMode;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Route packets by an nftables ruleset: NAT, firewall, balancing, in user space.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GatewayArgs {
    /// The ruleset; - for standard input
    #[arg(long, value_name = "FILE")]
    ruleset: PathBuf,
    #[command(flatten)]
    ruleset_args: RulesetArgs,
    /// Services: virtual addresses and the backends that share their connections, in TOML
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// A device with its addresses: lan0=10.1.0.1/24,fd00:1::1/64 (several times); without --in a TUN device of that name is made
    #[arg(long = "device", value_name = "NAME=ADDRESS/LENGTH[,...]", value_parser = interface_args::parse_interface, required_unless_present_any = ["xdp", "queue"], help_heading = "Devices")]
    devices: Vec<InterfaceArg>,
    /// A route: 0.0.0.0/0=wan0 (several times); the devices' own prefixes are routes anyway
    #[arg(long = "route", value_name = "PREFIX=DEVICE", value_parser = interface_args::parse_route, help_heading = "Devices")]
    routes: Vec<RouteArg>,
    /// The largest datagram of each device
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65_535), help_heading = "Devices")]
    mtu: u32,
    /// Take these devices over by AF_XDP: eth0,eth1. Their addresses, the routes and the neighbours are the kernel's, and are followed
    #[arg(long, value_name = "NAME[,...]", value_delimiter = ',', conflicts_with_all = ["devices", "routes", "mtu", "input"], help_heading = "Devices")]
    xdp: Vec<String>,
    /// Take what the kernel's rules hand to this queue of netfilter's (-j NFQUEUE, queue); addresses and routes are the kernel's, and are followed
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["devices", "routes", "mtu", "input", "xdp"], help_heading = "Devices")]
    queue: Option<u16>,
    /// Who copies frames: auto takes zero-copy where the device's driver has it
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpCopyMode::Auto, requires = "xdp", help_heading = "Devices")]
    xdp_mode: XdpCopyMode,
    /// How frames are sent where the kernel copies them: in bursts where the device takes them, or by the sockets alone
    #[arg(long, value_name = "WAY", value_enum, default_value_t = XdpTxMode::Auto, requires = "xdp", help_heading = "Devices")]
    xdp_send: XdpTxMode,
    /// Microseconds to look for packets before sleeping: round trips are shorter, and a processor is busier
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000), conflicts_with = "input", help_heading = "Devices")]
    spin: u64,
    /// Route the packets of a capture instead, by its own clock; a packet comes in by the device that leads back to its source
    #[arg(long = "in", value_name = "CAPTURE", requires = "output", help_heading = "Capture")]
    input: Option<PathBuf>,
    /// Where to write what leaves: a pcap file of raw IP, made anew
    #[arg(long = "out", value_name = "CAPTURE", requires = "input", help_heading = "Capture")]
    output: Option<PathBuf>,
    /// Make a control socket there, for keepstate control
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = control_server::DEFAULT_SOCKET, conflicts_with = "input", help_heading = "Control")]
    control: Option<PathBuf>,
    /// Keep the table in this file, or in this folder: after a restart, even after kill -9, connections go on
    #[arg(long, value_name = "PATH", conflicts_with = "input", help_heading = "Control")]
    state: Option<PathBuf>,
    /// Print a line for each packet: by which device it came, what became of it
    #[arg(long, requires = "input", help_heading = "Capture")]
    each: bool,
    #[command(flatten)]
    nat_args: nat_args::NatArgs,
    #[command(flatten)]
    tuning: EngineArgs,
}

/// Who copies frames.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum XdpCopyMode {
    /// Zero-copy where the driver has it
    Auto,
    /// The kernel copies: works everywhere
    Copy,
    /// The driver writes into our memory; refused where it cannot
    ZeroCopy,
}

impl From<XdpCopyMode> for XskMode {
    fn from(copying: XdpCopyMode) -> XskMode {
        match copying {
            XdpCopyMode::Auto => XskMode::Auto,
            XdpCopyMode::Copy => XskMode::Copy,
            XdpCopyMode::ZeroCopy => XskMode::ZeroCopy,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  # what would this ruleset make of that capture?
  keepstate gateway --ruleset router.nft --in a.pcap --out b.pcap --each \\
      --device lan0=10.1.0.1/24 --device wan0=192.0.2.1/24 --route 0.0.0.0/0=wan0
  # route for real between two TUN devices, which it makes
  sudo keepstate gateway --ruleset router.nft \\
      --device lan0=10.1.0.1/24 --device wan0=192.0.2.1/24 --route 0.0.0.0/0=wan0
  # route between two real devices
  sudo keepstate gateway --ruleset /etc/nftables.conf --xdp eth0,eth1 --control
  # route what the kernel hands over: on any machine, beside its own rules
  sudo iptables -t raw -I PREROUTING -i lan0 -j NFQUEUE --queue-num 0     # and the same for -i wan0
  sudo keepstate gateway --ruleset router.nft --queue 0

With --state, the table outlives the gateway: started again with the same file, however it ended, it goes on with the connections it had.
With --control, keepstate control lists its connections, shows its rules, changes its knobs.
With --services, virtual addresses are balanced over backends; keepstate control services shows them, drain takes one out.
SIGHUP loads ruleset and services again; connections live on. If one of them is refused, nothing changes.
Exit codes: 0 done, 1 something could not be read or written, or the ruleset is refused, 2 wrongly asked";

impl GatewayArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.nat_args.check()?;
        interface_args::build_fib(&self.devices, &self.routes, self.mtu).map(drop)
    }

    /// Routes until the capture's end, or until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// What could not be read or written; a ruleset that is refused.
    pub fn run(&self) -> Result<ExitCode> {
        let config = self.config()?;
        match (&self.input, &self.output) {
            (Some(input), Some(output)) => {
                let (router, _) = config.router()?;
                pcap_driver::route_capture(router, &self.devices, input, output, self.each)?;
            }
            _ => config.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn config(&self) -> Result<GatewayConfig> {
        let source = if self.input.is_some() {
            Source::Capture
        } else if !self.xdp.is_empty() {
            Source::Xdp { devices: self.xdp.clone(), mode: self.xdp_mode.into(), sending: self.xdp_send }
        } else if let Some(number) = self.queue {
            Source::Queue(number)
        } else {
            Source::Tun
        };
        Ok(GatewayConfig {
            ruleset: self.ruleset.clone(),
            reading: self.ruleset_args.clone(),
            services: self.services.clone(),
            source,
            devices: self.devices.clone(),
            routes: self.routes.clone(),
            mtu: self.mtu,
            spin: Duration::from_micros(self.spin),
            control: self.control.clone(),
            state: self.state.clone(),
            mapping: self.nat_args.clone(),
            knobs: self.tuning.sysctls(stderr::note)?,
            helpers: self.tuning.helpers(),
            secret: self.tuning.hash_secret()?,
        })
    }
}
