//! Who tells the story: chapters, what is typed, what is seen; and whether all of it was as it should be.
use anstyle::{AnsiColor, Style};
use keepstate_advisor::units::Count;
use std::time::Duration;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const FULL: Style = AnsiColor::Red.on_default();
/// Cells of the bar.
const BAR_CELLS: u64 = 30;

/// See the module's words.
pub(super) struct Reporter {
    all_passed: bool,
    sections: u32,
}

impl Reporter {
    pub(super) fn new() -> Reporter {
        Reporter { all_passed: true, sections: 0 }
    }

    /// Was everything so far as it should be?
    pub(super) fn all_passed(&self) -> bool {
        self.all_passed
    }

    pub(super) fn title(&self, title: &str) {
        anstream::println!("{BOLD}{title}{BOLD:#}");
    }

    pub(super) fn section(&mut self, title: &str) {
        self.sections += 1;
        anstream::println!("\n{BOLD}{}. {title}{BOLD:#}", self.sections);
    }

    /// A line of ordinary words.
    pub(super) fn text(&self, what: &str) {
        anstream::println!("  {what}");
    }

    /// What is typed, and where.
    pub(super) fn command(&self, place: &str, command: &str) {
        anstream::println!("  {DIM}{place}${DIM:#} {command}");
    }

    /// Some lines of what somebody said.
    pub(super) fn output(&self, text: &str, lines: usize) {
        for line in text.lines().take(lines) {
            anstream::println!("    {DIM}{line}{DIM:#}");
        }
    }

    /// What must hold.
    pub(super) fn check(&mut self, holds: bool, what: &str) {
        self.all_passed &= holds;
        if holds {
            anstream::println!("  {GOOD}✓{GOOD:#} {what}");
        } else {
            anstream::println!("  {BAD}✗ not so: {what}{BAD:#}");
        }
    }

    /// The table at a moment.
    pub(super) fn table_bar(&self, at: Duration, count: u64, limit: u64) {
        let cells = filled_cells(count, limit);
        let style = if count >= limit { FULL } else { GOOD };
        let (on, off) = ("█".repeat(cells), "░".repeat(BAR_CELLS as usize - cells));
        anstream::println!(
            "  {:>4.1} s  {style}{on}{style:#}{DIM}{off}{DIM:#} {:>7} of {}",
            at.as_secs_f64(),
            Count(count).to_string(),
            Count(limit)
        );
    }

    pub(super) fn finish(&self) {
        if self.all_passed {
            anstream::println!("\n{GOOD}Everything was as it should be.{GOOD:#}");
        } else {
            anstream::println!("\n{BAD}Something was not as it should be: see above.{BAD:#}");
        }
    }
}

/// Cells of the bar that are full: none only if nothing is there, all only if no place is left.
fn filled_cells(count: u64, limit: u64) -> usize {
    let cells = match (count, limit) {
        (0, _) | (_, 0) => 0,
        (count, limit) if count >= limit => BAR_CELLS,
        (count, limit) => (count.saturating_mul(BAR_CELLS) / limit).clamp(1, BAR_CELLS - 1),
    };
    usize::try_from(cells).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_is_empty_or_full_only_when_the_table_is() {
        let cells: Vec<usize> = [0, 1, 500, 999, 1000, 2000].map(|count| filled_cells(count, 1000)).into();
        assert_eq!(cells, [0, 1, 15, 29, 30, 30]);
        assert_eq!((filled_cells(5, 0), filled_cells(u64::MAX, u64::MAX)), (0, 30));
    }
}
