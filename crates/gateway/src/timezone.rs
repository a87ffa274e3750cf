//! The clock on the wall: what rules that ask for hours, days and dates go by.
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keepstate_engine::Instant;
use keepstate_router::Router;

/// Tells the router how far the machine's zone is from UTC at this time: rules that say `meta hour` go by it, summer or winter.
pub fn update_timezone_offset(router: &mut Router, now: Instant) {
    let time = Timestamp::from_nanosecond(now.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    let offset = TimeZone::system().to_offset(time);
    router.set_wall_offset(i64::from(offset.seconds()) * 1_000_000_000);
}
