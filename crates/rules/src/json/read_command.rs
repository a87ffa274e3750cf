//! Documents of commands, as scripts in nft's language.
use super::JsonScriptError;
use super::expression::{JsonTerm, JsonValue, OneOrMore};
use super::object::{
    JsonChain, JsonDocument, JsonElementList, JsonElements, JsonObject, JsonObjectPlace, JsonPlace, JsonRule, JsonSet,
};
use super::read_expression::{comma_list, element, quoted, word};
use super::read_statement::{limit, rule, synproxy_options};
use super::stateful::JsonLimit;
use super::statement::JsonStatement;
use serde::Deserialize;
use serde_json::Value;

type Text = Result<String, JsonScriptError>;

/// The newest schema that is known.
const SCHEMA_VERSION: u32 = 1;
/// Commands; whatever has none is added.
const COMMANDS: [&str; 10] =
    ["add", "create", "insert", "replace", "delete", "destroy", "flush", "list", "reset", "get"];

/// A document as `nft -j -f` takes it, as a script of nft commands: a line for each command.
///
/// ```
/// use keepstate_rules::json_to_script;
/// let script = json_to_script(r#"{"nftables": [
///     {"add": {"rule": {"family": "inet", "table": "filter", "chain": "forward", "expr": [
///         {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}},
///         {"accept": null}]}}},
///     {"flush": {"set": {"family": "ip", "table": "t", "name": "banned"}}}
/// ]}"#);
/// assert_eq!(script.unwrap(), "add rule inet filter forward tcp dport == 22 accept\nflush set ip t banned\n");
/// ```
///
/// # Errors
/// The text is no JSON, or what it says is not in the schema.
pub fn json_to_script(text: &str) -> Result<String, JsonScriptError> {
    let document: JsonDocument = serde_json::from_str(text)
        .map_err(|error| JsonScriptError::new(format!("a document {{\"nftables\": […]}} is expected: {error}")))?;
    let mut script = String::new();
    for (at, entry) in document.nftables.into_iter().enumerate() {
        let line = command(entry).map_err(|error| error.inside(&format!("nftables[{at}]")))?;
        script += &line;
    }
    Ok(script)
}

fn command(entry: Value) -> Text {
    let Value::Object(fields) = entry else {
        return Err(JsonScriptError::new("a command is an object"));
    };
    let mut fields = fields.into_iter();
    let (Some((name, inside)), None) = (fields.next(), fields.next()) else {
        return Err(JsonScriptError::new("a command is an object with one name"));
    };
    if let Some(line) = not_governed(&name, &inside) {
        return line;
    }
    if name == "rename" {
        return rename(object("chain", inside)?);
    }
    if !COMMANDS.contains(&name.as_str()) {
        let implied = Value::Object([(name.clone(), inside)].into_iter().collect());
        return act("add", &name, object("object", implied)?);
    }
    let kind = inside.as_object().and_then(|inside| inside.keys().next().cloned()).unwrap_or_default();
    act(&name, &kind, object(&name, inside)?).map_err(|error| error.inside(&name))
}

/// What is said about a table of the kernel's families is not read: the line names the table, so that it is noted.
fn not_governed(name: &str, inside: &Value) -> Option<Text> {
    let (kind, of) = match COMMANDS.contains(&name) || name == "rename" {
        true => inside.as_object()?.iter().next()?,
        false => (&name.to_owned(), inside),
    };
    let family = of.get("family")?.as_str().filter(|family| matches!(*family, "arp" | "bridge" | "netdev"))?;
    let table = of.get(if kind == "table" { "name" } else { "table" })?.as_str()?;
    Some(word(table).map(|table| format!("add table {family} {table}\n")))
}

fn object(place: &str, json: Value) -> Result<JsonObject, JsonScriptError> {
    JsonObject::deserialize(&json).map_err(|error| match wrong_statement(&json) {
        Some(statement) => JsonScriptError::new(statement),
        None => JsonScriptError::new(format!("{place}: {error}")),
    })
}

/// What is wrong with the first wrong statement of a rule.
fn wrong_statement(json: &Value) -> Option<String> {
    let (at, statement) = json
        .get("rule")?
        .get("expr")?
        .as_array()?
        .iter()
        .enumerate()
        .find(|(_, statement)| JsonStatement::deserialize(*statement).is_err())?;
    let name = statement.as_object().and_then(|fields| fields.keys().next());
    Some(match name.map(String::as_str) {
        Some(name @ ("fwd" | "xt" | "tc")) => {
            format!(
                "rule: expr[{at}]: the statement `{name}` is not supported; docs/nftables.md says why, and what to write"
            )
        }
        Some(name) => {
            format!("rule: expr[{at}]: the statement `{name}` is unknown, or what it holds is not in the schema")
        }
        None => format!("rule: expr[{at}]: a statement is an object with one name"),
    })
}

fn rename(object: JsonObject) -> Text {
    match object {
        JsonObject::Chain(chain) => {
            let new = chain.newname.as_deref().ok_or_else(|| JsonScriptError::new("newname is missing"))?;
            let JsonChain { family, table, name, .. } = &chain;
            Ok(format!("rename chain {} {}\n", place(family, table, name)?, word(new)?))
        }
        _ => Err(JsonScriptError::new("only a chain can be renamed")),
    }
}

/// One command: its line, with the line's end.
fn act(verb: &str, kind: &str, object: JsonObject) -> Text {
    let adds = matches!(verb, "add" | "create" | "insert" | "replace");
    let block = |body: String| if adds && !body.is_empty() { format!(" {{ {body} }}") } else { String::new() };
    let line = match object {
        JsonObject::Metainfo(info) if info.json_schema_version > SCHEMA_VERSION => {
            let what = format!("schema version {} is newer than {SCHEMA_VERSION}", info.json_schema_version);
            return Err(JsonScriptError::new(what));
        }
        JsonObject::Metainfo(_) => return Ok(String::new()),
        // To add a ruleset means nothing.
        JsonObject::Ruleset(_) if adds => return Ok(String::new()),
        JsonObject::Ruleset(of) => format!("{verb} ruleset{}", family_of(of.as_ref())?),
        JsonObject::Table(table) => {
            let named = table.name.as_deref().ok_or_else(|| JsonScriptError::new("the table has no name"))?;
            let mut body = String::new();
            if let Some(comment) = &table.comment {
                body += &format!("comment {};", quoted(comment)?);
            }
            if let Some(flags) = table.flags.as_ref().filter(|flags| flags.words().iter().any(|flag| flag == "dormant"))
            {
                body += &format!("flags {};", comma_list(flags)?);
            }
            let family = word(table.family.as_deref().unwrap_or("ip"))?;
            format!("{verb} table {family} {}{}", word(named)?, block(body))
        }
        JsonObject::Chain(chain) => {
            let body = chain_block(&chain)?;
            format!("{verb} chain {}{}", place(&chain.family, &chain.table, &chain.name)?, block(body))
        }
        JsonObject::Rule(one) => rule_line(verb, &one)?,
        JsonObject::Set(set) => set_line(verb, "set", &set, adds)?,
        JsonObject::Map(map) => set_line(verb, "map", &map, adds)?,
        JsonObject::Element(elements) => elements_line(verb, elements)?,
        JsonObject::Counter(counter) => {
            let mut body = comment_of(&counter.place)?;
            if let (Some(packets), Some(bytes)) = (counter.packets, counter.bytes) {
                body += &format!("packets {packets} bytes {bytes};");
            }
            object_line(verb, "counter", &counter.place, block(body))?
        }
        JsonObject::Quota(quota) => {
            let over = if quota.inv { "over " } else { "" };
            let used = if quota.used == 0 { String::new() } else { format!(" used {} bytes", quota.used) };
            let body = format!("{over}{} bytes{used}; {}", quota.bytes, comment_of(&quota.place)?);
            object_line(verb, "quota", &quota.place, block(body))?
        }
        JsonObject::Limit(one) if adds => {
            let values = JsonLimit {
                rate: one.rate,
                burst: one.burst,
                per: one.per.clone().unwrap_or_else(|| "second".to_owned()),
                inv: one.inv,
                rate_unit: one.rate_unit.clone(),
                burst_unit: one.burst_unit.clone(),
            };
            let body = format!("{}; {}", limit(&values)?.trim_start_matches("limit "), comment_of(&one.place)?);
            object_line(verb, "limit", &one.place, block(body))?
        }
        JsonObject::Limit(one) => object_line(verb, "limit", &one.place, String::new())?,
        JsonObject::Synproxy(one) => {
            let body = format!("{}; {}", synproxy_options(&one.options)?, comment_of(&one.place)?);
            object_line(verb, "synproxy", &one.place, block(body))?
        }
        JsonObject::CtHelper(one) if adds => {
            let l3proto =
                one.l3proto.as_deref().map_or(Ok(String::new()), |l3| word(l3).map(|l3| format!("l3proto {l3};")))?;
            let body = format!(
                "type {} protocol {}; {l3proto} {}",
                quoted(&one.kind)?,
                word(&one.protocol)?,
                comment_of(&one.place)?
            );
            object_line(verb, "ct helper", &one.place, block(body))?
        }
        JsonObject::CtHelper(one) => object_line(verb, "ct helper", &one.place, String::new())?,
        JsonObject::CtTimeout(one) if adds => {
            let states = one.policy.iter().map(|(state, seconds)| Ok(format!("{} : {seconds}", word(state)?)));
            let states = states.collect::<Result<Vec<_>, JsonScriptError>>()?.join(", ");
            let l3proto =
                one.l3proto.as_deref().map_or(Ok(String::new()), |l3| word(l3).map(|l3| format!("l3proto {l3};")))?;
            let body = format!(
                "protocol {}; {l3proto} policy = {{ {states} }}; {}",
                word(&one.protocol)?,
                comment_of(&one.place)?
            );
            object_line(verb, "ct timeout", &one.place, block(body))?
        }
        JsonObject::CtTimeout(one) => object_line(verb, "ct timeout", &one.place, String::new())?,
        JsonObject::Secmark(one) if adds => {
            let body = format!("{}; {}", quoted(&one.context)?, comment_of(&one.place)?);
            object_line(verb, "secmark", &one.place, block(body))?
        }
        JsonObject::Secmark(one) => object_line(verb, "secmark", &one.place, String::new())?,
        JsonObject::CtExpectation(one) if adds => {
            let l3proto =
                one.l3proto.as_deref().map_or(Ok(String::new()), |l3| word(l3).map(|l3| format!("l3proto {l3};")))?;
            let body = format!(
                "protocol {}; dport {}; timeout {}ms; size {}; {l3proto} {}",
                word(&one.protocol)?,
                one.dport,
                one.timeout,
                one.size,
                comment_of(&one.place)?
            );
            object_line(verb, "ct expectation", &one.place, block(body))?
        }
        JsonObject::CtExpectation(one) => object_line(verb, "ct expectation", &one.place, String::new())?,
        JsonObject::Flowtable(one) => {
            let devices = one.dev.as_ref().map_or(Ok(String::new()), |devices| {
                let names = devices.words().iter().map(|name| quoted(name)).collect::<Result<Vec<_>, _>>()?;
                Ok(format!(" devices = {{ {} }};", names.join(", ")))
            })?;
            let body = format!("hook ingress priority {};{devices}", one.prio.unwrap_or(0));
            object_line(verb, "flowtable", &one.place, block(body))?
        }
        JsonObject::Meter(of) => {
            let family = of.family.as_deref().unwrap_or("ip");
            let names = [of.table.as_deref(), of.name.as_deref()].into_iter().flatten().map(word);
            format!("{verb} meter {} {}", word(family)?, names.collect::<Result<Vec<_>, _>>()?.join(" "))
        }
        JsonObject::Tables(of)
        | JsonObject::Chains(of)
        | JsonObject::Sets(of)
        | JsonObject::Maps(of)
        | JsonObject::Counters(of)
        | JsonObject::Quotas(of)
        | JsonObject::Limits(of)
        | JsonObject::Rules(of)
        | JsonObject::Meters(of) => whole_line(verb, kind, of.as_ref())?,
    };
    Ok(line + "\n")
}

fn family_of(of: Option<&JsonPlace>) -> Text {
    let family = of.and_then(|of| of.family.as_deref());
    family.map_or(Ok(String::new()), |family| word(family).map(|family| format!(" {family}")))
}

/// `list counters` and the like: of all, a family, or a table.
fn whole_line(verb: &str, kind: &str, of: Option<&JsonPlace>) -> Text {
    let table = of.and_then(|of| of.table.as_deref());
    let table = table.map_or(Ok(String::new()), |table| word(table).map(|table| format!(" {table}")))?;
    let within = if table.is_empty() { "" } else { " table" };
    Ok(format!("{verb} {}{within}{}{table}", word(kind)?, family_of(of)?))
}

fn place(family: &str, table: &str, name: &str) -> Text {
    let family = if family.is_empty() { "ip" } else { family };
    Ok(format!("{} {} {}", word(family)?, word(table)?, word(name)?))
}

fn comment_of(place: &JsonObjectPlace) -> Text {
    place.comment.as_deref().map_or(Ok(String::new()), |comment| Ok(format!("comment {};", quoted(comment)?)))
}

fn object_line(verb: &str, kind: &str, at: &JsonObjectPlace, block: String) -> Text {
    Ok(format!("{verb} {kind} {}{block}", place(&at.family, &at.table, &at.name)?))
}

fn chain_block(chain: &JsonChain) -> Text {
    let mut body = String::new();
    if let (Some(kind), Some(hook)) = (&chain.kind, &chain.hook) {
        let devices = chain.dev.as_ref().map_or(Ok(String::new()), |devices| {
            let names = devices.words().iter().map(|name| quoted(name)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!(" devices = {{ {} }}", names.join(", ")))
        })?;
        let prio = chain.prio.unwrap_or(0);
        body += &format!("type {} hook {}{devices} priority {prio};", word(kind)?, word(hook)?);
    }
    if let Some(policy) = &chain.policy {
        body += &format!(" policy {};", word(policy)?);
    }
    if let Some(comment) = &chain.comment {
        body += &format!(" comment {};", quoted(comment)?);
    }
    Ok(body)
}

fn rule_line(verb: &str, one: &JsonRule) -> Text {
    let at = place(&one.family, &one.table, &one.chain)?;
    let number = match (verb, one.handle, one.index) {
        // In a listing the handle is the rule's own: only a command places by it.
        ("add", Some(_), None) => String::new(),
        (_, Some(handle), _) => format!(" handle {handle}"),
        (_, None, Some(index)) => format!(" index {index}"),
        _ => String::new(),
    };
    if matches!(verb, "delete" | "destroy" | "reset") {
        return Ok(format!("{verb} rule {at}{number}"));
    }
    if one.expr.is_empty() {
        return Err(JsonScriptError::new("the rule has no expr"));
    }
    Ok(format!("{verb} rule {at}{number} {}", rule(&one.expr, one.comment.as_deref())?))
}

fn set_line(verb: &str, word_of_kind: &str, set: &JsonSet, adds: bool) -> Text {
    let at = place(&set.family, &set.table, &set.name)?;
    if !adds {
        return Ok(format!("{verb} {word_of_kind} {at}"));
    }
    let types = |list: &OneOrMore| -> Text {
        let names = list.words().iter().map(|one| one.split(" . ").map(type_name).collect::<Result<Vec<_>, _>>());
        Ok(names.collect::<Result<Vec<_>, _>>()?.concat().join(" . "))
    };
    let kind = set.kind.as_ref().ok_or_else(|| JsonScriptError::new(format!("{} has no type", set.name)))?;
    let mut body = format!("type {}", types(kind)?);
    if let Some(map) = &set.map {
        // nft does not tell it; it is plain from the values.
        let interval = set.elem.iter().any(has_interval_data);
        body += &format!(" : {}{}", if interval { "interval " } else { "" }, types(map)?);
    }
    body += ";";
    if let Some(flags) = &set.flags {
        body += &format!(" flags {};", comma_list(flags)?);
    }
    for (name, number, unit) in
        [("timeout", set.timeout, "s"), ("gc-interval", set.gc_interval, "s"), ("size", set.size.map(u64::from), "")]
    {
        if let Some(number) = number {
            body += &format!(" {name} {number}{unit};");
        }
    }
    if let Some(policy) = &set.policy {
        body += &format!(" policy {};", word(policy)?);
    }
    if set.auto_merge {
        body += " auto-merge;";
    }
    if let Some(comment) = &set.comment {
        body += &format!(" comment {};", quoted(comment)?);
    }
    for one in &set.stmt {
        body += &format!(" {};", rule(std::slice::from_ref(one), None)?);
    }
    if !set.elem.is_empty() {
        body += &format!(" elements = {{ {} }};", elements(&set.elem)?);
    }
    Ok(format!("{verb} {word_of_kind} {at} {{ {body} }}"))
}

/// Is the value of a map's element a range?
fn has_interval_data(element: &JsonValue) -> bool {
    fn is_range(value: &JsonValue) -> bool {
        match value {
            JsonValue::Term(term) => match term.as_ref() {
                JsonTerm::Range(_) | JsonTerm::Prefix(_) => true,
                JsonTerm::Concat(parts) => parts.iter().any(is_range),
                _ => false,
            },
            _ => false,
        }
    }
    matches!(element, JsonValue::List(parts) if parts.get(1).is_some_and(is_range))
}

/// A type, as `type` names it; objects of conntrack have two words.
fn type_name(name: &str) -> Text {
    name.split(' ').try_for_each(|part| word(part).map(drop))?;
    Ok(name.to_owned())
}

fn elements(list: &[JsonValue]) -> Text {
    Ok(list.iter().map(element).collect::<Result<Vec<_>, _>>()?.join(", "))
}

fn elements_line(verb: &str, of: JsonElements) -> Text {
    let list = match of.elem {
        JsonElementList::Several(list) => list,
        JsonElementList::One(one) => vec![one],
    };
    let at = place(&of.family, &of.table, &of.name)?;
    Ok(format!("{verb} element {at} {{ {} }}", elements(&list)?))
}
