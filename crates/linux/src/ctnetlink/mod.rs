//! The kernel's connection table, over netlink.
//!
//! A [`Flow`] is a connection as the kernel tells of it (everything optional, because the kernel leaves out what is not so) and as it
//! is told to the kernel. [`decode`] and [`encode`] are a codec without IO, each the other's inverse; [`Table`] asks and tells the kernel.

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
