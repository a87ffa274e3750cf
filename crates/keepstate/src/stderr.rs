//! Notes on standard error: standard output stays clean for scripts.
//!
//! `replay` and `watch` end with one report ([`print_tracking_report`]): each note once, in a fixed order, after everything on standard
//! output. A note that cannot be written is no failure: `2>&1 | head` may have closed the pipe.
use anyhow::Result;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_capture::checksums::ChecksumTrust;
use keepstate_engine::Reason;
use keepstate_wire::ParseError;
use keepstate_wire::link::LinkType;
use std::io::Write;
use std::path::Path;

/// Prints one note, as every note, warning and error: by the log, so that under systemd it has its priority.
pub fn note(text: impl AsRef<str>) {
    tracing::info!("{}", text.as_ref());
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
    if let Some(link) = tracker.unknown_link_type().filter(|_| !tracker.is_unreadable()) {
        note(unsupported_link_type(link));
    }
    print_checksum_notes(tracker);
    let duplicates = tracker.duplicates();
    if duplicates > 0 {
        note(format!(
            "{} skipped: their packets were tracked on the interface where their connection is first seen (a router's capture of all interfaces has each packet more than once)",
            was_or_were(duplicates, "frame")
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

/// Prints which checksums were trusted, and which refused.
fn print_checksum_notes(tracker: &CaptureTracker) {
    let trusted = tracker.checksums().trusted();
    if tracker.checksums().mode() == ChecksumTrust::Auto {
        for (count, why) in [
            (trusted.left_open, "not filled in: captured on the sender, before its network card did"),
            (
                trusted.wrong,
                "wrong, as most of their sender's or of the capture: captured on the sender, or changed later",
            ),
        ] {
            if count > 0 {
                note(format!(
                    "checksums of {}: {why}. They are trusted; --checksums verify refuses them",
                    frames(count)
                ));
            }
        }
    }
    let wrong = [Reason::Checksum, Reason::ParseError(ParseError::HeaderChecksum)];
    let refused: u64 =
        tracker.engine().reason_counts().filter(|(reason, _)| wrong.contains(reason)).map(|(_, count)| count).sum();
    if refused > 0 {
        note(format!("wrong checksums in {}, which were not tracked; --checksums trust tracks them", frames(refused)));
    }
}

/// `1 frame`, `2 frames`.
fn frames(count: u64) -> String {
    format!("{count} frame{}", if count == 1 { "" } else { "s" })
}

fn unsupported_link_type(link: LinkType) -> String {
    format!(
        "link type {} ({link}) is not supported; Ethernet, raw IP, PPP, NFLOG, loopback and Linux cooked captures are (tcpdump -i any makes one)",
        link.0
    )
}

/// Fails if not one frame of the capture at `path` could be read.
///
/// # Errors
/// Which link type is not supported.
pub fn ensure_readable(tracker: &CaptureTracker, path: &Path) -> Result<()> {
    match tracker.unknown_link_type() {
        Some(link) if tracker.is_unreadable() => {
            anyhow::bail!("{}: no frame could be read: {}", path.display(), unsupported_link_type(link))
        }
        _ => Ok(()),
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
