//! One line per packet: number, ctinfo, direction, state, remaining timeout, and the reason if there is one.
use keepstate_capture::capture_tracker::{CaptureTracker, FrameResult};
use keepstate_engine::{CtInfo, CtVerdict, Direction, Entry, ProtocolInfo, Reason};
use std::io::{self, Write};

/// The heading of the lines.
pub const HEADER: &str = "# number  ctinfo       direction  state            timeout  reason";

/// The connection of the frame that `tracker` has just tracked.
pub fn tracked_entry(tracker: &CaptureTracker, result: &FrameResult) -> Option<Entry> {
    let FrameResult::Tracked(outcome) = result else { return None };
    outcome.connection.and_then(|id| tracker.engine().entry(id, tracker.now()))
}

/// Writes the line of frame `number`: its result, and the current state of its connection.
pub fn write_line(out: &mut impl Write, number: u64, result: &FrameResult, entry: Option<&Entry>) -> io::Result<()> {
    let outcome = match result {
        FrameResult::Tracked(outcome) => outcome,
        FrameResult::FragmentQueued => {
            return writeln!(
                out,
                "{number:>8}  FRAGMENT     -          -                      -  waits for the other fragments"
            );
        }
        FrameResult::Duplicate => {
            return writeln!(
                out,
                "{number:>8}  DUPLICATE    -          -                      -  tracked on another interface"
            );
        }
        FrameResult::Rejected(reason) => {
            return writeln!(
                out,
                "{number:>8}  REFUSED      -          -                      -  {}: {}",
                reason.name(),
                reason.text()
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
        Some(reason) => writeln!(out, "  {}: {}", Reason::name(reason), Reason::text(reason)),
        None => writeln!(out),
    }
}
