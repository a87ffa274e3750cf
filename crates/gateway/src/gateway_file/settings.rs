//! The keys. Each is the flag of `keepstate gateway` of the same name; those of NAT, of a full table and the sysctls have a table of their own. What people write by habit,
//! `on_exit` or `interfaces`, is the same key.
use super::cluster::ClusterSettings;
use super::flow_log::FlowLogEntry;
use super::given::Given;
use super::named::NamedValues;
use super::values::{
    AdaptiveTimeoutsText, DeterministicText, DeviceEntry, HelperText, InterfaceText, KernelVersionSetting,
    LifelineText, LogSetting, MemoryText, NatFilteringSetting, NatMappingSetting, OffloadXdpSetting, OnExitSetting,
    RouteEntry, SourceLimitText, SysctlValue, TableReserveText, UnattendedText,
};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The settings of a gateway: those of a file, those of a command line, or the sum.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GatewaySettings {
    /// The version of this format: 1
    #[cfg_attr(test, schemars(required, range(min = 1, max = 1)))]
    pub version: Option<Given<u64>>,
    /// The nftables ruleset. A relative path is relative to this file
    pub ruleset: Option<Given<PathBuf>>,
    /// Variables defined before the first line of the ruleset
    pub define: NamedValues<String>,
    /// Directories that the ruleset's include searches
    pub includepath: Option<Given<Vec<PathBuf>>>,
    /// Leave out what of the ruleset is not supported, instead of refusing it
    #[serde(alias = "skip_unsupported")]
    pub skip_unsupported: Option<Given<bool>>,
    /// The services file: virtual addresses and the backends behind them
    pub services: Option<Given<PathBuf>>,
    /// Govern these existing interfaces at the kernel's own hooks: ["eth0", "eth1"], ["eth*", "!eth3"]
    #[serde(alias = "interfaces")]
    pub interface: Option<Given<Vec<InterfaceText>>>,
    /// What becomes of governed interfaces when the gateway ends. Default: closed
    #[serde(alias = "on_exit")]
    pub on_exit: Option<Given<OnExitSetting>>,
    /// An interface on which SSH to this machine stays possible while no gateway runs: eth0, or eth0:PORT
    pub lifeline: Option<Given<LifelineText>>,
    /// Whether packets of established connections go on in the kernel, where the rules provably judge them alike. Default: true
    pub offload: Option<Given<bool>>,
    /// Whether new TCP connections that the rules provably judge as others before are opened in the kernel, and told afterwards. Default: true
    #[serde(alias = "offload_new")]
    pub offload_new: Option<Given<bool>>,
    /// Where packets of established connections are sent on at XDP, before the kernel has made a buffer. Default: auto
    #[serde(alias = "offload_xdp")]
    pub offload_xdp: Option<Given<OffloadXdpSetting>>,
    /// Room in the kernel for so many established connections of IPv4, and half as many of IPv6; rounded up to a power of two. Each takes 616 bytes of the kernel's memory. Default: 131072
    #[serde(alias = "offload_size")]
    #[cfg_attr(test, schemars(range(min = 1024, max = 4_194_304)))]
    pub offload_size: Option<Given<u32>>,
    /// How long packets of established connections go on in the kernel while no gateway runs: 10s to 30d, or forever. Default: forever
    #[serde(alias = "offload_unattended")]
    pub offload_unattended: Option<Given<UnattendedText>>,
    /// Take packets from the NFQUEUE of this number
    pub queue: Option<Given<u16>>,
    /// TUN interfaces that the gateway makes, with their addresses
    #[serde(alias = "devices")]
    pub device: Option<Given<Vec<DeviceEntry>>>,
    /// Routes beside those of the devices' own prefixes
    #[serde(alias = "routes")]
    pub route: Option<Given<Vec<RouteEntry>>>,
    /// MTU of each device. Default: 1500
    #[cfg_attr(test, schemars(range(min = 1280, max = 65535)))]
    pub mtu: Option<Given<u32>>,
    /// Busy-poll this many microseconds before sleeping. Default: 0
    #[cfg_attr(test, schemars(range(max = 1_000_000)))]
    pub spin: Option<Given<u64>>,
    /// The path of the control socket; "off" for none. Default: /run/keepstate/gateway.sock with interface, else none
    pub control: Option<Given<PathBuf>>,
    /// Keep the connection table in this file, or in a file in this directory
    pub state: Option<Given<PathBuf>>,
    /// NAT and flow logs: who had which outside port
    #[serde(alias = "flow_log", alias = "flow-logs")]
    pub flow_log: Option<Given<Vec<FlowLogEntry>>>,
    /// How much is logged. Default: info
    pub log: Option<Given<LogSetting>>,
    /// Helpers and their ports: ["ftp", "ftp:2121"]
    #[serde(alias = "helpers")]
    pub helper: Option<Given<Vec<HelperText>>>,
    /// The kernel version whose sysctl defaults are used. Default: 6.18
    #[serde(alias = "as_linux")]
    pub as_linux: Option<Given<KernelVersionSetting>>,
    /// The memory to compute those defaults from, like 4G. Default: this machine's
    pub memory: Option<Given<MemoryText>>,
    /// Files of sysctls, in the syntax of sysctl.conf
    #[serde(alias = "sysctl_files")]
    pub sysctl_files: Option<Given<Vec<PathBuf>>>,
    /// Sysctls of connection tracking, over those of the files: nf_conntrack_max = 1000000
    pub sysctl: NamedValues<SysctlValue>,
    /// NAT behaviour beyond Linux's
    pub nat: NatSettings,
    /// What happens when the table gets full, beyond Linux's
    pub table: TableSettings,
    /// One of several gateways that share their table over NATS
    pub cluster: Option<Given<ClusterSettings>>,
}

/// What happens when the table gets full, beyond Linux's.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TableSettings {
    /// Entries kept free for some connections: ["1000 for tcp 22 from 10.0.0.0/8"]
    pub reserve: Option<Given<Vec<TableReserveText>>>,
    /// What each source may have; the first that fits holds: ["for from 10.0.0.0/8", "100 connections 20 new/s burst 40 per 32,64"]
    #[serde(alias = "source_limit")]
    pub source_limit: Option<Given<Vec<SourceLimitText>>>,
    /// Timeouts become shorter between these numbers of connections: "60000-72000"
    #[serde(alias = "adaptive_timeouts")]
    pub adaptive_timeouts: Option<Given<AdaptiveTimeoutsText>>,
    /// When the table is full, nf_conntrack_max is doubled, up to this many connections
    #[cfg_attr(test, schemars(range(min = 1)))]
    #[serde(alias = "grow_to")]
    pub grow_to: Option<Given<u32>>,
}

/// NAT behaviour beyond Linux's.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NatSettings {
    /// Which connections share an outside port. Default: per-connection
    pub mapping: Option<Given<NatMappingSetting>>,
    /// Which peers may send to a mapped port. Default: per-connection
    pub filtering: Option<Given<NatFilteringSetting>>,
    /// Map even ports to even ports, and keep the next one free for a companion (RTP, RTCP). Default: false
    pub parity: Option<Given<bool>>,
    /// Allocate ports in blocks of this size, one block per inside address
    #[cfg_attr(test, schemars(range(min = 1, max = 64512)))]
    #[serde(alias = "port_block")]
    pub port_block: Option<Given<u16>>,
    /// Compute outside address and ports from the inside address (RFC 7422): ["100.64.0.0/16=192.0.2.0/28"]
    pub deterministic: Option<Given<Vec<DeterministicText>>>,
}

/// In place of the path of a control socket: there is none.
pub(super) const CONTROL_OFF: &str = "off";

impl GatewaySettings {
    /// These, and of `below` what these do not say.
    #[must_use]
    pub fn over(self, below: GatewaySettings) -> GatewaySettings {
        GatewaySettings {
            version: self.version.or(below.version),
            ruleset: self.ruleset.or(below.ruleset),
            define: self.define.over(below.define),
            includepath: self.includepath.or(below.includepath),
            skip_unsupported: self.skip_unsupported.or(below.skip_unsupported),
            services: self.services.or(below.services),
            interface: self.interface.or(below.interface),
            on_exit: self.on_exit.or(below.on_exit),
            lifeline: self.lifeline.or(below.lifeline),
            offload: self.offload.or(below.offload),
            offload_new: self.offload_new.or(below.offload_new),
            offload_xdp: self.offload_xdp.or(below.offload_xdp),
            offload_size: self.offload_size.or(below.offload_size),
            offload_unattended: self.offload_unattended.or(below.offload_unattended),
            queue: self.queue.or(below.queue),
            device: self.device.or(below.device),
            route: self.route.or(below.route),
            mtu: self.mtu.or(below.mtu),
            spin: self.spin.or(below.spin),
            control: self.control.or(below.control),
            state: self.state.or(below.state),
            flow_log: self.flow_log.or(below.flow_log),
            log: self.log.or(below.log),
            helper: self.helper.or(below.helper),
            as_linux: self.as_linux.or(below.as_linux),
            memory: self.memory.or(below.memory),
            sysctl_files: self.sysctl_files.or(below.sysctl_files),
            sysctl: self.sysctl.over(below.sysctl),
            nat: NatSettings {
                mapping: self.nat.mapping.or(below.nat.mapping),
                filtering: self.nat.filtering.or(below.nat.filtering),
                parity: self.nat.parity.or(below.nat.parity),
                port_block: self.nat.port_block.or(below.nat.port_block),
                deterministic: self.nat.deterministic.or(below.nat.deterministic),
            },
            table: TableSettings {
                reserve: self.table.reserve.or(below.table.reserve),
                source_limit: self.table.source_limit.or(below.table.source_limit),
                adaptive_timeouts: self.table.adaptive_timeouts.or(below.table.adaptive_timeouts),
                grow_to: self.table.grow_to.or(below.table.grow_to),
            },
            cluster: self.cluster.or(below.cluster),
        }
    }

    /// How many of the ways to get packets are chosen.
    pub fn drivers(&self) -> Vec<&'static str> {
        let chosen = [
            ("interface", self.interface.is_some()),
            ("queue", self.queue.is_some()),
            ("device", self.device.is_some()),
        ];
        chosen.into_iter().filter(|(_, is_chosen)| *is_chosen).map(|(name, _)| name).collect()
    }

    /// Forgets how packets come, and all that belongs to it: something else is said over it.
    pub(super) fn without_driver(self) -> GatewaySettings {
        GatewaySettings {
            interface: None,
            on_exit: None,
            lifeline: None,
            offload: None,
            offload_new: None,
            offload_xdp: None,
            offload_size: None,
            offload_unattended: None,
            queue: None,
            device: None,
            route: None,
            mtu: None,
            ..self
        }
    }

    /// Paths that are relative are below `folder`.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        let control = self.control.as_mut().filter(|given| given.value != Path::new(CONTROL_OFF));
        let one = [self.ruleset.as_mut(), self.services.as_mut(), control, self.state.as_mut()];
        for given in one.into_iter().flatten() {
            given.value = folder.join(&given.value);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.value.resolve_paths(folder);
        }
        for entry in self.flow_log.iter_mut().flat_map(|given| &mut given.value) {
            entry.resolve_path(folder);
        }
        for given in [&mut self.includepath, &mut self.sysctl_files].into_iter().flatten() {
            given.value.iter_mut().for_each(|path| *path = folder.join(&*path));
        }
    }
}
