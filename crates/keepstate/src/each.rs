//! One line a packet: number, relation, direction, state, remaining timeout, and the reason where there is one.
use keepstate_capture::follower::{Follower, Passed};
use keepstate_engine::{Direction, Entry, Info, ProtocolInfo, Verdict, Why};
use std::io::{self, Write};

/// The words above the lines.
pub const HEADER: &str = "# number  ctinfo       direction  state            timeout  reason";

/// The connection of the frame that `follower` has just taken.
pub fn entry(follower: &Follower, passed: &Passed) -> Option<Entry> {
    let Passed::Tracked(outcome) = passed else { return None };
    outcome.connection.and_then(|handle| follower.engine().entry(handle, follower.now()))
}

/// Writes the line of frame `number`: what became of it, and its connection as it is now.
pub fn line(out: &mut impl Write, number: u64, passed: &Passed, entry: Option<&Entry>) -> io::Result<()> {
    let outcome = match passed {
        Passed::Tracked(outcome) => outcome,
        Passed::Waiting => {
            return writeln!(
                out,
                "{number:>8}  FRAGMENT     -          -                      -  its datagram is not whole yet"
            );
        }
        Passed::Refused(why) => {
            return writeln!(
                out,
                "{number:>8}  REFUSED      -          -                      -  {}: {}",
                why.name(),
                why.text()
            );
        }
    };
    let info = match (outcome.info, outcome.verdict) {
        (_, Verdict::Drop) => "DROPPED",
        (Info::New, _) => "NEW",
        (Info::Established, _) => "ESTABLISHED",
        (Info::Related, _) => "RELATED",
        (Info::Invalid, _) => "INVALID",
        (Info::Untracked, _) => "UNTRACKED",
    };
    let direction = match outcome.direction {
        Some(Direction::Original) => "original",
        Some(Direction::Reply) => "reply",
        None => "-",
    };
    let state = match entry.map(|entry| entry.protocol) {
        Some(ProtocolInfo::Tcp { state, .. }) => state.name(),
        Some(ProtocolInfo::Sctp { state, .. }) => state.name(),
        Some(ProtocolInfo::Stateless) => "-",
        None if outcome.direction.is_some() => "(ended)",
        None => "-",
    };
    write!(out, "{number:>8}  {info:<11}  {direction:<9}  {state:<15}  ")?;
    match entry {
        Some(entry) => write!(out, "{:>7}", entry.timeout)?,
        None => write!(out, "{:>7}", "-")?,
    }
    match outcome.why {
        Some(why) => writeln!(out, "  {}: {}", Why::name(why), Why::text(why)),
        None => writeln!(out),
    }
}
