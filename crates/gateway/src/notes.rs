//! Notes for the person who runs the gateway.

/// One note.
pub(crate) fn note(text: impl AsRef<str>) {
    tracing::info!("{}", text.as_ref());
}

/// A count with its noun: `1 frame was`, `2 frames were`.
pub(crate) fn were(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { " was" } else { "s were" })
}
