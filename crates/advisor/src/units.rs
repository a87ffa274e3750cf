//! Quantities for people: bytes, counts, durations. Machine formats print the plain number instead.
use std::fmt;

/// A number of bytes.
///
/// ```
/// use keepstate_advisor::units::Bytes;
/// assert_eq!(Bytes(335_544_320).to_string(), "320 MiB");
/// assert_eq!(Bytes(1_600_000).to_string(), "1.53 MiB");
/// assert_eq!(Bytes(512).to_string(), "512 B");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A number, digits in groups of three.
///
/// ```
/// use keepstate_advisor::units::Count;
/// assert_eq!(Count(1_048_576).to_string(), "1,048,576");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// A duration in seconds, printed in its two largest units.
///
/// ```
/// use keepstate_advisor::units::Seconds;
/// assert_eq!(Seconds(432_000).to_string(), "5 d");
/// assert_eq!(Seconds(7440).to_string(), "2 h 4 min");
/// assert_eq!(Seconds(0).to_string(), "0 s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Some((unit, name)) = units.into_iter().find(|(unit, _)| self.0 >= *unit) else {
            return f.pad(&format!("{} B", self.0));
        };
        // Three significant digits, without trailing zeros.
        let hundredths = (u128::from(self.0) * 100 + u128::from(unit) / 2) / u128::from(unit);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        let number = match (whole, rest) {
            (100.., _) | (_, 0) => whole.to_string(),
            (10.., _) => format!("{whole}.{}", rest / 10).trim_end_matches(".0").to_owned(),
            _ => format!("{whole}.{rest:02}").trim_end_matches('0').to_owned(),
        };
        f.pad(&format!("{number} {name}"))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut grouped = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
        let Some(first) = units.iter().position(|(unit, _)| self.0 >= *unit) else { return f.pad("0 s") };
        let mut rest = self.0;
        let mut parts = Vec::new();
        for (unit, name) in units.iter().skip(first).take(2) {
            if rest / unit > 0 {
                parts.push(format!("{} {name}", rest / unit));
            }
            rest %= unit;
        }
        f.pad(&parts.join(" "))
    }
}
