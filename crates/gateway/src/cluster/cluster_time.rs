//! The gateway's clocks where it is one of a cluster: the engine's time stands still while it is a standby of the only shard.
use super::standing_clock::StandingClock;
use crate::clock::{SystemTimeSource, TimeSource};
use keepstate_engine::{Instant, UnixTime};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The machine's clocks, the first of which can be held.
#[derive(Debug)]
pub(crate) struct ClusterTime {
    clock: Mutex<StandingClock>,
}

impl ClusterTime {
    /// It stands.
    pub(crate) fn held() -> ClusterTime {
        let mut clock = StandingClock::default();
        clock.hold(SystemTimeSource.now());
        ClusterTime { clock: Mutex::new(clock) }
    }

    /// It goes on, as the machine's: of several shards some may be decided here, and connections of the others are held one by one.
    pub(crate) fn running() -> ClusterTime {
        ClusterTime { clock: Mutex::new(StandingClock::default()) }
    }

    /// The engine's time at a time of the machine.
    pub(super) fn at(&self, machine: Instant) -> Instant {
        self.lock().now(machine)
    }

    pub(super) fn hold(&self) {
        self.lock().hold(SystemTimeSource.now());
    }

    pub(super) fn release(&self) {
        self.lock().release(SystemTimeSource.now());
    }

    fn lock(&self) -> MutexGuard<'_, StandingClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TimeSource for ClusterTime {
    fn now(&self) -> Instant {
        self.at(SystemTimeSource.now())
    }

    fn unix_time(&self) -> UnixTime {
        SystemTimeSource.unix_time()
    }

    fn timezone_offset(&self, at: UnixTime) -> i64 {
        SystemTimeSource.timezone_offset(at)
    }
}
