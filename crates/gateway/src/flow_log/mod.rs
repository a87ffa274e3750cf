//! NAT and flow logs of a running gateway.
//!
//! Each log has a thread of its own (`writer.rs`), which subscribes to the connection events as a control client does: nothing is done for it where packets pass, and a log that
//! does not keep up delays nobody. What its bounded queue does not hold is counted, and told in the log itself, in `keepstate control stats` and as a metric. Without a log
//! none of this exists.
mod config;
mod convert;
mod feed;
mod hourly;
mod sink;
mod subjects;
mod tls;
mod writer;

pub use config::{FlowLogConfig, FlowLogTarget, LogAccess, LogBackends, LogFormat, LoggedSessions};
pub(crate) use feed::FlowLogs;
pub use hourly::{ConvertLog, ParquetConverter};
pub use subjects::{CarrierStarter, StartCarrier, SubjectCarrier, SubjectMessages};
