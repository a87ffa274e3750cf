//! A node of a fleet: registered while it lives, asked and answered by a thread of its own. What is asked only reads.
use super::protocol::{Answer, FleetQuestion, HEARTBEAT_INTERVAL, NodeRecord, RECORD_TIME, bucket_name, subject};
use crate::connect::NatsOptions;
use crate::connectivity::Connectivity;
use crate::error::{NatsError, chain};
use crate::inbox::Inbox;
use crate::stream::{bucket, ensure_bucket};
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use async_nats::{Client, Message};
use futures_util::StreamExt;
use keepstate_cluster::NodeName;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Questions that are answered at a time; more are refused.
const MAX_QUESTIONS: usize = 4;
const CONNECT_DELAY: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end waits for the registry.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers what a node is asked. It may take seconds: it runs on a thread that nobody waits for.
pub trait FleetAnswers: Send + Sync + 'static {
    /// The answer: JSON for stats and doctor, lines for a list.
    ///
    /// # Errors
    /// A sentence for who asked.
    fn answer(&self, question: &FleetQuestion) -> Result<String, String>;
}

/// A registered node; dropped, it is taken out of the registry.
#[derive(Debug)]
pub struct FleetNode {
    /// Dropped, it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FleetNode {
    /// Starts the thread. It does not wait for NATS; trouble is logged, and tried again.
    ///
    /// # Errors
    /// An option or a file that cannot be used.
    pub fn start(
        nats: NatsOptions,
        fleet: NodeName,
        record: NodeRecord,
        answers: Arc<dyn FleetAnswers>,
    ) -> Result<FleetNode, NatsError> {
        nats.check()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let inbox = Arc::new(Inbox::new()?);
        let connectivity = Arc::new(Connectivity::new(inbox));
        let node =
            Node { nats, fleet, record, answers, connectivity, permits: Arc::new(Semaphore::new(MAX_QUESTIONS)) };
        let thread = std::thread::Builder::new().name("fleet".into()).spawn(move || {
            runtime.block_on(node.run(stopped));
            // An answer that is being made is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(FleetNode { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FleetNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Node {
    nats: NatsOptions,
    fleet: NodeName,
    record: NodeRecord,
    answers: Arc<dyn FleetAnswers>,
    connectivity: Arc<Connectivity>,
    permits: Arc<Semaphore>,
}

impl Node {
    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let client = tokio::select! {
            client = self.connect() => client,
            _ = &mut stopped => return,
        };
        tokio::select! {
            () = self.answer_questions(&client) => {}
            () = self.register(&client) => {}
            _ = &mut stopped => self.say_goodbye(&client).await,
        }
    }

    async fn connect(&self) -> Client {
        let mut last = String::new();
        loop {
            let connectivity = Arc::clone(&self.connectivity);
            match self.nats.connect(move |event| connectivity.note(&event)).await {
                Ok(client) => return client,
                Err(error) => warn_once(&mut last, &error),
            }
            tokio::time::sleep(CONNECT_DELAY).await;
        }
    }

    /// Says for ever that the node lives.
    async fn register(&self, client: &Client) {
        let value = serde_json::to_vec(&self.record).unwrap_or_default();
        let (mut last, mut revision) = (String::new(), None);
        let mut beats = tokio::time::interval(HEARTBEAT_INTERVAL);
        loop {
            beats.tick().await;
            let registry = match self.registry(client).await {
                Ok(registry) => registry,
                Err(error) => {
                    warn_once(&mut last, &error);
                    continue;
                }
            };
            let name = &self.record.name;
            let written = match revision {
                Some(revision) => registry.update(name, value.clone().into(), revision).await,
                None => registry.put(name, value.clone().into()).await.map_err(|error| {
                    async_nats::jetstream::kv::UpdateError::with_source(UpdateErrorKind::Other, error)
                }),
            };
            match written {
                Ok(written) => {
                    if revision.is_none() {
                        tracing::info!("node {name} is registered in fleet {}", self.fleet);
                    }
                    revision = Some(written);
                    last.clear();
                }
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                    revision = None;
                    if matches!(registry.entry(name).await, Ok(Some(entry)) if *entry.value != *value) {
                        tracing::warn!(
                            "another node of fleet {} calls itself {name} too: give each a name of its own",
                            self.fleet
                        );
                    }
                    beats.reset_immediately();
                }
                Err(error) => {
                    revision = None;
                    let refused = self.connectivity.last_refusal();
                    warn_once(
                        &mut last,
                        &NatsError::request(format!("registering node {name}"), &error, refused.as_deref()),
                    );
                }
            }
        }
    }

    async fn registry(&self, client: &Client) -> Result<Store, NatsError> {
        let context = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        let replicas = if self.nats.servers.len() >= 3 { 3 } else { 1 };
        ensure_bucket(&context, &self.connectivity, bucket(&bucket_name(&self.fleet), RECORD_TIME, replicas)).await
    }

    async fn say_goodbye(&self, client: &Client) {
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, async {
            let Ok(registry) = self.registry(client).await else { return };
            let Ok(Some(entry)) = registry.entry(&self.record.name).await else { return };
            if serde_json::from_slice::<NodeRecord>(&entry.value).is_ok_and(|record| record == self.record) {
                // If it fails, the record ends by itself.
                let _ = registry.delete_expect_revision(&self.record.name, Some(entry.revision)).await;
            }
        })
        .await;
    }

    async fn answer_questions(&self, client: &Client) {
        loop {
            match client.subscribe(subject(&self.fleet, &self.record.name, "*")).await {
                Ok(mut questions) => {
                    while let Some(question) = questions.next().await {
                        self.begin_answer(client, question);
                    }
                }
                Err(error) => tracing::warn!("node {}: {}", self.record.name, chain(&error)),
            }
            tokio::time::sleep(CONNECT_DELAY).await;
        }
    }

    fn begin_answer(&self, client: &Client, message: Message) {
        let Some(reply) = message.reply else { return };
        let client = client.clone();
        let word = message.subject.rsplit('.').next().unwrap_or_default();
        let question = FleetQuestion::parse(word, &message.payload);
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            let answer = match (question, permit) {
                (None, _) => {
                    Answer::Error("it does not know this question: it may be an older version of keepstate".into())
                }
                (Some(_), None) => Answer::Error("it is busy with other questions: ask again".into()),
                (Some(question), Some(permit)) => {
                    let made = tokio::task::spawn_blocking(move || {
                        let answer = answers.answer(&question);
                        drop(permit);
                        answer
                    });
                    match made.await {
                        Ok(Ok(text)) => Answer::Ok(text),
                        Ok(Err(text)) => Answer::Error(text),
                        Err(_) => Answer::Error("it has failed to answer: see its log".into()),
                    }
                }
            };
            if let Err(error) = client.publish(reply, answer.to_bytes(client.server_info().max_payload).into()).await {
                tracing::debug!("an answer is not sent: {error}");
            }
        });
    }
}

/// Says the same thing once.
fn warn_once(last: &mut String, error: &NatsError) {
    let text = error.to_string();
    if *last != text {
        tracing::warn!("{text}");
        *last = text;
    }
}
