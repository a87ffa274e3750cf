//! A time argument: seconds from the first packet, or a date.
use std::str::FromStr;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArg {
    /// Nanoseconds after the first packet.
    SinceFirstPacket(u64),
    /// Nanoseconds since the Unix epoch.
    UnixNanos(u64),
}

/// Numbers below this are seconds from the first packet, others seconds since the epoch.
const MAX_RELATIVE_SECONDS: f64 = 1e9;

impl TimeArg {
    /// Nanoseconds since the epoch, for a capture that begins at `first`.
    pub fn resolve(self, first: u64) -> u64 {
        match self {
            TimeArg::SinceFirstPacket(nanos) => first.saturating_add(nanos),
            TimeArg::UnixNanos(nanos) => nanos,
        }
    }
}

impl FromStr for TimeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.parse::<f64>() {
            if !seconds.is_finite() || seconds < 0.0 {
                return Err("a time cannot be before the first packet".into());
            }
            let nanos = (seconds * 1e9) as u64;
            return Ok(if seconds < MAX_RELATIVE_SECONDS {
                TimeArg::SinceFirstPacket(nanos)
            } else {
                TimeArg::UnixNanos(nanos)
            });
        }
        let date: jiff::Timestamp = text.parse().map_err(|_| {
            String::from(
                "write seconds from the first packet (12.5) or a date with its time zone (2026-11-23T14:00:00Z)",
            )
        })?;
        u64::try_from(date.as_nanosecond())
            .map(TimeArg::UnixNanos)
            .map_err(|_| "the date is out of range: 1970 to 2554".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_relative_seconds_and_dates() {
        assert_eq!("12.5".parse(), Ok(TimeArg::SinceFirstPacket(12_500_000_000)));
        assert_eq!("1700000000".parse(), Ok(TimeArg::UnixNanos(1_700_000_000_000_000_000)));
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(TimeArg::UnixNanos(1_700_000_000_000_000_000)));
        assert!("yesterday".parse::<TimeArg>().is_err());
        assert!("-1".parse::<TimeArg>().is_err());
        assert_eq!(TimeArg::SinceFirstPacket(5).resolve(10), 15);
    }
}
