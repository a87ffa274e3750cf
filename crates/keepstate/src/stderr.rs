//! Notes for people, on standard error: standard output stays clean for scripts.
//!
//! A note that nobody can read any more is no failure: `2>&1 | head` may have closed the pipe.
use keepstate_capture::capture_tracker::CaptureTracker;
use std::io::Write;

/// One note.
pub fn note(text: impl AsRef<str>) {
    print_line(&format!("keepstate: {}", text.as_ref()));
}

/// How many entries were shown, in conntrack's words.
pub fn print_entries_shown(entries: usize) {
    print_line(&format!("keepstate v{}: {entries} flow entries have been shown.", env!("CARGO_PKG_VERSION")));
}

fn print_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// So many of something: `1 frame was`, `2 frames were`.
pub fn was_or_were(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { " was" } else { "s were" })
}

/// What is odd about a capture: times that go back, frames of a kind that is not read here.
pub fn print_capture_warnings(follower: &CaptureTracker) {
    if let Some(link) = follower.unknown_link_type() {
        note(format!(
            "link type {} is not read here; Ethernet, raw IP, loopback and Linux cooked captures are: tcpdump -i any makes one",
            link.0
        ));
    }
    let stale = follower.out_of_order();
    if stale > 0 {
        note(format!(
            "{} older than one before: time does not go back, so each counts as of the latest time. Sort a capture with: reordercap IN OUT",
            was_or_were(stale, "frame")
        ));
    }
}

/// What the kernel would have logged; what was refused, ignored or invalid, and why; what was lost.
pub fn print_summary(follower: &mut CaptureTracker) {
    while let Some(line) = follower.engine_mut().poll_log() {
        print_line(&line);
    }
    let reasons: Vec<String> = follower
        .engine()
        .reason_counts()
        .filter(|(_, count)| *count > 0)
        .map(|(why, count)| format!("{count} {}", why.name()))
        .collect();
    if !reasons.is_empty() {
        let frames = if follower.frame_count == 1 { "frame" } else { "frames" };
        note(format!("of {} {frames}: {}", follower.frame_count, reasons.join(", ")));
    }
    let lost = follower.engine().events_lost();
    if lost > 0 {
        note(format!("{} lost: they came faster than they could be printed", was_or_were(lost, "event")));
    }
}
