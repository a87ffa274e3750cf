//! A flow as a data path is told of it.
use super::flow_way::{FlowSource, FlowTarget, FlowWay};
use keepstate_engine::{ConnId, Direction, Tuple};

/// One direction of a connection that a faster data path may forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// Its connection.
    pub conn_id: ConnId,
    /// The direction.
    pub direction: Direction,
    /// What counts its packets beside its connection: the data path gives it back with what it has counted.
    pub way: FlowWay,
    /// Where its packets come from.
    pub source: FlowSource,
    /// Their tuple as they come.
    pub tuple: Tuple,
    /// Their tuple as they leave.
    pub translated: Tuple,
    /// Where they go to.
    pub target: FlowTarget,
    /// The mark that rules set on them; they keep theirs if `None`.
    pub set_mark: Option<u32>,
    /// Rules or routes have asked for the mark that they come with: those that come with one are not the flow's.
    pub unmarked_only: bool,
    /// Routes go by the type of service: only packets of the ordinary one are the flow's.
    pub plain_tos_only: bool,
    /// Rules have asked for FIN: segments that have it are not the flow's.
    pub fin_read: bool,
    /// Only the first SYN of the connection has passed: the sequence number of the client's next segment. The data path forwards the rest of its handshake, if it is one without doubt, and tells each
    /// segment of it ([`Router::note_segment`](crate::Router::note_segment)).
    pub opening: Option<u32>,
}
