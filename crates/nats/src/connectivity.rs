//! Whether the cluster can be reached: the connection stands, the rights suffice, and every shard's stream takes what is written. Told when it changes.
use crate::error::PERMISSIONS_REMEDY;
use crate::inbox::Inbox;
use async_nats::Event;
use keepstate_cluster::{ShardName, TransportEvent};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is known of it, shared by all tasks.
#[derive(Debug)]
pub(crate) struct Connectivity {
    inbox: Arc<Inbox>,
    connected: watch::Sender<bool>,
    state: Mutex<ConnectivityState>,
}

#[derive(Debug, Default)]
struct ConnectivityState {
    is_connected: bool,
    /// Streams that cannot be used, and why.
    stuck: BTreeMap<ShardName, String>,
    /// What was told last.
    told: Option<Option<String>>,
    /// What the server has refused last.
    refused: Option<String>,
    /// A right without which frames that are told do not come or go; the server says so once, and only by this.
    denied: Option<String>,
}

/// Is this a right that the server denies, for which no request waits that would fail?
fn is_denied_without_answer(text: &str) -> bool {
    text.contains("Permissions Violation for Subscription to")
        || text.contains("Permissions Violation for Publish to \"keepstate-cluster.")
}

impl Connectivity {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Connectivity {
        Connectivity { inbox, connected: watch::Sender::new(false), state: Mutex::default() }
    }

    /// Takes what the client tells.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Connected => self.set_connected(None),
            Event::Disconnected => self.set_connected(Some("the connection to NATS is lost; it is tried again".into())),
            Event::ServerError(_) | Event::ClientError(_) => {
                tracing::debug!("NATS: {event}");
                self.set_refused(event.to_string());
            }
            other => tracing::debug!("NATS: {other}"),
        }
    }

    /// Connected, or why not.
    pub(crate) fn set_connected(&self, reason: Option<String>) {
        let mut state = self.lock();
        state.is_connected = reason.is_none();
        (state.refused, state.denied) = (None, None);
        self.connected.send_replace(reason.is_none());
        self.tell(&mut state, reason);
    }

    /// A shard's stream works, or why not.
    pub(crate) fn set_stream(&self, shard: &ShardName, reason: Option<String>) {
        let mut state = self.lock();
        match reason {
            None => drop(state.stuck.remove(shard)),
            Some(reason) => drop(state.stuck.insert(shard.clone(), reason)),
        }
        self.tell_if_connected(&mut state);
    }

    fn set_refused(&self, text: String) {
        let mut state = self.lock();
        if is_denied_without_answer(&text) {
            state.denied = Some(format!("NATS: {text}. {PERMISSIONS_REMEDY}"));
            self.tell_if_connected(&mut state);
        }
        state.refused = Some(text);
    }

    fn tell_if_connected(&self, state: &mut ConnectivityState) {
        if state.is_connected {
            let reason = state.denied.as_ref().or(state.stuck.values().next()).cloned();
            self.tell(state, reason);
        }
    }

    /// What the server has refused last, since it was asked for.
    pub(crate) fn last_refusal(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Waits until the connection stands.
    pub(crate) async fn connected(&self) {
        self.wait(true).await;
    }

    /// Waits until it does not.
    pub(crate) async fn disconnected(&self) {
        self.wait(false).await;
    }

    async fn wait(&self, wanted: bool) {
        // The sender is our own: it cannot be gone.
        let _ = self.connected.subscribe().wait_for(|connected| *connected == wanted).await;
    }

    fn tell(&self, state: &mut ConnectivityState, reason: Option<String>) {
        if state.told.as_ref() == Some(&reason) {
            return;
        }
        state.told = Some(reason.clone());
        self.inbox.push(match reason {
            None => TransportEvent::Connected,
            Some(reason) => TransportEvent::Disconnected { reason },
        });
    }

    fn lock(&self) -> MutexGuard<'_, ConnectivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
