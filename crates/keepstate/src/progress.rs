//! The progress of a long replay, on standard error and only if that is a terminal.
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;

/// Captures with fewer frames show no progress.
const MIN_FRAMES: u64 = 500_000;

/// See the module.
pub struct Progress {
    bar: Option<ProgressBar>,
    size: u64,
}

impl Progress {
    /// Progress through the file at `path`; its length is unknown for standard input and compressed files.
    pub fn new(path: &Path) -> Self {
        let size = std::fs::metadata(path).map_or(0, |file| file.len());
        let plain = path.extension().is_none_or(|end| end != "gz" && end != "zst");
        Progress { bar: None, size: if plain { size } else { 0 } }
    }

    /// Shows `frames` frames and about `offset` bytes.
    pub fn update(&mut self, frames: u64, offset: u64) {
        if frames < MIN_FRAMES || !frames.is_multiple_of(0x10000) {
            return;
        }
        if self.bar.is_none() && std::io::stderr().is_terminal() {
            let bar = if self.size > 0 { ProgressBar::new(self.size) } else { ProgressBar::no_length() };
            let template = "{spinner} {msg} {bytes} of {total_bytes} {wide_bar} {eta}";
            self.bar = Some(
                bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())),
            );
        }
        if let Some(bar) = &self.bar {
            bar.set_position(offset);
            bar.set_message(format!("{frames} frames"));
        }
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
