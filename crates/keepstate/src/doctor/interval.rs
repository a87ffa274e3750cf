//! Lengths of time on the command line: `2s`, `500ms`, `1m`, or seconds.
use std::time::Duration;

/// A length of time.
///
/// # Errors
/// How it is to be written.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(keepstate::doctor::interval("500ms"), Ok(Duration::from_millis(500)));
/// assert_eq!(keepstate::doctor::interval("0"), Ok(Duration::ZERO));
/// assert!(keepstate::doctor::interval("soon").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a time like 2s, 500ms or 1m".into()),
    };
    let number: u64 = digits.parse().map_err(|_| String::from("write a time like 2s, 500ms or 1m"))?;
    let millis = number.checked_mul(unit).filter(|millis| *millis <= 86_400_000);
    millis.map(Duration::from_millis).ok_or_else(|| "that is longer than a day".into())
}
