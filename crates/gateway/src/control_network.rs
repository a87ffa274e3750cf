//! What a running gateway knows of the network, and what it has dropped: interfaces, routes, neighbours, drops by reason and rule.
use super::client_stream::start_reply;
use super::jobs::{JobCtx, JobSender};
use anyhow::{Context, Result};
use keepstate_linux::rtnetlink::{NeighbourState, RtMessage, dump_neighbours};
use keepstate_router::{InterfaceCounts, RoutePage, Router};
use keepstate_rules::RuleDrops;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Prefixes that one job looks at.
const ROUTES_PER_JOB: usize = 1024;

/// One interface, as a JSON object.
#[derive(Serialize)]
struct InterfaceLine {
    name: String,
    index: u32,
    mtu: u32,
    addresses: Vec<String>,
    received: u64,
    received_bytes: u64,
    sent: u64,
    sent_bytes: u64,
    dropped: u64,
}

/// Writes a line for each interface: its addresses, and the packets that the router had of it.
pub(super) fn interfaces(json: bool, stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let found = jobs.run(|at: &mut JobCtx<'_>| interface_lines(at.router))?;
    let mut out = start_reply(stream)?;
    if json {
        serde_json::to_writer(&mut out, &found)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    for InterfaceLine { name, index, mtu, addresses, received, received_bytes, sent, sent_bytes, dropped } in found {
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
        writeln!(
            out,
            "{name} index={index} mtu={mtu} addresses={addresses} received={received} received_bytes={received_bytes} sent={sent} sent_bytes={sent_bytes} dropped={dropped}"
        )?;
    }
    Ok(out.flush()?)
}

fn interface_lines(router: &Router) -> Vec<InterfaceLine> {
    let line = |interface: &keepstate_router::Interface| {
        let InterfaceCounts { received, received_bytes, sent, sent_bytes, dropped, .. } =
            router.interface_counts(interface.index);
        let addresses = interface.addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect();
        let (name, index, mtu) = (interface.name.clone(), interface.index, interface.mtu);
        InterfaceLine { name, index, mtu, addresses, received, received_bytes, sent, sent_bytes, dropped }
    };
    router.fib().interfaces().map(line).collect()
}

/// The names of the router's interfaces.
fn interface_names(jobs: &JobSender) -> Result<BTreeMap<u32, String>> {
    jobs.run(|at: &mut JobCtx<'_>| {
        at.router.fib().interfaces().map(|interface| (interface.index, interface.name.clone())).collect()
    })
}

/// Writes the routes that packets are forwarded by, in `ip route`'s words, piece by piece.
pub(super) fn routes(stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let names = interface_names(jobs)?;
    let mut out = start_reply(stream)?;
    let mut next = Some(RoutePage::default());
    while let Some(page) = next {
        let (found, more) = jobs.run(move |at: &mut JobCtx<'_>| at.router.fib().routes(page, ROUTES_PER_JOB))?;
        for route in found {
            let (prefix, length) = (route.prefix, route.length);
            let word = if route.device == 0 { "unreachable " } else { "" };
            write!(out, "{word}{prefix}/{length}")?;
            if let Some(gateway) = route.gateway {
                write!(out, " via {gateway}")?;
            }
            if route.device != 0 {
                let name = names.get(&route.device).map_or("?", String::as_str);
                write!(out, " dev {name}")?;
            }
            if route.metric != 0 {
                write!(out, " metric {}", route.metric)?;
            }
            writeln!(out)?;
        }
        next = more;
    }
    Ok(out.flush()?)
}

/// Writes the kernel's neighbours on the router's interfaces: it resolves them for the gateway. Read by the client's thread; the data path has no part in it.
pub(super) fn neighbours(stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let names = interface_names(jobs)?;
    let found = dump_neighbours().context("reading the kernel's neighbours")?;
    let mut out = start_reply(stream)?;
    for message in found {
        let RtMessage::Neighbour(neighbour) = message else { continue };
        let Some(name) = names.get(&neighbour.ifindex) else { continue };
        let address = neighbour.address;
        match neighbour.state() {
            NeighbourState::Resolved(mac) => {
                let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(out, "{address} dev {name} lladdr {}", mac.join(":"))?;
            }
            NeighbourState::Failed => writeln!(out, "{address} dev {name} failed")?,
            NeighbourState::Unknown => writeln!(out, "{address} dev {name} incomplete")?,
        }
    }
    Ok(out.flush()?)
}

/// One rule or policy that drops, as a JSON object.
#[derive(Serialize)]
struct RuleDropLine {
    table: String,
    chain: String,
    /// Of a rule: its handle and text.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    packets: u64,
}

/// What was dropped, as a JSON object.
#[derive(Serialize)]
struct DropDocument {
    reasons: BTreeMap<&'static str, u64>,
    rules: Vec<RuleDropLine>,
}

/// Writes how many packets were dropped by each reason, and by each rule and policy.
pub(super) fn drops(json: bool, stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let (reasons, rules) = jobs.run(|at: &mut JobCtx<'_>| {
        let reasons: Vec<(&'static str, u64)> = at.router.drop_counts().collect();
        (reasons, at.router.program().rule_drops())
    })?;
    let mut out = start_reply(stream)?;
    if json {
        let line = |RuleDrops { table, chain, rule, packets }| {
            let (handle, rule) = rule.unzip();
            RuleDropLine { table, chain, handle, rule, packets }
        };
        let rules = rules.into_iter().map(line).collect();
        serde_json::to_writer(&mut out, &DropDocument { reasons: reasons.into_iter().collect(), rules })?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    for (reason, packets) in reasons.into_iter().filter(|(_, packets)| *packets > 0) {
        writeln!(out, "{reason}={packets}")?;
    }
    for RuleDrops { table, chain, rule, packets } in rules {
        match rule {
            Some((handle, text)) => {
                writeln!(out, "table {table} chain {chain} handle {handle} packets={packets} {text}")?
            }
            None => writeln!(out, "table {table} chain {chain} policy packets={packets}")?,
        }
    }
    Ok(out.flush()?)
}
