//! Requests about this gateway's shards of a cluster. The client's own thread waits: a handover takes as long as the cluster takes to acknowledge.
use super::cluster::{ClusterHandle, ClusterReport};
use super::control_protocol::ControlRequest;

/// The answer; `None` for all other requests.
pub(super) fn answer(request: &ControlRequest, cluster: Option<&ClusterHandle>) -> Option<Result<Vec<u8>, String>> {
    let is_ours = matches!(
        request,
        ControlRequest::Cluster { .. }
            | ControlRequest::Rebalance
            | ControlRequest::Promote { .. }
            | ControlRequest::Demote { .. }
    );
    let Some(cluster) = cluster else {
        return is_ours.then(|| Err("this gateway is not one of a cluster: its gateway.toml has no [cluster]".into()));
    };
    let text = match request {
        // A line, or some lines, a shard.
        ControlRequest::Cluster { json, shard } => {
            let write = if *json { ClusterReport::json } else { ClusterReport::text };
            cluster.reports_of(shard.as_deref()).map(|reports| reports.iter().map(write).collect())
        }
        ControlRequest::Rebalance => cluster.rebalance(),
        ControlRequest::Promote { shard } => cluster.promote(shard.as_deref()),
        ControlRequest::Demote { shard } => cluster.demote(shard.as_deref()),
        _ => return None,
    };
    Some(text.map(String::into_bytes))
}
