//! Expressions of a document, as text.
use super::JsonScriptError;
use super::expression::{JsonElement, JsonHeader, JsonKey, JsonLookup, JsonPayload, JsonTerm, JsonValue, OneOrMore};

type Text = Result<String, JsonScriptError>;

/// Keys of `ct` that stand behind a direction.
const DIRECTED_CT_KEYS: [&str; 4] = ["saddr", "daddr", "ip", "ip6"];

/// A word that is written as it is: no blank, quotation mark, brace or semicolon can end it.
pub(super) fn word(text: &str) -> Text {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '*' | '@' | '\\' | '+');
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(JsonScriptError::new(format!("{text:?} is not a name or a value")))
}

/// A key: one word, or `ip saddr` and the like.
fn words(text: &str) -> Text {
    match text.split_once(' ') {
        Some((family @ ("ip" | "ip6"), field)) => Ok(format!("{family} {}", word(field)?)),
        _ => word(text),
    }
}

/// A text in quotation marks.
pub(super) fn quoted(text: &str) -> Text {
    if text.contains(['"', '\n', '\r']) {
        return Err(JsonScriptError::new(format!(
            "{text:?} has a quotation mark or a line end, which nft cannot write"
        )));
    }
    Ok(format!("\"{text}\""))
}

/// A value.
pub(super) fn value(json: &JsonValue) -> Text {
    Ok(match json {
        JsonValue::Bool(true) => "exists".to_owned(),
        JsonValue::Bool(false) => "missing".to_owned(),
        JsonValue::Number(number) => number.to_string(),
        // A set by its name; everything else that is no plain word is quoted.
        JsonValue::Text(text) => match text.strip_prefix('@') {
            Some(name) => format!("@{}", word(name)?),
            None => literal(text)?,
        },
        JsonValue::List(values) => joined(values, " | ")?,
        JsonValue::Term(term) => self::term(term)?,
    })
}

/// Addresses and names are plain; times, paths and interfaces with other letters are quoted.
fn literal(text: &str) -> Text {
    let address = text.parse::<std::net::IpAddr>().is_ok();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    // A class or a time, or a link layer address.
    let number = matches!(text.split(':').count(), 2 | 6)
        && text.split(':').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit()));
    if text == "*" || address || plain && begins || number { Ok(text.to_owned()) } else { quoted(text) }
}

/// An end of a range: a name in quotation marks, so that the sign between the ends is no part of it.
fn range_end(json: &JsonValue) -> Text {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    match json {
        JsonValue::Text(text) if is_name(text) => quoted(text),
        other => value(other),
    }
}

pub(super) fn joined(values: &[JsonValue], sign: &str) -> Text {
    Ok(values.iter().map(value).collect::<Result<Vec<_>, _>>()?.join(sign))
}

/// An operand: flags of a list are bits that belong together.
fn operand(json: &JsonValue) -> Text {
    match json {
        JsonValue::List(values) => Ok(format!("({})", joined(values, " | ")?)),
        JsonValue::Term(term) if is_operation(term) => Ok(format!("({})", self::term(term)?)),
        other => value(other),
    }
}

fn is_operation(term: &JsonTerm) -> bool {
    use JsonTerm::{And, Or, ShiftLeft, ShiftRight, Xor};
    matches!(term, Or(_) | Xor(_) | And(_) | ShiftLeft(_) | ShiftRight(_))
}

fn operation(operands: &[JsonValue], sign: &str) -> Text {
    if operands.len() < 2 {
        return Err(JsonScriptError::new(format!("{sign} needs two operands")));
    }
    Ok(operands.iter().map(operand).collect::<Result<Vec<_>, _>>()?.join(&format!(" {sign} ")))
}

fn term(term: &JsonTerm) -> Text {
    Ok(match term {
        JsonTerm::Concat(parts) => joined(parts, " . ")?,
        JsonTerm::Set(elements) => {
            format!("{{ {} }}", elements.iter().map(element).collect::<Result<Vec<_>, _>>()?.join(", "))
        }
        JsonTerm::Map(map) => lookup(map, "map")?,
        JsonTerm::Prefix(prefix) => format!("{}/{}", value(&prefix.addr)?, prefix.len),
        JsonTerm::Range(ends) => match ends.as_slice() {
            [first, last] => format!("{}-{}", range_end(first)?, range_end(last)?),
            _ => return Err(JsonScriptError::new("a range has two ends")),
        },
        JsonTerm::Payload(payload) => self::payload(payload)?,
        JsonTerm::Exthdr(header) => exthdr(header)?,
        JsonTerm::TcpOption(header) => self::header("tcp option", header)?,
        JsonTerm::IpOption(header) => self::header("ip option", header)?,
        JsonTerm::SctpChunk(header) => self::header("sctp chunk", header)?,
        JsonTerm::DccpOption(option) => format!("dccp option {}", option.kind),
        JsonTerm::Ipsec(key) => {
            let direction = key.dir.as_deref().ok_or_else(|| JsonScriptError::new("ipsec needs a dir"))?;
            let number =
                key.spnum.filter(|number| *number > 0).map_or(String::new(), |number| format!("spnum {number} "));
            let key = JsonKey { dir: None, ..key.clone() };
            format!("ipsec {} {number}{}", word(direction)?, with_family(&key)?)
        }
        JsonTerm::Meta(key) => format!("meta {}", word(&key.key)?),
        JsonTerm::Rt(key) => format!("rt {}", with_family(key)?),
        JsonTerm::Socket(key) => format!("socket {}", word(&key.key)?),
        JsonTerm::Osf(osf) => {
            let ttl = osf.ttl.as_deref().map_or(Ok(String::new()), |ttl| word(ttl).map(|ttl| format!("ttl {ttl} ")))?;
            format!("osf {ttl}{}", word(&osf.key)?)
        }
        JsonTerm::Ct(key) => ct(key)?,
        JsonTerm::Fib(fib) => {
            let flags = fib.flags.words().iter().map(|flag| word(flag)).collect::<Result<Vec<_>, _>>()?;
            format!("fib {} {}", flags.join(" . "), word(&fib.result)?)
        }
        JsonTerm::Numgen(numgen) => {
            format!("numgen {} mod {}{}", word(&numgen.mode)?, numgen.modulus, offset(numgen.offset))
        }
        JsonTerm::Jhash(hash) => {
            let of = hash.expr.as_ref().ok_or_else(|| JsonScriptError::new("jhash has no expr"))?;
            let seed = if hash.seed == 0 { String::new() } else { format!(" seed {:#x}", hash.seed) };
            format!("jhash {} mod {}{seed}{}", value(of)?, hash.modulus, offset(hash.offset))
        }
        JsonTerm::Symhash(hash) => format!("symhash mod {}{}", hash.modulus, offset(hash.offset)),
        JsonTerm::Elem(element) => own_element(element)?,
        JsonTerm::Or(operands) => operation(operands, "|")?,
        JsonTerm::Xor(operands) => operation(operands, "^")?,
        JsonTerm::And(operands) => operation(operands, "&")?,
        JsonTerm::ShiftLeft(operands) => operation(operands, "<<")?,
        JsonTerm::ShiftRight(operands) => operation(operands, ">>")?,
        JsonTerm::Accept(()) => "accept".to_owned(),
        JsonTerm::Drop(()) => "drop".to_owned(),
        JsonTerm::Continue(()) => "continue".to_owned(),
        JsonTerm::Return(()) => "return".to_owned(),
        JsonTerm::Jump(to) => format!("jump {}", word(&to.target)?),
        JsonTerm::Goto(to) => format!("goto {}", word(&to.target)?),
    })
}

fn offset(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

/// A key looked up in a map; `how` is `map` or `vmap`.
pub(super) fn lookup(map: &JsonLookup, how: &str) -> Text {
    Ok(format!("{} {how} {}", value(&map.key)?, value(&map.data)?))
}

/// An element of a set, or of a map: `[key, data]`.
pub(super) fn element(json: &JsonValue) -> Text {
    match json {
        JsonValue::List(parts) => match parts.as_slice() {
            [key, data] => Ok(format!("{} : {}", value(key)?, data_value(data)?)),
            _ => Err(JsonScriptError::new("an element of a map is a list of key and data")),
        },
        other => value(other),
    }
}

/// The value of a map's element may be the name of an object, which is a text.
fn data_value(json: &JsonValue) -> Text {
    match json {
        JsonValue::Text(text) if text.parse::<std::net::IpAddr>().is_err() => literal(text),
        other => value(other),
    }
}

fn own_element(element: &JsonElement) -> Text {
    let mut text = value(&element.val)?;
    if let Some(counter) = &element.counter {
        text += &format!(" counter packets {} bytes {}", counter.packets, counter.bytes);
    }
    if let Some(limit) = &element.limit {
        text += &format!(" {}", super::read_statement::limit(limit)?);
    }
    if let Some(quota) = &element.quota {
        text += &format!(" {}", super::read_statement::quota(quota)?);
    }
    if let Some(seconds) = element.timeout {
        text += &format!(" timeout {seconds}s");
    }
    if let Some(seconds) = element.expires {
        text += &format!(" expires {seconds}s");
    }
    if let Some(comment) = &element.comment {
        text += &format!(" comment {}", quoted(comment)?);
    }
    Ok(text)
}

fn payload(payload: &JsonPayload) -> Text {
    match payload {
        JsonPayload::Field { tunnel: None, protocol, field } => Ok(format!("{} {}", word(protocol)?, word(field)?)),
        JsonPayload::Field { tunnel: Some(tunnel), protocol, field } => {
            Ok(format!("{} {} {}", word(tunnel)?, word(protocol)?, word(field)?))
        }
        JsonPayload::Bits { base, offset, len } => Ok(format!("@{},{offset},{len}", word(base)?)),
    }
}

fn named<'a>(header: &'a JsonHeader, what: &str) -> Result<&'a str, JsonScriptError> {
    header.name.as_deref().ok_or_else(|| JsonScriptError::new(format!("{what} has no name")))
}

/// A field of an option or chunk; without a field, the test whether it exists.
pub(super) fn header(what: &str, header: &JsonHeader) -> Text {
    if let (Some(base), Some(offset), Some(len)) = (header.base, header.offset, header.len) {
        return Ok(format!("{what} @{base},{offset},{len}"));
    }
    let field = header.field.as_deref().map_or(Ok(String::new()), |field| Ok(format!(" {}", word(field)?)))?;
    Ok(format!("{what} {}{field}", word(named(header, what)?)?))
}

fn exthdr(header: &JsonHeader) -> Text {
    let name = word(named(header, "exthdr")?)?;
    match &header.field {
        // `sid[1]`: an address by its number.
        Some(field) if field.ends_with(']') => {
            let known = field.trim_end_matches(']').split_once('[');
            let known = known.filter(|(_, number)| number.chars().all(|c| c.is_ascii_digit()));
            let (field, number) = known.ok_or_else(|| JsonScriptError::new(format!("{field:?} is not a field")))?;
            Ok(format!("{name} {}[{number}]", word(field)?))
        }
        Some(field) => Ok(format!("{name} {}", word(field)?)),
        None => Ok(format!("exthdr {name}")),
    }
}

fn with_family(key: &JsonKey) -> Text {
    let family = key.family.as_deref().map_or(Ok(String::new()), |family| word(family).map(|family| family + " "))?;
    Ok(format!("{family}{}", words(&key.key)?))
}

fn ct(key: &JsonKey) -> Text {
    let name = with_family(key)?;
    match &key.dir {
        Some(direction) => Ok(format!("ct {} {name}", word(direction)?)),
        None if DIRECTED_CT_KEYS.iter().any(|known| name.split(' ').next() == Some(known)) => {
            Err(JsonScriptError::new(format!("ct {name} needs dir: original or reply")))
        }
        None => Ok(format!("ct {name}")),
    }
}

/// Words joined by commas.
pub(super) fn comma_list(list: &OneOrMore) -> Text {
    Ok(list.words().iter().map(|text| word(text)).collect::<Result<Vec<_>, _>>()?.join(","))
}
