//! What a key does: it changes the state, or asks for something to be done.
use crate::snapshot::TopSnapshot;
use crate::state::{TopPane, TopPrompt, TopState};
use keepstate_live::{FlowKey, FlowRow, FlowSort, GroupBy};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the caller has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopAction {
    /// Draw what is there.
    Redraw,
    /// Take a new snapshot and draw it; rows may change their places.
    Refresh,
    /// Delete this connection.
    Delete(FlowKey),
    /// Stop until the user continues the program.
    Suspend,
    /// End.
    Quit,
}

/// A key was pressed.
pub(crate) fn press(state: &mut TopState, shown: &TopSnapshot, key: KeyEvent) -> TopAction {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        match key.code {
            KeyCode::Char('c') => return TopAction::Quit,
            KeyCode::Char('z') => return TopAction::Suspend,
            KeyCode::Char('l') => return TopAction::Refresh,
            _ => (),
        }
    }
    state.message = None;
    match state.prompt.take() {
        Some(TopPrompt::Filter(words)) => type_filter(state, words, key.code),
        Some(TopPrompt::Delete(flow)) => match key.code {
            KeyCode::Char('y' | 'Y') => TopAction::Delete(flow),
            _ => {
                state.message = Some("not deleted".into());
                TopAction::Redraw
            }
        },
        None => command(state, shown, key.code),
    }
}

fn type_filter(state: &mut TopState, mut words: String, key: KeyCode) -> TopAction {
    match key {
        KeyCode::Enter => {
            return match state.set_filter(&words) {
                Ok(()) => {
                    state.pane = TopPane::Connections;
                    TopAction::Refresh
                }
                Err(error) => {
                    state.message = Some(error);
                    state.prompt = Some(TopPrompt::Filter(words));
                    TopAction::Redraw
                }
            };
        }
        KeyCode::Esc => return TopAction::Redraw,
        KeyCode::Backspace => drop(words.pop()),
        KeyCode::Char(letter) if !letter.is_control() && words.len() < 200 => words.push(letter),
        _ => (),
    }
    state.prompt = Some(TopPrompt::Filter(words));
    TopAction::Redraw
}

fn command(state: &mut TopState, shown: &TopSnapshot, key: KeyCode) -> TopAction {
    let all = shown.row_count(state.pane);
    let page = isize::try_from(state.rows).unwrap_or(isize::MAX);
    match key {
        KeyCode::Char('q') => return TopAction::Quit,
        KeyCode::Esc if state.pane == TopPane::Connections => return clear_filter(state),
        KeyCode::Esc | KeyCode::Char('c') => state.show(TopPane::Connections),
        KeyCode::Char(' ') => {
            state.is_frozen = !state.is_frozen;
            return if state.is_frozen { TopAction::Redraw } else { TopAction::Refresh };
        }
        KeyCode::Char('/') => {
            state.prompt = Some(TopPrompt::Filter(state.filter_words.clone()));
            return TopAction::Redraw;
        }
        KeyCode::Char('s') => state.sort = next(&FlowSort::ALL, state.sort),
        KeyCode::Char('g') => {
            let by = match state.pane {
                TopPane::Groups(by) => next(&GroupBy::ALL, by),
                _ => GroupBy::Source,
            };
            state.show(TopPane::Groups(by));
        }
        KeyCode::Char('r') => state.show(TopPane::Reasons),
        KeyCode::Char('d') => state.show(TopPane::Findings),
        KeyCode::Char('?' | 'h') => state.show(TopPane::Help),
        KeyCode::Up | KeyCode::Char('k') => state.move_by(-1, all),
        KeyCode::Down | KeyCode::Char('j') => state.move_by(1, all),
        KeyCode::PageUp => state.move_by(page.saturating_neg(), all),
        KeyCode::PageDown => state.move_by(page, all),
        KeyCode::Home => (state.offset, state.selected) = (0, 0),
        KeyCode::End => state.move_by(isize::MAX, all),
        KeyCode::Enter => enter(state, shown),
        KeyCode::Delete | KeyCode::Char('x') => {
            state.prompt = selected(state, shown).map(|row| TopPrompt::Delete(row.key));
            return TopAction::Redraw;
        }
        _ => return TopAction::Redraw,
    }
    TopAction::Refresh
}

fn clear_filter(state: &mut TopState) -> TopAction {
    // An empty filter cannot fail.
    let _ = state.set_filter("");
    TopAction::Refresh
}

/// From a group to its connections, from a connection to its details.
fn enter(state: &mut TopState, shown: &TopSnapshot) {
    match state.pane {
        TopPane::Connections => {
            if let Some(row) = selected(state, shown) {
                state.pane = TopPane::Details(row.key);
            }
        }
        TopPane::Groups(_) => {
            let Some(words) = shown.groups.get(state.selected).map(|group| group.words.clone()) else { return };
            if words.is_empty() {
                state.message = Some("conntrack has no words that select these connections".into());
                return;
            }
            match state.set_filter(&words) {
                Ok(()) => state.pane = TopPane::Connections,
                Err(error) => state.message = Some(error),
            }
        }
        TopPane::Details(_) | TopPane::Help => state.pane = TopPane::Connections,
        TopPane::Reasons | TopPane::Findings => (),
    }
}

/// The connection that the selection is on, or whose details are shown.
fn selected<'a>(state: &TopState, shown: &'a TopSnapshot) -> Option<&'a FlowRow> {
    match state.pane {
        TopPane::Connections => shown.page.rows.get(state.selected),
        TopPane::Details(_) => shown.details.as_ref(),
        _ => None,
    }
}

/// The one after this, or the first.
fn next<T: Copy + PartialEq>(all: &[T], this: T) -> T {
    let at = all.iter().position(|one| *one == this).map_or(0, |at| at + 1);
    all.get(at).or(all.first()).copied().unwrap_or(this)
}
