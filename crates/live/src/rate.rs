//! Rates without a sample a second: an average that fades, kept in eight bytes.
use std::time::Duration;

/// Seconds after which an event counts for a third.
const FADE_SECONDS: f32 = 10.0;

/// Events a second, averaged over the last ten seconds or so. It is brought up to date when it is touched or asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FadingRate {
    per_second: f32,
    at_ms: u32,
}

impl FadingRate {
    /// One event happened.
    pub(crate) fn hit(&mut self, now: Duration) {
        self.per_second = self.at(now) + 1.0 / FADE_SECONDS;
        self.at_ms = milliseconds(now);
    }

    /// The rate at this time.
    pub(crate) fn at(&self, now: Duration) -> f32 {
        let passed = milliseconds(now).wrapping_sub(self.at_ms) as f32 / 1000.0;
        self.per_second * (-passed / FADE_SECONDS).exp()
    }
}

fn milliseconds(time: Duration) -> u32 {
    // Differences are what counts: it may wrap after 49 days.
    (time.as_millis() & u128::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_measured_and_fades() {
        let mut rate = FadingRate::default();
        for at in 0..60_000 / 20 {
            rate.hit(Duration::from_millis(at * 20));
        }
        let steady = rate.at(Duration::from_secs(60));
        assert!((45.0..55.0).contains(&steady), "50 events a second are {steady}");
        assert!(rate.at(Duration::from_secs(120)) < 0.5);
        assert_eq!(FadingRate::default().at(Duration::from_secs(5)), 0.0);
    }
}
