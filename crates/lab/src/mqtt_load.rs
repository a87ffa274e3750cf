//! Sessions of MQTT by the thousands: `keepstate mqtt` on both sides, as processes, because one may not have as many files open as two.
use super::router::current_exe;
use super::topology::{Side, Topology, session_addrs};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The most sessions of one fleet: its one address has 28,000 ports, and many machines let a process have 20,000 files.
const MAX_SESSIONS_PER_PROCESS: u32 = 15_000;
/// MQTT's port.
const MQTT_PORT: u16 = 1883;
/// How long pings may take.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Fleets that are needed for so many sessions.
pub(super) fn process_count(sessions: u32) -> u8 {
    u8::try_from(sessions.div_ceil(MAX_SESSIONS_PER_PROCESS)).unwrap_or(u8::MAX)
}

/// Who accepts them.
#[derive(Debug)]
pub(super) struct BrokerProcesses(Vec<LineProcess>);

impl BrokerProcesses {
    /// One for each fleet.
    pub(super) fn start(stage: &Topology, fleets: u8) -> Result<BrokerProcesses> {
        let mut begun = Vec::new();
        for fleet in 0..fleets {
            let mut talker = LineProcess::spawn(
                stage,
                Side::Server,
                &["accept".into(), format!("{}:{MQTT_PORT}", session_addrs(fleet).1)],
            )?;
            ensure!(talker.recv_line(PING_TIMEOUT)? == "listening", "an acceptor does not come up");
            begun.push(talker);
        }
        Ok(BrokerProcesses(begun))
    }

    /// Where sessions came from, as far as they have seen.
    pub(super) fn client_addresses(&mut self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for talker in &mut self.0 {
            while let Ok(line) = talker.lines.try_recv() {
                all.extend(line.strip_prefix("from=").map(str::to_owned));
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

/// How sessions stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionCounts {
    pub(super) open: u32,
    pub(super) refused: u32,
    pub(super) lost: u32,
    pub(super) answered: u32,
}

/// Clients that open sessions together, and hold them.
#[derive(Debug)]
pub(super) struct MqttLoad {
    processes: Vec<LineProcess>,
    /// Of each fleet that has told.
    counts: Vec<Option<SessionCounts>>,
}

impl MqttLoad {
    /// Sends them off.
    pub(super) fn start(stage: &Topology, sessions: u32, patience: Duration) -> Result<MqttLoad> {
        let mut crowd = MqttLoad { processes: Vec::new(), counts: Vec::new() };
        let count = u32::from(process_count(sessions));
        for fleet in 0..process_count(sessions) {
            let share = sessions / count + u32::from(u32::from(fleet) < sessions % count);
            let (from, to) = session_addrs(fleet);
            let words = format!(
                "fleet --from {from} --to {to}:{MQTT_PORT} --sessions {share} --patience {}",
                patience.as_secs()
            );
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            crowd.processes.push(LineProcess::spawn(stage, Side::Client, &words)?);
            crowd.counts.push(None);
        }
        Ok(crowd)
    }

    /// How it went, once every session is open or refused.
    pub(super) fn poll_settled(&mut self) -> Result<Option<SessionCounts>> {
        for (fleet, tally) in self.processes.iter_mut().zip(&mut self.counts) {
            if tally.is_none() {
                match fleet.lines.try_recv() {
                    Ok(line) => *tally = Some(parse_counts(&line)?),
                    Err(TryRecvError::Empty) => return Ok(None),
                    Err(TryRecvError::Disconnected) => return Err(fleet.exit_error()),
                }
            }
        }
        Ok(Some(self.counts.iter().flatten().fold(SessionCounts::default(), add_counts)))
    }

    /// Pings every session.
    pub(super) fn ping(&mut self) -> Result<SessionCounts> {
        for fleet in &mut self.processes {
            fleet.send_line("ping")?;
        }
        let mut all = SessionCounts::default();
        for fleet in &mut self.processes {
            all = add_counts(all, &parse_counts(&fleet.recv_line(PING_TIMEOUT * 2)?)?);
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
    let tally = || {
        let answered = number("answered").unwrap_or(0);
        Some(SessionCounts { open: number("open")?, refused: number("refused")?, lost: number("lost")?, answered })
    };
    tally().with_context(|| format!("a fleet says {line:?}"))
}

/// A process that is spoken with by lines.
#[derive(Debug)]
struct LineProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl LineProcess {
    fn spawn(stage: &Topology, side: Side, words: &[String]) -> Result<LineProcess> {
        let mut command = stage.netns_of(side).command(current_exe()?);
        let piped = command.arg("mqtt").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().context("sessions cannot be begun")?;
        let (ear, out) = (child.stdin.take(), child.stdout.take());
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                // Nobody may listen any more.
                let _ = sender.send(line);
            }
        });
        Ok(LineProcess { child, stdin: ear, lines: told })
    }

    fn send_line(&mut self, line: &str) -> Result<()> {
        let ear = self.stdin.as_mut().context("a fleet hears nothing")?;
        Ok(writeln!(ear, "{line}").and_then(|()| ear.flush())?)
    }

    fn recv_line(&mut self, patience: Duration) -> Result<String> {
        self.lines.recv_timeout(patience).map_err(|_| self.exit_error())
    }

    /// Why it says nothing more.
    fn exit_error(&mut self) -> anyhow::Error {
        let mut why = String::new();
        // It has closed its output, and so has ended or is about to.
        let _ = self.child.kill();
        if let Some(mut err) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut err, &mut why);
        }
        anyhow::anyhow!("the sessions' process has ended: {}", why.trim_end())
    }
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn parses_client_process_report() {
        let tally = SessionCounts { open: 3, refused: 1, lost: 0, answered: 2 };
        assert_eq!(parse_counts("open=3 refused=1 lost=0 answered=2").unwrap(), tally);
        assert_eq!(parse_counts("open=3 refused=1 lost=0").unwrap(), SessionCounts { answered: 0, ..tally });
        assert!(parse_counts("open=3").is_err() && parse_counts("").is_err());
    }

    #[test]
    fn process_count_covers_all_sessions() {
        assert_eq!([1, 15_000, 15_001, 70_000].map(process_count), [1, 1, 2, 5]);
    }
}
