//! The loop on a terminal, and one screen as text.
use super::draw::draw;
use super::state::{FleetAction, FleetState};
use crate::once::lines;
use crate::run::{TopError, next_event};
use crate::terminal::FullScreen;
use keepstate_live::FleetBoard;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyEventKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two drawings.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// How often signals are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows a fleet until the user ends it, or `stop` is set.
///
/// # Errors
/// There is no terminal, or it fails.
pub fn run_fleet(board: &FleetBoard, mut state: FleetState, stop: &AtomicBool) -> Result<(), TopError> {
    let mut screen = FullScreen::open().map_err(TopError::NoTerminal)?;
    let (mut fleet, mut due) = (board.look(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let wait = due.saturating_duration_since(Instant::now()).min(POLL_INTERVAL);
        match next_event(wait).map_err(TopError::Terminal)? {
            Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match state.press(&fleet, key) {
                FleetAction::Quit => return Ok(()),
                FleetAction::Suspend => screen.suspend().map_err(TopError::Terminal)?,
                FleetAction::Redraw => (),
            },
            Some(Event::Resize(..)) => (),
            None if Instant::now() >= due => {
                due = Instant::now() + REFRESH_INTERVAL;
                // Looking keeps it fresh, frozen or not.
                let now = board.look();
                if !state.is_frozen {
                    fleet = now;
                }
            }
            _ => continue,
        }
        screen.terminal.draw(|frame| draw(frame, &mut state, &fleet)).map_err(TopError::Terminal)?;
    }
    Ok(())
}

/// Waits until the fleet has been asked once, and returns the screen of so many columns and rows as lines. `None` if `stop` was set before.
pub fn fleet_screen_text(
    board: &FleetBoard,
    mut state: FleetState,
    (columns, rows): (u16, u16),
    stop: &AtomicBool,
) -> Option<String> {
    let mut fleet = board.look();
    while !fleet.is_asked {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
        fleet = board.look();
    }
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).ok()?;
    terminal.draw(|frame| draw(frame, &mut state, &fleet)).ok()?;
    Some(lines(&terminal))
}
