//! What an operator is told of a shard: as text, as JSON, as counters; and whether this gateway is fit to be sent packets.
use super::table_receiver::ReceiverCounters;
use keepstate_cluster::{Decider, ShardRole, ShardStatus};
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// A shard as its thread last saw it.
#[derive(Clone, Debug)]
pub(crate) struct ClusterReport {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) shard: String,
    pub(crate) decider: Decider,
    pub(crate) status: ShardStatus,
    pub(crate) received: ReceiverCounters,
    /// Active: how old the newest state is that surely is with the cluster. Standby: how long ago the active one was heard.
    pub(crate) age: Duration,
    /// Why the cluster cannot be reached.
    pub(crate) unreachable: Option<String>,
    /// Why the epoch cannot be written.
    pub(crate) disk_error: Option<String>,
}

/// The JSON form.
#[derive(Serialize)]
struct ReportJson<'a> {
    cluster: &'a str,
    node: &'a str,
    shard: &'a str,
    role: &'a str,
    epoch: u64,
    decided_by: &'static str,
    /// May it be sent packets?
    fit: bool,
    in_step: bool,
    follows: Option<String>,
    sequence: u64,
    lag: u64,
    unacknowledged: u64,
    age_ms: u64,
    connected: bool,
    unreachable: Option<&'a str>,
    disk_error: Option<&'a str>,
    /// Another gateway with this node's name is active.
    name_taken: bool,
    lease_error: Option<&'a str>,
    differences: Vec<String>,
    lost: u64,
    gaps: u64,
    stale_epoch: u64,
    repeated: u64,
    put: u64,
    deleted: u64,
    refused: u64,
}

impl ClusterReport {
    /// What `keepstate control cluster --check` says: where a lease or a person decides, the one that is active; where keepalived decides by hand, also a standby that misses nothing.
    pub(crate) fn is_fit(&self) -> bool {
        match (self.status.role, self.decider) {
            (ShardRole::Active, _) => true,
            (ShardRole::Standby, Decider::Hand) => self.status.in_step && self.status.connected,
            _ => false,
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)
    }

    fn decided_by(&self) -> &'static str {
        match self.decider {
            Decider::Lease(_) => "lease",
            Decider::Hand => "manual",
        }
    }

    /// Lines for a person.
    pub(crate) fn text(&self) -> String {
        let ShardStatus { role, epoch, in_step, lag, unacknowledged, lost, .. } = &self.status;
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "shard {} of {}: {} is {} in epoch {epoch}, decided by {}",
            self.shard,
            self.cluster,
            self.node,
            role.name(),
            self.decided_by()
        );
        let age = self.age_ms();
        let _ = match (role, &self.status.sender) {
            (ShardRole::Active | ShardRole::Demoting, _) => writeln!(
                out,
                "everything up to {age} ms ago is with the cluster; {unacknowledged} messages wait for their acknowledgement, {lost} were lost"
            ),
            (_, Some(sender)) if *in_step => {
                writeln!(out, "has the whole table of {sender}, {lag} messages behind; heard of {age} ms ago")
            }
            (_, Some(sender)) => writeln!(out, "follows {sender}, and its table is not complete yet"),
            (_, None) => writeln!(out, "nobody that is active was heard of"),
        };
        if let Some(reason) = &self.unreachable {
            let _ = writeln!(out, "the cluster cannot be reached: {reason}");
        }
        if let Some(reason) = &self.disk_error {
            let _ = writeln!(out, "the epoch cannot be written, so this gateway cannot become active: {reason}");
        }
        if self.received.refused > 0 {
            let _ = writeln!(
                out,
                "{} of its connections could not be entered: this table's limit is lower, or it is another version",
                self.received.refused
            );
        }
        for warning in self.status.warnings(&self.node) {
            let _ = writeln!(out, "{warning}");
        }
        out
    }

    /// One JSON object on a line.
    pub(crate) fn json(&self) -> String {
        let status = &self.status;
        let report = ReportJson {
            cluster: &self.cluster,
            node: &self.node,
            shard: &self.shard,
            role: status.role.name(),
            epoch: status.epoch.0,
            decided_by: self.decided_by(),
            fit: self.is_fit(),
            in_step: status.in_step,
            follows: status.sender.as_ref().map(ToString::to_string),
            sequence: status.sequence.0,
            lag: status.lag,
            unacknowledged: status.unacknowledged,
            age_ms: self.age_ms(),
            connected: status.connected,
            unreachable: self.unreachable.as_deref(),
            disk_error: self.disk_error.as_deref(),
            name_taken: status.name_taken,
            lease_error: status.lease_error.as_deref(),
            differences: status.differences.iter().map(ToString::to_string).collect(),
            lost: status.lost,
            gaps: status.counters.gaps,
            stale_epoch: status.counters.stale_epoch,
            repeated: status.counters.repeated,
            put: self.received.put,
            deleted: self.received.deleted,
            refused: self.received.refused,
        };
        let mut line = serde_json::to_string(&report).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Numbers for `keepstate control stats` and metrics, by name.
    pub(crate) fn values(&self) -> Vec<(&'static str, u64)> {
        let status = &self.status;
        vec![
            ("cluster_role", status.role as u64),
            ("cluster_epoch", status.epoch.0),
            ("cluster_in_step", status.in_step.into()),
            ("cluster_connected", status.connected.into()),
            ("cluster_lag", status.lag),
            ("cluster_unacknowledged", status.unacknowledged),
            ("cluster_age_ms", self.age_ms()),
            ("cluster_lost", status.lost),
            ("cluster_resyncs", status.counters.gaps),
            ("cluster_stale_frames", status.counters.stale_epoch),
            ("cluster_refused", self.received.refused),
            ("cluster_differences", status.differences.len() as u64),
        ]
    }
}
