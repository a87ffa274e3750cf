//! The gateway's clocks: the time that packets and timeouts go by, and the offset of local time.
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepstate_engine::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since 1970.
pub fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The offset of the machine's time zone from UTC at this time (summer or winter), in nanoseconds: for rules with `meta hour`, `day` and `time`.
pub fn timezone_offset(now: Instant) -> i64 {
    let time = Timestamp::from_nanosecond(now.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    i64::from(TimeZone::system().to_offset(time).seconds()) * 1_000_000_000
}
