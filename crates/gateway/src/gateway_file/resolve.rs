//! The sum of a file and a command line: checked, then a [`GatewayConfig`].
use super::given::{Given, SettingOrigin};
use super::settings::{CONTROL_OFF, GatewaySettings, NatSettings, TableSettings};
use super::values::{
    KernelVersionSetting, LogSetting, NatFilteringSetting, NatMappingSetting, OffloadXdpSetting, OnExitSetting,
};
use crate::cluster::ClusterConfig;
use crate::config::{ControlConfig, DriverConfig, GatewayConfig};
use crate::control_protocol::DEFAULT_SOCKET;
use crate::engine_settings::{MemorySize, SysctlSettings};
use crate::flow_log::{FlowLogConfig, FlowLogTarget, LogBackends, LoggedSessions};
use crate::ruleset::RulesetOptions;
use crate::static_fib::{StaticFib, StaticFibFault};
use crate::tc::{TcOptions, Unattended};
use anyhow::{Context, Result};
use keepstate_engine::{AdmissionPolicy, NatPolicy, Sysctl, Sysctls, sysctl_conf};
use keepstate_linux::tc::FlowTableSize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What does not fit, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFault {
    /// Which of the settings it is.
    pub origin: SettingOrigin,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What holds if nobody says anything. Keys of another way to get packets are not set.
pub(super) fn defaults(settings: &GatewaySettings) -> GatewaySettings {
    fn some<T>(is_used: bool, value: T) -> Option<Given<T>> {
        is_used.then(|| Given::by_default(value))
    }
    let interface = settings.interface.is_some();
    GatewaySettings {
        version: some(true, FORMAT_VERSION),
        skip_unsupported: some(true, false),
        control: some(interface, PathBuf::from(DEFAULT_SOCKET)),
        on_exit: some(interface, OnExitSetting::Closed),
        offload: some(interface, true),
        offload_new: some(interface, true),
        offload_xdp: some(interface, OffloadXdpSetting::Auto),
        offload_size: some(interface, FlowTableSize::default().connections()),
        mtu: some(settings.device.is_some(), DEFAULT_MTU),
        spin: some(true, 0),
        log: some(true, LogSetting::Info),
        as_linux: some(true, KernelVersionSetting::V6_18),
        nat: NatSettings {
            mapping: some(true, NatMappingSetting::PerConnection),
            filtering: some(true, NatFilteringSetting::PerConnection),
            parity: some(true, false),
            ..NatSettings::default()
        },
        ..GatewaySettings::default()
    }
}

/// The version of the format that is read here.
pub(super) const FORMAT_VERSION: u64 = 1;
/// The MTU of a device.
const DEFAULT_MTU: u32 = 1500;

/// What of the settings does not fit together.
pub(super) fn faults(settings: &GatewaySettings) -> Vec<SettingFault> {
    let mut faults = Faults(Vec::new());
    let drivers = settings.drivers();
    if settings.ruleset.is_none() {
        faults.add(SettingOrigin::Default, "no ruleset: add ruleset = \"FILE\" to the file, or --ruleset FILE");
    }
    if drivers.is_empty() {
        faults.add(
            SettingOrigin::Default,
            "no source of packets: add interface = [\"eth0\"] to the file, or --interface eth0; or queue, device",
        );
    }
    if let [first, second, ..] = drivers[..] {
        let message = format!("{first} and {second}: packets come from one of them; leave the other out");
        faults.add(origin_of_driver(settings, second), message);
    }
    dependents(settings, &mut faults);
    ranges(settings, &mut faults);
    nat(&settings.nat, &mut faults);
    flow_logs(settings, &mut faults);
    cluster(settings, &mut faults);
    for (name, value) in &settings.sysctl.entries {
        if let Err(message) = sysctl_conf::parse_setting(&format!("{}={}", name.value, value.value)) {
            faults.add(name.origin.clone(), message);
        }
    }
    if let Some(device) = &settings.device {
        for entry in device.value.iter().filter(|entry| entry.0.addresses.is_empty()) {
            faults.add(device.origin.clone(), format!("device {} has no address", entry.0.name));
        }
        for StaticFibFault { is_route, message } in fib(settings).faults() {
            let route = settings.route.as_ref().filter(|_| is_route).map(|route| route.origin.clone());
            faults.add(route.unwrap_or(device.origin.clone()), message);
        }
    }
    faults.0
}

struct Faults(Vec<SettingFault>);

impl Faults {
    fn add(&mut self, origin: SettingOrigin, message: impl Into<String>) {
        self.0.push(SettingFault { origin, message: message.into() });
    }
}

fn origin_of_driver(settings: &GatewaySettings, driver: &str) -> SettingOrigin {
    let origin = match driver {
        "interface" => settings.interface.as_ref().map(|given| &given.origin),
        "queue" => settings.queue.as_ref().map(|given| &given.origin),
        _ => settings.device.as_ref().map(|given| &given.origin),
    };
    origin.cloned().unwrap_or(SettingOrigin::Default)
}

/// Keys that mean nothing without another one.
fn dependents(settings: &GatewaySettings, faults: &mut Faults) {
    fn origin<T>(given: &Option<Given<T>>) -> Option<&SettingOrigin> {
        given.as_ref().map(|given| &given.origin)
    }
    for (name, origin, needed, is_there) in [
        ("on-exit", origin(&settings.on_exit), "interface", settings.interface.is_some()),
        ("lifeline", origin(&settings.lifeline), "interface", settings.interface.is_some()),
        ("offload", origin(&settings.offload), "interface", settings.interface.is_some()),
        ("offload-new", origin(&settings.offload_new), "interface", settings.interface.is_some()),
        ("offload-xdp", origin(&settings.offload_xdp), "interface", settings.interface.is_some()),
        ("offload-size", origin(&settings.offload_size), "interface", settings.interface.is_some()),
        ("offload-unattended", origin(&settings.offload_unattended), "interface", settings.interface.is_some()),
        ("route", origin(&settings.route), "device", settings.device.is_some()),
        ("mtu", origin(&settings.mtu), "device", settings.device.is_some()),
    ] {
        if let Some(origin) = origin.filter(|origin| !is_there && **origin != SettingOrigin::Default) {
            faults
                .add(origin.clone(), format!("{name} has a meaning only with {needed}; add that, or leave {name} out"));
        }
    }
}

fn ranges(settings: &GatewaySettings, faults: &mut Faults) {
    if let Some(mtu) = settings.mtu.as_ref().filter(|mtu| !(1280..=65_535).contains(&mtu.value)) {
        faults.add(mtu.origin.clone(), "mtu is 1280 to 65535");
    }
    let room = FlowTableSize::MIN.connections()..=FlowTableSize::MAX.connections();
    if let Some(size) = settings.offload_size.as_ref().filter(|size| !room.contains(&size.value)) {
        faults.add(size.origin.clone(), format!("offload-size is {} to {} connections", room.start(), room.end()));
    }
    if let Some(spin) = settings.spin.as_ref().filter(|spin| spin.value > 1_000_000) {
        faults.add(spin.origin.clone(), "spin is 0 to 1000000 microseconds");
    }
    if let Some(block) = settings.nat.port_block.as_ref().filter(|block| !(1..=64_512).contains(&block.value)) {
        faults.add(block.origin.clone(), "port-block is 1 to 64512 ports");
    }
    if let Some(grow_to) = settings.table.grow_to.as_ref().filter(|grow_to| grow_to.value == 0) {
        faults.add(grow_to.origin.clone(), "grow-to is 1 to 4294967295 connections");
    }
    if let Some(interface) = settings.interface.as_ref().filter(|interface| interface.value.is_empty()) {
        faults.add(interface.origin.clone(), "interface is empty; name one, like [\"eth0\"]");
    }
    if let Some(device) = settings.device.as_ref().filter(|device| device.value.is_empty()) {
        faults.add(device.origin.clone(), "device is empty; name one with its addresses");
    }
}

fn nat(nat: &NatSettings, faults: &mut Faults) {
    let value = |mapping: &Given<NatMappingSetting>| mapping.value == NatMappingSetting::EndpointIndependent;
    let independent = nat.mapping.as_ref().is_some_and(value);
    if let Some(filtering) = nat.filtering.as_ref()
        && filtering.value != NatFilteringSetting::PerConnection
        && !independent
    {
        faults.add(
            filtering.origin.clone(),
            "filtering needs one port per source, but per-connection mapping shares ports: add mapping = \"endpoint-independent\" (--nat-mapping endpoint-independent)",
        );
    }
    if let Some(parity) = nat.parity.as_ref().filter(|parity| parity.value && !independent) {
        faults.add(
            parity.origin.clone(),
            "parity needs mapping = \"endpoint-independent\" (--nat-mapping endpoint-independent)",
        );
    }
    if let (Some(block), Some(_)) = (&nat.port_block, &nat.deterministic) {
        faults.add(
            block.origin.clone(),
            "port-block and deterministic: ports are computed by one of them; leave the other out",
        );
    }
}

fn fib(settings: &GatewaySettings) -> StaticFib {
    let devices = settings.device.iter().flat_map(|given| &given.value);
    let routes = settings.route.iter().flat_map(|given| &given.value);
    StaticFib {
        interfaces: devices.map(|entry| entry.0.clone()).collect(),
        routes: routes.map(|entry| entry.0.clone()).collect(),
        mtu: value_or(&settings.mtu, DEFAULT_MTU),
    }
}

fn value_or<T: Clone>(given: &Option<Given<T>>, default: T) -> T {
    given.as_ref().map_or(default, |given| given.value.clone())
}

/// As the gateway takes it. `secret` keys hashes and ids; notes for the user go to `note`.
///
/// # Errors
/// A sysctl file cannot be read, or is refused.
pub(super) fn config(
    settings: &GatewaySettings,
    machine_memory: MemorySize,
    secret: [u8; 16],
    note: impl FnMut(String),
) -> Result<GatewayConfig> {
    let s = settings;
    let driver = if let Some(interfaces) = &s.interface {
        DriverConfig::Tc {
            interfaces: interfaces.value.iter().map(|text| text.value.clone()).collect(),
            options: TcOptions {
                on_exit: value_or(&s.on_exit, OnExitSetting::Closed).into(),
                offload: value_or(&s.offload, true),
                offload_new: value_or(&s.offload_new, true),
                offload_xdp: value_or(&s.offload_xdp, OffloadXdpSetting::Auto).into(),
                offload_size: s
                    .offload_size
                    .as_ref()
                    .map_or_else(FlowTableSize::default, |given| FlowTableSize::of_connections(given.value)),
                unattended: s.offload_unattended.as_ref().map_or_else(Unattended::default, |given| given.value.value),
                lifeline: s.lifeline.as_ref().map(|given| given.value.value.clone()),
            },
        }
    } else if let Some(number) = &s.queue {
        DriverConfig::Nfqueue(number.value)
    } else {
        DriverConfig::Tun
    };
    let sysctls = sysctls(s, machine_memory, note)?;
    let cluster = s.cluster.as_ref().map(|given| given.value.config()).transpose()?;
    let definitions = s.define.entries.iter().map(|(name, value)| (name.value.clone(), value.value.clone()));
    Ok(GatewayConfig {
        ruleset: value_or(&s.ruleset, Default::default()),
        ruleset_options: RulesetOptions {
            definitions: definitions.collect(),
            include_dirs: value_or(&s.includepath, Vec::new()),
            skip_unsupported: value_or(&s.skip_unsupported, false),
            is_clustered: s.cluster.is_some(),
            shard_addresses: s.cluster.as_ref().and_then(|given| given.value.divided_addresses()),
        },
        services: s.services.as_ref().map(|given| given.value.clone()),
        driver,
        fib: fib(s),
        busy_poll: Duration::from_micros(value_or(&s.spin, 0)),
        control: s.control.as_ref().and_then(control_config),
        other_files: value_or(&s.sysctl_files, Vec::new()),
        state_file: s.state.as_ref().map(|given| given.value.clone()),
        flow_logs: flow_log_configs(s, cluster.as_ref()),
        log_backends: LogBackends::default(),
        nat: nat_policy(&s.nat),
        admission: s.table.policy(&sysctls).context("in [table]")?,
        sysctls,
        helpers: s
            .helper
            .iter()
            .flat_map(|given| &given.value)
            .map(|text| (text.value.helper, text.value.port))
            .collect(),
        secret,
        cluster,
        operator: None,
    })
}

/// Where the control socket is; `None` if there is to be none.
fn control_config(given: &Given<PathBuf>) -> Option<ControlConfig> {
    let path = Some(given.value.clone()).filter(|path| path != Path::new(CONTROL_OFF))?;
    Some(ControlConfig { path, is_needed: given.origin != SettingOrigin::Default })
}

/// Logs to subjects of NATS have the cluster's servers, if they name none.
fn flow_log_configs(settings: &GatewaySettings, cluster: Option<&ClusterConfig>) -> Vec<FlowLogConfig> {
    let mut logs: Vec<FlowLogConfig> =
        settings.flow_log.iter().flat_map(|given| &given.value).map(|entry| entry.0.clone()).collect();
    for log in &mut logs {
        let is_to_nats = matches!(log.target, FlowLogTarget::Subjects(_));
        if let Some(cluster) = cluster.filter(|_| is_to_nats && log.access.servers.addresses.is_empty()) {
            log.access.servers = cluster.servers.clone();
        }
    }
    logs
}

fn nat_policy(nat: &NatSettings) -> NatPolicy {
    let deterministic = nat.deterministic.iter().flat_map(|given| &given.value);
    NatPolicy {
        mapping: value_or(&nat.mapping, NatMappingSetting::PerConnection).into(),
        filtering: value_or(&nat.filtering, NatFilteringSetting::PerConnection).into(),
        parity: value_or(&nat.parity, false),
        port_block_size: nat.port_block.as_ref().map(|given| given.value),
        deterministic: deterministic.map(|text| text.value.0).collect(),
    }
}

impl TableSettings {
    /// How the table fails.
    ///
    /// # Errors
    /// It does not fit `nf_conntrack_max`.
    pub fn policy(&self, sysctls: &Sysctls) -> Result<AdmissionPolicy> {
        let limits = self.source_limit.iter().flat_map(|given| &given.value);
        let policy = AdmissionPolicy {
            reserves: self.reserve.iter().flat_map(|given| &given.value).map(|text| text.value.clone()).collect(),
            source_limits: limits.map(|text| text.value.clone()).collect(),
            adaptive_timeouts: self.adaptive_timeouts.as_ref().map(|given| given.value.value),
            grow_to: self.grow_to.as_ref().map(|given| given.value),
        };
        policy.check(sysctls[Sysctl::Max])?;
        Ok(policy)
    }
}

/// The sysctls. A log of sessions has their bytes, packets and duration: it has the engine count them, unless somebody says otherwise.
fn sysctls(s: &GatewaySettings, machine_memory: MemorySize, note: impl FnMut(String)) -> Result<Sysctls> {
    let settings = sysctl_settings(s, machine_memory);
    let mut base = Sysctls::kernel_defaults(settings.version, settings.memory);
    if logs_sessions(s) {
        for setting in ["nf_conntrack_acct=1", "nf_conntrack_timestamp=1"] {
            sysctl_conf::apply_setting(setting, &mut base)?;
        }
    }
    settings.sysctls_over(base, note)
}

fn logs_sessions(s: &GatewaySettings) -> bool {
    s.flow_log.iter().flat_map(|given| &given.value).any(|log| log.0.sessions != LoggedSessions::None)
}

/// Two logs do not write to one file; sessions are logged by events.
fn flow_logs(settings: &GatewaySettings, faults: &mut Faults) {
    let Some(given) = &settings.flow_log else { return };
    for (at, entry) in given.value.iter().enumerate() {
        if given.value.iter().take(at).any(|before| before.0.target == entry.0.target) {
            faults.add(given.origin.clone(), format!("two flow-logs go to {}; leave one out", entry.0.target));
        }
    }
    for entry in &given.value {
        let has_servers = settings.cluster.is_some() || !entry.0.access.servers.addresses.is_empty();
        if matches!(entry.0.target, FlowLogTarget::Subjects(_)) && !has_servers {
            faults.add(
                given.origin.clone(),
                format!(
                    "{}: at which servers? add servers = [\"nats://HOST:4222\"] to the [[flow-log]]",
                    entry.0.target
                ),
            );
        }
    }
    let events = |name: &str| name.rsplit(['.', '/']).next() == Some("nf_conntrack_events");
    let off =
        settings.sysctl.entries.iter().find(|(name, value)| events(&name.value) && value.value.to_string() == "0");
    if let Some((name, _)) = off.filter(|_| logs_sessions(settings)) {
        faults.add(
            name.origin.clone(),
            "nf_conntrack_events = 0: a flow-log would have no sessions; leave it out, or write sessions = \"none\"",
        );
    }
}

/// The table has one reader of its changes; and packets must come from somewhere that a cluster can govern.
fn cluster(settings: &GatewaySettings, faults: &mut Faults) {
    let Some(cluster) = &settings.cluster else { return };
    for (origin, message) in cluster.value.faults() {
        faults.add(origin.unwrap_or(cluster.origin.clone()), message);
    }
    if let Some(state) = &settings.state {
        faults.add(
            state.origin.clone(),
            "state and [cluster]: the other gateways keep the connections over a restart; leave state out",
        );
    }
}

/// The sysctls, as the engine's settings.
pub(super) fn sysctl_settings(s: &GatewaySettings, machine_memory: MemorySize) -> SysctlSettings {
    let settings = s.sysctl.entries.iter().map(|(name, value)| format!("{}={}", name.value, value.value));
    SysctlSettings {
        version: value_or(&s.as_linux, KernelVersionSetting::V6_18).into(),
        memory: s.memory.as_ref().map_or(machine_memory, |given| given.value.value).0,
        files: value_or(&s.sysctl_files, Vec::new()),
        settings: settings.collect(),
    }
}
