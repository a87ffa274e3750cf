//! Notes for people, on standard error: standard output stays clean for scripts.
use crate::follower::Follower;

/// One note.
pub fn note(text: String) {
    eprintln!("keepstate: {text}");
}

/// How many entries were shown, in conntrack's words.
pub fn shown(entries: usize) {
    eprintln!("keepstate v{}: {entries} flow entries have been shown.", env!("CARGO_PKG_VERSION"));
}

/// What the kernel would have logged; what was refused, ignored or invalid, and why; what was lost.
pub fn summary(follower: &mut Follower) {
    while let Some(line) = follower.engine_mut().poll_log() {
        eprintln!("{line}");
    }
    let reasons: Vec<String> = follower
        .engine()
        .reasons()
        .filter(|(_, count)| *count > 0)
        .map(|(why, count)| format!("{count} {}", why.name()))
        .collect();
    if !reasons.is_empty() {
        note(format!("of {} frames: {}", follower.frames, reasons.join(", ")));
    }
    let stale = follower.stale();
    if stale > 0 {
        note(format!(
            "{stale} frames were older than one before them: time does not go back, so they count as of its time. Sort them with: reordercap"
        ));
    }
    let lost = follower.engine().events_lost();
    if lost > 0 {
        note(format!("{lost} events were lost: they came faster than they could be printed"));
    }
}
