//! What goes through the gateways all the time, on threads of this process: MQTT sessions that ping, transfers that push, clients that come and go. The server of the sessions is a process of its own.
use super::config::ClusterLabConfig;
use super::mqtt_server::MqttServer;
use super::new_connections::{GIVE_UP, NewConnectionCounts, NewConnections};
use super::site::{ADDRESSES, ClusterSite, client_addr, server_addr};
use super::transfers::{self, TransferCounts, Transfers};
use crate::mqtt::{ClientPool, raise_file_limit};
use anyhow::{Context, Result, bail, ensure};
use keepstate_linux::netns::AnonNetns;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MQTT_PORT: u16 = 1883;
const TRANSFER_PORT: u16 = 8080;
/// The limit of a session or transfer to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Sessions ping so often; on a busy machine with many sessions less often.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Sessions that one interval carries.
const SESSIONS_PER_INTERVAL: u32 = 2_000;
/// The thread of the sessions answers so often.
const SLICE: Duration = Duration::from_millis(50);
/// Open files besides those of the sessions and of connections that come and go.
const SPARE_FILES: u64 = 500;

/// What clients saw in a step.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientView {
    /// Sessions that went on.
    pub(super) open: usize,
    /// Sessions that ended and had to reconnect.
    pub(super) lost: usize,
    /// The longest wait of each session for an answer, sorted.
    pub(super) silences: Vec<Duration>,
    pub(super) new: NewConnectionCounts,
    pub(super) transfers: TransferCounts,
}

/// What the thread of the sessions is asked.
enum SessionRequest {
    /// How many wait for an answer to a ping sent before then?
    Waiting(Instant, Sender<usize>),
    /// Open sessions, lost ones, silences; from now on they count anew, and lost ones reconnect.
    Take(Sender<io::Result<(usize, usize, Vec<Duration>)>>),
}

/// The loads; they end when this is dropped.
pub(super) struct Loads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    requests: Sender<SessionRequest>,
    pub(super) new: Arc<NewConnections>,
    transfers: Arc<Transfers>,
    failure: Arc<Mutex<Option<String>>>,
    /// After the clients.
    _server: MqttServer,
}

impl Loads {
    /// Starts servers, then opens sessions and transfers.
    pub(super) fn start(site: &ClusterSite, config: &ClusterLabConfig) -> Result<Loads> {
        let ClusterLabConfig { clients: sessions, transfers, rate, .. } = *config;
        // While nobody may create one, each waits as long as a client does.
        let files = u64::from(sessions) + u64::from(rate) * GIVE_UP.as_secs() + SPARE_FILES;
        let allowed = raise_file_limit(files)?;
        ensure!(
            allowed >= files,
            "limit of open files too low: needed {files}, allowed {allowed}. Type: ulimit -n {files} (as root), or use fewer --clients or a lower --rate"
        );
        let servers: Vec<SocketAddr> =
            (0..ADDRESSES).map(|number| SocketAddr::new(server_addr(number), MQTT_PORT)).collect();
        let (requests, received) = channel();
        let mut loads = Loads {
            stop: Arc::default(),
            threads: Vec::new(),
            requests,
            new: Arc::default(),
            transfers: Arc::default(),
            failure: Arc::default(),
            _server: MqttServer::start(&site.servers, &servers)?,
        };
        loads.start_transfers(site, transfers)?;
        loads.start_sessions(&site.clients, servers, sessions, received)?;
        let new = Arc::clone(&loads.new);
        let sources: Vec<_> = (0..ADDRESSES).map(client_addr).collect();
        let to = SocketAddr::new(server_addr(0), MQTT_PORT);
        loads.spawn(Some(&site.clients), "new connections", move |stop| new.run(&sources, to, stop))?;
        Ok(loads)
    }

    fn start_sessions(
        &mut self,
        clients: &Arc<AnonNetns>,
        servers: Vec<SocketAddr>,
        sessions: u32,
        received: Receiver<SessionRequest>,
    ) -> Result<()> {
        let sources: Vec<_> = (0..ADDRESSES).map(client_addr).collect();
        let (opened, is_open) = channel();
        let interval = PING_INTERVAL * sessions.div_ceil(SESSIONS_PER_INTERVAL).max(1);
        self.spawn(Some(clients), "sessions", move |stop| {
            let mut pool = ClientPool::new()?;
            let open = |pool: &mut ClientPool, count: usize| {
                pool.open_sessions(count, &sources, &servers, OPEN_TIMEOUT, usize::MAX)
            };
            let totals = open(&mut pool, sessions as usize);
            // The receiver may have given up.
            let _ = opened.send(totals.as_ref().map(|totals| totals.open).map_err(ToString::to_string));
            let mut lost_before = 0;
            while !stop.load(Ordering::Relaxed) {
                pool.ping_steadily(interval, Instant::now() + SLICE.max(interval / 8))?;
                for request in received.try_iter() {
                    match request {
                        SessionRequest::Waiting(when, reply) => drop(reply.send(pool.waiting_since(when))),
                        SessionRequest::Take(reply) => {
                            let lost = pool.totals().lost - lost_before;
                            let (goes_on, silences) = (pool.totals().open, pool.take_silences());
                            // They reconnect, as clients do.
                            let reconnected = if lost > 0 { open(&mut pool, lost).map(drop) } else { Ok(()) };
                            lost_before = pool.totals().lost;
                            drop(reply.send(reconnected.map(|()| (goes_on, lost, silences))));
                        }
                    }
                }
            }
            Ok(())
        })?;
        let open = is_open.recv().context("the thread of the sessions has ended")?.map_err(anyhow::Error::msg)?;
        ensure!(open == sessions as usize, "only {open} of {sessions} sessions have opened");
        Ok(())
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
            self.spawn(None, "transfer", move |stop| {
                counts.receive(stream, stop);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A thread, in a namespace if there is one to enter.
    fn spawn(
        &mut self,
        netns: Option<&Arc<AnonNetns>>,
        name: &'static str,
        work: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (stop, failure) = (Arc::clone(&self.stop), Arc::clone(&self.failure));
        let inside = netns.cloned();
        let run = move || {
            let done = match &inside {
                Some(netns) => netns.enter(|| work(&stop)).and_then(|done| done),
                None => work(&stop),
            };
            if let (Err(error), Ok(mut failure)) = (done, failure.lock()) {
                *failure = Some(format!("{name}: {error}"));
            }
        };
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// How many sessions have not been answered since then.
    pub(super) fn waiting_since(&self, when: Instant) -> Result<usize> {
        self.ask(|reply| SessionRequest::Waiting(when, reply))
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
    pub(super) fn take(&self) -> Result<ClientView> {
        let (open, lost, mut silences) = self.ask(SessionRequest::Take)??;
        silences.sort_unstable();
        if let Some(failure) = self.failure.lock().ok().and_then(|failure| failure.clone()) {
            bail!("a load has ended: {failure}");
        }
        Ok(ClientView { open, lost, silences, new: self.new.take(), transfers: self.transfers.take() })
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> SessionRequest) -> Result<T> {
        let (reply, answer) = channel();
        let failed = || {
            let failure = self.failure.lock().ok().and_then(|failure| failure.clone());
            anyhow::anyhow!("the clients have ended: {}", failure.unwrap_or_else(|| "for no reason".into()))
        };
        self.requests.send(request(reply)).map_err(|_| failed())?;
        answer.recv().map_err(|_| failed())
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that has panicked has said so.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
