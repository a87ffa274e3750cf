//! The engine's time on a standby: it stands still, because refreshed timeouts are not told; at promotion it goes on, and every timer has what was left of it when its connection was last told.
use keepstate_engine::Instant;

/// Time that can be stopped, never set and never back.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandingClock {
    held: Option<Instant>,
    behind: u64,
}

impl StandingClock {
    /// The engine's time at a time of the machine.
    pub fn now(&self, machine: Instant) -> Instant {
        self.held.unwrap_or(Instant(machine.0.saturating_sub(self.behind)))
    }

    /// From now on it stands still.
    pub fn hold(&mut self, machine: Instant) {
        self.held = Some(self.now(machine));
    }

    /// From now on it goes on.
    pub fn release(&mut self, machine: Instant) {
        if let Some(held) = self.held.take() {
            self.behind = machine.0.saturating_sub(held.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_of_a_timer_is_left_after_any_wait() {
        let mut clock = StandingClock::default();
        assert_eq!(clock.now(Instant(70)), Instant(70));
        clock.hold(Instant(100));
        clock.hold(Instant(200));
        assert_eq!(clock.now(Instant(9_000)), Instant(100));
        clock.release(Instant(10_000));
        clock.release(Instant(10_010));
        assert_eq!(clock.now(Instant(10_030)), Instant(130));
        clock.hold(Instant(10_040));
        clock.release(Instant(20_000));
        assert_eq!(clock.now(Instant(20_001)), Instant(141));
    }
}
