//! What is known of each node: its verdict, its numbers, why it does not answer. What a node sent is text, and trusted with nothing.
use super::{node_view, plain};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use comfy_table::Table;
use keepstate_live::{NodeVerdict, NodeView};
use keepstate_nats::fleet::NodeRecord;
use serde_json::Value;
use std::io::Write;

/// How a verdict is written on a terminal.
pub(crate) fn verdict_style(verdict: NodeVerdict) -> Style {
    let color = match verdict {
        NodeVerdict::Ok => AnsiColor::Green,
        NodeVerdict::Warning => AnsiColor::Yellow,
        NodeVerdict::Unknown => AnsiColor::Magenta,
        NodeVerdict::Critical => AnsiColor::Red,
    };
    Style::new().bold().fg_color(Some(color.into()))
}

/// One node's examination of itself.
#[derive(Debug)]
pub(crate) struct NodeHealth {
    pub(crate) node: NodeRecord,
    pub(crate) verdict: NodeVerdict,
    /// The document of `keepstate doctor --json` there.
    pub(crate) report: Option<Value>,
    /// Why there is none.
    pub(crate) error: Option<String>,
}

impl NodeHealth {
    pub(crate) fn new(node: NodeRecord, answer: Result<String, String>) -> NodeHealth {
        let report = answer.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()));
        let verdict = match report.as_ref().ok().and_then(|report| report["exit_code"].as_u64()) {
            Some(0) => NodeVerdict::Ok,
            Some(1) => NodeVerdict::Warning,
            Some(2) => NodeVerdict::Critical,
            _ => NodeVerdict::Unknown,
        };
        let (report, error) = match report {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error)),
        };
        NodeHealth { node, verdict, report, error }
    }

    /// In one line: the worst finding.
    pub(crate) fn summary(&self) -> String {
        match &self.error {
            Some(error) => error.clone(),
            None => self
                .list("findings")
                .next()
                .map_or_else(|| "too little could be read".into(), |finding| text(finding, "title")),
        }
    }

    /// As part of a fleet: what it tells of its shards.
    pub(crate) fn view(&self) -> NodeView {
        let (entries, limit) = self.fullest();
        let silent = node_view::silent(&self.node, self.error.clone().unwrap_or_default());
        let shards = self.report.as_ref().map(node_view::shards).unwrap_or_default();
        NodeView { verdict: self.verdict, trouble: self.error.clone(), entries, limit, shards, ..silent }
    }

    /// Each finding in one line, the worst first as the node has them.
    pub(crate) fn findings(&self) -> impl Iterator<Item = String> {
        self.list("findings").map(|finding| {
            let place = match text(finding, "namespace").as_str() {
                "" | "this namespace" => String::new(),
                name => format!(" (in {name})"),
            };
            format!("{}{place}: {}. {}", text(finding, "name"), text(finding, "severity"), text(finding, "title"))
        })
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.report.as_ref().and_then(|report| report[key].as_array()).into_iter().flatten()
    }

    /// Entries and limit of its fullest table.
    fn fullest(&self) -> (Option<u64>, Option<u64>) {
        let number = |space: &Value, key: &str| space[key].as_u64();
        let share = |space: &&Value| {
            let limit = number(space, "entries_limit").unwrap_or(0).max(1);
            number(space, "entries").unwrap_or(0).saturating_mul(1_000) / limit
        };
        let fullest = self.list("namespaces").max_by_key(share);
        fullest.map_or((None, None), |space| (number(space, "entries"), number(space, "entries_limit")))
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// One line a node.
pub(crate) fn write_nodes(out: &mut impl Write, healths: &[NodeHealth]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["node", "kind", "version", "verdict", "entries", "limit", ""]);
    for column in 4..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    for health in healths {
        let (entries, limit) = health.fullest();
        table.add_row([
            health.node.name.clone(),
            health.node.kind.name().to_owned(),
            plain(&health.node.version),
            health.verdict.name().to_owned(),
            number(entries),
            number(limit),
            health.error.as_deref().map(plain).unwrap_or_default(),
        ]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_nats::fleet::NodeKind;

    fn health(answer: Result<&str, &str>) -> NodeHealth {
        let node = NodeRecord { name: "a".into(), kind: NodeKind::Serve, version: "1".into(), started: 0, heard: None };
        NodeHealth::new(node, answer.map(str::to_owned).map_err(str::to_owned))
    }

    #[test]
    fn what_a_node_sends_is_trusted_with_nothing() {
        for (answer, verdict) in [
            (Ok(r#"{"exit_code":0}"#), NodeVerdict::Ok),
            (
                Ok(r#"{"exit_code":2,"findings":[{"name":"x","severity":"critical","title":"t"}]}"#),
                NodeVerdict::Critical,
            ),
            (Ok(r#"{"exit_code":"2","findings":7,"namespaces":[[],{"entries":-1}]}"#), NodeVerdict::Unknown),
            (Ok("[]"), NodeVerdict::Unknown),
            (Ok("not JSON"), NodeVerdict::Unknown),
            (Err("no answer"), NodeVerdict::Unknown),
        ] {
            let health = health(answer);
            assert_eq!(health.verdict, verdict, "{answer:?}");
            let mut out = Vec::new();
            assert!(write_nodes(&mut out, std::slice::from_ref(&health)).is_ok());
            let _ = (health.summary(), health.findings().count());
        }
        assert!(NodeVerdict::Critical > NodeVerdict::Unknown && NodeVerdict::Unknown > NodeVerdict::Warning);
    }
}
