//! What goes through the gateways all the time: MQTT sessions that ping and clients that come and go, in processes of their own; transfers that push, on threads of this one.
use super::config::ClusterLabConfig;
use super::mqtt_processes::{ChurnView, MqttProcesses, SessionView};
use super::site::{ClusterSite, client_addr, server_addr};
use super::transfers::{self, TransferCounts, Transfers};
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TRANSFER_PORT: u16 = 8080;
/// The limit of a transfer to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// What clients saw in a step.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientView {
    pub(super) sessions: SessionView,
    pub(super) new: ChurnView,
    pub(super) transfers: TransferCounts,
}

/// The loads; they end when this is dropped.
pub(super) struct Loads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    mqtt: MqttProcesses,
    /// Connections that come and go, each second.
    rate: u32,
    transfers: Arc<Transfers>,
}

impl Loads {
    /// Starts servers, then opens sessions and transfers.
    pub(super) fn start(site: &ClusterSite, config: &ClusterLabConfig) -> Result<Loads> {
        let ClusterLabConfig { clients: sessions, transfers, rate, .. } = *config;
        let mut loads = Loads {
            stop: Arc::default(),
            threads: Vec::new(),
            mqtt: MqttProcesses::start(site, sessions, rate)?,
            rate,
            transfers: Arc::default(),
        };
        loads.start_transfers(site, transfers)?;
        Ok(loads)
    }

    fn start_transfers(&mut self, site: &ClusterSite, transfers: u8) -> Result<()> {
        let to = SocketAddr::new(server_addr(0), TRANSFER_PORT);
        let listener = site.servers.enter(|| TcpListener::bind(to))?.context("the server of the transfers")?;
        let stop = Arc::clone(&self.stop);
        let accept = std::thread::Builder::new().name("transfers".into());
        accept.spawn(move || transfers::serve(&listener, transfers.into(), &stop))?;
        for number in 0..transfers {
            let stream = site.clients.enter(|| transfers::connect(client_addr(number), to, OPEN_TIMEOUT))?;
            let (stream, counts) = (stream.context("a transfer does not begin")?, Arc::clone(&self.transfers));
            let stop = Arc::clone(&self.stop);
            let receive = std::thread::Builder::new().name("transfer".into());
            self.threads.push(receive.spawn(move || counts.receive(stream, &stop))?);
        }
        Ok(())
    }

    /// How many sessions have not been answered since then.
    pub(super) fn waiting_since(&mut self, when: Instant) -> Result<usize> {
        self.mqtt.waiting(when.elapsed())
    }

    /// No new connection is begun.
    pub(super) fn pause_new(&mut self) -> Result<()> {
        self.mqtt.pause_churn()
    }

    /// Connections come and go.
    pub(super) fn resume_new(&mut self) -> Result<()> {
        self.mqtt.resume_churn(self.rate)
    }

    /// From now on [`Loads::transfers_have_moved`] waits for every transfer anew.
    pub(super) fn ask_transfers(&self) {
        self.transfers.ask();
    }

    /// Has every transfer received something since [`Loads::ask_transfers`]?
    pub(super) fn transfers_have_moved(&self, transfers: u8) -> bool {
        self.transfers.have_moved(transfers.into())
    }

    /// What clients saw since this was last called.
    pub(super) fn take(&mut self) -> Result<ClientView> {
        let sessions = self.mqtt.take_sessions()?;
        Ok(ClientView { sessions, new: self.mqtt.take_churn()?, transfers: self.transfers.take() })
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that has panicked has said so.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
