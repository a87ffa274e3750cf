//! Output of the laboratory: sections, commands, their output, and checks; it keeps whether all checks passed.
use anstyle::{AnsiColor, Style};
use keepstate_advisor::units::Count;
use std::time::Duration;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const FULL: Style = AnsiColor::Red.on_default();
/// Width of the bar.
const BAR_CELLS: u64 = 30;

/// Prints to standard output.
pub(super) struct Reporter {
    all_passed: bool,
    sections: u32,
}

impl Reporter {
    pub(super) fn new() -> Reporter {
        Reporter { all_passed: true, sections: 0 }
    }

    /// Whether all checks so far passed.
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

    /// A line of text.
    pub(super) fn text(&self, text: &str) {
        anstream::println!("  {text}");
    }

    /// A command, and the side it runs on.
    pub(super) fn command(&self, side: &str, command: &str) {
        anstream::println!("  {DIM}{side}${DIM:#} {command}");
    }

    /// The first lines of a command's output.
    pub(super) fn output(&self, text: &str, lines: usize) {
        for line in text.lines().take(lines) {
            anstream::println!("    {DIM}{line}{DIM:#}");
        }
    }

    /// A check, and what it expects or found.
    pub(super) fn check(&mut self, passed: bool, what: &str) {
        self.all_passed &= passed;
        if passed {
            anstream::println!("  {GOOD}✓{GOOD:#} {what}");
        } else {
            anstream::println!("  {BAD}✗ failed: {what}{BAD:#}");
        }
    }

    /// The fill level of the table at a time.
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
            anstream::println!("\n{GOOD}All checks passed.{GOOD:#}");
        } else {
            anstream::println!("\n{BAD}Some checks failed: see ✗ above.{BAD:#}");
        }
    }
}

/// Filled cells of the bar: none only if the table is empty, all only if it is full.
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
