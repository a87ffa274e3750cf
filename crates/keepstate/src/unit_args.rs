//! Quantities as a user writes them on the command line: counts, rates, lengths of time, percentages.
pub use keepstate_gateway::duration::parse_millis;
use std::net::{IpAddr, SocketAddr};
use std::num::ParseFloatError;
use std::time::Duration;

/// A count, at least one: `65536`, `1_000_000`, `250k`, `1.5M`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let usage = || String::from("write a whole number from 1 on, like 65536, 250k or 1.5M");
    let plain = text.replace('_', "");
    let (number, unit) = match plain.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000_u64),
        None => plain.strip_suffix('M').map_or((plain.as_str(), 1), |number| (number, 1_000_000)),
    };
    let count = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit).ok_or_else(|| String::from("number too large"))?,
        Err(_) if unit > 1 => {
            let times = parse_non_negative(number).ok_or_else(usage)? * unit as f64;
            if times.fract() != 0.0 || times > 1e15 {
                return Err(usage());
            }
            times as u64
        }
        Err(_) => return Err(usage()),
    };
    match count {
        0 => Err("must be at least 1".into()),
        _ => Ok(count),
    }
}

/// A rate per second: `500`, `0.5`, `500/s`, `30/min`, `2/h`, `1000/d`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.split_once('/') {
        None | Some((_, "s")) => (text.trim_end_matches("/s"), 1.0),
        Some((number, "min" | "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some((number, "d")) => (number, 86_400.0),
        Some(_) => return Err("write a rate as N/s, N/min, N/h or N/d, like 500/s".into()),
    };
    let number = parse_non_negative(number).or_else(|| parse_count(number).ok().map(|count| count as f64));
    match number.map(|number| number / seconds) {
        Some(rate) if rate <= 1e9 => Ok(rate),
        Some(_) => Err("rate too high: the most is 1000000000/s".into()),
        None => Err("write a rate per second, like 500, 0.5 or 30/min".into()),
    }
}

/// A length of time up to a day, 0 too; written as for [`parse_millis`].
///
/// # Errors
/// A sentence for the user.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = Duration::from_millis(parse_millis(text)?);
    if interval > MAX_INTERVAL { Err("an interval is at most one day".into()) } else { Ok(interval) }
}

/// An address with its port.
///
/// # Errors
/// A sentence for the user: what is missing, or how it is written.
pub fn parse_address_port(text: &str) -> Result<SocketAddr, String> {
    const EXAMPLES: &str = "write an address and a port, like 192.0.2.1:4000 or [2001:db8::1]:4000";
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => format!("the port is missing: {EXAMPLES}"),
        Err(_) if text.parse::<u16>().is_ok() => format!("the address is missing: {EXAMPLES}"),
        Err(_) => EXAMPLES.into(),
    })
}

/// A length of time in whole seconds, at least one; written as for [`parse_millis`].
///
/// # Errors
/// A sentence for the user.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    match parse_millis(text)? {
        0 => Err("must be longer than 0: write a time like 90 (seconds), 20min or 6h".into()),
        milliseconds if milliseconds % 1000 != 0 => Err("write whole seconds here".into()),
        milliseconds => Ok(milliseconds / 1000),
    }
}

/// As [`parse_seconds`], but 0 is allowed and means none.
///
/// # Errors
/// A sentence for the user.
pub fn parse_seconds_or_zero(text: &str) -> Result<u64, String> {
    match parse_millis(text)? {
        0 => Ok(0),
        _ => parse_seconds(text),
    }
}

/// A percentage, as a fraction from 0 to 1: `10%` or `10`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    match parse_non_negative(text.trim_end_matches('%')) {
        Some(percent) if percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a percentage from 0 to 100, like 10%".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_its_port() {
        for (text, wanted) in [
            ("192.0.2.1", "the port is missing"),
            ("2001:db8::1", "the port is missing"),
            ("9464", "the address is missing"),
            ("host:80", "like 192.0.2.1:4000"),
            ("192.0.2.1:70000", "like 192.0.2.1:4000"),
        ] {
            assert!(parse_address_port(text).is_err_and(|error| error.contains(wanted)), "{text}");
        }
        assert!(parse_address_port("[::1]:9464").is_ok_and(|address| address.port() == 9464));
    }

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
    fn parses_whole_seconds() {
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
