//! `keepstate gateway`: a router with an nftables ruleset, between TUN interfaces, on existing interfaces, or over a capture.
//!
//! Turns the options, and a file with the same settings, into a `GatewayConfig`; the router itself is the crate `keepstate-gateway`. A capture instead of interfaces is driven here.
pub(crate) mod cluster_transport;
mod log_backends;
mod nat_args;
mod pcap_driver;
pub(crate) mod table_args;

use crate::ruleset_args::RulesetArgs;
use crate::shared_args::EngineArgs;
use crate::ssh_session::SshSession;
use anyhow::{Result, bail};
use clap::Args;
use keepstate_gateway::config::DriverConfig;
use keepstate_gateway::control_protocol::DEFAULT_SOCKET;
use keepstate_gateway::end_notice::OperatorSession;
use keepstate_gateway::gateway_file::{
    DEFAULT_GATEWAY_FILE, DeviceEntry, FlowLogEntry, GatewayFile, GatewaySettings, Given, InterfaceText, LifelineText,
    OffloadXdpSetting, OnExitSetting, ResolvedGateway, RouteEntry, UnattendedText,
};
use keepstate_gateway::static_fib::{InterfaceConfig, RouteConfig};
use keepstate_gateway::tc;
use nat_args::NatArgs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use table_args::TableArgs;

/// Route packets in user space with an nftables ruleset: NAT, firewall, load balancing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GatewayArgs {
    /// The nftables ruleset; - for standard input
    #[arg(long, value_name = "FILE")]
    ruleset: Option<PathBuf>,
    /// The gateway's file (TOML): a key for each of these options; an option given here counts more. Without --config, --ruleset and interfaces it is /etc/keepstate/gateway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings, file and options together, and where each comes from; start nothing
    #[arg(long)]
    print_config: bool,
    /// Give interfaces that a gateway has left closed back to the kernel, and end
    #[arg(long, exclusive = true)]
    detach: bool,
    /// Close the interfaces that the gateway will govern, and end: nothing passes until a gateway runs, also if it cannot start. At boot, before anything else
    #[arg(long, conflicts_with_all = ["print_config", "input", "interfaces", "queue"])]
    close: bool,
    #[command(flatten)]
    ruleset_args: RulesetArgs,
    /// Services file (TOML): virtual addresses and the backends behind them
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// An interface with its addresses: lan0=10.1.0.1/24,fd00:1::1/64 (repeatable); without --in it is created as a TUN interface
    #[arg(long = "device", value_name = "NAME=ADDRESS/LENGTH[,...]", help_heading = "Interfaces")]
    interfaces: Vec<InterfaceConfig>,
    /// A route: 0.0.0.0/0=wan0 (repeatable); the prefixes of --device are routes already
    #[arg(long = "route", value_name = "PREFIX=INTERFACE", help_heading = "Interfaces")]
    routes: Vec<RouteConfig>,
    /// MTU of each interface [default: 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65_535), help_heading = "Interfaces")]
    mtu: Option<u32>,
    /// Govern existing interfaces: eth0,eth1, eth*, '*,!eth3'. Addresses, routes and neighbours are the kernel's; the machine's own packets pass the rules too. They stay closed when the gateway ends
    #[arg(long = "interface", value_name = "NAME[,...]", value_delimiter = ',', value_parser = InterfaceText::from_str, conflicts_with_all = ["interfaces", "routes", "mtu", "input", "queue"], help_heading = "Interfaces")]
    governed: Vec<InterfaceText>,
    /// What becomes of governed interfaces when the gateway is stopped, or dies [default: closed]
    #[arg(long, value_name = "STATE", value_enum, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    on_exit: Option<OnExitArg>,
    /// An interface on which SSH to this machine stays possible while no gateway runs: eth0, or eth0:PORT
    #[arg(long, value_name = "NAME[:PORT]", value_parser = LifelineText::from_str, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    lifeline: Option<LifelineText>,
    /// Whether packets of established connections go on in the kernel, where the rules provably judge them alike [default: on]
    #[arg(long, value_name = "STATE", value_enum, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    offload: Option<OffloadArg>,
    /// Whether new TCP connections that the rules provably judge as others before are opened in the kernel, and told afterwards; --offload off ends this too [default: on]
    #[arg(long, value_name = "STATE", value_enum, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    offload_new: Option<OffloadArg>,
    /// Where packets of established connections are sent on at XDP, before the kernel has made a buffer [default: auto]
    #[arg(long, value_name = "WHERE", value_enum, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    offload_xdp: Option<OffloadXdpArg>,
    /// Room in the kernel for so many established connections of IPv4, and half as many of IPv6; rounded up to a power of two. Each takes 616 bytes of the kernel's memory [default: 131072]
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1024..=4_194_304), conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    offload_size: Option<u32>,
    /// How long packets of established connections go on in the kernel while no gateway runs: 10s to 30d, or forever [default: forever]
    #[arg(long, value_name = "TIME", value_parser = UnattendedText::from_str, conflicts_with_all = ["interfaces", "input", "queue"], help_heading = "Interfaces")]
    offload_unattended: Option<UnattendedText>,
    /// Take packets from this NFQUEUE (iptables -j NFQUEUE, nft queue). Addresses and routes are the kernel's
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["interfaces", "routes", "mtu", "input"], help_heading = "Interfaces")]
    queue: Option<u16>,
    /// Busy-poll this many µs before sleeping (lower latency, more CPU) [default: 0]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(..=1_000_000), conflicts_with = "input", help_heading = "Interfaces")]
    spin: Option<u64>,
    /// Route the packets of a capture instead, by its timestamps; a packet comes in by the interface that leads back to its source
    #[arg(long = "in", value_name = "CAPTURE", requires = "output", help_heading = "Capture")]
    input: Option<PathBuf>,
    /// Write forwarded packets to this pcap file (raw IP); an existing file is overwritten
    #[arg(long = "out", value_name = "CAPTURE", requires = "input", help_heading = "Capture")]
    output: Option<PathBuf>,
    /// Listen on a control socket, for keepstate control and keepstate conntrack --gateway; off for none [default: /run/keepstate/gateway.sock with --interface, else none]
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = DEFAULT_SOCKET, conflicts_with = "input", help_heading = "Control")]
    control: Option<PathBuf>,
    /// Keep the connection table in this file (or a file in this directory): connections survive a restart and a crash
    #[arg(long, value_name = "PATH", conflicts_with = "input", help_heading = "Control")]
    state: Option<PathBuf>,
    /// Log who has which outside port to this file, or to a collector (udp://ADDRESS:PORT, tcp://…, tls://…) as IPFIX, or to NATS (nats:SUBJECT) (repeatable); [[flow-log]] of the file has more choices
    #[arg(long, value_name = "TARGET", value_parser = FlowLogEntry::from_str, conflicts_with = "input", help_heading = "Control")]
    flow_log: Vec<FlowLogEntry>,
    /// Print a line for each packet: incoming interface and verdict
    #[arg(long, requires = "input", help_heading = "Capture")]
    each: bool,
    #[command(flatten)]
    nat_args: NatArgs,
    #[command(flatten)]
    table_args: TableArgs,
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

/// Where packets are sent on at XDP.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OffloadXdpArg {
    /// At interfaces of hardware whose driver has native XDP
    Auto,
    /// Wherever the driver has native XDP, also at software interfaces (veth)
    Native,
    /// Nowhere
    Off,
}

impl From<OffloadXdpArg> for OffloadXdpSetting {
    fn from(of: OffloadXdpArg) -> OffloadXdpSetting {
        match of {
            OffloadXdpArg::Auto => OffloadXdpSetting::Auto,
            OffloadXdpArg::Native => OffloadXdpSetting::Native,
            OffloadXdpArg::Off => OffloadXdpSetting::Off,
        }
    }
}

impl From<OnExitArg> for OnExitSetting {
    fn from(state: OnExitArg) -> OnExitSetting {
        match state {
            OnExitArg::Closed => OnExitSetting::Closed,
            OnExitArg::Open => OnExitSetting::Open,
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
  sudo keepstate gateway --ruleset /etc/nftables.conf --interface eth0,eth1
  # route what kernel rules queue: on any host, beside its own rules
  sudo iptables -t raw -I PREROUTING -i lan0 -j NFQUEUE --queue-num 0     # and the same for -i wan0
  sudo keepstate gateway --ruleset router.nft --queue 0
  # everything from a file, and what that comes to
  sudo keepstate gateway --config /etc/keepstate/gateway.toml
  keepstate gateway --config gateway.toml --on-exit open --print-config

With --state, connections survive a restart: start the gateway again with the same file, however it ended.
By its control socket, keepstate control lists connections, shows rules and counters, sets sysctls.
With --services, virtual addresses are load-balanced; keepstate control services lists them, drain takes a backend out.
SIGHUP reloads file, ruleset and services; connections are kept. If one has an error, or
asks for what needs a restart, nothing changes.
Exit codes: 0 success, 1 I/O error or an error in the ruleset, 2 usage error";

impl GatewayArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.detach || self.file_path().is_some() {
            // What does not fit may come from the file: `run` says it.
            return Ok(());
        }
        ResolvedGateway::new(None, self.flags()).check().map_err(|error| error.to_string())
    }

    /// How verbose the log is: the file's word, or more by `-v`.
    pub fn verbosity(&self, flags: u8) -> u8 {
        let file = self.file_path().and_then(|path| GatewayFile::read(&path).ok());
        file.and_then(|file| file.settings.log).map_or(0, |log| log.value.verbosity()).max(flags)
    }

    /// Routes until the end of the capture, or until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// What cannot be read or written; errors in the ruleset.
    pub fn run(self) -> Result<ExitCode> {
        if self.detach {
            let count = tc::detach()?;
            let interfaces = if count == 1 { "interface" } else { "interfaces" };
            tracing::info!(
                "{count} {interfaces} given back to the kernel; no ruleset of keepstate's is in force there"
            );
            return Ok(ExitCode::SUCCESS);
        }
        let resolved = self.resolve(ResolvedGateway::new)?;
        if self.print_config {
            write!(anstream::stdout().lock(), "{}", resolved.print())?;
            return Ok(ExitCode::SUCCESS);
        }
        let secret = self.tuning.hash_secret()?;
        let mut config = resolved.config(secret, |note| tracing::info!("{note}"))?;
        cluster_transport::use_nats(&mut config);
        config.log_backends = log_backends::all();
        config.operator = SshSession::current().map(|SshSession { client, port }| OperatorSession { client, port });
        if let (Some(input), Some(output)) = (&self.input, &self.output) {
            if resolved.settings().device.is_none() {
                bail!("--in needs interfaces with addresses that the capture is routed between: add --device");
            }
            config.driver = DriverConfig::External;
            let (router, _) = config.router()?;
            pcap_driver::route_capture(router, &config.fib.interfaces, input, output, self.each)?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.close {
            tracing::info!("{}", config.close()?);
            return Ok(ExitCode::SUCCESS);
        }
        let running = resolved;
        config.run_rereading(Arc::new(move || {
            let next = self.resolve(|file, flags| running.again(file, flags))?;
            running.check_reload(&next)?;
            next.config(secret, |note| tracing::info!("{note}"))
        }))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The file with the flags over it, without faults.
    fn resolve(
        &self,
        sum: impl FnOnce(Option<GatewayFile>, GatewaySettings) -> ResolvedGateway,
    ) -> Result<ResolvedGateway> {
        let file = self.file_path().map(|path| GatewayFile::read(&path)).transpose()?;
        let resolved = sum(file, self.flags());
        resolved.check()?;
        Ok(resolved)
    }

    /// The file that counts: the one that is named; this machine's, if nothing else says what to do.
    fn file_path(&self) -> Option<PathBuf> {
        let has_mode = self.ruleset.is_some() || self.input.is_some() || !self.flags().drivers().is_empty();
        let default = || Some(PathBuf::from(DEFAULT_GATEWAY_FILE)).filter(|path| !has_mode && path.exists());
        self.config.clone().or_else(default)
    }

    /// The ruleset of the command line. Interfaces are closed without reading any.
    fn ruleset_path(&self) -> Option<PathBuf> {
        self.ruleset.clone().or_else(|| self.close.then(|| PathBuf::from("-")))
    }

    /// What the command line says, as settings.
    fn flags(&self) -> GatewaySettings {
        fn list<T: Clone>(values: &[T], flag: &'static str) -> Option<Given<Vec<T>>> {
            (!values.is_empty()).then(|| Given::flag(values.to_vec(), flag))
        }
        let devices: Vec<DeviceEntry> = self.interfaces.iter().cloned().map(DeviceEntry).collect();
        let routes: Vec<RouteEntry> = self.routes.iter().cloned().map(RouteEntry).collect();
        let own = GatewaySettings {
            ruleset: self.ruleset_path().map(|path| Given::flag(path, "--ruleset")),
            services: self.services.clone().map(|path| Given::flag(path, "--services")),
            interface: list(&self.governed, "--interface"),
            on_exit: self.on_exit.map(|state| Given::flag(state.into(), "--on-exit")),
            lifeline: self.lifeline.clone().map(|port| Given::flag(port, "--lifeline")),
            offload: self.offload.map(|state| Given::flag(state == OffloadArg::On, "--offload")),
            offload_new: self.offload_new.map(|state| Given::flag(state == OffloadArg::On, "--offload-new")),
            offload_xdp: self.offload_xdp.map(|of| Given::flag(of.into(), "--offload-xdp")),
            offload_size: self.offload_size.map(|connections| Given::flag(connections, "--offload-size")),
            offload_unattended: self.offload_unattended.clone().map(|time| Given::flag(time, "--offload-unattended")),
            queue: self.queue.map(|number| Given::flag(number, "--queue")),
            device: list(&devices, "--device"),
            route: list(&routes, "--route"),
            mtu: self.mtu.map(|bytes| Given::flag(bytes, "--mtu")),
            spin: self.spin.map(|time| Given::flag(time, "--spin")),
            control: self.control.clone().map(|path| Given::flag(path, "--control")),
            state: self.state.clone().map(|path| Given::flag(path, "--state")),
            flow_log: list(&self.flow_log, "--flow-log"),
            nat: self.nat_args.settings(),
            table: self.table_args.settings(),
            ..GatewaySettings::default()
        };
        own.over(self.ruleset_args.gateway_settings()).over(self.tuning.gateway_settings())
    }
}
