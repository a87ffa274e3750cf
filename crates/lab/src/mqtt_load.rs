//! MQTT sessions by the thousands: processes of `keepstate mqtt` on both sides, because the limit of open files is per process.
use super::line_process::LineProcess;
use super::topology::{Side, Topology, session_addrs};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Sessions of one process: its address has 28,000 ports, and many machines allow 20,000 open files for a process.
const MAX_SESSIONS_PER_PROCESS: u32 = 15_000;
/// The MQTT port.
const MQTT_PORT: u16 = 1883;
/// Time limit for the pings of a process.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Processes needed for so many sessions.
pub(super) fn process_count(sessions: u32) -> u8 {
    u8::try_from(sessions.div_ceil(MAX_SESSIONS_PER_PROCESS)).unwrap_or(u8::MAX)
}

/// The servers of the sessions.
#[derive(Debug)]
pub(super) struct BrokerProcesses(Vec<LineProcess>);

impl BrokerProcesses {
    /// Starts one for each client process.
    pub(super) fn start(topology: &Topology, processes: u8) -> Result<BrokerProcesses> {
        let mut started = Vec::new();
        for number in 0..processes {
            let mut process = LineProcess::spawn_mqtt(
                topology.netns_of(Side::Server),
                &["accept".into(), format!("{}:{MQTT_PORT}", session_addrs(number).1)],
            )?;
            ensure!(process.recv_line(PING_TIMEOUT)? == "listening", "an MQTT server does not start");
            started.push(process);
        }
        Ok(BrokerProcesses(started))
    }

    /// The client addresses that they have seen.
    pub(super) fn client_addresses(&mut self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for process in &mut self.0 {
            while let Ok(Some(line)) = process.try_recv_line() {
                all.extend(line.strip_prefix("from=").map(str::to_owned));
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

/// Counts of sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionCounts {
    pub(super) open: u32,
    pub(super) refused: u32,
    pub(super) lost: u32,
    pub(super) answered: u32,
}

/// Client processes that open sessions at the same time, and hold them.
#[derive(Debug)]
pub(super) struct MqttLoad {
    processes: Vec<LineProcess>,
    /// The report of each process; `None` until it comes.
    counts: Vec<Option<SessionCounts>>,
}

impl MqttLoad {
    /// Starts them.
    pub(super) fn start(topology: &Topology, sessions: u32, timeout: Duration) -> Result<MqttLoad> {
        let mut load = MqttLoad { processes: Vec::new(), counts: Vec::new() };
        let count = u32::from(process_count(sessions));
        for number in 0..process_count(sessions) {
            let share = sessions / count + u32::from(u32::from(number) < sessions % count);
            let (from, to) = session_addrs(number);
            let args = format!(
                "fleet --from {from} --to {to}:{MQTT_PORT} --sessions {share} --patience {}",
                timeout.as_secs()
            );
            let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
            load.processes.push(LineProcess::spawn_mqtt(topology.netns_of(Side::Client), &args)?);
            load.counts.push(None);
        }
        Ok(load)
    }

    /// The counts, once every session is open or has failed.
    pub(super) fn poll_settled(&mut self) -> Result<Option<SessionCounts>> {
        for (process, counts) in self.processes.iter_mut().zip(&mut self.counts) {
            if counts.is_none() {
                match process.try_recv_line()? {
                    Some(line) => *counts = Some(parse_counts(&line)?),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(self.counts.iter().flatten().fold(SessionCounts::default(), add_counts)))
    }

    /// Pings every session.
    pub(super) fn ping(&mut self) -> Result<SessionCounts> {
        for process in &mut self.processes {
            process.send_line("ping")?;
        }
        let mut all = SessionCounts::default();
        for process in &mut self.processes {
            all = add_counts(all, &parse_counts(&process.recv_line(PING_TIMEOUT * 2)?)?);
        }
        Ok(all)
    }
}

fn add_counts(one: SessionCounts, other: &SessionCounts) -> SessionCounts {
    SessionCounts {
        open: one.open + other.open,
        refused: one.refused + other.refused,
        lost: one.lost + other.lost,
        answered: one.answered + other.answered,
    }
}

/// `open=3 refused=0 lost=0 answered=3`
fn parse_counts(line: &str) -> Result<SessionCounts> {
    let number = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    let counts = || {
        let answered = number("answered").unwrap_or(0);
        Some(SessionCounts { open: number("open")?, refused: number("refused")?, lost: number("lost")?, answered })
    };
    counts().with_context(|| format!("unexpected report of a client process: {line:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn parses_client_process_report() {
        let counts = SessionCounts { open: 3, refused: 1, lost: 0, answered: 2 };
        assert_eq!(parse_counts("open=3 refused=1 lost=0 answered=2").unwrap(), counts);
        assert_eq!(parse_counts("open=3 refused=1 lost=0").unwrap(), SessionCounts { answered: 0, ..counts });
        assert!(parse_counts("open=3").is_err() && parse_counts("").is_err());
    }

    #[test]
    fn process_count_covers_all_sessions() {
        assert_eq!([1, 15_000, 15_001, 70_000].map(process_count), [1, 1, 2, 5]);
    }
}
