//! Time, as the driver passes it in, and timer ticks. The engine has no clock: calls take an [`Instant`].
use core::time::Duration;

/// A point in time by the driver's clock: nanoseconds since an epoch that the driver chooses. Timeouts go by it, so it must not be set: CLOCK_BOOTTIME, not the wall clock.
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
    /// The instant `wait` later; saturates.
    pub const fn after(self, wait: Duration) -> Self {
        let nanos = wait.as_nanos();
        Instant(if nanos > u64::MAX as u128 { u64::MAX } else { self.0.saturating_add(nanos as u64) })
    }
    /// The time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A point in time by the wall clock: nanoseconds since 1970, UTC. It is printed, and nothing waits for it: the wall clock may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        UnixTime(seconds.saturating_mul(1_000_000_000))
    }
    /// The time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Instant {
    /// The wall clock's time, if it is `offset` nanoseconds ahead of this clock.
    pub const fn to_unix(self, offset: i64) -> UnixTime {
        UnixTime(self.0.saturating_add_signed(offset))
    }
}

/// Timer ticks per second, as in a kernel with CONFIG_HZ=250, so that remaining times are rounded alike.
pub(crate) const TICKS_PER_SECOND: u64 = 250;

/// Nanoseconds per tick.
const TICK_NANOS: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// Conversion between instants and timer ticks.
pub(crate) trait Ticks {
    /// The tick it falls in, modulo 2³².
    fn tick(self) -> u32;
    /// The beginning of the tick `ticks` later; `self` if that tick is in the past (0, or above `i32::MAX`).
    fn after_ticks(self, ticks: u32) -> Self;
}

/// Converts ticks to milliseconds.
pub(crate) const fn ticks_to_millis(ticks: u32) -> u64 {
    ticks as u64 * (1000 / TICKS_PER_SECOND)
}

/// Converts milliseconds to ticks, rounded down, at most `i32::MAX`.
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
