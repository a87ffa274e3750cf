//! Amounts as a user writes them: so many, so often, so long, such a share.
use std::num::ParseFloatError;

/// A number of things, at least one: `65536`, `1_000_000`, `250k`, `1.5M`.
///
/// # Errors
/// A sentence for the user.
pub fn count(text: &str) -> Result<u64, String> {
    let how = || String::from("write a whole number from 1 on, like 65536, 250k or 1.5M");
    let plain = text.replace('_', "");
    let (number, unit) = match plain.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000_u64),
        None => plain.strip_suffix('M').map_or((plain.as_str(), 1), |number| (number, 1_000_000)),
    };
    let count = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit).ok_or_else(|| String::from("that is more than can be counted"))?,
        Err(_) if unit > 1 => {
            let times = positive(number).ok_or_else(how)? * unit as f64;
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
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.split_once('/') {
        None | Some((_, "s")) => (text.trim_end_matches("/s"), 1.0),
        Some((number, "min" | "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some((number, "d")) => (number, 86_400.0),
        Some(_) => return Err("a rate is by /s, /min, /h or /d, like 500/s".into()),
    };
    let number = positive(number).or_else(|| count(number).ok().map(|count| count as f64));
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
pub fn milliseconds(text: &str) -> Result<u64, String> {
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
        sum += positive(number).ok_or_else(how)? * unit;
        rest = after.trim_start();
    }
    if sum > LONGEST { Err("that is longer than a hundred years".into()) } else { Ok(sum.round() as u64) }
}

/// A length of time in whole seconds, at least one; written as in [`milliseconds`].
///
/// # Errors
/// A sentence for the user.
pub fn seconds(text: &str) -> Result<u64, String> {
    match milliseconds(text)? {
        0 => Err("no time at all is too short; write a time like 90 (seconds), 20min or 6h".into()),
        milliseconds if milliseconds % 1000 != 0 => Err("write whole seconds here".into()),
        milliseconds => Ok(milliseconds / 1000),
    }
}

/// As [`seconds`], but 0 too, which stands for none.
///
/// # Errors
/// A sentence for the user.
pub fn seconds_or_none(text: &str) -> Result<u64, String> {
    match milliseconds(text)? {
        0 => Ok(0),
        _ => seconds(text),
    }
}

/// A share of a whole, from 0 to 1: `10%` or `10`.
///
/// # Errors
/// A sentence for the user.
pub fn share(text: &str) -> Result<f64, String> {
    match positive(text.trim_end_matches('%')) {
        Some(percent) if percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a share as a percentage from 0 to 100, like 10%".into()),
    }
}

/// A number that is not negative, without exponents, infinities and the like.
fn positive(text: &str) -> Option<f64> {
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let number: Result<f64, ParseFloatError> = text.parse();
    number.ok().filter(|number| plain && number.is_finite())
}

/// A hundred years, in milliseconds.
const LONGEST: f64 = 100.0 * 365.0 * 8.64e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (text, number) in
            [("1", 1), ("65536", 65_536), ("1_000_000", 1_000_000), ("250k", 250_000), ("1.5M", 1_500_000)]
        {
            assert_eq!(count(text), Ok(number), "{text}");
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
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, number) in [
            ("500", 500.0),
            ("0.5", 0.5),
            ("500/s", 500.0),
            ("30/min", 0.5),
            ("86400/d", 1.0),
            ("2k", 2000.0),
            ("0", 0.0),
        ] {
            assert_eq!(rate(text), Ok(number), "{text}");
        }
        for text in ["", "-1", "inf", "NaN", "1/week", "1e3", "99999999999", "/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, number) in [
            ("90", 90_000),
            ("1.5s", 1500),
            ("200ms", 200),
            ("20min", 1_200_000),
            ("1h30m", 5_400_000),
            ("5d", 432_000_000),
            ("1h 5", 3_605_000),
        ] {
            assert_eq!(milliseconds(text), Ok(number), "{text}");
        }
        for text in ["", "s", "-1", "1 year", "1e3", "inf", "99999999999d", "1..2"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        assert!(seconds("0").is_err() && seconds("1500ms").is_err());
        assert_eq!((seconds("90"), seconds_or_none("0")), (Ok(90), Ok(0)));
    }

    #[test]
    fn shares() {
        assert_eq!((share("10%"), share("100"), share("0.5%")), (Ok(0.1), Ok(1.0), Ok(0.005)));
        assert!(share("101").is_err() && share("-1").is_err() && share("").is_err() && share("NaN%").is_err());
    }
}
