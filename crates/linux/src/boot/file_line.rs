//! Where something is written: a file and a line.
use std::fmt;

/// A line of a file, so that a person can go and look. It is made while a file is read and never changed after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileLine {
    /// The file, by the path it has on a running machine.
    pub file: String,
    /// The line, from 1; 0 is the whole file (a process, a profile).
    pub line: usize,
}

impl FileLine {
    /// A line of a file.
    pub fn new(file: impl Into<String>, line: usize) -> FileLine {
        FileLine { file: file.into(), line }
    }
}

impl fmt::Display for FileLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => out.write_str(&self.file),
            line => write!(out, "{}:{line}", self.file),
        }
    }
}

/// The lines of a text with their numbers from 1, trimmed, without empty lines and comments (`#` and `;`).
pub(super) fn config_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index.saturating_add(1), line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', ';']))
}
