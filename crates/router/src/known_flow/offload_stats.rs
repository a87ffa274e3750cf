//! What a data path that forwards flows by itself has done.
use super::flow_way::FlowWay;
use keepstate_engine::FlowStats;
use keepstate_rules::HoldReasons;

/// What the data path has counted of one direction of a connection since its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// Of the connection.
    pub stats: FlowStats,
    /// The [`KnownFlow::way`](super::KnownFlow::way) that the packets have gone; `None` if an earlier gateway has entered it.
    pub way: Option<FlowWay>,
}

/// Statistics of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowOffloadStats {
    /// Connections that the data path knows.
    pub flows: usize,
    /// Packets that it has forwarded, as far as they were reported.
    pub packets: u64,
    /// Packets that it has sent on at XDP, before the kernel had made a buffer; others go the kernel's way.
    pub sent_at_xdp: u64,
    /// Packets of established connections that the rules kept here, by reason.
    pub held: Vec<(HoldReasons, u64)>,
    /// Connections that it has opened by class.
    pub opened: u64,
    /// Those of them that were taken back.
    pub taken_back: u64,
}
