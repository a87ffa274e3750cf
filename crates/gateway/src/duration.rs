//! Lengths of time as people write them: in the services file, and on the command line.

/// A length of time in milliseconds: `90` (seconds), `90s`, `1.5s`, `200ms`, `20min`, `6h`, `5d`, `1h30m`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    let usage = || String::from("write a time like 90 (seconds), 20min, 6h, 5d or 1h30m");
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return Err(usage());
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
            _ => return Err(usage()),
        };
        // Digits and a point: no sign, no exponent, no infinity.
        let number: f64 = number.parse().map_err(|_| usage())?;
        sum += number * unit;
        rest = after.trim_start();
    }
    if sum > MAX_MILLIS { Err("longer than a hundred years".into()) } else { Ok(sum.round() as u64) }
}

/// A hundred years, in milliseconds.
const MAX_MILLIS: f64 = 100.0 * 365.0 * 8.64e7;

#[cfg(test)]
mod tests {
    use super::*;

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
        for text in ["", "s", "-1", "1 year", "1e3", "inf", "99999999999d", "1..2", ".", "NaN"] {
            assert!(parse_millis(text).is_err(), "{text}");
        }
    }
}
