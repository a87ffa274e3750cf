//! One shard's frames as the others write them: the stored ones in order from the stream, the others as they are told.
//!
//! Stored frames come by a consumer that the server forgets when we are gone. Whatever goes wrong with it (a lost connection, a server that had it, a number left out), a new one
//! goes on behind the last frame that was read. While this node writes to the stream itself it does not read: its own frames would only come back.
use crate::error::{NatsError, chain};
use crate::publisher::{ShardTask, Writing};
use crate::stream::ensure;
use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt;
use keepstate_cluster::{Epoch, FrameDecodeError, FrameKind, StateFrame, TransportEvent};
use std::time::Duration;
use tokio::sync::watch;

/// Frames asked for at a time.
const BATCH: usize = 128;
/// A consumer that says nothing for twice this long is gone.
const CONSUMER_HEARTBEAT: Duration = Duration::from_millis(500);
/// For how long a batch is asked for.
const BATCH_EXPIRES: Duration = Duration::from_secs(5);
/// The server forgets a consumer that nobody uses after this.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Between two looks whether the stream has messages that the consumer does not give out.
const STALL_CHECK: Duration = Duration::from_secs(2);

/// Reads a shard's stream.
pub(crate) struct Reader {
    task: ShardTask,
    /// The number of the newest message that was read, and when its stream was made.
    seen: Option<(u64, Created)>,
    /// The highest epoch of frames under this node's own name.
    own_epoch: Epoch,
    decoder: FrameDecoder,
}

type Created = async_nats::datetime::DateTime;

impl Reader {
    pub(crate) fn new(task: ShardTask) -> Reader {
        Reader { decoder: FrameDecoder::new(task.clone()), task, seen: None, own_epoch: Epoch::default() }
    }

    /// Reads for ever.
    pub(crate) async fn run(mut self) {
        let mut writing = self.task.writing.subscribe();
        loop {
            self.task.connectivity.connected().await;
            if writing.wait_for(|writing| !writing.is_active).await.is_err() {
                return;
            }
            let connectivity = self.task.connectivity.clone();
            tokio::select! {
                ended = self.read() => {
                    if let Err(error) = ended {
                        tracing::debug!("shard {}: {error}", self.task.shard);
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                () = connectivity.disconnected() => {}
                () = until_active(&mut writing) => {}
            }
        }
    }

    /// Reads until something goes wrong.
    async fn read(&mut self) -> Result<(), NatsError> {
        let task = self.task.clone();
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let what = format!("reading the stream of shard {}", task.shard);
            NatsError::request(what, error, task.connectivity.last_refusal().as_deref())
        };
        let stream = ensure(&task.context, &task.connectivity, task.options.shard_stream(&task.shard)).await;
        let stream = stream.inspect_err(|error| task.connectivity.set_stream(&task.shard, Some(error.to_string())))?;
        task.connectivity.set_stream(&task.shard, None);
        let created = stream.cached_info().created;
        let config = pull::Config {
            deliver_policy: self.first(stream.cached_info()),
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE_THRESHOLD,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
        let messages =
            consumer.stream().max_messages_per_batch(BATCH).heartbeat(CONSUMER_HEARTBEAT).expires(BATCH_EXPIRES);
        let mut messages = messages.messages().await.map_err(|error| failed(&error))?;
        let mut delivered = 0;
        let mut is_withheld = false;
        loop {
            let message = match tokio::time::timeout(STALL_CHECK, messages.next()).await {
                Ok(Some(message)) => message.map_err(|error| failed(&error))?,
                Ok(None) => return Ok(()),
                // A consumer on a server that came back may live and give out nothing.
                Err(_) => {
                    let info = stream.get_info().await.map_err(|error| failed(&error))?;
                    let has_unread = info.state.messages > 0 && info.state.last_sequence > self.read_until(&info);
                    if has_unread && is_withheld {
                        tracing::debug!("shard {}: the consumer gives out nothing: a new one is made", task.shard);
                        return Ok(());
                    }
                    is_withheld = has_unread;
                    continue;
                }
            };
            is_withheld = false;
            let Ok(info) = message.info() else { continue };
            if info.consumer_sequence != delivered + 1 {
                // Something between the server and us was left out: it is read again.
                return Ok(());
            }
            delivered = info.consumer_sequence;
            let at = info.stream_sequence;
            self.take(&message.payload).await;
            // Only now: what is given up while it waits for room is read again.
            self.seen = Some((at, created));
        }
    }

    /// Where to begin: behind what was read or written by ourselves; else at the beginning, which is the newest snapshot's.
    fn first(&self, info: &Info) -> DeliverPolicy {
        match self.read_until(info) {
            0 => DeliverPolicy::All,
            read => DeliverPolicy::ByStartSequence { start_sequence: read + 1 },
        }
    }

    /// The number of the newest message that was read or written by ourselves; 0 if none was, or it is not the same stream.
    fn read_until(&self, info: &Info) -> u64 {
        let written = self.task.writing.borrow().until;
        let seen = self.seen.filter(|(_, created)| *created == info.created).map_or(0, |(seen, _)| seen);
        let seen = if written <= info.state.last_sequence { seen.max(written) } else { seen };
        if seen > info.state.last_sequence { 0 } else { seen }
    }

    async fn take(&mut self, bytes: &[u8]) {
        let Some(frame) = self.decoder.decode(bytes) else { return };
        if frame.node == self.task.options.node {
            // Its epoch may be above what is on our disk, if that was lost; its content says nothing new.
            if frame.epoch <= self.own_epoch {
                return;
            }
            self.own_epoch = frame.epoch;
        }
        self.task.inbox.push_frame(frame).await;
    }
}

async fn until_active(writing: &mut watch::Receiver<Writing>) {
    // The sender lives as long as this task.
    let _ = writing.wait_for(|writing| writing.is_active).await;
}

/// Takes frames that are told and not kept.
pub(crate) async fn read_told(task: ShardTask, client: Client) {
    let mut decoder = FrameDecoder::new(task.clone());
    loop {
        match client.subscribe(task.options.told_subject(&task.shard)).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let frame = decoder.decode(&message.payload);
                    // Whether a heartbeat under our own name is our own that comes back, or a namesake's, the shard sees.
                    let is_wanted =
                        |frame: &StateFrame| frame.node != task.options.node || frame.kind == FrameKind::Heartbeat;
                    if let Some(frame) = frame.filter(is_wanted) {
                        task.inbox.push_frame(frame).await;
                    }
                }
            }
            Err(error) => tracing::debug!("shard {}: {}", task.shard, chain(&error)),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Reads frames of one shard; what is none is told once, until one comes that is.
struct FrameDecoder {
    task: ShardTask,
    last_error: Option<FrameDecodeError>,
}

impl FrameDecoder {
    fn new(task: ShardTask) -> FrameDecoder {
        FrameDecoder { task, last_error: None }
    }

    fn decode(&mut self, bytes: &[u8]) -> Option<StateFrame> {
        match StateFrame::decode(bytes) {
            Ok(frame) if frame.shard != self.task.shard => {
                let shard = &self.task.shard;
                tracing::warn!("a frame of shard {} came as one of shard {shard}: it is not used", frame.shard);
                None
            }
            Ok(frame) => {
                self.last_error = None;
                Some(frame)
            }
            Err(error) => {
                if self.last_error.as_ref() != Some(&error) {
                    let shard = self.task.shard.clone();
                    self.task.inbox.push(TransportEvent::Undecodable { shard, error: error.clone() });
                    self.last_error = Some(error);
                }
                None
            }
        }
    }
}
