//! Notes for people, on standard error: standard output stays clean for scripts.
//!
//! A note that nobody can read any more is no failure: `2>&1 | head` may have closed the pipe.
use keepstate_capture::follower::Follower;
use std::io::Write;

/// One note.
pub fn note(text: impl AsRef<str>) {
    line(&format!("keepstate: {}", text.as_ref()));
}

/// How many entries were shown, in conntrack's words.
pub fn shown(entries: usize) {
    line(&format!("keepstate v{}: {entries} flow entries have been shown.", env!("CARGO_PKG_VERSION")));
}

fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// So many of something: `1 frame was`, `2 frames were`.
pub fn were(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { " was" } else { "s were" })
}

/// What is odd about a capture: times that go back, frames of a kind that is not read here.
pub fn capture(follower: &Follower) {
    if let Some(link) = follower.unknown_link() {
        note(format!(
            "link type {} is not read here; Ethernet, raw IP, loopback and Linux cooked captures are: tcpdump -i any makes one",
            link.0
        ));
    }
    let stale = follower.stale();
    if stale > 0 {
        note(format!(
            "{} older than one before: time does not go back, so each counts as of the latest time. Sort a capture with: reordercap IN OUT",
            were(stale, "frame")
        ));
    }
}

/// What the kernel would have logged; what was refused, ignored or invalid, and why; what was lost.
pub fn summary(follower: &mut Follower) {
    while let Some(line) = follower.engine_mut().poll_log() {
        self::line(&line);
    }
    let reasons: Vec<String> = follower
        .engine()
        .reasons()
        .filter(|(_, count)| *count > 0)
        .map(|(why, count)| format!("{count} {}", why.name()))
        .collect();
    if !reasons.is_empty() {
        let frames = if follower.frames == 1 { "frame" } else { "frames" };
        note(format!("of {} {frames}: {}", follower.frames, reasons.join(", ")));
    }
    let lost = follower.engine().events_lost();
    if lost > 0 {
        note(format!("{} lost: they came faster than they could be printed", were(lost, "event")));
    }
}
