//! Numbers in few characters, and text that is safe on a terminal.
/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// At most five characters: `999`, `1.2k`, `35M`.
pub(crate) fn short(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G", "T"] {
        if scaled < 999.5 {
            let digits = usize::from(scaled < 9.95 && !(unit.is_empty() && scaled.fract() == 0.0));
            return format!("{scaled:.digits$}{unit}");
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.0}P")
}

/// No control character reaches the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

/// A text in so many columns: longer ones end in `…`.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_live::duration_text as duration;
    use std::time::Duration;

    #[test]
    fn numbers_are_short() {
        for (number, expected) in
            [(0.0, "0"), (7.0, "7"), (0.25, "0.2"), (999.0, "999"), (1234.0, "1.2k"), (35e6, "35M"), (9.96e3, "10k")]
        {
            assert_eq!(short(number), expected, "{number}");
        }
        assert_eq!((grouped(0), grouped(1000), grouped(1_234_567)), ("0".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!(duration(Duration::from_secs(119)), "119 s");
        assert_eq!(duration(Duration::from_secs(7199)), "119 min");
        assert_eq!(duration(Duration::from_secs(900_000)), "10 d");
    }
}
