//! The terminal: full screen and raw while it is open, and afterwards as it was: at the end, after a panic, and while the program is stopped.
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::process::{Signal, getpid, kill_process};
use std::io::{self, IsTerminal, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};

/// Is the terminal ours just now? A panic of any thread must know.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The open screen; dropped, it restores the terminal.
pub(crate) struct FullScreen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl FullScreen {
    /// Opens it.
    ///
    /// # Errors
    /// Standard input or output is no terminal.
    pub(crate) fn open() -> io::Result<FullScreen> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "standard input and output must be a terminal"));
        }
        enter()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| restore())?;
        Ok(FullScreen { terminal })
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal again when it is continued.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        restore();
        kill_process(getpid(), Signal::TSTP)?;
        enter()?;
        self.terminal.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        restore();
    }
}

fn enter() -> io::Result<()> {
    IS_OPEN.store(true, Ordering::SeqCst);
    enable_raw_mode().and_then(|()| execute!(io::stdout(), EnterAlternateScreen)).inspect_err(|_| restore())
}

/// As it was before; once.
fn restore() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        // Nobody is left to tell.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
