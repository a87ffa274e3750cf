//! One line a packet: number, relation, direction, state, remaining timeout, and the reason where there is one.
use keepstate_capture::capture_tracker::{CaptureTracker, FrameResult};
use keepstate_engine::{CtInfo, CtVerdict, Direction, Entry, ProtocolInfo, Reason};
use std::io::{self, Write};

/// The words above the lines.
pub const HEADER: &str = "# number  ctinfo       direction  state            timeout  reason";

/// The connection of the frame that `follower` has just taken.
pub fn tracked_entry(follower: &CaptureTracker, passed: &FrameResult) -> Option<Entry> {
    let FrameResult::Tracked(outcome) = passed else { return None };
    outcome.connection.and_then(|handle| follower.engine().entry(handle, follower.now()))
}

/// Writes the line of frame `number`: what became of it, and its connection as it is now.
pub fn write_line(out: &mut impl Write, number: u64, passed: &FrameResult, entry: Option<&Entry>) -> io::Result<()> {
    let outcome = match passed {
        FrameResult::Tracked(outcome) => outcome,
        FrameResult::FragmentQueued => {
            return writeln!(
                out,
                "{number:>8}  FRAGMENT     -          -                      -  its datagram is not whole yet"
            );
        }
        FrameResult::Rejected(why) => {
            return writeln!(
                out,
                "{number:>8}  REFUSED      -          -                      -  {}: {}",
                why.name(),
                why.text()
            );
        }
    };
    let info = match (outcome.info, outcome.verdict) {
        (_, CtVerdict::Drop) => "DROPPED",
        (CtInfo::New, _) => "NEW",
        (CtInfo::Established, _) => "ESTABLISHED",
        (CtInfo::Related, _) => "RELATED",
        (CtInfo::Invalid, _) => "INVALID",
        (CtInfo::Untracked, _) => "UNTRACKED",
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
    match outcome.reason {
        Some(why) => writeln!(out, "  {}: {}", Reason::name(why), Reason::text(why)),
        None => writeln!(out),
    }
}
