//! The transport of a cluster over NATS: a handle for who drives the gateway, and the thread behind it, which alone knows tokio.
use crate::connect::NatsOptions;
use crate::connectivity::Connectivity;
use crate::error::NatsError;
use crate::inbox::Inbox;
use crate::leaders::LeaderWatch;
use crate::lease::Leases;
use crate::publisher::{Publisher, ShardTask, Writing};
use crate::quota::{Quota, frame_cost};
use crate::reader::{Reader, read_told};
use crate::stream::ClusterOptions;
use async_nats::Client;
use async_nats::jetstream::{Context, ContextBuilder};
use keepstate_cluster::{LeaseRequest, QueueFull, ShardName, StateFrame, StateTransport, TransportEvent};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// An answer of JetStream that has not come after this is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_500);
const MAX_CONNECT_DELAY: Duration = Duration::from_secs(2);

/// Carries a gateway's frames over NATS. It connects, comes back and tries again by itself; dropped, it ends.
#[derive(Debug)]
pub struct NatsTransport {
    commands: mpsc::UnboundedSender<Command>,
    quota: Arc<Quota>,
    inbox: Arc<Inbox>,
    connectivity: Arc<Connectivity>,
    /// Dropped, it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    Publish(StateFrame),
    Lease(LeaseRequest, Instant),
}

impl NatsTransport {
    /// Starts the thread. It does not wait for NATS: whether it can be reached is told by events.
    ///
    /// # Errors
    /// An option or a file that cannot be used.
    pub fn start(nats: NatsOptions, cluster: ClusterOptions) -> Result<NatsTransport, NatsError> {
        nats.check()?;
        let inbox = Arc::new(Inbox::new()?);
        let connectivity = Arc::new(Connectivity::new(Arc::clone(&inbox)));
        let quota = Arc::new(Quota::default());
        let (commands, received) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let worker = Worker {
            nats,
            options: Arc::new(cluster),
            inbox: Arc::clone(&inbox),
            connectivity: Arc::clone(&connectivity),
            quota: Arc::clone(&quota),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name("nats".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = worker.run(received) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(NatsTransport { commands, quota, inbox, connectivity, stop: Some(stop), thread: Some(thread) })
    }
}

impl StateTransport for NatsTransport {
    fn publish(&mut self, frame: StateFrame) -> Result<(), QueueFull> {
        if !frame.kind.is_stored() && !self.connectivity.is_connected() {
            // It would be old before it is sent.
            return Err(QueueFull);
        }
        let cost = frame_cost(&frame);
        if !self.quota.take(cost) {
            return Err(QueueFull);
        }
        self.commands.send(Command::Publish(frame)).map_err(|_| QueueFull)
    }

    fn request_lease(&mut self, request: LeaseRequest) {
        // Without a connection it fails, as one that is not answered.
        if self.connectivity.is_connected() {
            let _ = self.commands.send(Command::Lease(request, Instant::now()));
        }
    }

    fn poll(&mut self) -> Option<TransportEvent> {
        self.inbox.pop()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inbox.wake_fd())
    }
}

impl Drop for NatsTransport {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread does.
struct Worker {
    nats: NatsOptions,
    options: Arc<ClusterOptions>,
    inbox: Arc<Inbox>,
    connectivity: Arc<Connectivity>,
    quota: Arc<Quota>,
}

impl Worker {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let client = self.connect().await;
        let context = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        let shards: BTreeMap<ShardName, mpsc::UnboundedSender<StateFrame>> = self
            .options
            .shards
            .iter()
            .map(|shard| (shard.clone(), self.spawn_shard(shard, &client, &context)))
            .collect();
        let (lease_requests, received) = mpsc::unbounded_channel();
        let (options, connectivity, inbox) =
            (Arc::clone(&self.options), Arc::clone(&self.connectivity), Arc::clone(&self.inbox));
        let leases = Leases::new(options, context, connectivity, inbox);
        let (options, connectivity, holds) =
            (Arc::clone(&self.options), Arc::clone(&self.connectivity), leases.holds());
        tokio::spawn(LeaderWatch { client: client.clone(), options, connectivity, holds }.run());
        tokio::spawn(leases.run(received));
        while let Some(command) = commands.recv().await {
            match command {
                Command::Lease(request, asked) => drop(lease_requests.send((request, asked))),
                Command::Publish(frame) if frame.kind.is_stored() => {
                    let cost = frame_cost(&frame);
                    let shard = frame.shard.clone();
                    if shards.get(&shard).is_none_or(|queue| queue.send(frame).is_err()) {
                        self.quota.give_back(cost);
                        self.inbox.push(TransportEvent::Lost { shard, frames: 1 });
                    }
                }
                Command::Publish(frame) => self.tell(&client, &frame).await,
            }
        }
    }

    /// Tries until it is let in.
    async fn connect(&self) -> Client {
        let mut delay = Duration::from_millis(100);
        loop {
            let connectivity = Arc::clone(&self.connectivity);
            match self.nats.connect(move |event| connectivity.note(&event)).await {
                Ok(client) => {
                    self.connectivity.set_connected(None);
                    return client;
                }
                Err(error) => self.connectivity.set_connected(Some(error.to_string())),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(MAX_CONNECT_DELAY);
        }
    }

    fn spawn_shard(&self, shard: &ShardName, client: &Client, context: &Context) -> mpsc::UnboundedSender<StateFrame> {
        let task = ShardTask {
            shard: shard.clone(),
            options: Arc::clone(&self.options),
            context: context.clone(),
            connectivity: Arc::clone(&self.connectivity),
            inbox: Arc::clone(&self.inbox),
            writing: watch::Sender::new(Writing::default()),
        };
        let (frames, received) = mpsc::unbounded_channel();
        tokio::spawn(Reader::new(task.clone()).run());
        tokio::spawn(read_told(task.clone(), client.clone()));
        tokio::spawn(Publisher::new(task, Arc::clone(&self.quota)).run(received));
        frames
    }

    /// Sends what is sent at most once.
    async fn tell(&self, client: &Client, frame: &StateFrame) {
        self.quota.give_back(frame_cost(frame));
        if !self.connectivity.is_connected() {
            return;
        }
        let subject = self.options.told_subject(&frame.shard);
        if let Err(error) = client.publish(subject, frame.to_bytes().into()).await {
            tracing::debug!("shard {}: {error}", frame.shard);
        }
    }
}
