//! One shard's stored frames on their way into its stream: many at a time, in order, each exactly once.
//!
//! The first frame says which number the stream must have come to, each further one which frame it expects before it: so the stream itself refuses what would come twice, late, or
//! after another gateway has written. (Numbers alone are not enough for many at a time: what another one has written would make a later one fit again.) After any failure nothing is assumed: the newest frame of the stream is read, what it proves to be stored is acknowledged, and the rest is sent again. A newest frame of a
//! higher epoch means that another gateway decides now: what waits is given up and told as lost.
use crate::connectivity::Connectivity;
use crate::error::{NatsError, chain};
use crate::inbox::Inbox;
use crate::quota::{Quota, frame_cost};
use crate::stream::{ClusterOptions, ensure};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use keepstate_cluster::{Epoch, FrameKind, NodeName, Sequence, ShardName, StateFrame, TransportEvent};
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Frames that are sent and not yet acknowledged.
const WINDOW: usize = 256;
/// After so long without a frame to write, others are read again.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Between two attempts to use a stream that cannot be used.
const RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500)];

/// Whether this node writes to a shard's stream: while it does, it does not read its own frames back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writing {
    pub(crate) is_active: bool,
    /// All up to this number of the stream is our own or was there when we began to write.
    pub(crate) until: u64,
}

/// What the tasks of a shard share.
#[derive(Clone, Debug)]
pub(crate) struct ShardTask {
    pub(crate) shard: ShardName,
    pub(crate) options: Arc<ClusterOptions>,
    pub(crate) context: Context,
    pub(crate) connectivity: Arc<Connectivity>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) writing: watch::Sender<Writing>,
}

/// A frame that waits for its acknowledgement.
#[derive(Debug)]
struct Pending {
    bytes: Bytes,
    epoch: Epoch,
    sequence: Sequence,
    kind: FrameKind,
    /// What it takes of the quota.
    cost: usize,
}

impl Pending {
    /// Its name in the stream.
    fn id(&self, node: &NodeName) -> String {
        format!("{node}/{}/{}", self.epoch, self.sequence)
    }
}

/// What the stream ends with, for the next frame to expect.
enum Tail {
    /// The message with this number, whatever it is.
    Number(u64),
    /// This frame of ours.
    Frame(String),
}

/// The newest frame of a stream.
struct Newest {
    node: NodeName,
    epoch: Epoch,
    sequence: Sequence,
}

/// Frames of one shard that wait, and how far they are.
pub(crate) struct Publisher {
    task: ShardTask,
    quota: Arc<Quota>,
    pending: VecDeque<Pending>,
    /// Of those, how many are sent.
    sent: usize,
    acks: FuturesOrdered<BoxFuture<'static, Result<PublishAck, PublishError>>>,
    /// What is known to be stored last; unknown after a failure.
    tail: Option<Tail>,
    acknowledged: Option<(Epoch, Sequence)>,
    /// The epoch of another gateway that was seen in the stream: what is not above it is not written any more.
    other_epoch: Option<Epoch>,
    failures: usize,
    snapshot_start: SnapshotStart,
}

/// Where the snapshot begins that is being written: what is older can go once it is complete.
#[derive(Default)]
struct SnapshotStart {
    greeting: Option<u64>,
    start: Option<u64>,
}

impl Publisher {
    pub(crate) fn new(task: ShardTask, quota: Arc<Quota>) -> Publisher {
        Publisher {
            task,
            quota,
            pending: VecDeque::new(),
            sent: 0,
            acks: FuturesOrdered::new(),
            tail: None,
            acknowledged: None,
            other_epoch: None,
            failures: 0,
            snapshot_start: SnapshotStart::default(),
        }
    }

    /// Sends what comes, until nobody can send any more.
    pub(crate) async fn run(mut self, mut frames: mpsc::UnboundedReceiver<StateFrame>) {
        loop {
            if self.pending.is_empty() {
                let Some(frame) = self.next_frame(&mut frames).await else { return };
                self.take(&frame);
            }
            self.task.connectivity.connected().await;
            if self.tail.is_none() && !self.find_tail().await {
                continue;
            }
            self.send().await;
            tokio::select! {
                acked = self.acks.next(), if !self.acks.is_empty() => match acked {
                    Some(Ok(ack)) => self.note_ack(&ack),
                    Some(Err(error)) => self.note_failure(&error).await,
                    None => {}
                },
                frame = frames.recv() => match frame {
                    Some(frame) => self.take(&frame),
                    None => return,
                },
                () = self.task.connectivity.disconnected() => self.forget_sent(),
            }
        }
    }

    /// The next frame, while none waits. Without one for a while, this node does not write.
    async fn next_frame(&mut self, frames: &mut mpsc::UnboundedReceiver<StateFrame>) -> Option<StateFrame> {
        match tokio::time::timeout(IDLE_TIME, frames.recv()).await {
            Ok(frame) => frame,
            Err(_) => {
                self.task.writing.send_if_modified(|writing| std::mem::take(&mut writing.is_active));
                frames.recv().await
            }
        }
    }

    fn take(&mut self, frame: &StateFrame) {
        if self.is_overtaken(frame.epoch) {
            return self.note_lost(1, frame_cost(frame));
        }
        self.task.writing.send_if_modified(|writing| !std::mem::replace(&mut writing.is_active, true));
        self.pending.push_back(Pending {
            bytes: Bytes::from(frame.to_bytes()),
            epoch: frame.epoch,
            sequence: frame.sequence,
            kind: frame.kind,
            cost: frame_cost(frame),
        });
    }

    async fn send(&mut self) {
        while self.acks.len() < WINDOW
            && let Some(frame) = self.pending.get(self.sent)
        {
            let message =
                PublishMessage::build().payload(frame.bytes.clone()).message_id(frame.id(&self.task.options.node));
            let before = self.sent.checked_sub(1).and_then(|before| self.pending.get(before));
            let message = match (before, &self.tail) {
                (Some(before), _) => message.expected_last_message_id(before.id(&self.task.options.node)),
                (None, Some(Tail::Frame(id))) => message.expected_last_message_id(id),
                (None, Some(Tail::Number(number))) => message.expected_last_sequence(*number),
                (None, None) => return,
            };
            let subject = self.task.options.stored_subject(&self.task.shard);
            match self.task.context.send_publish(subject, message).await {
                Ok(ack) => {
                    self.acks.push_back(ack.into_future());
                    self.sent += 1;
                }
                Err(error) => return self.note_failure(&error).await,
            }
        }
    }

    fn note_ack(&mut self, ack: &PublishAck) {
        self.failures = 0;
        let Some(frame) = self.pending.pop_front() else { return };
        self.sent = self.sent.saturating_sub(1);
        self.tail = Some(Tail::Frame(frame.id(&self.task.options.node)));
        self.task.writing.send_if_modified(|writing| {
            writing.until = ack.sequence;
            false
        });
        self.note_snapshot(frame.kind, ack.sequence);
        self.note_stored(&frame);
    }

    fn note_stored(&mut self, frame: &Pending) {
        self.quota.give_back(frame.cost);
        self.acknowledged = Some((frame.epoch, frame.sequence));
        let shard = self.task.shard.clone();
        self.task.inbox.push(TransportEvent::Acknowledged { shard, epoch: frame.epoch, sequence: frame.sequence });
    }

    /// A complete snapshot makes all before it superfluous.
    fn note_snapshot(&mut self, kind: FrameKind, at: u64) {
        match kind {
            FrameKind::Greeting => self.snapshot_start.greeting = Some(at),
            FrameKind::SnapshotStart => {
                // Without its greeting a snapshot is of no use to who comes later: if it is not known where that is, nothing is deleted this time.
                let greeting = self.snapshot_start.greeting.filter(|greeting| greeting.saturating_add(1) == at);
                self.snapshot_start.start = greeting;
            }
            FrameKind::SnapshotEnd => {
                if let Some(start) = self.snapshot_start.start.take() {
                    tokio::spawn(purge_before(self.task.clone(), start));
                }
            }
            _ => {}
        }
    }

    async fn note_failure(&mut self, error: &PublishError) {
        tracing::debug!("shard {}: {}", self.task.shard, chain(error));
        self.forget_sent();
        // Another tail than expected is cleared up by reading; anything else may take time.
        if !matches!(error.kind(), PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId) {
            let what = format!("writing to the stream of shard {}", self.task.shard);
            let refused = self.task.connectivity.last_refusal();
            self.back_off(&NatsError::request(what, error, refused.as_deref())).await;
        }
    }

    async fn back_off(&mut self, error: &NatsError) {
        if self.task.connectivity.is_connected() {
            self.task.connectivity.set_stream(&self.task.shard, Some(error.to_string()));
        }
        let delay = RETRY_DELAYS.get(self.failures).or(RETRY_DELAYS.last()).copied().unwrap_or_default();
        self.failures += 1;
        tokio::time::sleep(delay).await;
    }

    fn forget_sent(&mut self) {
        self.acks = FuturesOrdered::new();
        self.sent = 0;
        self.tail = None;
        self.snapshot_start = SnapshotStart::default();
    }

    /// Reads where the stream is, and what that says of the frames that wait.
    async fn find_tail(&mut self) -> bool {
        match self.read_newest().await {
            Ok((position, newest)) => {
                self.settle(newest.as_ref());
                self.tail = Some(Tail::Number(position));
                // What another one has written in a higher epoch is still to be read.
                if newest.is_none_or(|newest| !self.is_overtaking(&newest)) {
                    self.task.writing.send_modify(|writing| writing.until = position);
                }
                self.task.connectivity.set_stream(&self.task.shard, None);
                true
            }
            Err(error) => {
                self.back_off(&error).await;
                false
            }
        }
    }

    async fn read_newest(&mut self) -> Result<(u64, Option<Newest>), NatsError> {
        let wanted = self.task.options.shard_stream(&self.task.shard);
        let stream = ensure(&self.task.context, &self.task.connectivity, wanted).await?;
        let state = &stream.cached_info().state;
        if state.messages == 0 {
            return Ok((state.last_sequence, None));
        }
        let message = stream.get_raw_message(state.last_sequence).await.map_err(|error| {
            let what = format!("reading the newest frame of shard {}", self.task.shard);
            NatsError::request(what, &error, self.task.connectivity.last_refusal().as_deref())
        })?;
        // What is no frame says nothing about ours.
        let Ok(frame) = StateFrame::decode(&message.payload) else { return Ok((state.last_sequence, None)) };
        let newest = Newest { node: frame.node.clone(), epoch: frame.epoch, sequence: frame.sequence };
        if self.is_own_higher(&newest) {
            self.task.inbox.push_frame(frame).await;
        }
        Ok((state.last_sequence, Some(newest)))
    }

    /// Frames that were acknowledged and are gone with the servers that had them in memory.
    fn lost_acknowledged(&self, newest: Option<&Newest>) -> u64 {
        match (self.acknowledged, newest) {
            (None, _) => 0,
            (Some((epoch, _)), Some(newest)) if newest.epoch > epoch => 0,
            (Some((epoch, sequence)), Some(newest)) if newest.epoch == epoch => {
                sequence.0.saturating_sub(newest.sequence.0)
            }
            (Some((_, sequence)), _) => sequence.0,
        }
    }

    fn settle(&mut self, newest: Option<&Newest>) {
        let ours = newest.filter(|newest| newest.node == self.task.options.node);
        let ours = ours.map(|newest| (newest.epoch, newest.sequence));
        let lost = self.lost_acknowledged(newest);
        if lost > 0 {
            self.acknowledged = None;
            self.note_lost(lost, 0);
        }
        if ours.is_none() {
            self.other_epoch = self.other_epoch.max(newest.map(|newest| newest.epoch));
        }
        while let Some(frame) = self.pending.front() {
            let is_stored = ours.is_some_and(|(epoch, sequence)| epoch == frame.epoch && frame.sequence <= sequence);
            if !is_stored && !self.is_overtaken(frame.epoch) {
                break;
            }
            let Some(frame) = self.pending.pop_front() else { break };
            if is_stored {
                self.note_stored(&frame);
            } else {
                self.note_lost(1, frame.cost);
            }
        }
        if self.pending.is_empty() {
            self.task.writing.send_if_modified(|writing| std::mem::take(&mut writing.is_active));
        }
    }

    fn is_overtaken(&self, epoch: Epoch) -> bool {
        self.other_epoch.is_some_and(|other| epoch <= other)
    }

    /// Has another one written in an epoch that ours is not above?
    fn is_overtaking(&self, newest: &Newest) -> bool {
        newest.node != self.task.options.node && self.pending.front().is_none_or(|frame| frame.epoch <= newest.epoch)
    }

    /// Has an earlier run of this node written in a higher epoch? Its disk was lost since; what waits would be refused by the others.
    fn is_own_higher(&self, newest: &Newest) -> bool {
        newest.node == self.task.options.node && self.pending.front().is_some_and(|frame| frame.epoch < newest.epoch)
    }

    fn note_lost(&self, frames: u64, cost: usize) {
        if cost > 0 {
            self.quota.give_back(cost);
        }
        self.task.inbox.push(TransportEvent::Lost { shard: self.task.shard.clone(), frames });
    }
}

/// Deletes what is older than a complete snapshot. If that fails, the next snapshot does it.
async fn purge_before(task: ShardTask, start: u64) {
    let name = task.options.shard_stream(&task.shard).name;
    match task.context.get_stream_no_info(&name).await {
        Ok(stream) => {
            if let Err(error) = stream.purge().sequence(start).await {
                tracing::debug!("shard {}: old frames are not deleted yet: {error}", task.shard);
            }
        }
        Err(error) => tracing::debug!("shard {}: {error}", task.shard),
    }
}
