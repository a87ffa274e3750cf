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

use std::io;

/// Raises this process's limit of open files as far as it goes; gives what it is then.
///
/// # Errors
/// What the system says.
#[allow(unsafe_code, reason = "getrlimit(2) and setrlimit(2) have no safe wrapper in std")]
pub fn raise_file_limit(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        if limit.rlim_cur >= wanted {
            return Ok(limit.rlim_cur);
        }
        // Beyond the hard limit only root gets, and nobody beyond fs.nr_open.
        let higher = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const higher) == 0 {
            return Ok(wanted);
        }
        let most = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_max)
}
