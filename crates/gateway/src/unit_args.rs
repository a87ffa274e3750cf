//! Amounts as a user writes them: so many, so often, so long, such a share.
use std::num::ParseFloatError;
use std::time::Duration;

/// A number of things, at least one: `65536`, `1_000_000`, `250k`, `1.5M`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let how = || String::from("write a whole number from 1 on, like 65536, 250k or 1.5M");
    let plain = text.replace('_', "");
    let (number, unit) = match plain.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000_u64),
        None => plain.strip_suffix('M').map_or((plain.as_str(), 1), |number| (number, 1_000_000)),
    };
    let count = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit).ok_or_else(|| String::from("that is more than can be counted"))?,
        Err(_) if unit > 1 => {
            let times = parse_non_negative(number).ok_or_else(how)? * unit as f64;
            if times.fract() != 0.0 || times > 1e15 {
                return Err(how());
            }
            times as u64
        }
        Err(_) => return Err(how()),
    };
    match count {
        0 => Err("0 need no table; write a whole number from 1 on".into()),
        _ => Ok(count),
    }
}

/// So many a second: `500`, `0.5`, `500/s`, `30/min`, `2/h`, `1000/d`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.split_once('/') {
        None | Some((_, "s")) => (text.trim_end_matches("/s"), 1.0),
        Some((number, "min" | "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some((number, "d")) => (number, 86_400.0),
        Some(_) => return Err("a rate is by /s, /min, /h or /d, like 500/s".into()),
    };
    let number = parse_non_negative(number).or_else(|| parse_count(number).ok().map(|count| count as f64));
    match number.map(|number| number / seconds) {
        Some(rate) if rate <= 1e9 => Ok(rate),
        Some(_) => Err("no machine takes a thousand million a second".into()),
        None => Err("write how many a second, like 500, 0.5 or 30/min".into()),
    }
}

/// A length of time in milliseconds: `90` (seconds), `90s`, `1.5s`, `200ms`, `20min`, `6h`, `5d`, `1h30m`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    let how = || String::from("write a time like 90 (seconds), 20min, 6h, 5d or 1h30m");
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return Err(how());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" => 1.0,
            "" | "s" => 1e3,
            "m" | "min" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return Err(how()),
        };
        sum += parse_non_negative(number).ok_or_else(how)? * unit;
        rest = after.trim_start();
    }
    if sum > MAX_MILLIS { Err("that is longer than a hundred years".into()) } else { Ok(sum.round() as u64) }
}

/// A length of time up to a day, 0 too; written as in [`parse_millis`].
///
/// # Errors
/// A sentence for the user.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = Duration::from_millis(parse_millis(text)?);
    if interval > MAX_INTERVAL { Err("an interval is at most one day".into()) } else { Ok(interval) }
}

/// A length of time in whole seconds, at least one; written as in [`milliseconds`].
///
/// # Errors
/// A sentence for the user.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    match parse_millis(text)? {
        0 => Err("no time at all is too short; write a time like 90 (seconds), 20min or 6h".into()),
        milliseconds if milliseconds % 1000 != 0 => Err("write whole seconds here".into()),
        milliseconds => Ok(milliseconds / 1000),
    }
}

/// As [`seconds`], but 0 too, which stands for none.
///
/// # Errors
/// A sentence for the user.
pub fn parse_seconds_or_zero(text: &str) -> Result<u64, String> {
    match parse_millis(text)? {
        0 => Ok(0),
        _ => parse_seconds(text),
    }
}

/// A share of a whole, from 0 to 1: `10%` or `10`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    match parse_non_negative(text.trim_end_matches('%')) {
        Some(percent) if percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a share as a percentage from 0 to 100, like 10%".into()),
    }
}

/// A number that is not negative, without exponents, infinities and the like.
fn parse_non_negative(text: &str) -> Option<f64> {
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let number: Result<f64, ParseFloatError> = text.parse();
    number.ok().filter(|number| plain && number.is_finite())
}

/// A day.
const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// A hundred years, in milliseconds.
const MAX_MILLIS: f64 = 100.0 * 365.0 * 8.64e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_counts() {
        for (text, number) in
            [("1", 1), ("65536", 65_536), ("1_000_000", 1_000_000), ("250k", 250_000), ("1.5M", 1_500_000)]
        {
            assert_eq!(parse_count(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "1.5",
            "many",
            "k",
            "1e6",
            "18446744073709551616",
            "18446744073709551615M",
            "NaN",
            "1.0001k",
        ] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parses_rates() {
        for (text, number) in [
            ("500", 500.0),
            ("0.5", 0.5),
            ("500/s", 500.0),
            ("30/min", 0.5),
            ("86400/d", 1.0),
            ("2k", 2000.0),
            ("0", 0.0),
        ] {
            assert_eq!(parse_rate(text), Ok(number), "{text}");
        }
        for text in ["", "-1", "inf", "NaN", "1/week", "1e3", "99999999999", "/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parses_durations() {
        for (text, number) in [
            ("90", 90_000),
            ("1.5s", 1500),
            ("200ms", 200),
            ("20min", 1_200_000),
            ("1h30m", 5_400_000),
            ("5d", 432_000_000),
            ("1h 5", 3_605_000),
        ] {
            assert_eq!(parse_millis(text), Ok(number), "{text}");
        }
        for text in ["", "s", "-1", "1 year", "1e3", "inf", "99999999999d", "1..2"] {
            assert!(parse_millis(text).is_err(), "{text}");
        }
        assert!(parse_seconds("0").is_err() && parse_seconds("1500ms").is_err());
        assert_eq!((parse_seconds("90"), parse_seconds_or_zero("0")), (Ok(90), Ok(0)));
    }

    #[test]
    fn parses_intervals() {
        for (text, milliseconds) in [("2s", 2000), ("500ms", 500), ("1m", 60_000), ("0", 0), ("24h", 86_400_000)] {
            assert_eq!(parse_interval(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["soon", "25h", "-1s", ""] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parses_percentages() {
        assert_eq!((parse_percent("10%"), parse_percent("100"), parse_percent("0.5%")), (Ok(0.1), Ok(1.0), Ok(0.005)));
        assert!(
            parse_percent("101").is_err()
                && parse_percent("-1").is_err()
                && parse_percent("").is_err()
                && parse_percent("NaN%").is_err()
        );
    }
}
