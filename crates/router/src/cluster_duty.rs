//! What a router may do as one of a cluster, and what it has dropped because of that.
use keepstate_engine::Instant;
use std::net::IpAddr;

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

/// A router's duty.
#[derive(Debug)]
pub(crate) struct DutyState {
    pub(crate) duty: ClusterDuty,
    /// Addresses that belong to whoever decides.
    pub(crate) shared: Vec<IpAddr>,
    pub(crate) counters: DutyCounters,
}

impl Default for DutyState {
    fn default() -> DutyState {
        let duty = ClusterDuty::Active { until: None };
        DutyState { duty, shared: Vec::new(), counters: DutyCounters::default() }
    }
}
