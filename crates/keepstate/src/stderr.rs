//! Notes on standard error: standard output stays clean for scripts.
//!
//! `replay` and `watch` end with one report ([`print_tracking_report`]): each note once, in a fixed order, after everything on standard
//! output. A note that cannot be written is no failure: `2>&1 | head` may have closed the pipe.
use keepstate_capture::capture_tracker::CaptureTracker;
use std::io::Write;

/// Prints one note.
pub fn note(text: impl AsRef<str>) {
    print_line(&format!("keepstate: {}", text.as_ref()));
}

fn print_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `1 frame was`, `2 frames were`.
pub fn was_or_were(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { " was" } else { "s were" })
}

/// Prints the notes at the end of a capture: what the kernel would have logged, how many entries were shown (if the table was), what is
/// unusual about the capture, frames by reason, lost events.
pub fn print_tracking_report(tracker: &mut CaptureTracker, entries_shown: Option<usize>) {
    print_kernel_log(tracker);
    if let Some(count) = entries_shown {
        // conntrack's line, after our name.
        print_line(&format!("keepstate v{}: {count} flow entries have been shown.", env!("CARGO_PKG_VERSION")));
    }
    print_capture_warnings(tracker);
    let reasons: Vec<String> = tracker
        .engine()
        .reason_counts()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect();
    if !reasons.is_empty() {
        note(format!("frames {}: {}", tracker.frame_count, reasons.join(", ")));
    }
    let lost = tracker.engine().events_lost();
    if lost > 0 {
        note(format!("{} lost: they came faster than they could be printed", was_or_were(lost, "event")));
    }
}

/// Prints what the kernel would have logged: a repeated line once, with its count.
fn print_kernel_log(tracker: &mut CaptureTracker) {
    let lines = std::iter::from_fn(|| tracker.engine_mut().poll_log());
    for (line, count) in count_repeated(lines) {
        print_line(&if count == 1 { line } else { format!("{line} ({count} times)") });
    }
}

/// Each different line with its count, in the order of first appearance.
fn count_repeated(lines: impl Iterator<Item = String>) -> Vec<(String, u64)> {
    let mut counted: Vec<(String, u64)> = Vec::new();
    for line in lines {
        match counted.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => counted.push((line, 1)),
        }
    }
    counted
}

/// Prints what is unusual about a capture: an unsupported link type, times that go back.
pub fn print_capture_warnings(tracker: &CaptureTracker) {
    if let Some(link) = tracker.unknown_link_type() {
        note(format!(
            "link type {} is not supported; Ethernet, raw IP, loopback and Linux cooked captures are (tcpdump -i any makes one)",
            link.0
        ));
    }
    let older = tracker.out_of_order();
    if older > 0 {
        note(format!(
            "{} older than an earlier one and tracked at the latest time, since time does not go back. Sort the capture with: reordercap IN OUT",
            was_or_were(older, "frame")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_counted() {
        let lines = ["full", "other", "full", "full"].map(str::to_owned);
        assert_eq!(count_repeated(lines.into_iter()), [("full".to_owned(), 3), ("other".to_owned(), 1)]);
    }
}
