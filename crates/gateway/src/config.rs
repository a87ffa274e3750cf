//! What a gateway is started with, as plain values: the program makes them from its command line, an embedder from what it likes.
use crate::clock::{SystemTimeSource, TimeSource};
use crate::cluster::{AddressTakeover, ClusterConfig, ClusterNode};
use crate::control_server::ControlSocket;
use crate::driver::Driver;
use crate::end_notice::{self, OperatorSession};
use crate::flow_log::{FlowLogConfig, FlowLogs, LogBackends};
use crate::health::{HealthMonitor, HealthStarter};
use crate::icmp_sysctls::IcmpSysctls;
use crate::load::LoadedConfig;
use crate::main_loop::{self, LoopContext};
use crate::nfqueue_driver::NfqueueDriver;
use crate::reload::Reloader;
use crate::ruleset::RulesetOptions;
use crate::sandbox::{self, ConfigDirs};
use crate::signals::SignalFlags;
use crate::state_store::StateStore;
use crate::static_fib::StaticFib;
use crate::tc::{InterfacePattern, OnExit, TcDriver, TcOptions};
use crate::tun_driver::TunDriver;
use anyhow::{Context, Result};
use keepstate_cluster::{ConfigDigest, Greeting};
use keepstate_engine::{AdmissionPolicy, Engine, Helper, Instant, NatPolicy, Secret, Sysctl, Sysctls};
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::priority;
use keepstate_linux::privileges::{self, CapabilitySet};
use keepstate_linux::tc::HookSecrets;
use keepstate_router::Router;
use keepstate_rules::Program;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Gives the configuration as it is now.
pub type RereadConfig = dyn Fn() -> Result<GatewayConfig> + Send + Sync;

/// Where packets come from and go to.
#[derive(Clone, Debug)]
pub enum DriverConfig {
    /// TUN interfaces, created by the gateway: one for each of [`StaticFib::interfaces`].
    Tun,
    /// Existing interfaces, at tc's hooks: with the kernel's neighbours, and the machine's own packets too.
    Tc {
        /// Their names.
        interfaces: Vec<InterfacePattern>,
        /// How they are governed.
        options: TcOptions,
    },
    /// The NFQUEUE of this number.
    Nfqueue(u16),
    /// None: the caller hands packets to [`GatewayConfig::router`]'s router itself, on its own clock.
    External,
}

/// Everything a gateway is started with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The ruleset; `-` for standard input.
    pub ruleset: PathBuf,
    /// How it is read.
    pub ruleset_options: RulesetOptions,
    /// The services file.
    pub services: Option<PathBuf>,
    /// Further files that a reload reads.
    pub other_files: Vec<PathBuf>,
    /// Where packets come from and go to.
    pub driver: DriverConfig,
    /// Interfaces and routes, for [`DriverConfig::Tun`] and [`DriverConfig::External`]; the other drivers follow the kernel's.
    pub fib: StaticFib,
    /// How long to busy-poll before sleeping.
    pub busy_poll: Duration,
    /// The control socket, if there is one.
    pub control: Option<ControlConfig>,
    /// The file (or a directory for it) that keeps the connection table over a restart.
    pub state_file: Option<PathBuf>,
    /// NAT and flow logs.
    pub flow_logs: Vec<FlowLogConfig>,
    /// What some of them are written with; the embedder's to give.
    pub log_backends: LogBackends,
    /// NAT behaviour beyond Linux's.
    pub nat: NatPolicy,
    /// How the table fails.
    pub admission: AdmissionPolicy,
    /// The engine's sysctls.
    pub sysctls: Sysctls,
    /// Connection tracking helpers and their ports.
    pub helpers: Vec<(Helper, u16)>,
    /// The key of hashes and ids.
    pub secret: [u8; 16],
    /// One gateway of a cluster.
    pub cluster: Option<ClusterConfig>,
    /// Who starts it from afar, if somebody does: warned if that ends with the gateway.
    pub operator: Option<OperatorSession>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Its path.
    pub path: PathBuf,
    /// It was asked for: without it the gateway does not start.
    pub is_needed: bool,
}

impl ControlConfig {
    /// The socket; `None` if it cannot be had, and nobody has asked for it.
    fn bind(&self) -> Result<Option<ControlSocket>> {
        match ControlSocket::bind(&self.path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if self.is_needed => Err(error),
            Err(error) => {
                tracing::warn!(
                    "no control socket: {error:#}. This gateway runs without one, and keepstate control does not reach it; --control PATH gives it one of its own, --control off goes without"
                );
                Ok(None)
            }
        }
    }
}

impl GatewayConfig {
    /// Reads ruleset and services, for the first time or again.
    pub(crate) fn load(&self) -> Result<LoadedConfig> {
        LoadedConfig::read(&self.ruleset_options, &self.ruleset, self.services.as_deref())
    }

    /// The router with its ruleset, services and, where there is a state file, the connections in it.
    ///
    /// # Errors
    /// A file cannot be read, or is refused.
    pub fn router(&self) -> Result<(Router, Option<StateStore>)> {
        self.router_of(self.load()?)
    }

    fn router_of(&self, loaded: LoadedConfig) -> Result<(Router, Option<StateStore>)> {
        let fib = self.fib.build().map_err(anyhow::Error::msg)?;
        let mut engine = Engine::new(self.sysctls.clone(), Secret(self.secret));
        for (helper, port) in &self.helpers {
            engine.set_auto_helper(helper.protocol(), *port, *helper);
        }
        // Linux's own behaviour costs nothing.
        if self.nat != NatPolicy::default() {
            engine.set_nat_policy(self.nat.clone(), Instant(0));
        }
        let time = SystemTimeSource;
        let now = time.now();
        // Before the connections of the state file, which it counts.
        engine.set_admission(self.admission.clone(), now).context("in [table]")?;
        let mut store = None;
        if let Some(path) = &self.state_file {
            let (opened, restored) = StateStore::open(path, &mut engine, now)?;
            restored.lines(path).into_iter().for_each(|line| tracing::info!("{line}"));
            store = Some(opened);
        }
        let [low, high] = self.secret_halves();
        let mut router = Router::new(engine, Program::default(), fib, (low, high));
        if let Some(cluster) = &self.cluster {
            router = match cluster.shard_addresses() {
                Some(addresses) => router.with_shards(addresses),
                None => router.with_shared_addresses(cluster.first_shard.addresses.clone()),
            };
        }
        if matches!(self.driver, DriverConfig::Tc { .. }) {
            router = router.with_link_headers();
        }
        if !matches!(self.driver, DriverConfig::External) {
            router.set_wall_clock(time.wall_clock());
            router = router.with_icmp_ratelimit();
        }
        loaded.apply(&mut router, now).log();
        // Restored connections count for their backends.
        router.adopt_connections(now);
        if matches!(self.driver, DriverConfig::Tun | DriverConfig::External) {
            // The other drivers do not know the machine's addresses yet.
            router.check_masqueraded();
        }
        Ok((router, store))
    }

    /// What this gateway runs, for the others of its cluster.
    fn greeting(&self, [ruleset, services]: [ConfigDigest; 2]) -> Greeting {
        // Of several shards, what source NAT draws from is theirs.
        let shards = self.cluster.as_ref().and_then(ClusterConfig::shard_addresses);
        let shards = shards.map_or_else(String::new, |shards| format!("{shards:?}"));
        // And so are the ports, where gateways are promoted by hand.
        let nodes = self.cluster.iter().filter(|cluster| !cluster.nodes.is_empty());
        let nodes: String = nodes.map(|cluster| format!("{:?}", cluster.nodes)).collect();
        let nat = ConfigDigest::of(format!("{:?}{shards}{nodes}", self.nat).as_bytes());
        let values: String =
            Sysctl::ALL.iter().map(|sysctl| format!("{}={}\n", sysctl.name(), self.sysctls[*sysctl])).collect();
        let sysctls = ConfigDigest::of(values.as_bytes());
        Greeting { ruleset, services, nat, sysctls, version: env!("CARGO_PKG_VERSION").into() }
    }

    /// Closes the interfaces that this gateway will govern: nothing passes until it runs. Returns what to tell the user.
    ///
    /// # Errors
    /// A gateway runs; an interface cannot be governed; missing capabilities.
    pub fn close(&self) -> Result<String> {
        let DriverConfig::Tc { interfaces, options } = &self.driver else {
            return Ok("nothing is closed: this gateway governs no existing interfaces (--interface)".to_owned());
        };
        if options.on_exit == OnExit::Open {
            return Ok("nothing is closed: without a gateway the interfaces are to be open (on-exit)".to_owned());
        }
        let (closed, missing) =
            TcDriver::close_before_start(interfaces, HookSecrets::derive(self.secret_halves()), options.clone())?;
        let closed = if closed.is_empty() {
            "no interface of these names is there".to_owned()
        } else {
            format!(
                "closed: no packet passes {closed} until a gateway runs; keepstate gateway --detach gives the interfaces back to the kernel"
            )
        };
        Ok(if missing.is_empty() { closed } else { format!("{closed}; not there yet: {}", missing.join(", ")) })
    }

    fn secret_halves(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, high @ ..] = self.secret;
        [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(high)]
    }

    /// What a running gateway needs after its start.
    fn needed_capabilities(&self) -> CapabilitySet {
        let mut needed = match self.driver {
            // Its interfaces are open files.
            DriverConfig::Tun | DriverConfig::External => CapabilitySet::empty(),
            // Every verdict is checked.
            DriverConfig::Nfqueue(_) => CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW,
            // Programs are attached to interfaces that come later.
            DriverConfig::Tc { .. } => CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::PERFMON,
        };
        // Root may do this to another user's files only with it.
        let files = [Some(&self.ruleset), self.services.as_ref(), self.control.as_ref().map(|control| &control.path)];
        let clusters = self.cluster.iter().flat_map(|cluster| cluster.servers.files().chain([&cluster.directory]));
        if files
            .into_iter()
            .flatten()
            .chain(&self.other_files)
            .chain(clusters)
            .any(|path| privileges::is_other_users(path))
        {
            needed |= CapabilitySet::DAC_OVERRIDE;
        }
        needed
    }

    /// Routes until SIGINT or SIGTERM. A reload reads ruleset and services again.
    ///
    /// # Errors
    /// A file cannot be read or is refused; the interfaces cannot be used; the driver is [`DriverConfig::External`].
    pub fn run(&self) -> Result<()> {
        let config = self.clone();
        self.run_rereading(Arc::new(move || Ok(config.clone())))
    }

    /// As [`GatewayConfig::run`]; a reload takes ruleset, services and changed sysctls from what `reread` gives then, and is refused if that is an error. `reread` must refuse what
    /// else has changed: it would not be applied.
    ///
    /// # Errors
    /// As [`GatewayConfig::run`].
    pub fn run_rereading(&self, reread: Arc<RereadConfig>) -> Result<()> {
        let loaded = self.load()?;
        let config_dirs = ConfigDirs::of(
            &self.ruleset,
            self.services.as_deref(),
            &self.ruleset_options.include_dirs,
            loaded.sources(),
        )
        .with_files(&self.other_files);
        let greeting = self.greeting(loaded.digests());
        let (mut router, store) = self.router_of(loaded)?;
        let icmp_sysctls = IcmpSysctls::open();
        router.set_icmp_limits(icmp_sysctls.limits());
        let (mut driver, note): (Box<dyn Driver>, String) = match &self.driver {
            DriverConfig::Tc { interfaces, options } => {
                let secrets = HookSecrets::derive(self.secret_halves());
                let mut driver = TcDriver::new(interfaces, secrets, options.clone())?;
                router = router.with_route_oracle(driver.route_oracle()?).with_socket_lookup(driver.socket_lookup()?);
                driver.adopt_flows(&mut router, SystemTimeSource.now());
                if options.offload {
                    router = router.with_flow_offload().with_handshake_offload();
                }
                if options.offload && options.offload_new {
                    router = router.with_syn_classes();
                }
                let warning =
                    self.operator.and_then(|of| end_notice::warn_operator(options, of, |at| driver.name_of(at)));
                warning.iter().for_each(|warning| tracing::warn!("{warning}"));
                let names = driver.interface_names();
                let note = format!("routing {names}; Ctrl-C stops; {}", end_notice::at_the_end(options, &names));
                (Box::new(driver), note)
            }
            DriverConfig::Nfqueue(number) => {
                let driver = NfqueueDriver::new(*number)?;
                (Box::new(driver), format!("routing packets of NFQUEUE {number}; Ctrl-C stops"))
            }
            DriverConfig::Tun => {
                let driver = TunDriver::new(&self.fib.interfaces)?;
                let count = self.fib.interfaces.len();
                (Box::new(driver), format!("routing between {count} TUN interfaces; Ctrl-C stops"))
            }
            DriverConfig::External => anyhow::bail!("no driver is configured"),
        };
        if matches!(self.driver, DriverConfig::Nfqueue(_)) {
            router = router.with_local_bypass();
        }
        if matches!(self.driver, DriverConfig::Tun) {
            // Nothing stands behind these interfaces but the router.
            router = router.with_local_replies();
        }
        let flow_logs = FlowLogs::start(&self.flow_logs, &self.log_backends)?;
        let takeover = self.cluster.as_ref().map(AddressTakeover::start).transpose()?.flatten();
        if matches!(self.driver, DriverConfig::Tc { .. }) {
            // The kernel's own time is not this thread's, and established packets do not need it: but first ones wait for it. Without the right it is an ordinary one.
            let _ = priority::prefer_thread();
        }
        // Threads inherit what this one has: before the first of them. Those that run already, of the logs, the state file and the addresses, have limited themselves.
        privileges::keep_capabilities(self.needed_capabilities()).context("dropping capabilities")?;
        let cluster =
            self.cluster.as_ref().map(|cluster| ClusterNode::start(cluster, greeting, takeover)).transpose()?;
        let socket = self.control.as_ref().map(ControlConfig::bind).transpose()?.flatten();
        // A file that is read again may name services later.
        let may_have_services = self.services.is_some() || !self.other_files.is_empty();
        let starter = may_have_services.then(HealthStarter::start).transpose().context("starting a thread")?;
        sandbox::limit(
            &config_dirs,
            socket.as_ref().map(ControlSocket::path),
            driver.allow_files(FileAccess::default()),
        )?;
        let handle = cluster.as_ref().map(ClusterNode::handle);
        let control = socket.map(|socket| socket.serve(handle)).transpose()?;
        // Whoever reads that it routes may end it, and knows that no packet passes by the rules of an earlier gateway.
        let signals = SignalFlags::install().context("installing signal handlers")?;
        driver.sync_flows(&mut router, SystemTimeSource.now())?;
        tracing::info!("{note}");
        tracing::debug!("limits: one reassembler for all zones and interfaces, 4 MiB of fragments a family");
        let load = Arc::new(move || {
            let config = reread()?;
            config.load().map(|loaded| loaded.with_sysctls(config.sysctls))
        });
        let context = LoopContext {
            time: cluster.as_ref().map_or_else(|| Arc::new(SystemTimeSource) as Arc<dyn TimeSource>, ClusterNode::time),
            busy_poll: self.busy_poll,
            reloader: Reloader::new(load, Some(self.sysctls.clone())),
            health: HealthMonitor::started_by(starter),
            flow_logs,
            cluster,
            icmp_sysctls,
            signals,
        };
        main_loop::run(router, &mut *driver, control.as_ref(), store, context)
    }
}
