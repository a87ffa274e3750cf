//! A full-screen view on a terminal, which afterwards is as it was before.
//!
//! A screen is opened on standard output: it switches to the alternate screen, hides the cursor and puts the keyboard into raw mode.
//! Each view is drawn over the last in one piece, so nothing flickers. Dropped, it restores everything, also when an error ends the
//! program. It never changes a terminal whose foreground process is another.
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use keepstate_linux::poll::wait_for_terminal;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// See the module.
pub struct TerminalScreen {
    /// Keys are read, and raw mode is to be left again.
    raw_mode: bool,
    size: (usize, usize),
}

impl TerminalScreen {
    /// Opens the screen; `None` if standard output is no terminal.
    pub fn open() -> Option<TerminalScreen> {
        if !io::stdout().is_terminal() {
            return None;
        }
        execute!(io::stdout(), EnterAlternateScreen, Hide).ok()?;
        let raw_mode = is_foreground() && terminal::enable_raw_mode().is_ok();
        Some(TerminalScreen { raw_mode, size: (0, 0) })
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        terminal::size().map_or((80, 24), |(width, height)| (usize::from(width).max(1), usize::from(height).max(1)))
    }

    /// Has the terminal's size changed since the last view?
    pub fn is_resized(&self) -> bool {
        self.size() != self.size
    }

    /// Draws these rows from the top, each truncated to the terminal's width.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn draw(&mut self, rows: &[String]) -> io::Result<()> {
        self.size = self.size();
        let (width, height) = self.size;
        let mut view = Vec::new();
        // A terminal that knows synchronized updates shows nothing half drawn.
        queue!(view, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for (at, row) in rows.iter().take(height).enumerate() {
            if at > 0 {
                queue!(view, Print("\r\n"))?;
            }
            queue!(view, Print(truncate(row, width)), Clear(ClearType::UntilNewLine))?;
        }
        queue!(view, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        let mut out = io::stdout().lock();
        out.write_all(&view)?;
        out.flush()
    }

    /// Was q or Ctrl-C pressed since the last call?
    pub fn quit_pressed(&self) -> bool {
        // A keyboard that cannot be read has no key pressed; signals still end the program.
        if !self.raw_mode {
            return false;
        }
        loop {
            match wait_for_terminal(io::stdout().as_fd(), Duration::ZERO) {
                // Nobody looks any more.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return true,
                _ if !event::poll(Duration::ZERO).unwrap_or(false) => return false,
                _ => (),
            }
            match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q' | 'Q') => return true,
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
                    _ => (),
                },
                Ok(_) => (),
                Err(_) => return false,
            }
        }
    }
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        // There is nobody left to report an error to.
        if self.raw_mode {
            let _ = terminal::disable_raw_mode();
        }
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    }
}

/// Is standard input a terminal, and are we its foreground process? Changing its modes in the background would stop us.
fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// The beginning of a row, at most as wide as the terminal.
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
