//! nftables' rulesets as `nft -j list ruleset` prints them; the text of each rule from `nft -s -a list ruleset`.
//!
//! Both texts are read once into [`ListedTable`]s. What a rule says that is not understood here becomes a condition that may hold or not.
use super::iptables;
use super::listed_ruleset::{
    CtFeature, ListedBaseChain, ListedChain, ListedObject, ListedRule, ListedTable, ListedVerdict, PortSide, RuleMatch,
    RulesetFormat, VerdictBranch, protocol_name,
};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Reads a ruleset; `listing` may be empty, then a rule's text is its JSON.
///
/// # Errors
/// If `json` is no ruleset as `nft -j` prints it.
pub fn parse(json: &str, listing: &str) -> Result<Vec<ListedTable>, String> {
    let document: Value = serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))?;
    let items = document.get("nftables").and_then(Value::as_array).ok_or("no array \"nftables\"")?;
    let texts = rule_texts_by_handle(listing);
    let sets = NamedSets::collect(items);
    let mut tables: Vec<ListedTable> = Vec::new();
    for item in items {
        let Some((kind, body)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
        let family = json_str(body, "family");
        if kind == "table" {
            let (name, chains, objects) = (json_str(body, "name"), Vec::new(), Vec::new());
            tables.push(ListedTable { format: RulesetFormat::Nftables, family, name, chains, objects });
            continue;
        }
        let name = json_str(body, "table");
        let Some(table) = tables.iter_mut().find(|table| table.family == family && table.name == name) else {
            continue;
        };
        match kind.as_str() {
            "chain" => table.chains.push(ListedChain {
                name: json_str(body, "name"),
                base: parse_base_chain(body),
                rules: Vec::new(),
            }),
            "rule" => {
                let chain = json_str(body, "chain");
                let number = body.get("handle").and_then(Value::as_u64).unwrap_or(0);
                let listed = texts.get(&(family, name, chain.clone(), number)).cloned();
                let mut rule = RuleParser { sets: &sets, family: &table.family, table: &table.name }.parse_rule(body);
                rule.number = number;
                rule.text = listed.unwrap_or_else(|| body.get("expr").map(Value::to_string).unwrap_or_default());
                if let Some(chain) = table.chains.iter_mut().find(|known| known.name == chain) {
                    chain.rules.push(rule);
                }
            }
            "set" | "map" => {
                // What is done for each element: `ct count` of a dynamic set.
                let mut found = Vec::new();
                ["stmt", "elem"]
                    .iter()
                    .filter_map(|part| body.get(part))
                    .for_each(|part| collect_ct_features(part, &mut found));
                found.sort_unstable();
                found.dedup();
                let text = format!("{kind} {}", json_str(body, "name"));
                table
                    .objects
                    .extend(found.into_iter().map(|needs| ListedObject { ct_feature: needs, text: text.clone() }));
            }
            other => {
                if let Some(needs) = object_ct_feature(other) {
                    let text = format!("{other} {}", json_str(body, "name"));
                    table.objects.push(ListedObject { ct_feature: needs, text });
                }
            }
        }
    }
    Ok(tables)
}

/// What an object that a table declares needs.
fn object_ct_feature(kind: &str) -> Option<CtFeature> {
    match kind {
        "ct helper" => Some(CtFeature::Helper),
        "ct timeout" => Some(CtFeature::Timeout),
        "ct expectation" => Some(CtFeature::Expectation),
        "synproxy" => Some(CtFeature::Synproxy),
        "flowtable" => Some(CtFeature::Flowtable),
        _ => None,
    }
}

fn parse_base_chain(chain: &Value) -> Option<ListedBaseChain> {
    let hook = chain.get("hook")?.as_str()?.to_owned();
    let nat = json_str(chain, "type") == "nat";
    let priority = chain.get("prio").and_then(Value::as_i64).unwrap_or(0);
    Some(ListedBaseChain { hook, is_nat: nat, priority, policy_accept: json_str(chain, "policy") != "drop" })
}

fn json_str(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What one rule says, with the sets of its table at hand.
struct RuleParser<'a> {
    sets: &'a NamedSets<'a>,
    family: &'a str,
    table: &'a str,
}

impl RuleParser<'_> {
    fn parse_rule(&self, body: &Value) -> ListedRule {
        let mut rule = ListedRule::default();
        for statement in body.get("expr").and_then(Value::as_array).into_iter().flatten() {
            collect_ct_features(statement, &mut rule.ct_features);
            match statement.as_object().and_then(|object| object.iter().next()) {
                Some((kind, body)) => self.parse_statement(kind, body, &mut rule),
                None => rule.matches.push(RuleMatch::Unknown),
            }
        }
        rule.ct_features.sort_unstable();
        rule.ct_features.dedup();
        rule
    }

    fn parse_statement(&self, kind: &str, body: &Value, rule: &mut ListedRule) {
        let verdict = match kind {
            "match" => return self.parse_match(body, rule),
            "vmap" => return self.parse_vmap(body, rule),
            "accept" => ListedVerdict::Accept,
            "drop" | "reject" => ListedVerdict::Drop,
            "return" => ListedVerdict::Return,
            "jump" => ListedVerdict::Jump(json_str(body, "target")),
            "goto" => ListedVerdict::Goto(json_str(body, "target")),
            "masquerade" | "snat" | "dnat" | "redirect" => {
                rule.nat_ports.extend(self.nat_ports(body));
                ListedVerdict::Accept
            }
            "queue" | "synproxy" | "tproxy" | "fwd" => ListedVerdict::Unknown,
            "xt" if json_str(body, "type") == "target" => ListedVerdict::Unknown,
            // These never keep a rule from going on.
            "counter" | "log" | "mangle" | "notrack" | "dup" | "last" | "comment" | "ct helper" | "ct timeout"
            | "ct expectation" | "flow" => return,
            _ => return rule.matches.push(RuleMatch::Unknown),
        };
        rule.branches.push(VerdictBranch { condition: None, verdict });
    }

    /// One comparison.
    fn parse_match(&self, body: &Value, rule: &mut ListedRule) {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else {
            return rule.matches.push(RuleMatch::Unknown);
        };
        let not = match body.get("op").and_then(Value::as_str) {
            Some("==" | "in") => false,
            Some("!=") => true,
            // A comparison by size of something of the connection is no less one of the connection.
            _ if is_ct_expr(left) => return rule.matches.push(RuleMatch::CtField),
            _ => return rule.matches.push(RuleMatch::Unknown),
        };
        if let Some(protocol) = l4_protocol(left) {
            rule.matches.push(RuleMatch::Protocol { names: vec![protocol], not: false });
        }
        if not && is_tcp_flags_mask(left) && right.as_str() == Some("syn") {
            rule.matches.push(RuleMatch::Protocol { names: vec!["tcp".into()], not: false });
            return rule.matches.push(RuleMatch::NotSyn);
        }
        rule.matches.push(self.build_match(left, right).negate_if(not));
    }

    /// The test that `left` is one of `right`.
    fn build_match(&self, left: &Value, right: &Value) -> RuleMatch {
        let field = match_key(left);
        let test = match field {
            MatchKey::State => self.parse_words(right).map(|states| RuleMatch::CtState { states, not: false }),
            MatchKey::Connection => Some(RuleMatch::CtField),
            MatchKey::Protocol => self.parse_words(right).map(|names| RuleMatch::Protocol {
                names: names.iter().map(|name| protocol_name(name)).collect(),
                not: false,
            }),
            MatchKey::Port(end) => {
                self.parse_ports(right).map(|ports| RuleMatch::Port { side: end, ports, not: false })
            }
            MatchKey::Other => None,
        };
        test.unwrap_or(RuleMatch::Unknown)
    }

    /// A map from a key to verdicts.
    fn parse_vmap(&self, body: &Value, rule: &mut ListedRule) {
        let (Some(key), Some(data)) = (body.get("key"), body.get("data")) else {
            return rule.matches.push(RuleMatch::Unknown);
        };
        if let Some(protocol) = l4_protocol(key) {
            rule.matches.push(RuleMatch::Protocol { names: vec![protocol], not: false });
        }
        let Some(elements) = self.set_elements(data) else {
            // Filled by others, or not printed: it may do anything.
            rule.branches.push(VerdictBranch { condition: Some(RuleMatch::Unknown), verdict: ListedVerdict::Unknown });
            return;
        };
        for element in elements {
            let Some((value, verdict)) = map_element(element) else { continue };
            let verdict = match verdict.as_object().and_then(|object| object.iter().next()) {
                Some((kind, body)) => match kind.as_str() {
                    "accept" => ListedVerdict::Accept,
                    "drop" => ListedVerdict::Drop,
                    "return" => ListedVerdict::Return,
                    "jump" => ListedVerdict::Jump(json_str(body, "target")),
                    "goto" => ListedVerdict::Goto(json_str(body, "target")),
                    _ => continue,
                },
                None => continue,
            };
            rule.branches.push(VerdictBranch { condition: Some(self.build_match(key, value)), verdict });
        }
    }

    /// The ports that a translation names. One that depends on a map may be any.
    fn nat_ports(&self, body: &Value) -> Vec<RangeInclusive<u16>> {
        let mapped = body.get("addr").is_some_and(|address| address.get("map").is_some());
        match body.get("port") {
            Some(port) => self.parse_ports(port).unwrap_or_else(|| vec![0..=u16::MAX]),
            None if mapped => vec![0..=u16::MAX],
            None => Vec::new(),
        }
    }

    /// Ports: one, a range, a set, or the name of a set.
    fn parse_ports(&self, value: &Value) -> Option<Vec<RangeInclusive<u16>>> {
        let port = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let one = |value: &Value| {
            let value = value.get("elem").and_then(|element| element.get("val")).unwrap_or(value);
            match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
                Some([low, high]) => Some(port(low)?..=port(high)?),
                _ => port(value).map(|port| port..=port),
            }
        };
        match self.set_elements(value) {
            Some(elements) => elements.iter().map(one).collect(),
            None => one(value).map(|range| vec![range]),
        }
    }

    /// Words: one, a list, a set, or the name of a set.
    fn parse_words(&self, value: &Value) -> Option<Vec<String>> {
        let one = |value: &Value| match value {
            Value::String(word) if !word.starts_with('@') => Some(word.to_ascii_lowercase()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match self.set_elements(value).or(value.as_array().map(Vec::as_slice)) {
            Some(elements) => elements.iter().map(one).collect(),
            None => one(value).map(|word| vec![word]),
        }
    }

    /// The elements of a set, given in place or by its name.
    fn set_elements<'v>(&'v self, value: &'v Value) -> Option<&'v [Value]> {
        match value {
            Value::String(name) => self.sets.elements(self.family, self.table, name.strip_prefix('@')?),
            _ => value.get("set")?.as_array().map(Vec::as_slice),
        }
    }
}

/// What of a packet a condition looks at.
enum MatchKey {
    State,
    Connection,
    Protocol,
    Port(PortSide),
    Other,
}

fn match_key(left: &Value) -> MatchKey {
    if let Some(key) = left.get("ct") {
        return if json_str(key, "key") == "state" { MatchKey::State } else { MatchKey::Connection };
    }
    if left.get("meta").is_some_and(|meta| json_str(meta, "key") == "l4proto") {
        return MatchKey::Protocol;
    }
    let Some(payload) = left.get("payload") else { return MatchKey::Other };
    match (json_str(payload, "protocol").as_str(), json_str(payload, "field").as_str()) {
        ("ip", "protocol") | ("ip6", "nexthdr") => MatchKey::Protocol,
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "sport") => MatchKey::Port(PortSide::Source),
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "dport") => MatchKey::Port(PortSide::Destination),
        _ => MatchKey::Other,
    }
}

fn is_ct_expr(left: &Value) -> bool {
    matches!(match_key(left), MatchKey::State | MatchKey::Connection)
}

/// Is it TCP's flags, masked so that a SYN alone is told from all else: `tcp flags & (fin|syn|rst|ack)`?
fn is_tcp_flags_mask(left: &Value) -> bool {
    let Some([flags, mask]) = left.get("&").and_then(Value::as_array).map(Vec::as_slice) else { return false };
    let flags = flags.get("payload").is_some_and(|payload| json_str(payload, "field") == "flags");
    // Releases print the mask as a list or as nested sums.
    let mask = mask.to_string();
    flags && mask.contains("syn") && mask.contains("ack")
}

/// The protocol that looking at one of its fields asks for.
fn l4_protocol(left: &Value) -> Option<String> {
    let protocol = json_str(left.get("payload")?, "protocol");
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp" | "dccp" | "udplite").then_some(protocol)
}

/// Key and verdict of an element of a map.
fn map_element(element: &Value) -> Option<(&Value, &Value)> {
    let [key, verdict] = element.as_array()?.as_slice() else { return None };
    Some((key.get("elem").and_then(|element| element.get("val")).unwrap_or(key), verdict))
}

/// What an expression needs of connection tracking, wherever in it that stands.
fn collect_ct_features(value: &Value, found: &mut Vec<CtFeature>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_ct_features(item, found)),
        Value::Object(members) => {
            for (name, body) in members {
                match name.as_str() {
                    "ct" => found.push(ct_key_feature(&json_str(body, "key"))),
                    "ct count" => found.push(CtFeature::Limit),
                    "ct helper" => found.push(CtFeature::Helper),
                    "ct timeout" => found.push(CtFeature::Timeout),
                    "ct expectation" => found.push(CtFeature::Expectation),
                    "masquerade" | "snat" | "dnat" | "redirect" => found.push(CtFeature::Nat),
                    "synproxy" => found.push(CtFeature::Synproxy),
                    "flow" => found.push(CtFeature::Flowtable),
                    "notrack" => found.push(CtFeature::Notrack),
                    "xt" => found.extend(xt_ct_feature(body)),
                    _ => (),
                }
                collect_ct_features(body, found);
            }
        }
        _ => (),
    }
}

/// What a key of `ct` needs.
fn ct_key_feature(key: &str) -> CtFeature {
    match key {
        "state" => CtFeature::State,
        "mark" => CtFeature::Mark,
        "label" => CtFeature::Label,
        "helper" => CtFeature::Helper,
        "zone" => CtFeature::Zone,
        "count" => CtFeature::Limit,
        _ => CtFeature::Match,
    }
}

/// What an extension of iptables needs of which only the name is printed.
fn xt_ct_feature(body: &Value) -> Option<CtFeature> {
    let name = json_str(body, "name");
    match json_str(body, "type").as_str() {
        "match" => iptables::match_ct_feature(&name),
        // Its options tell whether it is NOTRACK, which needs nothing.
        "target" if name == "CT" => Some(CtFeature::Unknown),
        "target" => iptables::target_ct_feature(&name),
        // Some releases print no more than that there is something.
        _ => Some(CtFeature::Unknown),
    }
}

/// The named sets and maps of a ruleset that have elements.
struct NamedSets<'a>(HashMap<(String, String, String), &'a [Value]>);

impl<'a> NamedSets<'a> {
    fn collect(items: &'a [Value]) -> NamedSets<'a> {
        let bodies = items.iter().filter_map(|item| item.get("set").or_else(|| item.get("map")));
        let named = bodies.filter_map(|body| {
            let elements = body.get("elem")?.as_array()?;
            Some(((json_str(body, "family"), json_str(body, "table"), json_str(body, "name")), elements.as_slice()))
        });
        NamedSets(named.collect())
    }

    fn elements(&self, family: &str, table: &str, name: &str) -> Option<&'a [Value]> {
        self.0.get(&(family.to_owned(), table.to_owned(), name.to_owned())).copied()
    }
}

/// The text of each rule in a listing, by family, table, chain and handle.
fn rule_texts_by_handle(listing: &str) -> HashMap<(String, String, String, u64), String> {
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
