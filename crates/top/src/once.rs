//! One screen as text, without a terminal: for scripts, reports and pages.
use crate::draw::draw;
use crate::run::FindingSource;
use crate::snapshot::TopSnapshot;
use crate::state::TopState;
use keepstate_live::LiveFeed;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often signals are looked for until the table has been read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until the table has been read once, and returns the screen of so many columns and rows as lines. `None` if `stop` was set before.
pub fn screen_text(
    feed: &LiveFeed,
    mut state: TopState,
    findings: &FindingSource<'_>,
    (columns, rows): (u16, u16),
    stop: &AtomicBool,
) -> Option<String> {
    while !feed.wait_until(POLL_INTERVAL, |table| table.state().dumps > 0 && table.latest().is_some()) {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
    }
    // The first draw says how many rows there are.
    let mut text = String::new();
    for _ in 0..2 {
        let shown = TopSnapshot::take(feed, &state, &[], findings());
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).ok()?;
        terminal.draw(|frame| draw(frame, &mut state, &shown)).ok()?;
        text = lines(&terminal);
    }
    Some(text)
}

/// What a terminal shows, without the spaces at the ends of the lines.
pub(crate) fn lines(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let columns = usize::from(buffer.area.width).max(1);
    let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    symbols.chunks(columns).map(|line| line.concat().trim_end().to_owned() + "\n").collect()
}
