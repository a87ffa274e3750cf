//! The clock on the wall: what rules that ask for hours, days and dates go by.
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepstate_engine::Instant;

/// Nanoseconds by which the machine's zone is ahead of UTC at this time: for rules that say `meta hour`, summer or winter.
pub fn offset_nanoseconds(now: Instant) -> i64 {
    let time = Timestamp::from_nanosecond(now.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    i64::from(TimeZone::system().to_offset(time).seconds()) * 1_000_000_000
}
