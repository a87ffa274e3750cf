//! A gateway's shard of a cluster, as `keepstate control cluster --json` tells of it.
use serde::{Deserialize, Serialize};

/// See the module. What an older gateway does not tell is as if nothing were wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedShard {
    /// The cluster.
    pub cluster: String,
    /// The shard.
    pub shard: String,
    /// This gateway in it.
    pub node: String,
    /// `standby`, `active`, `demoting` or `fenced`.
    pub role: String,
    /// Its epoch.
    pub epoch: u64,
    /// `lease` or `manual`.
    pub decided_by: String,
    /// Active: is all acknowledged? Standby: is nothing missing?
    pub in_step: bool,
    /// A standby: whom it follows.
    pub follows: Option<String>,
    /// Messages that a standby is behind.
    pub lag: u64,
    /// Messages of an active one that are not acknowledged.
    pub unacknowledged: u64,
    /// Active: how old the newest state is that surely is with the cluster; standby: since the active one was heard of.
    pub age_ms: u64,
    /// Is the cluster reached?
    pub connected: bool,
    /// Why not.
    pub unreachable: Option<String>,
    /// Why the epoch cannot be written.
    pub disk_error: Option<String>,
    /// Another gateway with this one's name is active.
    pub name_taken: bool,
    /// Why its lease cannot be asked for.
    pub lease_error: Option<String>,
    /// In what the active gateway runs something else.
    pub differences: Vec<String>,
    /// Messages lost on their way.
    pub lost: u64,
    /// Connections of the active gateway that a standby could not enter.
    pub refused: u64,
    /// Those of them in the interval.
    pub refused_growth: u64,
    /// Messages of an epoch that had ended.
    pub stale_epoch: u64,
    /// Those of them in the interval.
    pub stale_epoch_growth: u64,
    /// Messages lost in the interval.
    pub lost_growth: u64,
}

impl ObservedShard {
    /// What has grown since an earlier reading of the same shard.
    pub fn grown_since(mut self, earlier: &[ObservedShard]) -> ObservedShard {
        let before = earlier.iter().find(|before| (&before.cluster, &before.shard) == (&self.cluster, &self.shard));
        if let Some(before) = before {
            self.stale_epoch_growth = self.stale_epoch.saturating_sub(before.stale_epoch);
            self.refused_growth = self.refused.saturating_sub(before.refused);
            self.lost_growth = self.lost.saturating_sub(before.lost);
        }
        self
    }
}
