//! Constants and ranges in the JSON schema.
use super::expression::{JsonPrefix, JsonTerm, JsonValue};
use crate::datatype::DataType;

/// A value of a type.
pub(super) fn literal(kind: DataType, value: u128) -> JsonValue {
    let number = || match u64::try_from(value) {
        Ok(number) => JsonValue::Number(number),
        Err(_) => JsonValue::Text(format!("{value:#x}")),
    };
    match kind {
        // As in nft: services, users and groups by number.
        DataType::Port | DataType::UserId | DataType::GroupId | DataType::Mark | DataType::Number(_) => number(),
        DataType::Duration => number(),
        DataType::Boolean => JsonValue::Bool(value != 0),
        DataType::CtLabel => labels(value),
        DataType::Realm if value != 0 => JsonValue::Text(value.to_string()),
        DataType::InterfaceIndex if value == 0 => JsonValue::text("0"),
        DataType::HourOfDay => {
            let text = format!("{:02}:{:02}:{:02}", value / 3600, value / 60 % 60, value % 60);
            JsonValue::text(text.strip_suffix(":00").unwrap_or(&text))
        }
        DataType::Timestamp => JsonValue::Text(date(value)),
        DataType::CtState | DataType::CtStatus | DataType::CtEvent | DataType::TcpFlags => bits(kind, value),
        _ => {
            let written = kind.format_value(value);
            match written.parse() {
                Ok(number) => JsonValue::Number(number),
                // What has no name is a number in another notation.
                Err(_) if written.starts_with("0x") => number(),
                Err(_) => JsonValue::text(written.trim_matches('"')),
            }
        }
    }
}

/// Labels by the numbers of their bits: one, or a list.
fn labels(value: u128) -> JsonValue {
    let set = (0..128_u32).filter(|bit| value >> bit & 1 == 1);
    let mut numbers: Vec<JsonValue> = set.map(|bit| JsonValue::Number(bit.into())).collect();
    match (numbers.len(), numbers.pop()) {
        (1, Some(only)) => only,
        (_, last) => JsonValue::List(numbers.into_iter().chain(last).collect()),
    }
}

/// Flags by their names: one, or a list.
fn bits(kind: DataType, value: u128) -> JsonValue {
    let mut left = value;
    let mut names = Vec::new();
    for (name, bit) in kind.symbols() {
        if *bit != 0 && left & bit == *bit {
            names.push(JsonValue::text(*name));
            left &= !bit;
        }
    }
    match (names.len(), left) {
        (1, 0) => names.pop().unwrap_or(JsonValue::Number(0)),
        (0, _) | (_, 1..) => JsonValue::Number(u64::try_from(value).unwrap_or(u64::MAX)),
        _ => JsonValue::List(names),
    }
}

/// Nanoseconds since 1970 as a date (proleptic Gregorian calendar).
fn date(nanoseconds: u128) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970_u128;
    let is_leap = |year: u128| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02}:{:02}", days + 1, time / 3600, time / 60 % 60, time % 60)
}

/// A range of a type: a value, a prefix, all names with a beginning, or both ends.
pub(super) fn range(kind: DataType, (first, last): (u128, u128)) -> JsonValue {
    if first == last {
        return literal(kind, first);
    }
    if let Some(length) = kind.prefix_length(first, last) {
        return JsonTerm::Prefix(JsonPrefix { addr: literal(kind, first), len: length }).into();
    }
    if kind == DataType::InterfaceName {
        return JsonValue::text(kind.format_range(first, last).trim_matches('"'));
    }
    JsonTerm::Range(vec![literal(kind, first), literal(kind, last)]).into()
}
