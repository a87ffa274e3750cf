//! What a router may do as one of a cluster, and what it has dropped because of that.
use crate::shard_addresses::ShardAddresses;
use keepstate_engine::Instant;

/// What a router may do. Without a cluster it decides for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterDuty {
    /// It decides: connections are created until this time, if there is one.
    Active {
        /// From then on it is as [`ClusterDuty::Fenced`].
        until: Option<Instant>,
    },
    /// It forwards what it knows and creates nothing.
    Fenced,
    /// It forwards nothing and answers nothing.
    Standby,
}

/// Packets dropped because of the duty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DutyCounters {
    /// On a standby.
    pub standby: u64,
    /// New connections of one that may not decide.
    pub fenced: u64,
}

impl DutyCounters {
    pub(crate) fn note(&mut self, duty: ClusterDuty) {
        match duty {
            ClusterDuty::Standby => self.standby += 1,
            ClusterDuty::Active { .. } | ClusterDuty::Fenced => self.fenced += 1,
        }
    }
}

/// What a router may do for each of several shards.
#[derive(Debug)]
pub(crate) struct ShardDuties {
    pub(crate) addresses: ShardAddresses,
    /// By shard.
    pub(crate) duties: Vec<ClusterDuty>,
    /// By shard: its connections are about to be held or released, and do not tell yet whose they are.
    pub(crate) settling: Vec<bool>,
    /// By shard.
    pub(crate) counters: Vec<DutyCounters>,
}

impl ShardDuties {
    /// Of a shard; of one that there is not, none.
    pub(crate) fn of(&self, shard: usize) -> ClusterDuty {
        self.duties.get(shard).copied().unwrap_or(ClusterDuty::Standby)
    }

    pub(crate) fn is_settling(&self) -> bool {
        self.settling.contains(&true)
    }
}

impl ClusterDuty {
    /// May a connection be created?
    pub(crate) fn may_create(self, now: Instant) -> bool {
        match self {
            ClusterDuty::Active { until } => until.is_none_or(|until| now < until),
            ClusterDuty::Fenced | ClusterDuty::Standby => false,
        }
    }
}

/// A router's duty.
#[derive(Debug)]
pub(crate) struct DutyState {
    pub(crate) duty: ClusterDuty,
    /// Addresses that belong to whoever decides.
    pub(crate) shared: ShardAddresses,
    /// Of several shards; then `duty` is what follows for packets of none of them.
    pub(crate) shards: Option<ShardDuties>,
    pub(crate) counters: DutyCounters,
}

impl Default for DutyState {
    fn default() -> DutyState {
        let duty = ClusterDuty::Active { until: None };
        DutyState { duty, shared: ShardAddresses::default(), shards: None, counters: DutyCounters::default() }
    }
}
