//! Sessions of MQTT by the thousands: `keepstate mqtt` on both sides, as processes, because one may not have as many files open as two.
use super::router::own_program;
use super::stage::{Side, Stage, ends};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The most sessions of one fleet: its one address has 28,000 ports, and many machines let a process have 20,000 files.
const FLEET: u32 = 15_000;
/// MQTT's port.
const PORT: u16 = 1883;
/// How long pings may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fleets that are needed for so many sessions.
pub(super) fn fleets(sessions: u32) -> u8 {
    u8::try_from(sessions.div_ceil(FLEET)).unwrap_or(u8::MAX)
}

/// Who accepts them.
#[derive(Debug)]
pub(super) struct Acceptors(Vec<Talker>);

impl Acceptors {
    /// One for each fleet.
    pub(super) fn begin(stage: &Stage, fleets: u8) -> Result<Acceptors> {
        let mut begun = Vec::new();
        for fleet in 0..fleets {
            let mut talker =
                Talker::begin(stage, Side::Server, &["accept".into(), format!("{}:{PORT}", ends(fleet).1)])?;
            ensure!(talker.hear(PATIENCE)? == "listening", "an acceptor does not come up");
            begun.push(talker);
        }
        Ok(Acceptors(begun))
    }

    /// Where sessions came from, as far as they have seen.
    pub(super) fn saw(&mut self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for talker in &mut self.0 {
            while let Ok(line) = talker.told.try_recv() {
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
pub(super) struct Tally {
    pub(super) open: u32,
    pub(super) refused: u32,
    pub(super) lost: u32,
    pub(super) answered: u32,
}

/// Clients that open sessions together, and hold them.
#[derive(Debug)]
pub(super) struct Crowd {
    fleets: Vec<Talker>,
    /// Of each fleet that has told.
    tallies: Vec<Option<Tally>>,
}

impl Crowd {
    /// Sends them off.
    pub(super) fn begin(stage: &Stage, sessions: u32, patience: Duration) -> Result<Crowd> {
        let mut crowd = Crowd { fleets: Vec::new(), tallies: Vec::new() };
        let count = u32::from(fleets(sessions));
        for fleet in 0..fleets(sessions) {
            let share = sessions / count + u32::from(u32::from(fleet) < sessions % count);
            let (from, to) = ends(fleet);
            let words =
                format!("fleet --from {from} --to {to}:{PORT} --sessions {share} --patience {}", patience.as_secs());
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            crowd.fleets.push(Talker::begin(stage, Side::Client, &words)?);
            crowd.tallies.push(None);
        }
        Ok(crowd)
    }

    /// How it went, once every session is open or refused.
    pub(super) fn settled(&mut self) -> Result<Option<Tally>> {
        for (fleet, tally) in self.fleets.iter_mut().zip(&mut self.tallies) {
            if tally.is_none() {
                match fleet.told.try_recv() {
                    Ok(line) => *tally = Some(read(&line)?),
                    Err(TryRecvError::Empty) => return Ok(None),
                    Err(TryRecvError::Disconnected) => return Err(fleet.ended()),
                }
            }
        }
        Ok(Some(self.tallies.iter().flatten().fold(Tally::default(), sum)))
    }

    /// Pings every session.
    pub(super) fn ping(&mut self) -> Result<Tally> {
        for fleet in &mut self.fleets {
            fleet.say("ping")?;
        }
        let mut all = Tally::default();
        for fleet in &mut self.fleets {
            all = sum(all, &read(&fleet.hear(PATIENCE * 2)?)?);
        }
        Ok(all)
    }
}

fn sum(one: Tally, other: &Tally) -> Tally {
    Tally {
        open: one.open + other.open,
        refused: one.refused + other.refused,
        lost: one.lost + other.lost,
        answered: one.answered + other.answered,
    }
}

/// `open=3 refused=0 lost=0 answered=3`
fn read(line: &str) -> Result<Tally> {
    let number = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    let tally = || {
        let answered = number("answered").unwrap_or(0);
        Some(Tally { open: number("open")?, refused: number("refused")?, lost: number("lost")?, answered })
    };
    tally().with_context(|| format!("a fleet says {line:?}"))
}

/// A process that is spoken with by lines.
#[derive(Debug)]
struct Talker {
    child: Child,
    ear: Option<ChildStdin>,
    told: Receiver<String>,
}

impl Talker {
    fn begin(stage: &Stage, side: Side, words: &[String]) -> Result<Talker> {
        let mut command = stage.side(side).command(own_program()?);
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
        Ok(Talker { child, ear, told })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let ear = self.ear.as_mut().context("a fleet hears nothing")?;
        Ok(writeln!(ear, "{line}").and_then(|()| ear.flush())?)
    }

    fn hear(&mut self, patience: Duration) -> Result<String> {
        self.told.recv_timeout(patience).map_err(|_| self.ended())
    }

    /// Why it says nothing more.
    fn ended(&mut self) -> anyhow::Error {
        let mut why = String::new();
        // It has closed its output, and so has ended or is about to.
        let _ = self.child.kill();
        if let Some(mut err) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut err, &mut why);
        }
        anyhow::anyhow!("the sessions' process has ended: {}", why.trim_end())
    }
}

impl Drop for Talker {
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
    fn a_fleets_line_is_read() {
        let tally = Tally { open: 3, refused: 1, lost: 0, answered: 2 };
        assert_eq!(read("open=3 refused=1 lost=0 answered=2").unwrap(), tally);
        assert_eq!(read("open=3 refused=1 lost=0").unwrap(), Tally { answered: 0, ..tally });
        assert!(read("open=3").is_err() && read("").is_err());
    }

    #[test]
    fn fleets_are_as_many_as_it_takes() {
        assert_eq!([1, 15_000, 15_001, 70_000].map(fleets), [1, 1, 2, 5]);
    }
}
