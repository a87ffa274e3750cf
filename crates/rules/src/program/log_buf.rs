//! The buffer of a log line, as long as the kernel's.
use std::fmt::{self, Write};

/// The longest line of the kernel, in bytes.
const MAX_LINE_LEN: usize = 1016;

/// A line that takes no more than [`MAX_LINE_LEN`] bytes.
#[derive(Default)]
pub(super) struct LogBuf(String);

impl LogBuf {
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Write for LogBuf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_LINE_LEN.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
        Err(fmt::Error)
    }
}
