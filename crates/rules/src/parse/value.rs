//! Values: constants by their kind, ranges, prefixes, times, sizes.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::{Kind, letters};
use crate::source::Span;
use crate::token::{Token, Word};

impl Parser<'_> {
    /// One value, a prefix or a range of a kind: its first and its last.
    pub(super) fn range(&mut self, kind: Kind) -> Parsed<(u128, u128)> {
        let start = self.span();
        if kind == Kind::InterfaceName
            && let Some(range) = self.wildcard()?
        {
            return Ok(range);
        }
        if kind.is_bits() {
            let bits = self.bits(kind)?;
            return Ok((bits, bits));
        }
        let first = self.value(kind)?;
        if matches!(kind, Kind::Address4 | Kind::Address6) && self.takes_sign("/") {
            let (length, span) = self.number("the length of a prefix")?;
            let bits = u64::from(kind.bits());
            if length > bits {
                return Err(
                    Fault::new(span, format!("/{length} is longer than an address")).instead(format!("0 to {bits}"))
                );
            }
            // Below 128 by the check, and a shift of all bits is a prefix of none.
            let free = u32::try_from(bits - length).unwrap_or(0);
            let mask = 1_u128.checked_shl(free).map_or(u128::MAX, |bit| bit - 1) & kind.greatest();
            return Ok((first & !mask, first | mask));
        }
        if self.takes_sign("-") {
            let last = self.value(kind)?;
            if last < first && matches!(kind, Kind::Hour | Kind::Day) {
                let span = start.to(self.span());
                return Err(Fault::new(span, "in a set, this range ends before it begins")
                    .instead("two elements: one to the end, one from the beginning"));
            }
            if last < first {
                let end = self.span();
                return Err(
                    Fault::new(start.to(end), "this range ends before it begins").instead("the smaller value first")
                );
            }
            return Ok((first, last));
        }
        Ok((first, first))
    }

    /// `"lan*"`: every name that begins so.
    fn wildcard(&mut self) -> Parsed<Option<(u128, u128)>> {
        let (Word::Name(name) | Word::Text(name)) = self.peek() else { return Ok(None) };
        let Some(prefix) = name.strip_suffix('*').map(str::to_owned) else { return Ok(None) };
        let span = self.next().span;
        let Some(first) = letters(&prefix) else {
            return Err(Fault::new(span, format!("{prefix}: an interface's name has at most 15 letters")));
        };
        let free = 128 - u32::try_from(prefix.len() * 8).unwrap_or(128);
        Ok(Some((first, first | u128::MAX.checked_shr(128 - free).unwrap_or(0))))
    }

    /// One value.
    pub(super) fn value(&mut self, kind: Kind) -> Parsed<u128> {
        let wanted = kind.name();
        let span = self.span();
        match self.peek() {
            Word::Address4(address) if kind == Kind::Address4 => {
                let bits = u128::from(address.to_bits());
                self.next();
                Ok(bits)
            }
            Word::Address6(address) if kind == Kind::Address6 => {
                let bits = address.to_bits();
                self.next();
                Ok(bits)
            }
            Word::Sign("[") if kind == Kind::Address6 => {
                self.next();
                let address = self.value(kind)?;
                self.sign("]")?;
                Ok(address)
            }
            Word::Number(number) => {
                let number = u128::from(*number);
                self.next();
                self.fits(number, kind, span)
            }
            Word::Name(_) | Word::Text(_) => {
                let Token { kind: Word::Name(name) | Word::Text(name), span } = self.next() else {
                    return Err(Fault::new(span, wanted));
                };
                self.constant(&name, kind, span)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn fits(&self, number: u128, kind: Kind, span: Span) -> Parsed<u128> {
        if kind == Kind::Date {
            return Err(Fault::new(span, format!("{number} is not {}", kind.name()))
                .instead("a date in quotation marks: \"2026-12-24 18:00:00\""));
        }
        if kind == Kind::Day && number > 6 || kind == Kind::Hour && number >= 86_400 {
            return Err(Fault::new(span, format!("{number} is too large for {}", kind.name())));
        }
        let by_name =
            matches!(kind, Kind::Address4 | Kind::Address6 | Kind::InterfaceName | Kind::Helper | Kind::CtDirection);
        if by_name && !(kind == Kind::CtDirection && number < 2) {
            return Err(Fault::new(span, format!("{number} is not {}", kind.name())));
        }
        let value =
            if kind == Kind::Label { 1_u128.checked_shl(u32::try_from(number).unwrap_or(128)) } else { Some(number) };
        match value.filter(|value| *value <= kind.greatest()) {
            Some(value) => Ok(value),
            None => Err(Fault::new(span, format!("{number} is too large for {}", kind.name()))),
        }
    }

    fn constant(&mut self, name: &str, kind: Kind, span: Span) -> Parsed<u128> {
        if kind == Kind::Time
            && let Some(seconds) = seconds(name)
        {
            return Ok(u128::from(seconds));
        }
        if let Some(value) = kind.named(name) {
            return Ok(value);
        }
        let written = match kind {
            Kind::Hour => hour(name),
            Kind::Date => date(name),
            Kind::Priority => class(name),
            _ => None,
        };
        if let Some(value) = written {
            return Ok(value);
        }
        // An index is found when the ruleset is put to work: until then the name stands for it.
        if kind == Kind::Interface
            && let Some(value) = letters(name)
        {
            return Ok(value);
        }
        let fault = Fault::new(span, format!("{name} is not {}", kind.name()));
        let known: Vec<&str> = kind.names().iter().map(|(name, _)| *name).collect();
        Err(match kind {
            Kind::Address4 | Kind::Address6 => {
                fault.instead("an address in digits: names of hosts are not asked for, since their answers change")
            }
            Kind::Port => fault.instead("the port's number: only common services are known by name"),
            Kind::InterfaceName | Kind::Interface => fault.instead("a name of at most 15 letters"),
            Kind::Time => fault.instead("seconds, or 1d2h3m4s"),
            Kind::Hour => {
                fault.instead("hours and minutes, from \"00:00\" to \"23:59\", or with seconds, \"23:59:59\"")
            }
            Kind::Date => {
                fault.instead("\"2026-12-24\", or \"2026-12-24 18:00\", or with seconds, \"2026-12-24 18:00:00\"")
            }
            _ if !known.is_empty() => fault.instead(known.join(", ")),
            _ => fault.instead("a number"),
        })
    }

    /// A time in seconds.
    pub(super) fn time(&mut self) -> Parsed<u64> {
        let span = self.span();
        let value = self.value(Kind::Time)?;
        u64::try_from(value).map_err(|_| Fault::new(span, "this time is too long"))
    }

    /// Octets: a number with or without a unit.
    pub(super) fn octets(&mut self) -> Parsed<u64> {
        let (number, span) = self.number("a number of bytes")?;
        let unit = match self.peek() {
            Word::Name(unit) => octet_unit(unit),
            _ => None,
        };
        if unit.is_some() {
            self.next();
        }
        number.checked_mul(unit.unwrap_or(1)).ok_or_else(|| Fault::new(span, "this is more than any counter holds"))
    }

    /// `packets N bytes N`, if they are there.
    pub(super) fn counted(&mut self) -> Parsed<(u64, u64)> {
        if !self.takes("packets") {
            return Ok((0, 0));
        }
        let (packets, _) = self.number("a number of packets")?;
        self.keyword("bytes")?;
        let (octets, _) = self.number("a number of bytes")?;
        Ok((packets, octets))
    }
}

/// What one octet's unit stands for.
pub(super) fn octet_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "bytes" | "byte" => 1,
        "kbytes" => 1 << 10,
        "mbytes" => 1 << 20,
        "gbytes" => 1 << 30,
        _ => return None,
    })
}

/// `23:59` or `23:59:59`, in seconds since midnight.
fn hour(text: &str) -> Option<u128> {
    let mut parts = text.split(':');
    let mut next = |most: u128| {
        let part = parts.next()?;
        let number: u128 = part.parse().ok()?;
        (number <= most && part.len() <= 2).then_some(number)
    };
    let (hours, minutes) = (next(23)?, next(59)?);
    let seconds = if text.matches(':').count() == 2 { next(59)? } else { 0 };
    (parts.next().is_none()).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// `2026-12-24`, perhaps with an hour behind it, in nanoseconds since 1970.
fn date(text: &str) -> Option<u128> {
    let (day, rest) = text.split_once(' ').unwrap_or((text, "00:00"));
    let mut parts = day.splitn(3, '-');
    let year: u32 = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let (month, day): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    // Before 1970 nothing has been sent; after 2500 the nanoseconds do not fit.
    if !(1970..2500).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let years: u32 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u32 = lengths.iter().take(usize::try_from(month).ok()? - 1).sum();
    Some((u128::from(years + months + day - 1) * 86_400 + hour(rest)?) * 1_000_000_000)
}

/// `1:10`, both in hexadecimal digits.
fn class(text: &str) -> Option<u128> {
    let (major, minor) = text.split_once(':')?;
    let number = |digits: &str| u16::from_str_radix(digits, 16).ok();
    Some(u128::from(number(major)?) << 16 | u128::from(number(minor)?))
}

/// `1d2h3m4s500ms` in seconds, rounded up.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let behind = rest.get(digits..)?;
        let letters = behind.len() - behind.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).len();
        let milliseconds = match behind.get(..letters)? {
            "w" => 604_800_000,
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(milliseconds)?)?;
        rest = behind.get(letters..)?;
    }
    (!text.is_empty()).then(|| total.div_ceil(1000))
}
