//! The fleet's page: nodes, the worst first, and shards. It is asked only while a page is open.
use crate::page::{html, stream};
use crate::shared::Shared;
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keepstate_live::{FleetBoard, FleetView, NodeView, ShardDuty};
use serde::Serialize;

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetTemplate<'a> {
    name: &'a str,
    version: &'a str,
}

/// One document. A row is a list of cells: text or number.
#[derive(Serialize)]
struct FleetDocument {
    verdict: &'static str,
    nodes: usize,
    silent: usize,
    note: String,
    /// Name, kind, verdict, connections, limit, percent, new a second, full in, what is wrong.
    rows: Vec<NodeRow>,
    /// Shard, active, epoch, decided by, ready, behind, lag, problem.
    shards: Vec<ShardRow>,
    findings: Vec<(String, &'static str, String)>,
}

type NodeRow = (String, String, &'static str, Option<u64>, Option<u64>, Option<f64>, Option<f64>, String, String);
type ShardRow = (String, String, u64, String, String, String, u64, String);

/// Without a fleet there is no such page.
const NO_FLEET: &str = "this keepstate serve belongs to no fleet: start it with --fleet\n";

pub(crate) async fn page(State(shared): State<Shared>) -> Response {
    let Some(fleet) = &shared.fleet else { return (StatusCode::NOT_FOUND, NO_FLEET).into_response() };
    let name = fleet.look().name;
    html(&FleetTemplate { name: &name, version: env!("CARGO_PKG_VERSION") })
}

pub(crate) async fn live(State(shared): State<Shared>) -> Response {
    if shared.fleet.is_none() {
        return (StatusCode::NOT_FOUND, NO_FLEET).into_response();
    }
    stream(shared, |shared| {
        let view = shared.fleet.as_deref().map(FleetBoard::look).unwrap_or_default();
        // Plain values are always JSON.
        serde_json::to_string(&document(&view)).unwrap_or_default().into()
    })
}

fn document(fleet: &FleetView) -> FleetDocument {
    let nodes = fleet.worst_first();
    let findings = nodes.iter().flat_map(|node| {
        let severity = |is_critical| if is_critical { "critical" } else { "warning" };
        node.findings
            .iter()
            .map(move |finding| (node.name.clone(), severity(finding.is_critical), finding.title.clone()))
    });
    let findings = findings.collect();
    let all_answer = fleet.silent() == 0;
    FleetDocument {
        verdict: if fleet.is_asked { fleet.verdict().name() } else { "asking" },
        nodes: nodes.len(),
        silent: fleet.silent(),
        note: note(fleet),
        rows: nodes.into_iter().map(node_row).collect(),
        shards: fleet.shards().iter().map(|duty| shard_row(duty, all_answer)).collect(),
        findings,
    }
}

fn note(fleet: &FleetView) -> String {
    if let Some(error) = &fleet.error {
        format!("no new data: {error}")
    } else if fleet.is_asked && fleet.nodes.is_empty() {
        "no node is registered: keepstate serve --fleet at each one registers it".into()
    } else {
        let problem = fleet.shard_problems().into_iter().next();
        problem.map(|(_, text)| format!("shard {text}")).unwrap_or_default()
    }
}

fn node_row(node: &NodeView) -> NodeRow {
    let rate = node.entries.map(|_| node.new_per_second);
    let limit = node.limit.filter(|limit| *limit > 0);
    let (percent, full) = (node.percent(), node.time_to_full.clone());
    (
        node.name.clone(),
        node.kind.clone(),
        node.verdict.name(),
        node.entries,
        limit,
        percent,
        rate,
        full,
        node.summary(),
    )
}

fn shard_row(duty: &ShardDuty, all_answer: bool) -> ShardRow {
    let names = |names: &[String]| if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    let behind = if duty.behind.is_empty() { String::new() } else { duty.behind.join(", ") };
    let problem = duty.problem(all_answer).map(|(_, text)| text).unwrap_or_default();
    let name = format!("{}/{}", duty.cluster, duty.shard);
    (name, names(&duty.active), duty.epoch, duty.decided_by.clone(), names(&duty.ready), behind, duty.lag, problem)
}
