//! What a running gateway has dropped, its interfaces and its neighbours, as facts for the metrics. Read with the services, every ten seconds.
use crate::doctor::gateway;
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::ControlRequest;
use keepstate_serve::{ChainDropFacts, FactBoard, InterfaceFacts};
use serde_json::Value;
use std::path::Path;

/// Chains and interfaces that become metrics, at most.
const MAX_SERIES: usize = 256;

/// Reads them. What cannot be read stays as it was: an older gateway does not know these requests.
pub(super) fn read(socket: &Path, board: &FactBoard) {
    let json = |request| {
        let text = control_client::fetch(socket, request).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    };
    let drops = json(ControlRequest::Drops { json: true });
    let interfaces = json(ControlRequest::Interfaces { json: true });
    let neighbours = control_client::fetch(socket, ControlRequest::Neighbours).ok();
    let shards = gateway::shards(socket);
    let mut facts = board.lock();
    if !shards.is_empty() {
        facts.shards = shards.into_iter().map(|shard| [shard.cluster, shard.shard]).collect();
    }
    if let Some(drops) = drops {
        (facts.drops, facts.chain_drops) = (reason_drops(&drops), chain_drops(&drops));
    }
    if let Some(interfaces) = interfaces {
        facts.interfaces = interface_facts(&interfaces);
    }
    if let Some(text) = neighbours {
        facts.neighbours = neighbour_counts(&text);
    }
}

fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn text(of: &Value, name: &str) -> String {
    of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn reason_drops(document: &Value) -> Vec<(String, u64)> {
    let reasons = document.get("reasons").and_then(Value::as_object).into_iter().flatten();
    reasons.filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect()
}

/// By chain: a rule's text has addresses, which are no labels.
fn chain_drops(document: &Value) -> Vec<ChainDropFacts> {
    let mut chains: Vec<ChainDropFacts> = Vec::new();
    for line in document.get("rules").and_then(Value::as_array).into_iter().flatten() {
        let (table, chain, packets) = (text(line, "table"), text(line, "chain"), number(line, "packets"));
        // Lines of a chain follow each other.
        let is_last = chains.last().is_some_and(|last| (&last.table, &last.chain) == (&table, &chain));
        if !is_last {
            if chains.len() == MAX_SERIES {
                break;
            }
            chains.push(ChainDropFacts { table, chain, ..ChainDropFacts::default() });
        }
        if let Some(last) = chains.last_mut() {
            let sum = if line.get("handle").is_some() { &mut last.by_rules } else { &mut last.by_policy };
            *sum += packets;
        }
    }
    chains
}

/// Those with packets: a host with containers has many that the gateway never sees.
fn interface_facts(document: &Value) -> Vec<InterfaceFacts> {
    let of = |line: &Value| InterfaceFacts {
        name: text(line, "name"),
        received: [number(line, "received"), number(line, "received_bytes")],
        sent: [number(line, "sent"), number(line, "sent_bytes")],
        dropped: number(line, "dropped"),
    };
    let lines = document.as_array().into_iter().flatten().map(of);
    lines.filter(|line| line.received[0] + line.sent[0] > 0).take(MAX_SERIES).collect()
}

/// By interface and state, from the lines of `keepstate control neighbours`.
fn neighbour_counts(lines: &str) -> Vec<(String, &'static str, u64)> {
    let mut counts: Vec<(String, &'static str, u64)> = Vec::new();
    for line in lines.lines() {
        let mut words = line.split_whitespace();
        let (Some("dev"), Some(name), Some(state)) = (words.nth(1), words.next(), words.next()) else { continue };
        let state = match state {
            "lladdr" => "resolved",
            "failed" => "failed",
            _ => "incomplete",
        };
        match counts.iter_mut().find(|(interface, known, _)| interface == name && *known == state) {
            Some((.., count)) => *count += 1,
            None => counts.push((name.to_owned(), state, 1)),
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_summed_by_chain() {
        let document = serde_json::json!({
            "reasons": {"no_route": 3, "ruleset_drop": 9},
            "rules": [
                {"table": "inet filter", "chain": "input", "handle": 4, "rule": "drop", "packets": 2},
                {"table": "inet filter", "chain": "input", "handle": 5, "rule": "drop", "packets": 3},
                {"table": "inet filter", "chain": "input", "packets": 4},
                {"table": "ip raw", "chain": "input", "packets": 1},
            ],
        });
        assert_eq!(reason_drops(&document), [("no_route".to_owned(), 3), ("ruleset_drop".to_owned(), 9)]);
        let chain = |table: &str, by_rules, by_policy| ChainDropFacts {
            table: table.into(),
            chain: "input".into(),
            by_rules,
            by_policy,
        };
        assert_eq!(chain_drops(&document), [chain("inet filter", 5, 4), chain("ip raw", 0, 1)]);
    }

    #[test]
    fn neighbours_are_counted_by_interface_and_state() {
        let lines = "10.0.0.1 dev lan0 lladdr 02:00:00:00:00:01\n10.0.0.2 dev lan0 lladdr 02:00:00:00:00:02\n\
                     10.0.0.3 dev lan0 failed\nfe80::1 dev wan0 incomplete\n";
        let expected = [
            ("lan0".to_owned(), "resolved", 2),
            ("lan0".to_owned(), "failed", 1),
            ("wan0".to_owned(), "incomplete", 1),
        ];
        assert_eq!(neighbour_counts(lines), expected);
    }
}
