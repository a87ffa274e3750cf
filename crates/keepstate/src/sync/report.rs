//! What the running one tells of itself.
use keepstate_cluster::{Decider, ShardRole, ShardStatus};
use keepstate_gateway::cluster::ClusterConfig;
use keepstate_sync::{SyncCounters, SyncNode};
use serde::Serialize;
use std::fmt::Write;

/// This machine as it is now.
pub(super) struct SyncReport {
    names: [String; 3],
    decider: Decider,
    status: ShardStatus,
    counters: SyncCounters,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    cluster: &'a str,
    node: &'a str,
    shard: &'a str,
    role: &'a str,
    epoch: u64,
    follows: Option<String>,
    in_step: bool,
    connected: bool,
    lag: u64,
    unacknowledged: u64,
    lost: u64,
    gaps: u64,
    held: usize,
    known: usize,
    waiting: usize,
    overruns: u64,
    readings: u64,
    malformed: u64,
    restored: u64,
    incomplete: u64,
    refused: u64,
    last_refusal: Option<&'a str>,
}

impl SyncReport {
    pub(super) fn new(config: &ClusterConfig, node: &SyncNode) -> SyncReport {
        SyncReport {
            names: [config.cluster.to_string(), config.node.to_string(), config.first_shard.name.to_string()],
            decider: config.decider,
            status: node.status(),
            counters: node.counters(),
        }
    }

    /// Lines for a person.
    pub(super) fn text(&self) -> String {
        let ShardStatus { role, epoch, in_step, lag, unacknowledged, lost, connected, sender, .. } = &self.status;
        let [cluster, node, shard] = &self.names;
        let by = if self.decider == Decider::Hand { "manual" } else { "lease" };
        let SyncCounters { held, known, waiting, overruns, readings, malformed, unreachable, restored } =
            &self.counters;
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ =
            writeln!(out, "shard {shard} of {cluster}: {node} is {} in epoch {epoch}, decided by {by}", role.name());
        let _ = match (role, sender) {
            (ShardRole::Active | ShardRole::Demoting, _) => {
                writeln!(out, "entries {known} waiting {waiting} unacknowledged {unacknowledged} lost {lost}")
            }
            (_, Some(sender)) if *in_step => writeln!(out, "holds all {held} entries of {sender}, lag {lag}"),
            (_, Some(sender)) => writeln!(out, "follows {sender}: {held} entries so far, not complete yet"),
            (_, None) => writeln!(out, "nobody that is active was heard of; entries held {held}"),
        };
        if readings + overruns + malformed > 0 {
            let _ = writeln!(out, "tables read {readings} overruns {overruns} malformed {malformed}");
        }
        if *restored != Default::default() {
            let (done, incomplete, refused) = (restored.restored, restored.incomplete, restored.refused);
            let why = restored.last_refusal.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let _ = writeln!(out, "last takeover: restored {done} incomplete {incomplete} refused {refused}{why}");
        }
        if !connected {
            let why = unreachable.as_deref().unwrap_or("it was not reached yet");
            let _ = writeln!(out, "the cluster cannot be reached: {why}");
        }
        for warning in self.status.warnings(node) {
            let _ = writeln!(out, "{warning}");
        }
        out
    }

    /// One JSON object on a line.
    pub(super) fn json(&self) -> String {
        let (status, counters) = (&self.status, &self.counters);
        let [cluster, node, shard] = &self.names;
        let report = ReportJson {
            cluster,
            node,
            shard,
            role: status.role.name(),
            epoch: status.epoch.0,
            follows: status.sender.as_ref().map(ToString::to_string),
            in_step: status.in_step,
            connected: status.connected,
            lag: status.lag,
            unacknowledged: status.unacknowledged,
            lost: status.lost,
            gaps: status.counters.gaps,
            held: counters.held,
            known: counters.known,
            waiting: counters.waiting,
            overruns: counters.overruns,
            readings: counters.readings,
            malformed: counters.malformed,
            restored: counters.restored.restored,
            incomplete: counters.restored.incomplete,
            refused: counters.restored.refused,
            last_refusal: counters.restored.last_refusal.as_deref(),
        };
        let mut line = serde_json::to_string(&report).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Nothing to say if it is active, or may become so without losing anything.
    pub(super) fn check(&self) -> Result<String, String> {
        let is_fit = self.status.role == ShardRole::Active
            || self.status.role == ShardRole::Standby && self.status.in_step && self.status.connected;
        if is_fit { Ok(String::new()) } else { Err(self.text()) }
    }

    fn head(&self) -> String {
        format!("shard {}", self.names[2])
    }

    /// What is told to who wanted it active; `None` while that is not decided.
    pub(super) fn promoted(&self, is_ready: bool, is_late: bool) -> Option<Result<String, String>> {
        if is_ready {
            return Some(Ok(format!("{}: active in epoch {}\n", self.head(), self.status.epoch)));
        }
        is_late.then(|| {
            let why = match (&self.status.sender, self.status.connected, self.decider) {
                (_, false, _) => {
                    let why = self.counters.unreachable.as_deref().unwrap_or("it was not reached yet");
                    format!("the cluster cannot be reached: {why}")
                }
                (Some(sender), _, Decider::Lease(_)) => {
                    format!("{sender} holds the lease: on that machine, keepstate sync demote")
                }
                _ if self.status.role == ShardRole::Active => "the entries are not all restored yet".to_owned(),
                _ => "its epoch could not be written, see its log".to_owned(),
            };
            Err(format!("{}: it is still {}: {why}", self.head(), self.status.role.name()))
        })
    }

    /// What is told to who wanted it to hand over.
    pub(super) fn demoted(&self, is_late: bool) -> Option<Result<String, String>> {
        match self.status.role {
            ShardRole::Standby => Some(Ok(format!("{}: standby in epoch {}\n", self.head(), self.status.epoch))),
            ShardRole::Fenced => Some(Err(format!(
                "{}: it creates nothing more, but not all was acknowledged in time: the newest entries may be unknown to the next machine",
                self.head()
            ))),
            ShardRole::Active | ShardRole::Demoting if is_late => {
                Some(Err(format!("{}: it is still {}", self.head(), self.status.role.name())))
            }
            ShardRole::Active | ShardRole::Demoting => None,
        }
    }

    /// Has it begun to hand over, and is not done?
    pub(super) fn is_handing_over(&self) -> bool {
        self.status.role == ShardRole::Demoting
    }
}
