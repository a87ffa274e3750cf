//! What keepalived or BGP is elsewhere: it asks both gateways who is active and has packets go there. And it notes what it sees of them.
use super::site::ClusterSite;
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::ControlRequest;
use keepstate_linux::netns::AnonNetns;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(5);
/// Samples kept of how old the state is that the cluster has.
const MAX_AGES: usize = 100_000;

/// A gateway as it last answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenGateway {
    pub(super) role: String,
    pub(super) in_step: bool,
    pub(super) is_connected: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct MoverState {
    /// `None`: it does not answer.
    pub(super) gateways: [Option<SeenGateway>; 2],
    /// Where packets go.
    pub(super) current: Option<usize>,
    /// When that gateway was first seen active, and when packets went there.
    pub(super) active_at: Option<Instant>,
    pub(super) moved_at: Option<Instant>,
    /// For how long both said that they were active, at most. A report may be late, so a short while is no fault.
    pub(super) both_active: Duration,
    both_since: Option<Instant>,
    /// Whether `ages` grows: under load, while nothing is wrong.
    pub(super) samples: bool,
    /// How old the newest state was that surely was with the cluster, in milliseconds.
    pub(super) ages: Vec<u64>,
    /// Why packets could not be moved.
    pub(super) error: Option<String>,
}

impl MoverState {
    /// Whether one of them decides.
    pub(super) fn is_any_active(&self) -> bool {
        self.gateways.iter().flatten().any(|gateway| gateway.role == "active")
    }
}

/// Shared with the thread that asks.
#[derive(Debug, Default)]
pub(super) struct AddressMover(Mutex<MoverState>);

impl AddressMover {
    /// Reads or changes what was seen.
    pub(super) fn with<T: Default>(&self, read: impl FnOnce(&mut MoverState) -> T) -> T {
        self.0.lock().map(|mut state| read(&mut state)).unwrap_or_default()
    }

    /// Asks and moves until `stop`.
    pub(super) fn run(&self, sockets: &[PathBuf; 2], clients: &AnonNetns, servers: &AnonNetns, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let seen = sockets.each_ref().map(|socket| {
                let json = control_client::fetch(socket, ControlRequest::Cluster { json: true, shard: None }).ok()?;
                serde_json::from_str::<Value>(&json).ok()
            });
            let now = Instant::now();
            let epoch_if_active = |index: usize| {
                let report = seen.get(index)?.as_ref().filter(|report| report["role"] == "active")?;
                Some((report["epoch"].as_u64().unwrap_or_default(), index))
            };
            let (first, second) = (epoch_if_active(0), epoch_if_active(1));
            let active = first.max(second).map(|(_, index)| index);
            let move_to = self.with(|state| {
                state.gateways = seen.each_ref().map(|report| report.as_ref().map(parse_state));
                let both = (first.is_some() && second.is_some()).then(|| state.both_since.unwrap_or(now));
                state.both_since = both;
                state.both_active = state.both_active.max(both.map_or(Duration::ZERO, |since| now - since));
                if let Some(age) = active.and_then(|index| seen.get(index)?.as_ref()?["age_ms"].as_u64())
                    && state.samples
                    && state.ages.len() < MAX_AGES
                {
                    state.ages.push(age);
                }
                active.filter(|_| state.current != active)
            });
            if let Some(index) = move_to {
                let moved = ClusterSite::use_gateway(clients, servers, index);
                self.with(|state| {
                    state.error = moved.as_ref().err().map(|error| format!("{error:#}"));
                    if moved.is_ok() {
                        (state.current, state.active_at, state.moved_at) =
                            (Some(index), Some(now), Some(Instant::now()));
                    }
                });
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

fn parse_state(report: &Value) -> SeenGateway {
    SeenGateway {
        role: report["role"].as_str().unwrap_or_default().to_owned(),
        in_step: report["in_step"] == true,
        is_connected: report["connected"] == true,
    }
}
