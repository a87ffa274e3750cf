//! What a command line asks for.
use super::flow_filter::FlowFilter;
use super::grammar::{Command, Table};
use super::target::Target;
use crate::format::{LabelNames, OutputOptions};
use keepstate_linux::ctnetlink::{CtExpectation, CtFamily, CtFlow, CtLabels, EventKind, SctpState, Status};

/// One command, read and checked. It is carried out once.
#[derive(Clone, Debug)]
pub(super) struct ConntrackRequest {
    /// Whose table.
    pub(super) target: Target,
    pub(super) command: Command,
    pub(super) table: Table,
    /// Given with `-f`, or that of the addresses.
    pub(super) family: Option<CtFamily>,
    /// Which connections are meant, where a command means those that are there.
    pub(super) filter: FlowFilter,
    /// The connection to make, or to look for.
    pub(super) flow: CtFlow,
    /// The expectation to make, or to look for.
    pub(super) expectation: CtExpectation,
    /// What to change of the connections that are meant.
    pub(super) change: FlowChange,
    pub(super) output: OutputOptions,
    /// Names of labels, if the file of them was asked for.
    pub(super) label_names: LabelNames,
    /// Zero counters when they are read.
    pub(super) zero: bool,
    pub(super) events: Vec<EventKind>,
    /// The buffer's size asked for with `-b`.
    pub(super) buffer_size: Option<u32>,
    /// The protocol given with `-p`.
    pub(super) protocol: Option<u8>,
}

/// What `-U` changes.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowChange {
    pub(super) timeout: Option<u32>,
    /// Mark and mask: the bits of the mask are cleared, then the mark is laid over by exclusive or.
    pub(super) mark: Option<[u32; 2]>,
    /// Bits that are set.
    pub(super) status: Option<Status>,
    /// TCP's state.
    pub(super) tcp_state: Option<u8>,
    /// SCTP's.
    pub(super) sctp_state: Option<SctpState>,
    pub(super) add_labels: CtLabels,
    pub(super) remove_labels: CtLabels,
}
