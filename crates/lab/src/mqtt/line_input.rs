//! Lines of standard input, for a process that has other things to do; and lines of standard output.
use anyhow::Result;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

/// The lines, without spaces around them. The channel is closed when standard input ends.
pub(super) fn stdin_lines() -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Writes a line at once.
pub(super) fn print_line(line: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
