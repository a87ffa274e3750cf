//! Time as the driver tells it.
use core::time::Duration;

/// A point in time: nanoseconds since an epoch of the driver's choice (the Unix epoch, where start and stop times are to be printed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Instant(pub u64);

impl Instant {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Instant(seconds.saturating_mul(1_000_000_000))
    }
    /// From milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Instant(milliseconds.saturating_mul(1_000_000))
    }
    /// This much later; the end of time at most.
    pub const fn after(self, wait: Duration) -> Self {
        let nanos = wait.as_nanos();
        Instant(if nanos > u64::MAX as u128 { u64::MAX } else { self.0.saturating_add(nanos as u64) })
    }
    /// Time passed since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The kernel's clock for timeouts ticks so often here too (CONFIG_HZ=250), so that remaining times round alike.
pub(crate) const TICKS_PER_SECOND: u64 = 250;

/// Nanoseconds of one tick.
const TICK_NANOS: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// An instant as the timers see it.
pub(crate) trait Ticks {
    /// The tick it falls in, modulo 2³².
    fn tick(self) -> u32;
    /// The beginning of the tick so many on; itself for a tick that has passed.
    fn after_ticks(self, ticks: u32) -> Self;
}

/// Ticks in milliseconds.
pub(crate) const fn ticks_to_millis(ticks: u32) -> u64 {
    ticks as u64 * (1000 / TICKS_PER_SECOND)
}

/// Whole ticks of so many milliseconds, as many as a timeout may have.
pub(crate) fn millis_to_ticks(milliseconds: u64) -> u32 {
    let ticks = milliseconds / (1000 / TICKS_PER_SECOND);
    u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

impl Ticks for Instant {
    #[inline(always)]
    fn tick(self) -> u32 {
        (self.0 / TICK_NANOS) as u32
    }

    fn after_ticks(self, ticks: u32) -> Instant {
        match i32::try_from(ticks) {
            Ok(0) | Err(_) => self,
            Ok(_) => Instant((self.0 / TICK_NANOS).saturating_add(u64::from(ticks)).saturating_mul(TICK_NANOS)),
        }
    }
}
