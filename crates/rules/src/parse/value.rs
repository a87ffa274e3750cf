//! Values: constants by type, ranges, prefixes, durations, byte counts.
use super::names::is_reserved;
use super::parser::{ParseResult, Parser};
use crate::datatype::{DataType, encode_name};
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Words of the language that nft takes for a value where one is expected.
const VALUE_WORDS: &[&str] = &["arp", "dnat", "ecn", "ether", "ip", "ip6", "reset", "snat", "vlan"];

impl Parser<'_> {
    /// A value, prefix or range of a type: first and last value.
    pub(super) fn parse_range(&mut self, kind: DataType) -> ParseResult<(u128, u128)> {
        let start = self.span();
        if kind == DataType::InterfaceName
            && let Some(range) = self.parse_ifname_wildcard()?
        {
            return Ok(range);
        }
        let first = self.parse_constant(kind)?;
        let has_prefix = !kind.is_bitmask() && !kind.is_name();
        if has_prefix && self.eat_punct("/") {
            let (length, span) = self.expect_number("a prefix length")?;
            let bits = u64::from(kind.bit_width());
            if length > bits {
                return Err(Diagnostic::new(span, format!("prefix length /{length} is too large"))
                    .with_help(format!("use /0 to /{bits}")));
            }
            // Checked above; a shift by all bits stands for prefix length 0.
            let free = u32::try_from(bits - length).unwrap_or(0);
            let mask = 1_u128.checked_shl(free).map_or(u128::MAX, |bit| bit - 1) & kind.max_value();
            return Ok((first & !mask, first | mask));
        }
        let by_name = matches!(
            kind,
            DataType::InterfaceName
                | DataType::InterfaceKind
                | DataType::CtHelper
                | DataType::OsName
                | DataType::CgroupV2
        );
        if self.eat_punct("-") {
            if by_name {
                return Err(Diagnostic::new(start.to(self.last_span), "names have no ranges")
                    .with_help("write each name: { \"eth0\", \"eth1\" }, or \"eth*\" for interfaces"));
            }
            let last = self.parse_constant(kind)?;
            if last < first && matches!(kind, DataType::HourOfDay | DataType::DayOfWeek) {
                let span = start.to(self.span());
                return Err(Diagnostic::new(span, "a range in a set cannot wrap: its end is before its start")
                    .with_help("write two elements: one up to the end, one from the start"));
            }
            if last < first {
                let end = self.span();
                return Err(Diagnostic::new(start.to(end), "the end of the range is before its start")
                    .with_help("write the smaller value first"));
            }
            return Ok((first, last));
        }
        Ok((first, first))
    }

    /// `"lan*"`: all names with this prefix.
    fn parse_ifname_wildcard(&mut self) -> ParseResult<Option<(u128, u128)>> {
        let (TokenKind::Ident(name) | TokenKind::Quoted(name)) = self.peek() else { return Ok(None) };
        let Some(prefix) = name.strip_suffix('*').map(str::to_owned) else { return Ok(None) };
        let escaped = prefix.strip_suffix('\\').map(|before| format!("{before}*"));
        let span = self.next_token().span;
        if let Some(name) = escaped {
            // `"eth\*"` is a name that ends with the star itself.
            let value = encode_name(&name).ok_or_else(|| Diagnostic::new(span, "this interface name is too long"))?;
            return Ok(Some((value, value)));
        }
        // 14 letters and the wildcard: a name has at most 15.
        if prefix.len() > 14 {
            return Err(Diagnostic::new(span, format!("interface name {prefix}* is too long: at most 15 bytes"))
                .with_help("write the name without `*`"));
        }
        if prefix.is_empty() {
            return Err(Diagnostic::new(span, "`*` alone matches every interface")
                .with_help("remove the match, or write the beginning of the names: \"eth*\""));
        }
        let Some(first) = encode_name(&prefix) else {
            return Err(Diagnostic::new(span, format!("interface name {prefix} is too long: at most 15 bytes")));
        };
        let free = 128 - u32::try_from(prefix.len() * 8).unwrap_or(128);
        Ok(Some((first, first | u128::MAX.checked_shr(128 - free).unwrap_or(0))))
    }

    /// One value.
    pub(super) fn parse_value(&mut self, kind: DataType) -> ParseResult<u128> {
        let wanted = kind.description();
        let span = self.span();
        match self.peek() {
            TokenKind::Address4(address) if kind == DataType::Address4 => {
                let bits = u128::from(address.to_bits());
                self.next_token();
                Ok(bits)
            }
            TokenKind::Address6(address) if kind == DataType::Address6 => {
                let bits = address.to_bits();
                self.next_token();
                Ok(bits)
            }
            TokenKind::Punct("[") if kind == DataType::Address6 => {
                self.next_token();
                let address = self.parse_value(kind)?;
                self.expect_punct("]")?;
                Ok(address)
            }
            TokenKind::Number(number) => {
                let number = u128::from(*number);
                self.next_token();
                self.check_value(number, kind, span)
            }
            TokenKind::Ident(_) | TokenKind::Quoted(_) => {
                let unquoted = matches!(self.peek(), TokenKind::Ident(_));
                let Token { kind: TokenKind::Ident(name) | TokenKind::Quoted(name), span } = self.next_token() else {
                    return Err(Diagnostic::new(span, wanted));
                };
                let of_interface = matches!(kind, DataType::InterfaceName | DataType::InterfaceIndex);
                if unquoted && of_interface && is_reserved(&name) && !VALUE_WORDS.contains(&name.as_str()) {
                    return Err(Diagnostic::new(span, format!("`{name}` is a word of the language, not {wanted}"))
                        .with_help(format!("write it in quotation marks: \"{name}\"")));
                }
                self.resolve_symbol(&name, kind, span)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn check_value(&self, number: u128, kind: DataType, span: Span) -> ParseResult<u128> {
        if kind == DataType::Timestamp {
            // Seconds since 1970.
            let nanoseconds = number.checked_mul(1_000_000_000).filter(|number| *number <= kind.max_value());
            return nanoseconds.ok_or_else(|| {
                Diagnostic::new(span, format!("{number} is too large for {}", kind.description()))
                    .with_help("write seconds since 1970, or a date: \"2026-12-24 18:00:00\"")
            });
        }
        if kind == DataType::DayOfWeek && number > 6 || kind == DataType::HourOfDay && number >= 86_400 {
            return Err(Diagnostic::new(span, format!("{number} is too large for {}", kind.description())));
        }
        let by_name = matches!(
            kind,
            DataType::Address6
                | DataType::InterfaceName
                | DataType::InterfaceKind
                | DataType::CtHelper
                | DataType::EtherAddress
        );
        if by_name || kind == DataType::CtDirection && number > 1 {
            return Err(Diagnostic::new(span, format!("{number} is not {}", kind.description())));
        }
        let value = if kind == DataType::CtLabel {
            1_u128.checked_shl(u32::try_from(number).unwrap_or(128))
        } else {
            Some(number)
        };
        match value.filter(|value| *value <= kind.max_value()) {
            Some(value) => Ok(value),
            None => Err(Diagnostic::new(span, format!("{number} is too large for {}", kind.description()))),
        }
    }

    fn resolve_symbol(&mut self, name: &str, kind: DataType, span: Span) -> ParseResult<u128> {
        if kind == DataType::Duration
            && let Some(seconds) = parse_duration(name)
        {
            return Ok(u128::from(seconds));
        }
        if name.is_empty() {
            return Err(Diagnostic::new(span, format!("an empty text is not {}", kind.description()))
                .with_help("write a value in the quotation marks"));
        }
        if let Some(value) = kind.symbol_value(name) {
            return Ok(value);
        }
        let written = match kind {
            DataType::HourOfDay => parse_hour(name),
            DataType::Timestamp => parse_date(name),
            DataType::ClassId => parse_classid(name),
            DataType::EtherAddress => parse_ether_address(name),
            DataType::CgroupV2 => Some(path_value(name)),
            DataType::CtLabel => self.includes.ct_label(name).and_then(|bit| 1_u128.checked_shl(bit)),
            DataType::UserId => self.includes.user_id(name).or_else(|| name.parse().ok()).map(u128::from),
            DataType::GroupId => self.includes.group_id(name).or_else(|| name.parse().ok()).map(u128::from),
            // More digits than a number of the lexer has.
            DataType::Number(65..) => name.strip_prefix("0x").and_then(|digits| u128::from_str_radix(digits, 16).ok()),
            DataType::Address4 => name.parse::<Ipv4Addr>().ok().map(|address| u128::from(address.to_bits())),
            DataType::Address6 => name.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits),
            // nft takes any value in quotation marks: "22" is 22.
            _ if name.starts_with(|c: char| c.is_ascii_digit()) => {
                let number = match name.strip_prefix("0x") {
                    Some(digits) => u128::from_str_radix(digits, 16),
                    None => name.parse(),
                };
                number.ok().filter(|number| *number <= kind.max_value())
            }
            _ => None,
        };
        if let Some(value) = written {
            return Ok(value);
        }
        // Interfaces are compared by name, since a ruleset outlives the interfaces that it names.
        if kind == DataType::InterfaceIndex
            && let Some(value) = encode_name(name)
        {
            return Ok(value);
        }
        let diagnostic = Diagnostic::new(span, format!("`{name}` is not {}", kind.description()));
        let known: Vec<&str> = kind.symbols().iter().map(|(name, _)| *name).collect();
        Err(match kind {
            DataType::Address4 | DataType::Address6 => {
                diagnostic.with_help("write a numeric address: host names are not resolved")
            }
            DataType::Port => {
                diagnostic.with_help("write the port number: the known service names are a built-in list")
            }
            DataType::InterfaceName | DataType::InterfaceIndex => {
                diagnostic.with_help("an interface name has at most 15 bytes")
            }
            DataType::Duration => diagnostic.with_help("write seconds, or 1d2h3m4s"),
            DataType::HourOfDay => diagnostic.with_help("write \"00:00\" to \"23:59\", or with seconds \"23:59:59\""),
            DataType::Timestamp => {
                diagnostic.with_help("write \"2026-12-24\", \"2026-12-24 18:00\" or \"2026-12-24 18:00:00\"")
            }
            _ if !known.is_empty() => diagnostic.with_help(format!("known: {}", known.join(", "))),
            _ => diagnostic.with_help("write a number"),
        })
    }

    /// A duration in seconds.
    pub(super) fn parse_time(&mut self) -> ParseResult<u64> {
        let span = self.span();
        self.refuse_quoted("a duration")?;
        if let TokenKind::Number(number) = self.peek() {
            let number = *number;
            return Err(Diagnostic::new(span, "a duration needs units")
                .with_help(format!("write {number}s for seconds, or 1d2h3m4s")));
        }
        let value = self.parse_value(DataType::Duration)?;
        u64::try_from(value).map_err(|_| Diagnostic::new(span, "this duration is too long"))
    }

    /// A byte count with its unit.
    pub(super) fn parse_byte_count(&mut self) -> ParseResult<u64> {
        let (number, span) = self.expect_number("a number of bytes")?;
        let unit = match self.peek() {
            TokenKind::Ident(unit) => byte_unit(unit),
            _ => None,
        };
        let Some(unit) = unit else { return Err(self.unexpected("bytes, kbytes or mbytes")) };
        self.next_token();
        number.checked_mul(unit).ok_or_else(|| Diagnostic::new(span, "this byte count is too large"))
    }

    /// `packets N bytes N`, in either order, if present.
    pub(super) fn parse_counter_values(&mut self) -> ParseResult<(u64, u64)> {
        let (mut packets, mut bytes) = (0, 0);
        if self.eat_keyword("bytes") {
            (bytes, _) = self.expect_number("a number of bytes")?;
            self.expect_keyword("packets")?;
            (packets, _) = self.expect_number("a number of packets")?;
        } else if self.eat_keyword("packets") {
            (packets, _) = self.expect_number("a number of packets")?;
            self.expect_keyword("bytes")?;
            (bytes, _) = self.expect_number("a number of bytes")?;
        }
        Ok((packets, bytes))
    }
}

/// Bytes of a unit.
pub(super) fn byte_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "bytes" => 1,
        "kbytes" => 1 << 10,
        "mbytes" => 1 << 20,
        _ => return None,
    })
}

/// `23:59` or `23:59:59`, in seconds since midnight.
fn parse_hour(text: &str) -> Option<u128> {
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

/// `2026-12-24`, optionally with a time of day, in nanoseconds since 1970.
fn parse_date(text: &str) -> Option<u128> {
    let (day, rest) = text.split_once(' ').unwrap_or((text, "00:00"));
    let mut parts = day.splitn(3, '-');
    let year: u32 = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let (month, day): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    // Years before 1970 cannot occur; after 2500 the nanoseconds do not fit.
    if !(1970..2500).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let years: u32 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u32 = lengths.iter().take(usize::try_from(month).ok()? - 1).sum();
    Some((u128::from(years + months + day - 1) * 86_400 + parse_hour(rest)?) * 1_000_000_000)
}

/// `1:10`, both numbers hexadecimal.
fn parse_classid(text: &str) -> Option<u128> {
    let (major, minor) = text.split_once(':')?;
    let number = |digits: &str| u16::from_str_radix(digits, 16).ok();
    Some(u128::from(number(major)?) << 16 | u128::from(number(minor)?))
}

/// `00:11:22:aa:bb:cc`.
fn parse_ether_address(text: &str) -> Option<u128> {
    let bytes = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    let all: Vec<u8> = bytes.collect::<Option<_>>()?;
    (all.len() == 6).then(|| all.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)))
}

/// A control group's path as a number. No packet has a socket here, so paths only have to differ.
fn path_value(path: &str) -> u128 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x100_0000_01b3;
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    path.trim_matches('/').bytes().fold(FNV_OFFSET, hash).into()
}

/// `1d2h3m4s500ms` in seconds, rounded up.
pub(crate) fn parse_duration(text: &str) -> Option<u64> {
    parse_duration_millis(text).map(|millis| millis.div_ceil(1000))
}

/// The same in milliseconds.
pub(super) fn parse_duration_millis(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let behind = rest.get(digits..)?;
        let letters = behind.len() - behind.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).len();
        let milliseconds = match behind.get(..letters)? {
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
    (!text.is_empty()).then_some(total)
}
