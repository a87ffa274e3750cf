//! A parsed command line.
use super::grammar::{Command, Table};
use super::target::Target;
use crate::flow_filter::FlowFilter;
use crate::format::{LabelNames, OutputOptions};
use keepstate_linux::ctnetlink::{CtExpectation, CtFamily, CtFlow, CtLabels, EventKind, SctpState, Status};

/// One command, parsed and checked. It is executed once.
#[derive(Clone, Debug)]
pub(super) struct ConntrackRequest {
    /// Whose table.
    pub(super) target: Target,
    pub(super) command: Command,
    pub(super) table: Table,
    /// Given with `-f`, or the family of the addresses.
    pub(super) family: Option<CtFamily>,
    /// Which existing connections the command selects.
    pub(super) filter: FlowFilter,
    /// The connection to create or to get.
    pub(super) flow: CtFlow,
    /// The expectation to create, get or delete.
    pub(super) expectation: CtExpectation,
    /// The changes to the selected connections.
    pub(super) change: FlowChange,
    pub(super) output: OutputOptions,
    /// Names of labels, if their file was needed.
    pub(super) label_names: LabelNames,
    /// Zero the counters of what is listed.
    pub(super) zero: bool,
    pub(super) events: Vec<EventKind>,
    /// The event socket's buffer size, given with `-b`.
    pub(super) buffer_size: Option<u32>,
    /// The protocol given with `-p`.
    pub(super) protocol: Option<u8>,
    /// Both ports of the reply direction are given.
    pub(super) reply_ports_given: bool,
}

/// What `-U` changes.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowChange {
    pub(super) timeout: Option<u32>,
    /// Mark and mask: the bits of the mask are cleared, then the mark is XORed in.
    pub(super) mark: Option<[u32; 2]>,
    /// Status bits to set.
    pub(super) status: Option<Status>,
    /// TCP's state.
    pub(super) tcp_state: Option<u8>,
    /// SCTP's.
    pub(super) sctp_state: Option<SctpState>,
    pub(super) add_labels: CtLabels,
    pub(super) remove_labels: CtLabels,
}
