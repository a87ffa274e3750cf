//! A terminal that shows one picture after another, and is afterwards as it was.
//!
//! A screen is opened on a terminal: it takes the terminal's second page, hides the cursor and asks for keys as they are pressed. Each picture is drawn
//! over the last in one piece, so nothing flickers. Dropped, it gives everything back, also when an error ends the program. It never asks a terminal
//! that belongs to somebody else in the foreground.
#![allow(unsafe_code, reason = "a terminal's modes are had by system calls that take structures")]

use std::io::{self, IsTerminal, Write};
use std::mem::zeroed;

const STDIN_FD: i32 = libc::STDIN_FILENO;

/// See the module's words.
pub struct TerminalScreen {
    /// The modes the keyboard had, if they were changed.
    saved_termios: Option<libc::termios>,
    size: (usize, usize),
}

impl TerminalScreen {
    /// Takes the terminal; `None` if standard output is none.
    pub fn open() -> Option<TerminalScreen> {
        if !io::stdout().is_terminal() {
            return None;
        }
        // The second page; no cursor.
        io::stdout().write_all(b"\x1b[?1049h\x1b[?25l").and_then(|()| io::stdout().flush()).ok()?;
        Some(TerminalScreen { saved_termios: enter_cbreak(), size: (0, 0) })
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        terminal_size::terminal_size()
            .map_or((80, 24), |(width, height)| (usize::from(width.0).max(1), usize::from(height.0).max(1)))
    }

    /// Has it another size than at the last picture?
    pub fn is_resized(&self) -> bool {
        self.size() != self.size
    }

    /// Draws these rows from the top, each cut where the screen ends.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn draw(&mut self, rows: &[String]) -> io::Result<()> {
        self.size = self.size();
        let (width, height) = self.size;
        // Between these marks a terminal that knows them shows nothing half drawn.
        let mut picture = String::from("\x1b[?2026h\x1b[H");
        for (at, row) in rows.iter().take(height).enumerate() {
            picture.push_str(if at == 0 { "" } else { "\r\n" });
            picture.push_str(truncate(row, width));
            picture.push_str("\x1b[K");
        }
        picture.push_str("\x1b[J\x1b[?2026l");
        let mut out = io::stdout().lock();
        out.write_all(picture.as_bytes())?;
        out.flush()
    }

    /// Was q pressed since this was asked last?
    pub fn quit_pressed(&self) -> bool {
        if self.saved_termios.is_none() {
            return false;
        }
        let mut wish = libc::pollfd { fd: STDIN_FD, events: libc::POLLIN, revents: 0 };
        let mut keys = [0u8; 64];
        // SAFETY: one live pollfd, and no waiting.
        if unsafe { libc::poll(&raw mut wish, 1, 0) } <= 0 || wish.revents & libc::POLLIN == 0 {
            return false;
        }
        // SAFETY: `keys` has room for the length given.
        let length = unsafe { libc::read(STDIN_FD, keys.as_mut_ptr().cast(), keys.len()) };
        let length = usize::try_from(length).unwrap_or(0);
        keys.iter().take(length).any(|key| matches!(key, b'q' | b'Q'))
    }
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        if let Some(modes) = self.saved_termios {
            // SAFETY: modes that the same call gave us.
            unsafe { libc::tcsetattr(STDIN_FD, libc::TCSANOW, &raw const modes) };
        }
        let mut out = io::stdout().lock();
        // Nobody is left to be told.
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// Keys come one by one and are not shown; Ctrl-C still is a signal, Ctrl-Z is nothing. Gives the modes there were, if they could be changed.
fn enter_cbreak() -> Option<libc::termios> {
    // SAFETY: plain system calls; zeros are valid modes, to be overwritten.
    unsafe {
        if libc::tcgetpgrp(STDIN_FD) != libc::getpgrp() {
            return None;
        }
        let mut modes: libc::termios = zeroed();
        if libc::tcgetattr(STDIN_FD, &raw mut modes) != 0 {
            return None;
        }
        let mut quiet = modes;
        quiet.c_lflag &= !(libc::ICANON | libc::ECHO);
        quiet.c_cc[libc::VSUSP] = libc::_POSIX_VDISABLE;
        (libc::tcsetattr(STDIN_FD, libc::TCSANOW, &raw const quiet) == 0).then_some(modes)
    }
}

/// As much of a row as the terminal is wide.
fn truncate(row: &str, width: usize) -> &str {
    row.char_indices().nth(width).map_or(row, |(end, _)| row.get(..end).unwrap_or(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_truncated_at_character_boundaries() {
        assert_eq!(truncate("abc", 2), "ab");
        assert_eq!(truncate("äöü", 2), "äö");
        assert_eq!(truncate("a", 5), "a");
    }
}
