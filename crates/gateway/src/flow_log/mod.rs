//! NAT and flow logs of a running gateway.
//!
//! Each log has a thread of its own (`writer.rs`), which subscribes to the connection events as a control client does: nothing is done for it where packets pass, and a log that
//! does not keep up delays nobody. What its bounded queue does not hold is counted, and told in the log itself, in `keepstate control stats` and as a metric. Without a log
//! none of this exists.
mod config;
mod convert;
mod feed;
mod sink;
mod writer;

pub use config::{FlowLogConfig, FlowLogTarget, LogFormat, LoggedSessions};
pub(crate) use feed::FlowLogs;
