//! The gateway's clocks: one that nobody sets, for packets and timeouts, and the wall clock, for what is printed and for rules that name a time of day.
//!
//! Nothing else in the gateway may read a clock that can be set (`clippy.toml` forbids it): a step of the wall clock must neither end a connection nor keep one.
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepstate_engine::{Instant, UnixTime};
use keepstate_linux::uptime;
use keepstate_router::WallClock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a gateway gets its time from.
pub trait TimeSource: Send + Sync {
    /// Time since boot, including suspend; never set, never back.
    fn now(&self) -> Instant;

    /// The wall clock, which may be set at any time.
    fn unix_time(&self) -> UnixTime;

    /// The offset of the machine's time zone from UTC at this time (summer or winter), in nanoseconds.
    fn timezone_offset(&self, at: UnixTime) -> i64;

    /// Both clocks together. It may read the time zone's file: never call it while packets wait.
    fn wall_clock(&self) -> WallClock {
        let (now, unix) = (self.now(), self.unix_time());
        let utc_offset = i64::try_from(i128::from(unix.0) - i128::from(now.0)).unwrap_or(0);
        WallClock { utc_offset, local_offset: utc_offset.saturating_add(self.timezone_offset(unix)) }
    }
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemTimeSource;

impl TimeSource for SystemTimeSource {
    fn now(&self) -> Instant {
        Instant(u64::try_from(uptime::since_boot().as_nanos()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn unix_time(&self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn timezone_offset(&self, at: UnixTime) -> i64 {
        let time = Timestamp::from_nanosecond(at.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        i64::from(TimeZone::system().to_offset(time).seconds()) * 1_000_000_000
    }
}
