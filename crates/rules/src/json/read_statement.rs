//! Statements of a document, as text.
use super::JsonScriptError;
use super::expression::{JsonHeader, JsonKey, JsonTerm, JsonValue};
use super::read_expression::{comma_list, element, header, joined, lookup, quoted, value, word};
use super::stateful::{JsonLimit, JsonQuota};
use super::statement::{
    JsonCounter, JsonLog, JsonMatch, JsonNamed, JsonNat, JsonQueue, JsonReject, JsonReset, JsonStatement, JsonSynproxy,
};
use std::net::IpAddr;

type Text = Result<String, JsonScriptError>;

/// A rule's statements and its comment.
pub(super) fn rule(statements: &[JsonStatement], comment: Option<&str>) -> Text {
    let mut parts = Vec::new();
    for (at, one) in statements.iter().enumerate() {
        parts.push(statement(one).map_err(|error| error.inside(&format!("expr[{at}]")))?);
    }
    if let Some(comment) = comment {
        parts.push(format!("comment {}", quoted(comment)?));
    }
    Ok(parts.join(" "))
}

fn statement(statement: &JsonStatement) -> Text {
    Ok(match statement {
        JsonStatement::Match(one) => matching(one)?,
        JsonStatement::Counter(JsonCounter::None(())) => "counter".to_owned(),
        JsonStatement::Counter(JsonCounter::Counts(counts)) => {
            format!("counter packets {} bytes {}", counts.packets, counts.bytes)
        }
        JsonStatement::Counter(JsonCounter::Name(name)) => format!("counter name {}", quoted(name)?),
        JsonStatement::Counter(JsonCounter::Map(term)) => format!("counter name {}", map(term)?),
        JsonStatement::Quota(named) => of_object("quota", named, quota)?,
        JsonStatement::Limit(named) => of_object("limit", named, limit)?,
        JsonStatement::Synproxy(None) => "synproxy".to_owned(),
        JsonStatement::Synproxy(Some(named)) => of_object("synproxy", named, synproxy)?,
        JsonStatement::Mangle(mangle) => format!("{} set {}", value(&mangle.key)?, value(&mangle.value)?),
        JsonStatement::CtCount(count) => format!("ct count {}{}", over(count.inv), count.val),
        JsonStatement::CtHelper(name) => format!("ct helper set {}", object_name(name)?),
        JsonStatement::CtTimeout(name) => format!("ct timeout set {}", object_name(name)?),
        JsonStatement::CtExpectation(name) => format!("ct expectation set {}", object_name(name)?),
        JsonStatement::Log(log) => log.as_ref().map_or(Ok("log".to_owned()), self::log)?,
        JsonStatement::Reject(reject) => reject.as_ref().map_or(Ok("reject".to_owned()), self::reject)?,
        JsonStatement::Notrack(()) => "notrack".to_owned(),
        JsonStatement::Dnat(nat) => self::nat("dnat", nat.as_ref())?,
        JsonStatement::Snat(nat) => self::nat("snat", nat.as_ref())?,
        JsonStatement::Masquerade(nat) => self::nat("masquerade", nat.as_ref())?,
        JsonStatement::Redirect(nat) => self::nat("redirect", nat.as_ref())?,
        JsonStatement::Tproxy(proxy) => nat("tproxy", Some(proxy))?,
        JsonStatement::Dup(dup) => match &dup.dev {
            Some(device) => format!("dup to {} device {}", value(&dup.addr)?, quoted(device)?),
            None => format!("dup to {}", value(&dup.addr)?),
        },
        JsonStatement::Vmap(vmap) => lookup(vmap, "vmap")?,
        JsonStatement::Set(change) => {
            let stateful = stateful(&change.stmt)?;
            format!("{} {} {{ {}{stateful} }}", word(&change.op)?, set_name(&change.set)?, element(&change.elem)?)
        }
        JsonStatement::Map(change) => format!(
            "{} {} {{ {}{} : {} }}",
            word(&change.op)?,
            set_name(&change.map)?,
            element(&change.elem)?,
            stateful(&change.stmt)?,
            value(&change.data)?
        ),
        JsonStatement::Meter(meter) => {
            let size = meter.size.map_or(String::new(), |size| format!(" size {size}"));
            let stateful = self::statement(&meter.stmt)?;
            format!("meter {}{size} {{ {} {stateful} }}", word(&meter.name)?, value(&meter.key)?)
        }
        JsonStatement::Flow(flow) => format!("flow {} {}", word(&flow.op)?, set_name(&flow.flowtable)?),
        JsonStatement::Reset(JsonReset { tcp_option: JsonHeader { base: Some(number), len: Some(0), .. } }) => {
            format!("reset tcp option {number}")
        }
        JsonStatement::Reset(reset) => format!("reset {}", header("tcp option", &reset.tcp_option)?),
        JsonStatement::Last(_) => "last".to_owned(),
        JsonStatement::Secmark(name) => format!("meta secmark set {}", object_name(name)?),
        JsonStatement::Queue(queue) => queue.as_ref().map_or(Ok("queue".to_owned()), self::queue)?,
        JsonStatement::Accept(()) => "accept".to_owned(),
        JsonStatement::Drop(()) => "drop".to_owned(),
        JsonStatement::Continue(()) => "continue".to_owned(),
        JsonStatement::Return(()) => "return".to_owned(),
        JsonStatement::AnonymousChain(text) => anonymous_chain(text)?,
        JsonStatement::Jump(to) => format!("jump {}", word(&to.target)?),
        JsonStatement::Goto(to) => format!("goto {}", word(&to.target)?),
    })
}

/// `jump { … }`, `goto { … }` or `add @map { … }`: the text of one statement, no more.
fn anonymous_chain(text: &str) -> Text {
    if crate::parse::is_anonymous_chain(text) || crate::parse::is_map_change(text) {
        return Ok(text.to_owned());
    }
    Err(JsonScriptError::new(format!(
        "{text:?} is not a statement: an object, or the text `jump {{ … }}` or `goto {{ … }}` is expected"
    )))
}

fn matching(one: &JsonMatch) -> Text {
    let left = match address_key(one) {
        Some(key) => value(&JsonTerm::Ct(key).into())?,
        None => value(&one.left)?,
    };
    let right = match (&one.right, one.op.as_str()) {
        // All of these bits, not any of them.
        (JsonValue::List(_), "==" | "!=") => {
            let JsonValue::List(values) = &one.right else { return Err(JsonScriptError::new("a list is needed")) };
            joined(values, " | ")?
        }
        (JsonValue::List(values), _) => joined(values, ",")?,
        (right, _) => value(right)?,
    };
    // An option by its number, tested for presence.
    if let (JsonValue::Term(term), JsonValue::Bool(_)) = (&one.left, &one.right)
        && let JsonTerm::TcpOption(option) = term.as_ref()
        && let Some(number) = option.base
    {
        return Ok(format!("tcp option {number} {right}"));
    }
    Ok(match one.op.as_str() {
        "in" => format!("{left} {right}"),
        // In the text `==` is left out where it is plain, so that a list keeps its meaning.
        "==" if matches!(one.right, JsonValue::Bool(_)) => format!("{left} {right}"),
        "==" | "!=" | "<" | ">" | "<=" | ">=" | "!" => format!("{left} {} {right}", one.op),
        other => return Err(JsonScriptError::new(format!("unknown operator {other:?}"))),
    })
}

/// nft leaves out the family of a connection's address where the rule has told it, and leaves out what has told it too: the value has it.
fn address_key(one: &JsonMatch) -> Option<JsonKey> {
    let JsonValue::Term(term) = &one.left else { return None };
    let JsonTerm::Ct(key) = term.as_ref() else { return None };
    if key.family.is_some() || !matches!(key.key.as_str(), "saddr" | "daddr") {
        return None;
    }
    let family = if first_address(&one.right)?.is_ipv6() { "ip6" } else { "ip" };
    Some(JsonKey { family: Some(family.to_owned()), ..key.clone() })
}

/// The first address in a value.
fn first_address(json: &JsonValue) -> Option<IpAddr> {
    match json {
        JsonValue::Text(text) => text.parse().ok(),
        JsonValue::List(values) => values.iter().find_map(first_address),
        JsonValue::Term(term) => match term.as_ref() {
            JsonTerm::Set(values) | JsonTerm::Range(values) => values.iter().find_map(first_address),
            JsonTerm::Prefix(prefix) => first_address(&prefix.addr),
            _ => None,
        },
        _ => None,
    }
}

fn over(inverted: bool) -> &'static str {
    if inverted { "over " } else { "" }
}

/// A stateful statement: its own values, or a named object.
fn of_object<T>(word: &str, named: &JsonNamed<T>, own: impl Fn(&T) -> Text) -> Text {
    match named {
        JsonNamed::Own(values) => own(values),
        JsonNamed::Name(name) => Ok(format!("{word} name {}", quoted(name)?)),
        JsonNamed::Map(term) => Ok(format!("{word} name {}", map(term)?)),
    }
}

fn map(term: &JsonTerm) -> Text {
    match term {
        JsonTerm::Map(map) => lookup(map, "map"),
        _ => Err(JsonScriptError::new("a name or a map is expected")),
    }
}

fn object_name(name: &JsonValue) -> Text {
    match name {
        JsonValue::Text(name) => quoted(name),
        JsonValue::Term(term) => map(term),
        _ => Err(JsonScriptError::new("a name or a map is expected")),
    }
}

pub(super) fn quota(quota: &JsonQuota) -> Text {
    let unit = word(&quota.val_unit)?;
    let mut text = format!("quota {}{} {unit}", over(quota.inv), quota.val);
    if let Some(used) = quota.used.filter(|used| *used > 0) {
        text += &format!(" used {used} {}", word(quota.used_unit.as_deref().unwrap_or("bytes"))?);
    }
    Ok(text)
}

pub(super) fn limit(limit: &JsonLimit) -> Text {
    let unit = limit.rate_unit.as_deref().filter(|unit| *unit != "packets");
    let rate_unit = unit.map_or(Ok(String::new()), |unit| word(unit).map(|unit| format!(" {unit}")))?;
    let mut text = format!("limit rate {}{}{rate_unit}/{}", over(limit.inv), limit.rate, word(&limit.per)?);
    if let Some(burst) = limit.burst.filter(|burst| *burst > 0) {
        let default = if unit.is_some() { "bytes" } else { "packets" };
        text += &format!(" burst {burst} {}", word(limit.burst_unit.as_deref().unwrap_or(default))?);
    }
    Ok(text)
}

pub(super) fn synproxy(options: &JsonSynproxy) -> Text {
    Ok(format!("synproxy{}", synproxy_options(options)?))
}

/// The options of a SYN proxy, each behind a blank.
pub(super) fn synproxy_options(options: &JsonSynproxy) -> Text {
    let mut text = String::new();
    if let Some(mss) = options.mss {
        text += &format!(" mss {mss}");
    }
    if let Some(scale) = options.wscale {
        text += &format!(" wscale {scale}");
    }
    for flag in options.flags.iter().flat_map(|flags| flags.words()) {
        text += &format!(" {}", word(flag)?);
    }
    Ok(text)
}

fn log(log: &JsonLog) -> Text {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", quoted(prefix)?);
    }
    for (name, number) in
        [("group", log.group.map(u32::from)), ("snaplen", log.snaplen), ("queue-threshold", log.queue_threshold)]
    {
        if let Some(number) = number {
            text += &format!(" {name} {number}");
        }
    }
    if let Some(level) = &log.level {
        text += &format!(" level {}", word(level)?);
    }
    for flag in log.flags.iter().flat_map(|flags| flags.words()) {
        flag.split(' ').try_for_each(|part| word(part).map(drop))?;
        text += &format!(" flags {flag}");
    }
    Ok(text)
}

fn queue(queue: &JsonQueue) -> Text {
    let flags = queue.flags.as_ref().map_or(Ok(String::new()), comma_list)?;
    let flags = if flags.is_empty() { flags } else { format!(" flags {flags}") };
    let Some(number) = &queue.num else { return Ok(format!("queue{flags} num 0")) };
    Ok(format!("queue{flags} to {}", value(number)?))
}

fn reject(reject: &JsonReject) -> Text {
    match (reject.kind.as_str(), &reject.expr) {
        ("tcp reset", _) => Ok("reject with tcp reset".to_owned()),
        (kind, Some(code)) => Ok(format!("reject with {} {}", word(kind)?, value(code)?)),
        (kind, None) => Err(JsonScriptError::new(format!("reject with {kind:?} has no expr"))),
    }
}

fn nat(what: &str, nat: Option<&JsonNat>) -> Text {
    let Some(nat) = nat else { return Ok(what.to_owned()) };
    let mut text = what.to_owned();
    if let Some(family) = &nat.family {
        text += &format!(" {}", word(family)?);
    }
    let kinds = nat.type_flags.iter().flat_map(|flags| flags.words());
    for kind in kinds.map(String::as_str) {
        text += match kind {
            "prefix" => " prefix",
            "addr-port" | "concat" => " addr . port",
            // An interval is plain from the map.
            "interval" => "",
            other => return Err(JsonScriptError::new(format!("unknown type flag {other:?}"))),
        };
    }
    match (&nat.addr, &nat.port) {
        (None, None) => (),
        (addr, port) => {
            text += " to ";
            if let Some(addr) = addr {
                text += &if port.is_some() { bracketed(addr)? } else { value(addr)? };
            }
            if let Some(port) = port {
                // A map of ports has no colon.
                let is_map = matches!(port, JsonValue::Term(term) if matches!(**term, JsonTerm::Map(_)));
                text += &format!("{}{}", if is_map && addr.is_none() { "" } else { ":" }, value(port)?);
            }
        }
    }
    if let Some(flags) = &nat.flags {
        // A netmap is said by `prefix`.
        let flags: Vec<String> = flags.words().iter().filter(|flag| *flag != "netmap").cloned().collect();
        if let Some(flags) = super::expression::OneOrMore::short(flags) {
            text += &format!(" {}", comma_list(&flags)?);
        }
    }
    Ok(text)
}

/// An address before a port: one of IPv6 in brackets.
fn bracketed(addr: &JsonValue) -> Text {
    if let JsonValue::Term(term) = addr
        && let JsonTerm::Range(ends) = term.as_ref()
    {
        return Ok(ends.iter().map(bracketed).collect::<Result<Vec<_>, _>>()?.join("-"));
    }
    let written = value(addr)?;
    Ok(if written.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{written}]") } else { written })
}

fn set_name(name: &str) -> Text {
    Ok(format!("@{}", word(name.trim_start_matches('@'))?))
}

fn stateful(statements: &[JsonStatement]) -> Text {
    let parts = statements.iter().map(|one| statement(one).map(|text| format!(" {text}")));
    parts.collect()
}
