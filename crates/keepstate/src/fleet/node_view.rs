//! A node's answer to `stats` as a row. What a node sends is text, and trusted with nothing: what is missing is unknown, what is wrong is left out.
use super::plain;
use keepstate_advisor::doctor::ObservedShard;
use keepstate_live::{NodeFinding, NodeVerdict, NodeView, ShardView};
use keepstate_nats::fleet::NodeRecord;
use serde_json::Value;

/// Findings and shards of one node that are shown.
const MAX_SHOWN: usize = 64;
/// Letters of a text that is shown.
const MAX_LETTERS: usize = 300;

/// A node of which nothing else is known.
pub(super) fn silent(node: &NodeRecord, reason: String) -> NodeView {
    NodeView::silent(node.name.clone(), node.kind.name().to_owned(), short(&node.version), reason)
}

/// A node that answered `stats`, or did not.
pub(super) fn of_stats(node: &NodeRecord, answer: Result<String, String>) -> NodeView {
    let stats = match answer.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())) {
        Ok(stats) => stats,
        Err(error) => return silent(node, short(&error)),
    };
    let findings: Vec<NodeFinding> = list(&stats, "findings").map(finding).collect();
    let trouble = stats["error"].as_str().map(short);
    let verdict = if findings.iter().any(|finding| finding.is_critical) {
        NodeVerdict::Critical
    } else if trouble.is_some() || (findings.is_empty() && stats["diagnosed_at"].is_null()) {
        NodeVerdict::Unknown
    } else if findings.is_empty() {
        NodeVerdict::Ok
    } else {
        NodeVerdict::Warning
    };
    let rate = |key: &str| stats[key].as_f64().filter(|rate| rate.is_finite()).unwrap_or(0.0);
    NodeView {
        verdict,
        trouble,
        entries: stats["entries"].as_u64(),
        limit: stats["entries_limit"].as_u64(),
        new_per_second: rate("new_per_second"),
        ended_per_second: rate("ended_per_second"),
        time_to_full: stats["time_to_full"].as_str().map(short).unwrap_or_default(),
        findings,
        shards: shards(&stats),
        ..silent(node, String::new())
    }
}

/// The shards that an answer to `stats` or `doctor` has.
pub(super) fn shards(document: &Value) -> Vec<ShardView> {
    let read = |value: &Value| serde_json::from_value::<ObservedShard>(value.clone()).ok();
    list(document, "shards")
        .filter_map(read)
        .map(|shard| ShardView {
            cluster: short(&shard.cluster),
            shard: short(&shard.shard),
            lag: if shard.role == "standby" { shard.lag } else { shard.unacknowledged },
            role: short(&shard.role),
            epoch: shard.epoch,
            decided_by: short(&shard.decided_by),
            is_in_step: shard.in_step,
            age_ms: shard.age_ms,
            is_connected: shard.connected,
        })
        .collect()
}

fn finding(value: &Value) -> NodeFinding {
    let text = |key: &str| value[key].as_str().map(short).unwrap_or_default();
    let (name, title) = (text("name"), text("title"));
    let title = if title.is_empty() { name.clone() } else { title };
    NodeFinding { name, is_critical: value["severity"] == "critical", title }
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten().take(MAX_SHOWN)
}

fn short(text: &str) -> String {
    plain(text).chars().take(MAX_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_nats::fleet::NodeKind;

    fn view(answer: Result<&str, &str>) -> NodeView {
        let node =
            NodeRecord { kind: NodeKind::Serve, version: "1\u{1b}[2J".into(), ..NodeRecord::missing("a".into()) };
        of_stats(&node, answer.map(str::to_owned).map_err(str::to_owned))
    }

    #[test]
    fn an_answer_is_read_and_trusted_with_nothing() {
        for (answer, verdict) in [
            (Ok(r#"{"findings":[],"diagnosed_at":7}"#), NodeVerdict::Ok),
            (Ok(r#"{"findings":[],"diagnosed_at":null}"#), NodeVerdict::Unknown),
            (Ok(r#"{"findings":[{"name":"x","severity":"warning"}],"diagnosed_at":7}"#), NodeVerdict::Warning),
            (Ok(r#"{"findings":[{"name":"x","severity":"critical"}],"error":"gone"}"#), NodeVerdict::Critical),
            (Ok(r#"{"findings":[],"diagnosed_at":7,"error":"no permission"}"#), NodeVerdict::Unknown),
            (
                Ok(r#"{"findings":7,"shards":[1,{"epoch":-1}],"entries":"many","new_per_second":[]}"#),
                NodeVerdict::Unknown,
            ),
            (Ok("[]"), NodeVerdict::Unknown),
            (Ok("no JSON"), NodeVerdict::Unknown),
            (Err("no answer\u{7}"), NodeVerdict::Unknown),
        ] {
            let view = view(answer);
            assert_eq!(view.verdict, verdict, "{answer:?}");
            assert!(!format!("{}{}", view.version, view.summary()).contains(char::is_control), "{view:?}");
        }
        let full = view(Ok(
            r#"{"entries":90,"entries_limit":100,"diagnosed_at":1,"findings":[{"name":"n","severity":"critical","title":"is full"}],
            "shards":[{"cluster":"site","shard":"main","role":"standby","lag":4,"unacknowledged":9,"in_step":true,"connected":true}]}"#,
        ));
        assert_eq!((full.percent(), full.summary().as_str()), (Some(90.0), "is full"));
        assert!(full.shards[0].is_in_step && full.shards[0].lag == 4, "{full:?}");
    }
}
