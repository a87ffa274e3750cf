//! Who asks a fleet: finds its nodes and asks all of them at once. Calls wait for their answers, for a bounded time.
use super::protocol::{Answer, FleetQuestion, HEARTBEAT_INTERVAL, NodeKind, NodeRecord, bucket_name, subject};
use crate::connect::NatsOptions;
use crate::connectivity::Connectivity;
use crate::error::{NatsError, chain};
use crate::inbox::Inbox;
use async_nats::Client;
use async_nats::client::{Request, RequestErrorKind};
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::Operation;
use futures_util::{StreamExt, TryStreamExt};
use keepstate_cluster::NodeName;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// Nodes that are asked at a time.
const MAX_ASKED: usize = 64;
/// Finding out who is there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a fleet.
#[derive(Debug)]
pub struct FleetClient {
    runtime: Runtime,
    client: Client,
    connectivity: Arc<Connectivity>,
    fleet: NodeName,
}

impl FleetClient {
    /// Connects.
    ///
    /// # Errors
    /// Why no server lets us in.
    pub fn connect(nats: &NatsOptions, fleet: NodeName) -> Result<FleetClient, NatsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let connectivity = Arc::new(Connectivity::new(Arc::new(Inbox::new()?)));
        let noted = Arc::clone(&connectivity);
        let client = runtime.block_on(nats.connect(move |event| noted.note(&event)))?;
        Ok(FleetClient { runtime, client, connectivity, fleet })
    }

    /// The nodes that have registered, by name: those that live, and those that have died within a day.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, NatsError> {
        self.runtime.block_on(async {
            let failed = |error: &(dyn std::error::Error + 'static)| {
                let refused = self.connectivity.last_refusal();
                NatsError::request(format!("the registry of fleet {}", self.fleet), error, refused.as_deref())
            };
            let context = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(self.client.clone());
            let registry = match context.get_key_value(bucket_name(&self.fleet)).await {
                Ok(registry) => registry,
                // Nobody has ever registered.
                Err(error) if error.kind() == KeyValueErrorKind::GetBucket && chain(&error).contains("10059") => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(failed(&error)),
            };
            let keys = registry.keys().await.map_err(|error| failed(&error))?;
            let keys: Vec<String> = keys.try_collect().await.map_err(|error| failed(&error))?;
            let mut nodes = Vec::new();
            for key in keys {
                // One that is gone meanwhile, or of another version, is no node.
                let Some(entry) = registry.entry(&key).await.map_err(|error| failed(&error))? else { continue };
                let Ok(record) = serde_json::from_slice::<NodeRecord>(&entry.value) else { continue };
                if entry.operation == Operation::Put && record.name == key && record.name.parse::<NodeName>().is_ok() {
                    nodes.push(NodeRecord { heard: u64::try_from(entry.created.unix_timestamp()).ok(), ..record });
                }
            }
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(nodes)
        })
    }

    /// Asks each of `nodes`, and waits for so long; the answers stand in the same order.
    pub fn ask(
        &self,
        nodes: &[NodeRecord],
        question: &FleetQuestion,
        timeout: Duration,
    ) -> Vec<Result<String, String>> {
        let ask = |node: &NodeRecord| {
            let subject = subject(&self.fleet, &node.name, question.word());
            let request = Request::new().payload(question.payload().into()).timeout(Some(timeout));
            let unheard = no_responder(node, now());
            async move {
                match self.client.send_request(subject, request).await {
                    Ok(message) => Answer::parse(&message.payload),
                    Err(error) => Err(match error.kind() {
                        RequestErrorKind::TimedOut => self.silence(timeout),
                        RequestErrorKind::NoResponders => unheard,
                        _ => chain(&error),
                    }),
                }
            }
        };
        self.runtime.block_on(futures_util::stream::iter(nodes.iter().map(ask)).buffered(MAX_ASKED).collect())
    }

    fn silence(&self, timeout: Duration) -> String {
        match self.connectivity.last_refusal() {
            Some(refused) => format!("no answer: {refused}"),
            None => format!("no answer within {} s", timeout.as_secs()),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why nobody listens where a node should.
fn no_responder(node: &NodeRecord, now: u64) -> String {
    if node.kind == NodeKind::Missing {
        return "it has not registered: is `keepstate serve --fleet` running there?".into();
    }
    match node.heard.map(|heard| now.saturating_sub(heard)) {
        // It says that it lives, but hears nothing.
        Some(ago) if ago <= 2 * HEARTBEAT_INTERVAL.as_secs() => {
            format!(
                "it does not answer, last heard of {ago} s ago: it has just ended, or may not subscribe to its subjects"
            )
        }
        Some(ago) if ago < 120 => format!("it does not answer, last heard of {ago} s ago"),
        Some(ago) if ago < 7200 => format!("it does not answer, last heard of {} min ago", ago / 60),
        Some(ago) => format!("it does not answer, last heard of {} h ago", ago / 3600),
        None => "it does not answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_said_with_when_it_was_heard_of() {
        let node = |heard| NodeRecord { heard, kind: NodeKind::Serve, ..NodeRecord::missing("a".into()) };
        for (heard, wanted) in [
            (Some(998), "2 s ago: it has just ended"),
            (Some(900), "last heard of 100 s ago"),
            (Some(1200), "0 s ago"),
            (None, "it does not answer"),
        ] {
            assert!(no_responder(&node(heard), 1000).contains(wanted), "{heard:?}");
        }
        assert!(no_responder(&node(Some(0)), 100_000).contains("27 h ago"));
        assert!(no_responder(&NodeRecord::missing("a".into()), 0).contains("has not registered"));
    }
}
