//! What this machine answers when its fleet asks: numbers, what doctor finds, connections. It reads only, and no answer is longer than a message.
use crate::live_table::LiveTableArgs;
use crate::serve::facts::run_doctor;
use anyhow::{Context, Result, anyhow};
use keepstate_conntrack::FlowSelection;
use keepstate_conntrack::format::{FlowWriter, OutputOptions};
use keepstate_linux::ctnetlink::{self, CtClient, CtDumpKind, CtFlow, DumpFilter};
use keepstate_linux::netlink::NetlinkError;
use keepstate_live::LiveFeed;
use keepstate_nats::fleet::{FleetAnswers, FleetQuestion};
use keepstate_serve::FactBoard;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Connections in one answer, whatever is asked for.
const MAX_LISTED: usize = 3_000;

/// Answers for one table.
pub(crate) struct TableAnswers {
    pub(crate) table: LiveTableArgs,
    pub(crate) feed: Arc<LiveFeed>,
    pub(crate) facts: Arc<FactBoard>,
}

/// Connections of a node.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ListedFlows {
    /// As `conntrack -L` writes them.
    pub(crate) lines: String,
    pub(crate) shown: usize,
    /// There are more.
    pub(crate) is_cut: bool,
}

impl FleetAnswers for TableAnswers {
    fn answer(&self, question: &FleetQuestion) -> Result<String, String> {
        match question {
            FleetQuestion::Stats => Ok(self.stats()),
            FleetQuestion::Doctor => run_doctor(&self.table)
                .map(|report| report.json(None).to_string())
                .map_err(|error| format!("doctor could not run: {error:#}")),
            FleetQuestion::List { filter, limit } => {
                let listed = FlowSelection::parse(filter).map_err(|error| anyhow!(error));
                let listed = listed.and_then(|selection| self.list(&selection, (*limit).min(MAX_LISTED)));
                listed.map(|listed| json!(listed).to_string()).map_err(|error| format!("{error:#}"))
            }
        }
    }
}

impl TableAnswers {
    fn stats(&self) -> String {
        let table = self.feed.table();
        let latest = table.latest();
        let rates = table.rates();
        let mut stats = json!({
            "schema": "keepstate.fleet-stats/1",
            "entries": latest.map(|sample| sample.entries),
            "entries_limit": latest.and_then(|sample| sample.limit),
            "new_per_second": rates.new_per_second,
            "ended_per_second": rates.ended_per_second,
            "time_to_full": table.time_to_full().to_string(),
            "error": table.state().error,
        });
        drop(table);
        let facts = self.facts.lock();
        let findings: Vec<_> = facts
            .findings
            .iter()
            .map(|finding| json!({"name": finding.name, "severity": finding.severity, "title": finding.title}))
            .collect();
        stats["findings"] = json!(findings);
        stats["diagnosed_at"] = json!(facts.diagnosed_at);
        drop(facts);
        let shards = self.table.gateway.as_deref().map(crate::doctor::gateway::shards).unwrap_or_default();
        stats["shards"] = json!(shards);
        stats.to_string()
    }

    fn list(&self, selection: &FlowSelection, limit: usize) -> Result<ListedFlows> {
        let socket = self.feed.source().open().context("the table cannot be opened")?;
        let mut listed = ListedFlows::default();
        let mut writer = FlowWriter::new(Vec::new(), OutputOptions::default());
        let mut flow = CtFlow::default();
        let filter = DumpFilter::default();
        let dumped = CtClient::from_socket(socket).dump_chunks(CtDumpKind::Confirmed, &filter, |chunk| {
            ctnetlink::for_each_flow(chunk, &mut flow, &mut |flow| {
                if !selection.matches(flow) {
                    return ControlFlow::Continue(());
                }
                if listed.shown == limit {
                    listed.is_cut = true;
                    return ControlFlow::Break(());
                }
                listed.shown += 1;
                // Writing to memory does not fail.
                let _ = writer.write_flow(flow);
                ControlFlow::Continue(())
            })
        });
        dumped.map_err(|error: NetlinkError| anyhow!("the table cannot be read: {error}"))?;
        writer.finish()?;
        listed.lines = String::from_utf8_lossy(writer.beneath()).into_owned();
        Ok(listed)
    }
}
