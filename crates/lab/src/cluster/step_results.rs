//! Measurements of the steps, and the table of them at the end.
use super::loads::ClientView;
use crate::results::as_text;
use comfy_table::{Table, presets};
use keepstate_advisor::units::Count;
use std::time::Duration;

/// One step.
#[derive(Clone, Debug)]
pub(super) struct StepResult {
    pub(super) name: &'static str,
    /// From the trigger to a gateway that is active.
    pub(super) takeover: Option<Duration>,
    pub(super) seen: ClientView,
}

/// So long that all of a share (in per cent) waited no longer; `sorted` is.
pub(super) fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    let at = (sorted.len() * per_cent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// A time as a person reads it.
pub(super) fn show(time: Duration) -> String {
    match time.as_millis() {
        0 => "<1 ms".to_owned(),
        millis @ 1..1_000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

impl StepResult {
    fn cells(&self) -> [String; 9] {
        let ClientView { sessions, new, transfers } = &self.seen;
        let (silences, new) = (&sessions.silences, new.counts);
        [
            self.name.to_owned(),
            self.takeover.map_or_else(|| "-".to_owned(), show),
            Count(sessions.lost as u64).to_string(),
            show(percentile(silences, 50)),
            show(percentile(silences, 99)),
            show(silences.last().copied().unwrap_or_default()),
            if transfers.broken > 0 { format!("{} broken", transfers.broken) } else { show(transfers.pause) },
            format!("{} + {}", Count(new.prompt.into()), Count(new.late.into())),
            Count(new.failed.into()).to_string(),
        ]
    }
}

const HEADER: [&str; 9] = [
    "step",
    "takeover",
    "reconnects",
    "silence p50",
    "p99",
    "longest",
    "transfer's pause",
    "new: prompt + late",
    "failed",
];

/// The table as text.
pub(super) fn render_steps(results: &[StepResult]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADER);
    for result in results {
        table.add_row(result.cells());
    }
    as_text(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|share| percentile(&times, share).as_millis()), [100, 198, 200]);
        assert_eq!(percentile(&times[..1], 99).as_millis(), 1);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
        assert_eq!(
            (show(Duration::from_millis(999)), show(Duration::from_millis(1_250))),
            ("999 ms".into(), "1.2 s".into())
        );
        assert_eq!(show(Duration::from_micros(300)), "<1 ms");
    }
}
