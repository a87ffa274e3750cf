//! `keepstate doctor --fleet`: every node examines itself, and one verdict stands over all of them, the worst first.
use super::node_list::{NodeHealth, verdict_style, write_nodes};
use super::{AskedFleet, plain};
use anyhow::Result;
use keepstate_live::{FleetView, NodeVerdict};
use keepstate_nats::fleet::FleetQuestion;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Schema name and version: additions keep the number, changes raise it.
const SCHEMA: &str = "keepstate.fleet-doctor/1";
/// A node reads its counters twice and may have many namespaces.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks all nodes and prints what they find.
///
/// # Errors
/// The fleet cannot be asked, or standard output cannot be written.
pub(crate) fn run(file: &Path, as_json: bool) -> Result<ExitCode> {
    let fleet = AskedFleet::open(file)?;
    let nodes = fleet.nodes()?;
    let answers = fleet.client.ask(&nodes, &FleetQuestion::Doctor, TIMEOUT);
    let mut healths: Vec<NodeHealth> =
        nodes.into_iter().zip(answers).map(|(node, answer)| NodeHealth::new(node, answer)).collect();
    // Nodes of the same verdict keep the order of their names.
    healths.sort_by_key(|health| std::cmp::Reverse(health.verdict));
    let view = FleetView { nodes: healths.iter().map(NodeHealth::view).collect(), ..FleetView::default() };
    if as_json {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string_pretty(&document(&view, &healths))?)?;
    } else {
        write_text(&mut anstream::stdout().lock(), &view, &healths)?;
    }
    Ok(ExitCode::from(view.verdict().exit_code()))
}

fn document(view: &FleetView, healths: &[NodeHealth]) -> Value {
    let nodes: Vec<Value> = healths
        .iter()
        .map(|health| json!({"node": health.node, "verdict": health.verdict.name(), "report": health.report, "error": health.error}))
        .collect();
    let problem = |(verdict, text): (NodeVerdict, String)| json!({"severity": verdict.name(), "problem": text});
    json!({
        "schema": SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "verdict": view.verdict().name(),
        "exit_code": view.verdict().exit_code(),
        "shard_problems": view.shard_problems().into_iter().map(problem).collect::<Vec<_>>(),
        "nodes": nodes,
    })
}

fn write_text(out: &mut impl Write, view: &FleetView, healths: &[NodeHealth]) -> Result<()> {
    let verdict = view.verdict();
    let style = verdict_style(verdict);
    let word = verdict.name().to_uppercase();
    let Some(worst) = healths.first() else {
        writeln!(
            out,
            "{style}{word}{style:#} no node is registered: keepstate serve --fleet at each one registers it"
        )?;
        return Ok(());
    };
    let problems = view.shard_problems();
    let summary = match problems.first() {
        Some((severity, problem)) if *severity >= worst.verdict => format!("shard {}", plain(problem)),
        _ if verdict == NodeVerdict::Ok => format!("no problem found at {} nodes", healths.len()),
        _ => format!("{}: {}", worst.node.name, plain(&worst.summary())),
    };
    writeln!(out, "{style}{word}{style:#} {summary}\n")?;
    write_nodes(out, healths)?;
    for (severity, problem) in &problems {
        writeln!(out, "\nshard {}: {}", plain(problem), severity.name())?;
    }
    for health in healths {
        for finding in health.findings() {
            writeln!(out, "\n{}: {}", health.node.name, plain(&finding))?;
        }
    }
    if healths.iter().any(|health| health.findings().next().is_some()) {
        writeln!(out, "\nEvidence and remedies: keepstate doctor at that node, or here with --json.")?;
    }
    Ok(())
}
