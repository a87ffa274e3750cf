//! One screen as text, without a terminal: for scripts, reports and pages.
use crate::draw::draw;
use crate::run::FindingSource;
use crate::snapshot::TopSnapshot;
use crate::state::TopState;
use keepstate_live::LiveFeed;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often signals are looked for until the table has been read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An error that has not passed by then is told. The feed tries again each second.
const ERROR_STANDS: Duration = Duration::from_secs(2);

/// Waits until the table has been read once and `has_findings` says that doctor has run, and returns the screen of so many columns and rows as lines. `None` if `stop` was set before.
///
/// # Errors
/// Why the table cannot be read.
pub fn screen_text(
    feed: &LiveFeed,
    mut state: TopState,
    (findings, has_findings): (&FindingSource<'_>, &dyn Fn() -> bool),
    (columns, rows): (u16, u16),
    stop: &AtomicBool,
) -> Result<Option<String>, String> {
    let begun = Instant::now();
    while !feed.wait_until(POLL_INTERVAL, |table| table.state().dumps > 0 && table.latest().is_some()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(error) = feed.table().state().error.clone().filter(|_| begun.elapsed() >= ERROR_STANDS) {
            return Err(error);
        }
    }
    while !has_findings() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    // The first draw says how many rows there are.
    let mut text = String::new();
    for _ in 0..2 {
        let shown = TopSnapshot::take(feed, &state, &[], findings());
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).map_err(|error| error.to_string())?;
        terminal.draw(|frame| draw(frame, &mut state, &shown)).map_err(|error| error.to_string())?;
        text = lines(&terminal);
    }
    Ok(Some(text))
}

/// What a terminal shows, without the spaces at the ends of the lines.
pub(crate) fn lines(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let columns = usize::from(buffer.area.width).max(1);
    let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    symbols.chunks(columns).map(|line| line.concat().trim_end().to_owned() + "\n").collect()
}
