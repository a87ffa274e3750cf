//! What a gateway is started with, as plain values: from the command line, or from whoever embeds it.
use crate::interface_args::{self, InterfaceArg, RouteArg};
use crate::load::LoadedConfig;
use crate::nat_args::NatArgs;
use crate::ruleset::RulesetArgs;
use crate::state_store::StateStore;
use crate::xdp::{XdpDriver, XdpTxMode};
use crate::{control_server, main_loop, nfqueue_driver, notes, timezone, tun_driver};
use anyhow::Result;
use keepstate_engine::{Engine, Helper, Instant, Secret, Sysctls};
use keepstate_linux::xdp::XskMode;
use keepstate_router::Router;
use keepstate_rules::Program;
use std::path::PathBuf;
use std::time::Duration;

/// Where packets come from and go to.
#[derive(Clone, Debug)]
pub enum Source {
    /// TUN devices, made by the gateway: one for each of [`GatewayConfig::devices`].
    Tun,
    /// Real interfaces, by AF_XDP.
    Xdp {
        /// Their names.
        devices: Vec<String>,
        /// Who copies frames.
        mode: XskMode,
        /// How frames are sent.
        sending: XdpTxMode,
    },
    /// The NFQUEUE of this number.
    Queue(u16),
    /// A capture, driven by the caller on the capture's own clock.
    Capture,
}

/// Everything a gateway is started with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The ruleset; `-` for standard input.
    pub ruleset: PathBuf,
    /// How it is read.
    pub reading: RulesetArgs,
    /// The services file.
    pub services: Option<PathBuf>,
    /// Where packets come from and go to.
    pub source: Source,
    /// Devices with their addresses; [`Source::Tun`] and [`Source::Capture`] only.
    pub devices: Vec<InterfaceArg>,
    /// Routes beside those of the devices' own prefixes.
    pub routes: Vec<RouteArg>,
    /// The MTU of each device, in bytes.
    pub mtu: u32,
    /// How long to busy-poll before sleeping.
    pub spin: Duration,
    /// The path of the control socket.
    pub control: Option<PathBuf>,
    /// The file, or the directory, in which the table is kept over a restart.
    pub state: Option<PathBuf>,
    /// NAT behaviour beyond Linux's.
    pub mapping: NatArgs,
    /// The engine's sysctls.
    pub knobs: Sysctls,
    /// Connection tracking helpers and their ports.
    pub helpers: Vec<(Helper, u16)>,
    /// Keys of hashes and ids.
    pub secret: [u8; 16],
}

impl GatewayConfig {
    /// Reads ruleset and services, for the first time or again.
    pub(crate) fn load_config(&self) -> Result<LoadedConfig> {
        LoadedConfig::read(&self.reading, &self.ruleset, self.services.as_deref())
    }

    /// The router, with its ruleset, services and, where it is kept, its table.
    ///
    /// # Errors
    /// A file cannot be read, or is refused.
    pub fn router(&self) -> Result<(Router, Option<StateStore>)> {
        let loaded = self.load_config()?;
        let map = interface_args::build_fib(&self.devices, &self.routes, self.mtu).map_err(anyhow::Error::msg)?;
        let mut engine = Engine::new(self.knobs.clone(), Secret(self.secret), Instant(0));
        for (helper, port) in &self.helpers {
            engine.set_auto_helper(helper.protocol(), *port, *helper);
        }
        self.mapping.apply(&mut engine, Instant(0));
        let words = [0, 8].map(|at| {
            self.secret.get(at..at + 8).and_then(|octets| octets.try_into().ok()).map_or(at as u64, u64::from_le_bytes)
        });
        let mut keep = None;
        if let Some(path) = &self.state {
            let (kept, restored) = StateStore::open(path, &mut engine, main_loop::now())?;
            restored.lines(path).into_iter().for_each(notes::note);
            keep = Some(kept);
        }
        let mut router = Router::new(engine, Program::default(), map, (words[0], words[1]))
            .with_wall_clock(timezone::offset_nanoseconds);
        if !matches!(self.source, Source::Capture) {
            router = router.with_icmp_ratelimit((words[1], words[0]));
        }
        loaded.apply(&mut router, Instant(0));
        // What was kept has backends that count it.
        router.adopt_connections(main_loop::now());
        Ok((router, keep))
    }

    /// Routes until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// A file cannot be read or is refused; the devices cannot be used; the source is a capture, which the caller has to drive.
    pub fn run(&self) -> Result<()> {
        let (router, keep) = self.router()?;
        let door = self.control.as_deref().map(control_server::ControlServer::open).transpose()?;
        let load = || self.load_config();
        match &self.source {
            Source::Xdp { devices, mode, sending } => {
                let mut driver = XdpDriver::new(devices, *mode, *sending)?;
                notes::note(format!("routing between {}; Ctrl-C ends", devices.join(", ")));
                main_loop::run(router.with_local_bypass(), &mut driver, door.as_ref(), keep, self.spin, load)
            }
            Source::Queue(number) => {
                let mut driver = nfqueue_driver::NfqueueDriver::new(*number)?;
                notes::note(format!("routing what comes to queue {number}; Ctrl-C ends"));
                main_loop::run(router.with_local_bypass(), &mut driver, door.as_ref(), keep, self.spin, load)
            }
            Source::Tun => {
                let mut driver = tun_driver::TunDriver::new(&self.devices)?;
                notes::note(format!("routing between {} TUN devices; Ctrl-C ends", self.devices.len()));
                main_loop::run(router, &mut driver, door.as_ref(), keep, self.spin, load)
            }
            Source::Capture => anyhow::bail!("a capture has no interfaces to route between"),
        }
    }
}
