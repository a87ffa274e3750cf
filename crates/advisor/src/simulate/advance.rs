//! Moving a simulation on: events, expiry and samples, each at its own time.
use crate::simulate::simulation::Simulation;
use crate::simulate::timeseries::engine_instant;
use std::cmp::Reverse;

impl Simulation {
    /// Advances to `to` (milliseconds from the beginning), at most to the end.
    pub fn advance(&mut self, to: u64) {
        let to = to.min(self.model.duration);
        while let Some(Reverse(next)) = self.event_queue.peek().copied().filter(|Reverse(next)| next.at <= to) {
            self.advance_sampling(next.at);
            self.event_queue.pop();
            self.dispatch(next);
            self.timeseries.record_packet(&mut self.engine, self.now);
        }
        self.advance_sampling(to);
    }

    /// Advances the time to `to`: entries expire and samples are taken at their own times.
    fn advance_sampling(&mut self, to: u64) {
        while self.timeseries.next_sample_at() <= to {
            let due = self.timeseries.next_sample_at();
            self.expire_until(due);
            self.timeseries.take_sample(&self.engine, engine_instant(due));
        }
        self.expire_until(to);
    }

    fn expire_until(&mut self, to: u64) {
        let (mut clock, end) = (engine_instant(self.now), engine_instant(to));
        while let Some(wake) = self.engine.next_wake(clock).filter(|wake| *wake <= end) {
            clock = clock.max(wake);
            self.engine.poll(clock);
            self.timeseries.record_poll(&mut self.engine, clock.0 / 1_000_000);
        }
        self.now = self.now.max(to);
    }
}
