//! How full the table was, and when it will be full: samples of the last quarter of an hour a second each, of the last day a minute each.
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Samples kept a second each.
const SECONDS_KEPT: usize = 900;
/// Samples kept a minute each.
const MINUTES_KEPT: usize = 1440;
/// The prediction looks back so far.
const TREND_WINDOW: Duration = Duration::from_secs(300);
/// With less than this it says nothing.
const TREND_LEAST: Duration = Duration::from_secs(10);
/// Further away is "not in sight".
const TREND_HORIZON: f64 = 30.0 * 86_400.0;

/// One look at the table's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OccupancySample {
    /// When, on the model's clock.
    pub at: Duration,
    /// Entries.
    pub entries: u64,
    /// The limit; `None` if the owner of the table does not tell.
    pub limit: Option<u64>,
}

/// When the table is full if it goes on as in the last minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToFull {
    /// Too early to say.
    Unknown,
    /// It does not grow, or so slowly that it is more than a month.
    NotInSight,
    /// In this time.
    In(Duration),
    /// It is full.
    Full,
}

impl fmt::Display for TimeToFull {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimeToFull::Unknown => out.write_str("full: too early to say"),
            TimeToFull::NotInSight => out.write_str("not filling"),
            TimeToFull::In(time) => write!(out, "full in {}", duration_text(*time)),
            TimeToFull::Full => out.write_str("FULL"),
        }
    }
}

/// `5 s`, `12 min`, `3 h`, `8 d`: the largest unit that has at least two of it.
pub fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The history. A sample is added each second; memory does not grow.
#[derive(Debug, Default)]
pub(crate) struct Occupancy {
    seconds: VecDeque<OccupancySample>,
    minutes: VecDeque<OccupancySample>,
}

impl Occupancy {
    pub(crate) fn push(&mut self, sample: OccupancySample) {
        if self.minutes.back().is_none_or(|last| sample.at.saturating_sub(last.at) >= Duration::from_secs(60)) {
            push_bounded(&mut self.minutes, sample, MINUTES_KEPT);
        }
        push_bounded(&mut self.seconds, sample, SECONDS_KEPT);
    }

    pub(crate) fn latest(&self) -> Option<OccupancySample> {
        self.seconds.back().copied()
    }

    /// The samples of the last quarter of an hour.
    pub(crate) fn seconds(&self) -> impl DoubleEndedIterator<Item = &OccupancySample> + ExactSizeIterator {
        self.seconds.iter()
    }

    /// The samples of the last day.
    pub(crate) fn minutes(&self) -> impl DoubleEndedIterator<Item = &OccupancySample> + ExactSizeIterator {
        self.minutes.iter()
    }

    /// A straight line through the last minutes, to the limit.
    pub(crate) fn time_to_full(&self) -> TimeToFull {
        let Some(last) = self.latest() else { return TimeToFull::Unknown };
        let Some(limit) = last.limit.filter(|limit| *limit > 0) else { return TimeToFull::NotInSight };
        if last.entries >= limit {
            return TimeToFull::Full;
        }
        let window: Vec<&OccupancySample> =
            self.seconds.iter().filter(|sample| last.at.saturating_sub(sample.at) <= TREND_WINDOW).collect();
        let covered = window.first().map_or(Duration::ZERO, |first| last.at.saturating_sub(first.at));
        if covered < TREND_LEAST {
            return TimeToFull::Unknown;
        }
        let per_second = slope(&window, last.at);
        let seconds = (limit - last.entries) as f64 / per_second;
        if per_second <= 0.0 || seconds > TREND_HORIZON {
            return TimeToFull::NotInSight;
        }
        Duration::try_from_secs_f64(seconds).map_or(TimeToFull::NotInSight, TimeToFull::In)
    }
}

fn push_bounded(into: &mut VecDeque<OccupancySample>, sample: OccupancySample, most: usize) {
    if into.len() >= most {
        into.pop_front();
    }
    into.push_back(sample);
}

/// The slope of the least squares line, in entries a second.
fn slope(samples: &[&OccupancySample], now: Duration) -> f64 {
    let count = samples.len() as f64;
    let point = |sample: &OccupancySample| (-now.saturating_sub(sample.at).as_secs_f64(), sample.entries as f64);
    let (mean_x, mean_y) = samples.iter().fold((0.0, 0.0), |(x, y), sample| {
        let (at, entries) = point(sample);
        (x + at / count, y + entries / count)
    });
    let (over, under) = samples.iter().fold((0.0, 0.0), |(over, under), sample| {
        let (at, entries) = point(sample);
        (over + (at - mean_x) * (entries - mean_y), under + (at - mean_x) * (at - mean_x))
    });
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(entries: impl Fn(u64) -> u64, seconds: u64) -> Occupancy {
        let mut history = Occupancy::default();
        for at in 0..seconds {
            history.push(OccupancySample { at: Duration::from_secs(at), entries: entries(at), limit: Some(10_000) });
        }
        history
    }

    #[test]
    fn a_growing_table_is_full_when_the_line_says_so() {
        let TimeToFull::In(time) = filled(|at| 1000 + 10 * at, 301).time_to_full() else { panic!("it grows") };
        // 4000 entries, 10 more each second.
        assert_eq!(time.as_secs_f64().round(), 600.0);
    }

    #[test]
    fn no_growth_is_not_in_sight_and_few_samples_are_unknown() {
        assert_eq!(filled(|_| 500, 60).time_to_full(), TimeToFull::NotInSight);
        assert_eq!(filled(|at| 5000 - at, 60).time_to_full(), TimeToFull::NotInSight);
        assert_eq!(filled(|at| at * 100, 5).time_to_full(), TimeToFull::Unknown);
        assert_eq!(filled(|_| 10_000, 60).time_to_full(), TimeToFull::Full);
        assert_eq!(Occupancy::default().time_to_full(), TimeToFull::Unknown);
    }

    #[test]
    fn memory_is_bounded() {
        let history = filled(|at| at, 100_000);
        assert_eq!((history.seconds().len(), history.minutes().len()), (SECONDS_KEPT, MINUTES_KEPT));
        assert_eq!(history.latest().map(|last| last.entries), Some(99_999));
    }
}
