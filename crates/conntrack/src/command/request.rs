//! What a command line asks for.
use super::grammar::{Command, Table};
use super::pick::Pick;
use super::place::Place;
use crate::format::{LabelNames, Output};
use keepstate_linux::ctnetlink::{Expectation, Family, Flow, Happening, Labels, SctpState};

/// One command, read and checked. It is carried out once.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Whose table.
    pub(super) place: Place,
    pub(super) command: Command,
    pub(super) table: Table,
    /// Given with `-f`, or that of the addresses.
    pub(super) family: Option<Family>,
    /// Which connections are meant, where a command means those that are there.
    pub(super) pick: Pick,
    /// The connection to make, or to look for.
    pub(super) flow: Flow,
    /// The expectation to make, or to look for.
    pub(super) expectation: Expectation,
    /// What to change of the connections that are meant.
    pub(super) change: Change,
    pub(super) output: Output,
    /// Names of labels, if the file of them was asked for.
    pub(super) labels: LabelNames,
    /// Zero counters when they are read.
    pub(super) zero: bool,
    pub(super) events: Vec<Happening>,
    /// The buffer's size asked for with `-b`.
    pub(super) buffer: Option<u32>,
    /// The protocol given with `-p`.
    pub(super) protocol: Option<u8>,
}

/// What `-U` changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) timeout: Option<u32>,
    /// Mark and mask: the bits of the mask are cleared, then the mark is laid over by exclusive or.
    pub(super) mark: Option<[u32; 2]>,
    /// Bits that are set.
    pub(super) status: Option<u32>,
    /// TCP's state.
    pub(super) state: Option<u8>,
    /// SCTP's.
    pub(super) sctp_state: Option<SctpState>,
    pub(super) add: Labels,
    pub(super) remove: Labels,
}
