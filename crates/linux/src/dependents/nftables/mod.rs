//! nftables' rulesets as `nft -j list ruleset` prints them; the text of each rule from `nft -s -a list ruleset`.
//!
//! Both texts are read once into [`Table`]s. What a rule says that is not understood here becomes a condition that may hold or not.
use super::iptables;
use super::rules::{Base, Branch, Chain, End, Language, Need, Object, Rule, Table, Test, Verdict, protocol_name};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Reads a ruleset; `listing` may be empty, then a rule's text is its JSON.
///
/// # Errors
/// If `json` is no ruleset as `nft -j` prints it.
pub fn parse(json: &str, listing: &str) -> Result<Vec<Table>, String> {
    let document: Value = serde_json::from_str(json).map_err(|error| format!("no JSON: {error}"))?;
    let items = document.get("nftables").and_then(Value::as_array).ok_or("no list named \"nftables\"")?;
    let texts = texts(listing);
    let sets = Sets::of(items);
    let mut tables: Vec<Table> = Vec::new();
    for item in items {
        let Some((kind, body)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
        let family = text(body, "family");
        if kind == "table" {
            let (name, chains, objects) = (text(body, "name"), Vec::new(), Vec::new());
            tables.push(Table { language: Language::Nftables, family, name, chains, objects });
            continue;
        }
        let name = text(body, "table");
        let Some(table) = tables.iter_mut().find(|table| table.family == family && table.name == name) else {
            continue;
        };
        match kind.as_str() {
            "chain" => table.chains.push(Chain { name: text(body, "name"), base: base(body), rules: Vec::new() }),
            "rule" => {
                let chain = text(body, "chain");
                let number = body.get("handle").and_then(Value::as_u64).unwrap_or(0);
                let listed = texts.get(&(family, name, chain.clone(), number)).cloned();
                let mut rule = Reader { sets: &sets, family: &table.family, table: &table.name }.rule(body);
                rule.number = number;
                rule.text = listed.unwrap_or_else(|| body.get("expr").map(Value::to_string).unwrap_or_default());
                if let Some(chain) = table.chains.iter_mut().find(|known| known.name == chain) {
                    chain.rules.push(rule);
                }
            }
            "set" | "map" => {
                // What is done for each element: `ct count` of a dynamic set.
                let mut found = Vec::new();
                ["stmt", "elem"].iter().filter_map(|part| body.get(part)).for_each(|part| needs(part, &mut found));
                found.sort_unstable();
                found.dedup();
                let text = format!("{kind} {}", text(body, "name"));
                table.objects.extend(found.into_iter().map(|needs| Object { needs, text: text.clone() }));
            }
            other => {
                if let Some(needs) = declared(other) {
                    let text = format!("{other} {}", text(body, "name"));
                    table.objects.push(Object { needs, text });
                }
            }
        }
    }
    Ok(tables)
}

/// What an object that a table declares needs.
fn declared(kind: &str) -> Option<Need> {
    match kind {
        "ct helper" => Some(Need::Helper),
        "ct timeout" => Some(Need::Timeout),
        "ct expectation" => Some(Need::Expectation),
        "synproxy" => Some(Need::Synproxy),
        "flowtable" => Some(Need::Flowtable),
        _ => None,
    }
}

fn base(chain: &Value) -> Option<Base> {
    let hook = chain.get("hook")?.as_str()?.to_owned();
    let nat = text(chain, "type") == "nat";
    let priority = chain.get("prio").and_then(Value::as_i64).unwrap_or(0);
    Some(Base { hook, nat, priority, accepts: text(chain, "policy") != "drop" })
}

fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What one rule says, with the sets of its table at hand.
struct Reader<'a> {
    sets: &'a Sets<'a>,
    family: &'a str,
    table: &'a str,
}

impl Reader<'_> {
    fn rule(&self, body: &Value) -> Rule {
        let mut rule = Rule::default();
        for statement in body.get("expr").and_then(Value::as_array).into_iter().flatten() {
            needs(statement, &mut rule.needs);
            match statement.as_object().and_then(|object| object.iter().next()) {
                Some((kind, body)) => self.statement(kind, body, &mut rule),
                None => rule.tests.push(Test::Other),
            }
        }
        rule.needs.sort_unstable();
        rule.needs.dedup();
        rule
    }

    fn statement(&self, kind: &str, body: &Value, rule: &mut Rule) {
        let verdict = match kind {
            "match" => return self.condition(body, rule),
            "vmap" => return self.branches(body, rule),
            "accept" => Verdict::Accept,
            "drop" | "reject" => Verdict::Drop,
            "return" => Verdict::Return,
            "jump" => Verdict::Jump(text(body, "target")),
            "goto" => Verdict::Goto(text(body, "target")),
            "masquerade" | "snat" | "dnat" | "redirect" => {
                rule.translates_to.extend(self.translated(body));
                Verdict::Accept
            }
            "queue" | "synproxy" | "tproxy" | "fwd" => Verdict::Elsewhere,
            "xt" if text(body, "type") == "target" => Verdict::Elsewhere,
            // These never keep a rule from going on.
            "counter" | "log" | "mangle" | "notrack" | "dup" | "last" | "comment" | "ct helper" | "ct timeout"
            | "ct expectation" | "flow" => return,
            _ => return rule.tests.push(Test::Other),
        };
        rule.branches.push(Branch { test: None, verdict });
    }

    /// One comparison.
    fn condition(&self, body: &Value, rule: &mut Rule) {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else {
            return rule.tests.push(Test::Other);
        };
        let not = match body.get("op").and_then(Value::as_str) {
            Some("==" | "in") => false,
            Some("!=") => true,
            // A comparison by size of something of the connection is no less one of the connection.
            _ if is_connection(left) => return rule.tests.push(Test::Connection),
            _ => return rule.tests.push(Test::Other),
        };
        if let Some(protocol) = transport(left) {
            rule.tests.push(Test::Protocol { names: vec![protocol], not: false });
        }
        if not && is_flags(left) && right.as_str() == Some("syn") {
            rule.tests.push(Test::Protocol { names: vec!["tcp".into()], not: false });
            return rule.tests.push(Test::NotOpening);
        }
        rule.tests.push(self.test(left, right).negated(not));
    }

    /// The test that `left` is one of `right`.
    fn test(&self, left: &Value, right: &Value) -> Test {
        let field = field(left);
        let test = match field {
            Field::State => self.words(right).map(|states| Test::State { states, not: false }),
            Field::Connection => Some(Test::Connection),
            Field::Protocol => self.words(right).map(|names| Test::Protocol {
                names: names.iter().map(|name| protocol_name(name)).collect(),
                not: false,
            }),
            Field::Port(end) => self.ports(right).map(|ports| Test::Port { end, ports, not: false }),
            Field::Other => None,
        };
        test.unwrap_or(Test::Other)
    }

    /// A map from a key to verdicts.
    fn branches(&self, body: &Value, rule: &mut Rule) {
        let (Some(key), Some(data)) = (body.get("key"), body.get("data")) else { return rule.tests.push(Test::Other) };
        if let Some(protocol) = transport(key) {
            rule.tests.push(Test::Protocol { names: vec![protocol], not: false });
        }
        let Some(elements) = self.elements(data) else {
            // Filled by others, or not printed: it may do anything.
            rule.branches.push(Branch { test: Some(Test::Other), verdict: Verdict::Elsewhere });
            return;
        };
        for element in elements {
            let Some((value, verdict)) = pair(element) else { continue };
            let verdict = match verdict.as_object().and_then(|object| object.iter().next()) {
                Some((kind, body)) => match kind.as_str() {
                    "accept" => Verdict::Accept,
                    "drop" => Verdict::Drop,
                    "return" => Verdict::Return,
                    "jump" => Verdict::Jump(text(body, "target")),
                    "goto" => Verdict::Goto(text(body, "target")),
                    _ => continue,
                },
                None => continue,
            };
            rule.branches.push(Branch { test: Some(self.test(key, value)), verdict });
        }
    }

    /// The ports that a translation names. One that depends on a map may be any.
    fn translated(&self, body: &Value) -> Vec<RangeInclusive<u16>> {
        let mapped = body.get("addr").is_some_and(|address| address.get("map").is_some());
        match body.get("port") {
            Some(port) => self.ports(port).unwrap_or_else(|| vec![0..=u16::MAX]),
            None if mapped => vec![0..=u16::MAX],
            None => Vec::new(),
        }
    }

    /// Ports: one, a range, a set, or the name of a set.
    fn ports(&self, value: &Value) -> Option<Vec<RangeInclusive<u16>>> {
        let port = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let one = |value: &Value| {
            let value = value.get("elem").and_then(|element| element.get("val")).unwrap_or(value);
            match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
                Some([low, high]) => Some(port(low)?..=port(high)?),
                _ => port(value).map(|port| port..=port),
            }
        };
        match self.elements(value) {
            Some(elements) => elements.iter().map(one).collect(),
            None => one(value).map(|range| vec![range]),
        }
    }

    /// Words: one, a list, a set, or the name of a set.
    fn words(&self, value: &Value) -> Option<Vec<String>> {
        let one = |value: &Value| match value {
            Value::String(word) if !word.starts_with('@') => Some(word.to_ascii_lowercase()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match self.elements(value).or(value.as_array().map(Vec::as_slice)) {
            Some(elements) => elements.iter().map(one).collect(),
            None => one(value).map(|word| vec![word]),
        }
    }

    /// The elements of a set, given in place or by its name.
    fn elements<'v>(&'v self, value: &'v Value) -> Option<&'v [Value]> {
        match value {
            Value::String(name) => self.sets.elements(self.family, self.table, name.strip_prefix('@')?),
            _ => value.get("set")?.as_array().map(Vec::as_slice),
        }
    }
}

/// What of a packet a condition looks at.
enum Field {
    State,
    Connection,
    Protocol,
    Port(End),
    Other,
}

fn field(left: &Value) -> Field {
    if let Some(key) = left.get("ct") {
        return if text(key, "key") == "state" { Field::State } else { Field::Connection };
    }
    if left.get("meta").is_some_and(|meta| text(meta, "key") == "l4proto") {
        return Field::Protocol;
    }
    let Some(payload) = left.get("payload") else { return Field::Other };
    match (text(payload, "protocol").as_str(), text(payload, "field").as_str()) {
        ("ip", "protocol") | ("ip6", "nexthdr") => Field::Protocol,
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "sport") => Field::Port(End::Source),
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "dport") => Field::Port(End::Destination),
        _ => Field::Other,
    }
}

fn is_connection(left: &Value) -> bool {
    matches!(field(left), Field::State | Field::Connection)
}

/// Is it TCP's flags, masked so that a SYN alone is told from all else: `tcp flags & (fin|syn|rst|ack)`?
fn is_flags(left: &Value) -> bool {
    let Some([flags, mask]) = left.get("&").and_then(Value::as_array).map(Vec::as_slice) else { return false };
    let flags = flags.get("payload").is_some_and(|payload| text(payload, "field") == "flags");
    // Releases print the mask as a list or as nested sums.
    let mask = mask.to_string();
    flags && mask.contains("syn") && mask.contains("ack")
}

/// The protocol that looking at one of its fields asks for.
fn transport(left: &Value) -> Option<String> {
    let protocol = text(left.get("payload")?, "protocol");
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp" | "dccp" | "udplite").then_some(protocol)
}

/// Key and verdict of an element of a map.
fn pair(element: &Value) -> Option<(&Value, &Value)> {
    let [key, verdict] = element.as_array()?.as_slice() else { return None };
    Some((key.get("elem").and_then(|element| element.get("val")).unwrap_or(key), verdict))
}

/// What an expression needs of connection tracking, wherever in it that stands.
fn needs(value: &Value, found: &mut Vec<Need>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| needs(item, found)),
        Value::Object(members) => {
            for (name, body) in members {
                match name.as_str() {
                    "ct" => found.push(of_key(&text(body, "key"))),
                    "ct count" => found.push(Need::Limit),
                    "ct helper" => found.push(Need::Helper),
                    "ct timeout" => found.push(Need::Timeout),
                    "ct expectation" => found.push(Need::Expectation),
                    "masquerade" | "snat" | "dnat" | "redirect" => found.push(Need::Nat),
                    "synproxy" => found.push(Need::Synproxy),
                    "flow" => found.push(Need::Flowtable),
                    "notrack" => found.push(Need::Notrack),
                    "xt" => found.extend(foreign(body)),
                    _ => (),
                }
                needs(body, found);
            }
        }
        _ => (),
    }
}

/// What a key of `ct` needs.
fn of_key(key: &str) -> Need {
    match key {
        "state" => Need::State,
        "mark" => Need::Mark,
        "label" => Need::Label,
        "helper" => Need::Helper,
        "zone" => Need::Zone,
        "count" => Need::Limit,
        _ => Need::Match,
    }
}

/// What an extension of iptables needs of which only the name is printed.
fn foreign(body: &Value) -> Option<Need> {
    let name = text(body, "name");
    match text(body, "type").as_str() {
        "match" => iptables::need_of_match(&name),
        // Its options tell whether it is NOTRACK, which needs nothing.
        "target" if name == "CT" => Some(Need::Unknown),
        "target" => iptables::need_of_target(&name),
        // Some releases print no more than that there is something.
        _ => Some(Need::Unknown),
    }
}

/// The named sets and maps of a ruleset that have elements.
struct Sets<'a>(HashMap<(String, String, String), &'a [Value]>);

impl<'a> Sets<'a> {
    fn of(items: &'a [Value]) -> Sets<'a> {
        let bodies = items.iter().filter_map(|item| item.get("set").or_else(|| item.get("map")));
        let named = bodies.filter_map(|body| {
            let elements = body.get("elem")?.as_array()?;
            Some(((text(body, "family"), text(body, "table"), text(body, "name")), elements.as_slice()))
        });
        Sets(named.collect())
    }

    fn elements(&self, family: &str, table: &str, name: &str) -> Option<&'a [Value]> {
        self.0.get(&(family.to_owned(), table.to_owned(), name.to_owned())).copied()
    }
}

/// The text of each rule in a listing, by family, table, chain and handle.
fn texts(listing: &str) -> HashMap<(String, String, String, u64), String> {
    let mut texts = HashMap::new();
    let (mut table, mut chain) = ((String::new(), String::new()), None);
    let mut pending = String::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{", ..] => (table, chain) = ((family.to_string(), name.to_string()), None),
            ["chain", name, "{", ..] if line.starts_with("\tchain") => chain = Some(name.to_string()),
            _ if line.starts_with("\t}") => chain = None,
            [] => (),
            _ => {
                let Some(chain) = &chain else { continue };
                if !pending.is_empty() {
                    pending.push(' ');
                }
                pending.push_str(line.trim());
                let handle = pending.rsplit_once(" # handle ").and_then(|(text, handle)| {
                    handle.trim().parse::<u64>().ok().map(|handle| (text.to_owned(), handle))
                });
                if let Some((text, handle)) = handle {
                    texts.insert((table.0.clone(), table.1.clone(), chain.clone(), handle), text);
                    pending.clear();
                } else if pending.ends_with(';') {
                    pending.clear();
                }
                continue;
            }
        }
        pending.clear();
    }
    texts
}

#[cfg(test)]
mod tests;
