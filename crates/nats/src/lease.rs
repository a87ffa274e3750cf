//! Leases in a bucket: who decides about a shard. A lease is a value that the server forgets after the lease's time; it is taken, renewed and given up only by comparing its revision.
//!
//! Epochs stand in a bucket of their own, since they must outlive the leases: each acquisition first moves the shard's epoch up, by comparison too, so no two holders ever have the
//! same one, and one that was lost on the way is simply never used.
use crate::connectivity::Connectivity;
use crate::error::{NatsError, chain};
use crate::inbox::Inbox;
use crate::stream::{ClusterOptions, ensure_bucket};
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateError, UpdateErrorKind};
use keepstate_cluster::{Epoch, LeaseAction, LeaseRequest, NodeInstance, NodeName, ShardName, TransportEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// A request that has waited for longer is not done any more: who asked has given up.
const MAX_AGE: Duration = Duration::from_secs(1);
/// How often a lease is looked at in its time.
const LOOKS_PER_LEASE: u32 = 4;

/// Asks for leases.
pub(crate) struct Leases {
    pub(crate) options: Arc<ClusterOptions>,
    pub(crate) context: Context,
    pub(crate) connectivity: Arc<Connectivity>,
    pub(crate) inbox: Arc<Inbox>,
    /// Told to others: this node holds a lease.
    holds: Arc<AtomicBool>,
    buckets: Option<Buckets>,
    /// The revisions of our own leases.
    ours: BTreeMap<ShardName, u64>,
    /// What was told last.
    told: BTreeMap<ShardName, Holder>,
}

struct Buckets {
    leases: Store,
    epochs: Store,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    node: Option<NodeName>,
    epoch: Epoch,
    /// Of the holder; not told by who gives a lease up.
    instance: NodeInstance,
}

/// Why a lease is not had.
enum Refusal {
    /// Somebody else was there before.
    Taken(Epoch),
    /// Nobody has answered: it is not known what happened.
    Unknown(NatsError),
}

impl Leases {
    pub(crate) fn new(
        options: Arc<ClusterOptions>,
        context: Context,
        connectivity: Arc<Connectivity>,
        inbox: Arc<Inbox>,
    ) -> Leases {
        let holds = Arc::default();
        Leases {
            options,
            context,
            connectivity,
            inbox,
            holds,
            buckets: None,
            ours: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Whether this node holds a lease, as far as it knows.
    pub(crate) fn holds(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.holds)
    }

    /// Answers requests and looks at the leases, until nobody can ask any more.
    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<(LeaseRequest, Instant)>) {
        let mut looks = tokio::time::interval(self.options.lease_time / LOOKS_PER_LEASE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.connectivity.connected().await;
            tokio::select! {
                biased;
                request = requests.recv() => {
                    let Some((request, asked)) = request else { return };
                    if asked.elapsed() < MAX_AGE {
                        self.answer(&request).await;
                    }
                }
                _ = looks.tick() => self.look().await,
            }
            self.holds.store(!self.ours.is_empty(), Ordering::Relaxed);
        }
    }

    async fn answer(&mut self, request: &LeaseRequest) {
        let shard = request.shard.clone();
        let done = match request.action {
            LeaseAction::Acquire => self.acquire(&shard, request.epoch).await,
            LeaseAction::Renew => self.renew(&shard, request.epoch).await,
            LeaseAction::Release => self.release(&shard, request.epoch).await,
        };
        match done {
            Ok(holder) => {
                self.told.insert(shard.clone(), holder.clone());
                let answers = Some(request.number);
                self.inbox.push(TransportEvent::Lease { shard, holder: holder.node, epoch: holder.epoch, answers });
            }
            Err(Refusal::Taken(epoch)) => {
                self.ours.remove(&shard);
                let (action, answers) = (request.action, request.number);
                self.inbox.push(TransportEvent::LeaseRefused { shard, action, epoch, answers });
            }
            // A request without an answer has failed.
            Err(Refusal::Unknown(error)) => {
                self.inbox.push(TransportEvent::LeaseFailed { shard, reason: error.to_string() });
            }
        }
    }

    async fn acquire(&mut self, shard: &ShardName, wanted: Epoch) -> Result<Holder, Refusal> {
        let (held, revision) = self.read_lease(shard).await?;
        match held {
            // Also one under our own name that this process was not given: it may be a namesake's.
            Some(held) if !self.is_ours(&held) => return Err(Refusal::Taken(held.epoch)),
            // Asked for again before the first answer was there, or it was lost. Another epoch would be seen by others, and never be used.
            Some(held) if wanted <= held.epoch => {
                self.ours.insert(shard.clone(), revision);
                return self.renew(shard, held.epoch).await;
            }
            _ => {}
        }
        let epochs = self.buckets().await?.epochs.clone();
        let known = epochs.entry(shard.as_str()).await.map_err(|error| self.unknown(shard, &error))?;
        let (highest, epoch_revision) = known.map_or((Epoch(0), 0), |entry| (parse_epoch(&entry), entry.revision));
        let epoch = wanted.max(highest.next());
        let moved = epochs.update(shard.as_str(), epoch.to_string().into(), epoch_revision).await;
        moved.map_err(|error| self.refusal(shard, &error, epoch))?;
        let revision = self.write_lease(shard, epoch, revision).await?;
        self.ours.insert(shard.clone(), revision);
        Ok(self.holder(epoch))
    }

    async fn renew(&mut self, shard: &ShardName, epoch: Epoch) -> Result<Holder, Refusal> {
        let Some(revision) = self.ours.get(shard).copied() else { return Err(Refusal::Taken(epoch)) };
        let mut written = self.write_lease(shard, epoch, revision).await;
        if matches!(written, Err(Refusal::Taken(_))) {
            // A renewal of ours may have been written, and its answer was lost.
            let (held, newer) = self.read_lease(shard).await?;
            if held.is_some_and(|held| self.is_ours(&held) && held.epoch == epoch) {
                written = self.write_lease(shard, epoch, newer).await;
            }
        }
        self.ours.insert(shard.clone(), written?);
        Ok(self.holder(epoch))
    }

    async fn release(&mut self, shard: &ShardName, epoch: Epoch) -> Result<Holder, Refusal> {
        let free = Holder { node: None, epoch, instance: NodeInstance::default() };
        let Some(revision) = self.ours.remove(shard) else { return Ok(free) };
        let leases = self.buckets().await?.leases.clone();
        // If it is not ours any more, it is not ours to delete; if nobody answers, it ends by itself.
        if let Err(error) = leases.delete_expect_revision(shard.as_str(), Some(revision)).await {
            tracing::debug!("the lease of shard {shard} is not given up: {}", chain(&error));
        }
        Ok(free)
    }

    async fn write_lease(&mut self, shard: &ShardName, epoch: Epoch, revision: u64) -> Result<u64, Refusal> {
        let value = format!("{} {epoch} {}", self.options.node, self.options.instance);
        let leases = self.buckets().await?.leases.clone();
        let written = leases.update(shard.as_str(), value.into(), revision).await;
        written.map_err(|error| self.refusal(shard, &error, epoch))
    }

    /// The lease's holder, and the revision to compare with.
    async fn read_lease(&mut self, shard: &ShardName) -> Result<(Option<Holder>, u64), Refusal> {
        let leases = self.buckets().await?.leases.clone();
        let entry = leases.entry(shard.as_str()).await.map_err(|error| self.unknown(shard, &error))?;
        Ok(entry.map_or((None, 0), |entry| (parse_holder(&entry), entry.revision)))
    }

    /// Tells what has changed without a request: somebody else's lease, or its end.
    async fn look(&mut self) {
        for shard in self.options.shards.clone() {
            let Ok((held, _)) = self.read_lease(&shard).await else { continue };
            let epoch = self.told.get(&shard).map_or(Epoch(0), |told| told.epoch);
            let held = held.unwrap_or(Holder { node: None, epoch, instance: NodeInstance::default() });
            // Ours is told when it is granted, never later: its time runs since then.
            if held.node.as_ref() == Some(&self.options.node) {
                continue;
            }
            self.ours.remove(&shard);
            if self.told.get(&shard) != Some(&held) {
                self.told.insert(shard.clone(), held.clone());
                let (holder, epoch) = (held.node, held.epoch);
                self.inbox.push(TransportEvent::Lease { shard, holder, epoch, answers: None });
            }
        }
    }

    /// Was it given to this very process?
    fn is_ours(&self, held: &Holder) -> bool {
        held.node.as_ref() == Some(&self.options.node) && held.instance == self.options.instance
    }

    fn holder(&self, epoch: Epoch) -> Holder {
        Holder { node: Some(self.options.node.clone()), epoch, instance: self.options.instance }
    }

    async fn buckets(&mut self) -> Result<&Buckets, Refusal> {
        if self.buckets.is_none() {
            let leases = ensure_bucket(&self.context, &self.connectivity, self.options.leases()).await;
            let leases = leases.map_err(Refusal::Unknown)?;
            let epochs = ensure_bucket(&self.context, &self.connectivity, self.options.epochs()).await;
            self.buckets = Some(Buckets { leases, epochs: epochs.map_err(Refusal::Unknown)? });
        }
        self.buckets.as_ref().ok_or_else(|| Refusal::Unknown(NatsError::Option("no buckets".into())))
    }

    fn refusal(&self, shard: &ShardName, error: &UpdateError, epoch: Epoch) -> Refusal {
        match error.kind() {
            UpdateErrorKind::WrongLastRevision => Refusal::Taken(epoch),
            _ => self.unknown(shard, error),
        }
    }

    fn unknown(&self, shard: &ShardName, error: &(dyn std::error::Error + 'static)) -> Refusal {
        let refused = self.connectivity.last_refusal();
        Refusal::Unknown(NatsError::request(format!("the lease of shard {shard}"), error, refused.as_deref()))
    }
}

fn parse_epoch(entry: &Entry) -> Epoch {
    let text = std::str::from_utf8(&entry.value).unwrap_or_default();
    Epoch(text.parse().unwrap_or(0))
}

/// `None` for one that was given up.
fn parse_holder(entry: &Entry) -> Option<Holder> {
    if entry.operation != Operation::Put {
        return None;
    }
    let text = std::str::from_utf8(&entry.value).ok()?;
    let mut words = text.split(' ');
    let (node, epoch) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // An older gateway tells no instance.
    let instance = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    Some(Holder { node: Some(node), epoch: Epoch(epoch), instance })
}
