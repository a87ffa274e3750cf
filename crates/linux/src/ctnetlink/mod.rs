//! ctnetlink: the kernel's connection table over netlink.
//!
//! A [`CtFlow`] is a connection as it is in a message (every field optional, because messages leave out what does not
//! apply). [`decode`] and [`encode`] are a codec without IO, each the other's inverse; [`CtClient`] sends requests, [`CtEventSocket`] receives events.

mod client;
pub mod consts;
mod cpu_stats;
pub mod decode;
mod dump_filter;
pub mod encode;
mod events;
pub mod expectation;
mod flow;
mod tuple;

pub use client::{CtClient, CtDumpKind, for_each_flow};
pub use cpu_stats::{CtCpuStats, CtExpectCpuStats};
pub use dump_filter::DumpFilter;
pub use events::{CtEvent, CtEventSocket, CtObject};
pub use expectation::CtExpectation;
pub use flow::{
    CtCounters, CtFamily, CtFlow, CtLabels, CtNatRange, CtProtoInfo, CtSctpInfo, CtSeqAdj, CtSynproxy, CtTcpInfo,
};
pub use keepstate_types::{EventKind, SctpState, Status, TcpState, ipproto as protocol};
pub use tuple::CtTuple;
