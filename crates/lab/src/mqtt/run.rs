//! Both ends of a load with MQTT sessions, as processes that report in lines on standard output.
use super::{ClientPool, SessionTotals, StubBroker, raise_file_limit};
use crate::signals::termination_flag;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Open files besides those of the sessions.
pub(super) const SPARE_FILES: u64 = 64;

/// The sessions that a client process opens.
#[derive(Clone, Debug)]
pub struct SessionLoad {
    /// Servers, in turns.
    pub servers: Vec<SocketAddr>,
    /// Local addresses, in turns; empty: the system chooses.
    pub sources: Vec<IpAddr>,
    /// The number of sessions.
    pub sessions: usize,
    /// Time limit for a session to open.
    pub timeout: Duration,
    /// Stop opening sessions after so many have failed.
    pub max_failed: Option<usize>,
}

/// Opens sessions and prints `open=3 refused=0 lost=0`; then holds them until standard input ends. For each line `ping` there it pings all
/// sessions and prints the counts again, with `answered=3`. True if no session failed or was lost.
///
/// # Errors
/// An address cannot be used, or the limit of open files is too low.
pub fn hold_sessions(load: &SessionLoad) -> Result<bool> {
    require_file_limit(load.sessions as u64 + SPARE_FILES, "fewer --sessions")?;
    let mut clients = ClientPool::new()?;
    let max_failed = load.max_failed.unwrap_or(usize::MAX);
    let totals = clients
        .open_sessions(load.sessions, &load.sources, &load.servers, load.timeout, max_failed)
        .context("cannot open sessions")?;
    print_totals(&totals, None)?;
    for line in std::io::stdin().lock().lines() {
        if line?.trim() == "ping" {
            let answered = clients.ping_all(load.timeout)?;
            print_totals(&clients.totals(), Some(answered))?;
        }
    }
    let totals = clients.totals();
    Ok(totals.refused == 0 && totals.lost == 0)
}

/// Accepts sessions on these addresses until SIGINT or SIGTERM. Prints `listening` when it is ready, `from=ADDRESS` for each new client
/// address, and the statistics at the end.
///
/// # Errors
/// An address cannot be used.
pub fn serve_sessions(addresses: &[SocketAddr]) -> Result<()> {
    let interrupted = termination_flag()?;
    // The number of clients is not known: as many as allowed.
    let files = raise_file_limit(1 << 20)?;
    let broker = StubBroker::listen(addresses).context("cannot listen: is the address local and the port free?")?;
    tracing::info!("accepting MQTT sessions, at most {files}; Ctrl-C ends");
    // Standard output may be closed: that is no error.
    let print = |line: String| {
        let mut out = anstream::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    print("listening".into());
    let stats = broker.serve(&interrupted, |from| print(format!("from={from}")))?;
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "accepted={} most={} published={} broken={}",
        stats.accepted, stats.peak, stats.published, stats.failed
    )?;
    Ok(())
}

fn print_totals(totals: &SessionTotals, answered: Option<usize>) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let answered = answered.map_or_else(String::new, |count| format!(" answered={count}"));
    writeln!(out, "open={} refused={} lost={}{answered}", totals.open, totals.refused, totals.lost)?;
    Ok(out.flush()?)
}

/// Raises the limit of open files to `wanted`, or says what to do: `instead` is what can be done without.
pub(super) fn require_file_limit(wanted: u64, instead: &str) -> Result<()> {
    let allowed = raise_file_limit(wanted)?;
    if allowed < wanted {
        bail!(
            "limit of open files too low: needed {wanted}, allowed {allowed}. Type: ulimit -n {wanted} (as root), or use {instead}"
        );
    }
    Ok(())
}
