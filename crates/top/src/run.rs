//! The loop on a terminal: keys at once, a new snapshot as often as its cost allows.
use crate::draw::draw;
use crate::keys::{TopAction, press};
use crate::snapshot::{FindingLine, TopSnapshot};
use crate::state::TopState;
use crate::terminal::FullScreen;
use keepstate_linux::ctnetlink::CtClient;
use keepstate_linux::poll::wait_for_terminal;
use keepstate_live::{FlowKey, LiveFeed};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What doctor has found by now; `None` before its first run.
pub type FindingSource<'a> = dyn Fn() -> Option<Vec<FindingLine>> + 'a;

/// Why the view ended.
#[derive(Debug)]
pub enum TopError {
    /// There is no terminal.
    NoTerminal(io::Error),
    /// The terminal failed.
    Terminal(io::Error),
}

/// Between two snapshots, at least.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// While the table is read for the first time.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// A snapshot may take one part in so many of a processor's time.
const REFRESH_SHARE: u32 = 60;
/// And in so many while the table is read for the first time.
const FIRST_SHARE: u32 = 4;
/// How often signals are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows a feed until the user ends it, or `stop` is set.
///
/// # Errors
/// There is no terminal, or it fails.
pub fn run(
    feed: &LiveFeed,
    mut state: TopState,
    findings: &FindingSource<'_>,
    stop: &AtomicBool,
) -> Result<(), TopError> {
    let mut screen = FullScreen::open().map_err(TopError::NoTerminal)?;
    let mut view =
        View { feed, findings, shown: TopSnapshot::take(feed, &state, &[], findings()), due: Instant::now() };
    view.show(&mut screen, &mut state, true).map_err(TopError::Terminal)?;
    while !stop.load(Ordering::Relaxed) {
        let wait = view.due.saturating_duration_since(Instant::now()).min(POLL_INTERVAL);
        let action = match next_event(wait).map_err(TopError::Terminal)? {
            Some(Event::Key(key)) if key.kind != KeyEventKind::Release => press(&mut state, &view.shown, key),
            Some(Event::Resize(..)) => TopAction::Refresh,
            Some(_) => continue,
            None if Instant::now() >= view.due && !state.is_frozen => {
                view.show(&mut screen, &mut state, false).map_err(TopError::Terminal)?;
                continue;
            }
            None => continue,
        };
        let drawn = match action {
            TopAction::Quit => return Ok(()),
            TopAction::Suspend => screen.suspend().and_then(|()| view.draw(&mut screen, &mut state)),
            TopAction::Redraw => view.draw(&mut screen, &mut state),
            TopAction::Refresh => view.show(&mut screen, &mut state, true),
            TopAction::Delete(key) => {
                state.message = Some(delete(feed, &key));
                view.show(&mut screen, &mut state, false)
            }
        };
        drawn.map_err(TopError::Terminal)?;
    }
    Ok(())
}

pub(crate) fn next_event(wait: Duration) -> io::Result<Option<Event>> {
    // It is not for crossterm to wait: it would read a closed terminal for ever.
    wait_for_terminal(io::stdin().as_fd(), wait)?;
    match event::poll(Duration::ZERO) {
        Ok(true) => event::read().map(Some),
        Ok(false) => Ok(None),
        // A signal came.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

struct View<'a> {
    feed: &'a LiveFeed,
    findings: &'a FindingSource<'a>,
    shown: TopSnapshot,
    /// When the next snapshot may be taken.
    due: Instant,
}

impl View<'_> {
    /// Takes a snapshot and draws it; `anew` orders the rows, otherwise they keep their places.
    fn show(&mut self, screen: &mut FullScreen, state: &mut TopState, anew: bool) -> io::Result<()> {
        let begun = processor_time();
        let before: Vec<FlowKey> =
            if anew { Vec::new() } else { self.shown.page.rows.iter().map(|row| row.key).collect() };
        // The size decides how many rows there are.
        let rows = state.rows;
        self.shown = TopSnapshot::take(self.feed, state, &before, (self.findings)());
        self.draw(screen, state)?;
        if state.rows > rows {
            self.shown = TopSnapshot::take(self.feed, state, &before, (self.findings)());
            self.draw(screen, state)?;
        }
        let (least, share) =
            if self.shown.feed.dumps == 0 { (FIRST_INTERVAL, FIRST_SHARE) } else { (REFRESH_INTERVAL, REFRESH_SHARE) };
        // Not the time that passed: most of that may be other programs'.
        let cost = processor_time().saturating_sub(begun);
        self.due = Instant::now() + least.max(cost.saturating_mul(share));
        Ok(())
    }

    fn draw(&mut self, screen: &mut FullScreen, state: &mut TopState) -> io::Result<()> {
        screen.terminal.draw(|frame| draw(frame, state, &self.shown)).map(drop)
    }
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Deletes a connection; returns what to tell the user.
fn delete(feed: &LiveFeed, key: &FlowKey) -> String {
    let Some(row) = feed.table().find(key, feed.now()) else { return "it had ended already".into() };
    let socket = match feed.source().open() {
        Ok(socket) => socket,
        Err(error) => return format!("not deleted: {error}"),
    };
    match CtClient::from_socket(socket).delete(&row.flow) {
        Ok(()) => "deleted".into(),
        Err(error) if error.errno() == Some(2) => "it had ended already".into(),
        Err(error) => format!("not deleted: {error}"),
    }
}
