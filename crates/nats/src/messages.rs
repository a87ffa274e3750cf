//! Messages to subjects, from a thread that waits for them: each call returns when a server has what it was given.
//!
//! NATS acknowledges no plain message. But a server handles what one connection sends in its order: behind each batch goes a message to an inbox of our own, and when that comes back,
//! the server has had all before it. A connection that was lost meanwhile, or a refusal, is an error: what of the batch has arrived is not known.
use crate::connect::NatsOptions;
use crate::error::NatsError;
use async_nats::{Client, Event, Subscriber};
use futures_util::StreamExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take for a batch.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection for messages. Its thread begins with what the caller's thread may do; dropped, it ends.
#[derive(Debug)]
pub struct MessageSender {
    batches: mpsc::UnboundedSender<Batch>,
}

#[derive(Debug)]
struct Batch {
    messages: Vec<(String, Vec<u8>)>,
    result: oneshot::Sender<Result<(), String>>,
}

impl MessageSender {
    /// Connects.
    ///
    /// # Errors
    /// An option or a file cannot be used, or no server lets us in within five seconds.
    pub fn connect(options: NatsOptions) -> Result<MessageSender, NatsError> {
        options.check()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (batches, received) = mpsc::unbounded_channel();
        let (connected, is_connected) = oneshot::channel();
        std::thread::Builder::new().name("nats-messages".into()).spawn(move || {
            runtime.block_on(async move {
                match Connection::open(&options).await {
                    Ok(connection) => {
                        if connected.send(Ok(())).is_ok() {
                            connection.run(received).await;
                        }
                    }
                    Err(error) => drop(connected.send(Err(error))),
                }
            });
        })?;
        is_connected.blocking_recv().unwrap_or_else(|_| Err(ended()))?;
        Ok(MessageSender { batches })
    }

    /// Sends messages, each to its subject, and waits until a server has them.
    ///
    /// # Errors
    /// Some of them may not have arrived.
    pub fn publish(&self, messages: Vec<(String, Vec<u8>)>) -> Result<(), NatsError> {
        let (result, answer) = oneshot::channel();
        self.batches.send(Batch { messages, result }).map_err(|_| ended())?;
        answer.blocking_recv().map_err(|_| ended())?.map_err(NatsError::Messages)
    }
}

fn ended() -> NatsError {
    NatsError::Messages("the thread that sends them has ended".into())
}

/// What went wrong, told by the client.
type Trouble = Arc<Mutex<Option<String>>>;

struct Connection {
    client: Client,
    /// What we send to ourselves.
    inbox: String,
    returned: Subscriber,
    trouble: Trouble,
}

impl Connection {
    async fn open(options: &NatsOptions) -> Result<Connection, NatsError> {
        let trouble = Trouble::default();
        let told = Arc::clone(&trouble);
        let connecting = options.connect(move |event| note(&told, &event));
        let client = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            Err(NatsError::Messages(format!("{} did not answer within five seconds", options.servers.join(", "))))
        })?;
        let inbox = client.new_inbox();
        let returned = client.subscribe(inbox.clone()).await;
        let returned = returned.map_err(|error| NatsError::Messages(error.to_string()))?;
        Ok(Connection { client, inbox, returned, trouble })
    }

    async fn run(mut self, mut batches: mpsc::UnboundedReceiver<Batch>) {
        while let Some(Batch { messages, result }) = batches.recv().await {
            let sent = tokio::time::timeout(PUBLISH_TIMEOUT, self.publish(messages)).await;
            let sent = sent.unwrap_or_else(|_| Err("no server has confirmed them within ten seconds".into()));
            let sent = sent.map_err(|error| self.take_trouble().unwrap_or(error));
            // Who does not wait any more need not know.
            let _ = result.send(sent);
        }
    }

    async fn publish(&mut self, messages: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        self.take_trouble();
        for (subject, payload) in messages {
            self.client.publish(subject, payload.into()).await.map_err(|error| error.to_string())?;
        }
        self.client.publish(self.inbox.clone(), Vec::new().into()).await.map_err(|error| error.to_string())?;
        self.returned.next().await.ok_or("the connection has ended")?;
        // The client tells of a refusal on a task of its own, which is woken before this one.
        tokio::task::yield_now().await;
        self.take_trouble().map_or(Ok(()), Err)
    }

    fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn note(trouble: &Trouble, event: &Event) {
    let text = match event {
        Event::Disconnected => "the connection to NATS was lost".to_owned(),
        Event::ServerError(_) | Event::ClientError(_) => event.to_string(),
        _ => return,
    };
    trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}
