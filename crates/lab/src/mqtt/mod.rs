//! MQTT 3.1.1 and 5, as far as sessions go that are held: a fleet of clients and an acceptor, each thousands of sessions in one thread.
//!
//! [`session`] is what is said, without IO; [`Fleet`] and [`Acceptor`] carry it over TCP. No broker: nothing is delivered to others.
mod broker;
mod clients;
mod command;
pub mod session;

pub use broker::{BrokerStats, StubBroker};
pub use clients::{ClientPool, SessionTotals};
pub use command::Mqtt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises this process's limit of open files (RLIMIT_NOFILE) to `wanted`, or as far as allowed. Returns the limit then in force.
///
/// # Errors
/// setrlimit(2) fails.
pub fn raise_file_limit(wanted: u64) -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Absent means unlimited.
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= wanted {
        return Ok(soft);
    }
    // Only root can go beyond the hard limit, and nobody beyond fs.nr_open.
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|hard| hard.max(wanted)) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(hard)
}
