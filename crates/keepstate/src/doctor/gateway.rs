//! Observing a running gateway: its sysctls, counters and entries, by its control socket.
//!
//! The rules are the same as for a namespace of the kernel, because it behaves the same; only the remedy commands differ.
use anyhow::{Context, Result};
use keepstate_advisor::doctor::{
    CounterGrowth, Observations, ObservedCounters, ObservedNamespace, ObservedSample, ObservedShard, ObservedSysctl,
    RemedyStep, Report, Sourced, StepLocation, table_choices,
};
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{ControlRequest, DEFAULT_SOCKET, ShowOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The sysctls that findings use.
const SYSCTLS: [&str; 8] = [
    "nf_conntrack_max",
    "nf_conntrack_buckets",
    "nf_conntrack_tcp_loose",
    "nf_conntrack_tcp_be_liberal",
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_syn_recv",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream",
];

/// The name of its only namespace, which findings do not print.
const NAMESPACE_NAME: &str = "this namespace";

/// Observes a gateway by its control socket: `sample` of its entries, its counters twice.
///
/// # Errors
/// If nothing listens there, or the reply is not understood.
pub fn gather(socket: &Path, sample: usize, interval: Duration) -> Result<Observations> {
    let begun = Instant::now();
    let source = |what: &str| format!("keepstate control {what}");
    let mut space = ObservedNamespace { name: NAMESPACE_NAME.into(), is_ours: true, ..ObservedNamespace::default() };
    let count = query(socket, ControlRequest::Count)?;
    let count = count.trim().parse().with_context(|| format!("unexpected reply to count: {count:?}"))?;
    space.count = Some(Sourced::at(source("count"), count));
    for name in SYSCTLS {
        // A sysctl that this gateway does not have is left out.
        let Ok(value) = query(socket, ControlRequest::Get { sysctl: name.to_owned() }) else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        let knob = ObservedSysctl {
            value,
            reread_value: None,
            mode: None,
            is_writable: Some(true),
            source: source(&format!("get {name}")),
        };
        space.sysctls.insert(name.to_owned(), knob);
    }
    let lines = send_request(socket, ControlRequest::List(ShowOptions::default()))?.lines().take(sample + 1);
    let mut flows: Vec<_> =
        lines.map_while(Result::ok).filter_map(|line| keepstate_linux::proc_conntrack::parse_line(&line)).collect();
    let is_whole = flows.len() <= sample;
    flows.truncate(sample);
    let flows = flows.into_iter().map(super::namespace_state::to_observed_flow).collect();
    space.sample = Some(Sourced::at(source("list"), ObservedSample { flows, is_complete: is_whole }));
    let shards_before = shards(socket);
    let first = parse_counters(&query(socket, ControlRequest::Stats { json: false })?);
    let mut last = first;
    if !interval.is_zero() {
        std::thread::sleep(interval.saturating_sub(begun.elapsed()));
        last = parse_counters(&query(socket, ControlRequest::Stats { json: false })?);
        let over_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        space.growth = Some(CounterGrowth { over_ms, by: super::namespace_state::counter_growth(&first, &last) });
    }
    space.counters = Some(Sourced::at(source("stats"), last));
    let shards = shards(socket).into_iter().map(|shard| shard.grown_since(&shards_before)).collect();
    Ok(Observations { namespaces: vec![space], shards, ..Observations::default() })
}

/// The gateway's shards of a cluster; none if it is not one of a cluster, or does not answer.
pub(crate) fn shards(socket: &Path) -> Vec<ObservedShard> {
    query(socket, ControlRequest::Cluster { json: true, shard: None })
        .map(|text| parse_shards(&text))
        .unwrap_or_default()
}

/// An object a line, or an array. What is neither is left out.
fn parse_shards(text: &str) -> Vec<ObservedShard> {
    let parse = |line| match serde_json::from_str::<Vec<ObservedShard>>(line) {
        Ok(shards) => shards,
        Err(_) => serde_json::from_str::<ObservedShard>(line).into_iter().collect(),
    };
    text.lines().flat_map(parse).collect()
}

/// The default control socket.
pub fn default_socket() -> &'static str {
    DEFAULT_SOCKET
}

/// Replaces commands for the kernel by commands for a gateway, and adds what only a gateway's table can choose.
pub fn rewrite_steps(report: &mut Report, seen: &Observations, socket: &Path) {
    let limit = seen.namespaces.first().and_then(ObservedNamespace::max).unwrap_or(0);
    for finding in &mut report.findings {
        finding.now = finding.now.drain(..).flat_map(|step| gateway_steps(step, socket)).collect();
        finding.for_good = finding.for_good.drain(..).flat_map(|step| gateway_steps(step, socket)).collect();
        finding.for_good.extend(table_choices(finding.name, limit));
    }
}

fn gateway_steps(step: RemedyStep, socket: &Path) -> Vec<RemedyStep> {
    let Some(command) = &step.command else { return vec![step] };
    let at =
        if socket == Path::new(DEFAULT_SOCKET) { String::new() } else { format!("--socket {} ", socket.display()) };
    let RemedyStep { why, .. } = &step;
    if let Some(settings) = command.strip_prefix("sysctl -w ") {
        let set = |setting: &str| {
            let setting = setting.trim_start_matches("net.netfilter.");
            // The memory of kernel entries does not apply to a gateway.
            let sizes = ["nf_conntrack_max=", "nf_conntrack_buckets="].iter().any(|knob| setting.starts_with(knob));
            let why = if sizes {
                "raise limit and buckets together; new connections are accepted at once"
            } else {
                why.as_str()
            };
            RemedyStep::command(StepLocation::Here, format!("keepstate control {at}set {setting}"), why)
        };
        return settings.split(' ').map(set).collect();
    }
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["keepstate", "tune", .., option, value] => {
            let setting = if *option == "--max" { format!("nf_conntrack_max={value}") } else { (*value).to_owned() };
            let why = "sets it at every start of the gateway";
            vec![RemedyStep::command(
                StepLocation::Elsewhere("the gateway's command line or unit file".into()),
                format!("--set {setting}"),
                why,
            )]
        }
        ["keepstate", "doctor", ..] => {
            vec![RemedyStep::command(
                StepLocation::Here,
                format!("keepstate doctor --gateway={} --watch", socket.display()),
                why,
            )]
        }
        // Tracking and rules are configured in the gateway's own ruleset.
        ["keepstate", "disable", ..] => Vec::new(),
        ["nft", ..] => {
            let why = format!("{why}; add it to the ruleset file too");
            vec![RemedyStep::command(StepLocation::Here, format!("keepstate control {at}{command}"), why)]
        }
        ["keepstate", "control", words @ ..] => {
            let why = why.as_str();
            vec![RemedyStep::command(step.at.clone(), format!("keepstate control {at}{}", words.join(" ")), why)]
        }
        ["conntrack", ..] | ["keepstate", "conntrack", ..] => {
            let options = command.trim_start_matches("keepstate ").trim_start_matches("conntrack ");
            let socket = if at.is_empty() { String::new() } else { format!("={}", socket.display()) };
            let command = format!("keepstate conntrack --gateway{socket} {options}");
            vec![RemedyStep::command(StepLocation::Here, command, why)]
        }
        _ => vec![step],
    }
}

/// Parses the lines of `conntrack -S`.
fn parse_counters(text: &str) -> ObservedCounters {
    let number = |name: &str| {
        let mut words = text.split_whitespace().filter_map(|word| word.split_once('='));
        words.find_map(|(key, value)| (key == name).then(|| value.parse().ok()).flatten())
    };
    ObservedCounters {
        found: number("found").unwrap_or(0),
        invalid: number("invalid").unwrap_or(0),
        insert_failed: number("insert_failed").unwrap_or(0),
        drop: number("drop").unwrap_or(0),
        early_drop: number("early_drop").unwrap_or(0),
        search_restart: number("search_restart").unwrap_or(0),
        clash_resolve: number("clash_resolve"),
        chaintoolong: number("chaintoolong"),
    }
}

fn query(socket: &Path, request: ControlRequest) -> Result<String> {
    control_client::fetch(socket, request)
}

fn send_request(socket: &Path, request: ControlRequest) -> Result<BufReader<UnixStream>> {
    control_client::send_request(socket, request).map(BufReader::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn kernel_steps_become_gateway_commands() {
        let of = |command: &str, socket: &str| -> Vec<String> {
            let steps = gateway_steps(RemedyStep::command(StepLocation::Here, command, "why"), Path::new(socket));
            steps.into_iter().filter_map(|step| step.command).collect()
        };
        let raise = "sysctl -w net.netfilter.nf_conntrack_buckets=8 net.netfilter.nf_conntrack_max=9";
        let both = ["keepstate control set nf_conntrack_buckets=8", "keepstate control set nf_conntrack_max=9"];
        assert_eq!(of(raise, DEFAULT_SOCKET), both);
        assert_eq!(of("sysctl -w net.netfilter.a=1", "/s"), ["keepstate control --socket /s set a=1"]);
        assert_eq!(of("keepstate tune apply --persist --max 9", DEFAULT_SOCKET), ["--set nf_conntrack_max=9"]);
        assert_eq!(of("keepstate tune apply --persist --set a=1", DEFAULT_SOCKET), ["--set a=1"]);
        assert_eq!(of("keepstate disable", DEFAULT_SOCKET), [""; 0]);
        assert_eq!(of("nft 'table inet t { }'", "/s"), ["keepstate control --socket /s nft 'table inet t { }'"]);
        assert_eq!(of("conntrack -D -p udp", DEFAULT_SOCKET), ["keepstate conntrack --gateway -D -p udp"]);
        assert_eq!(of("keepstate conntrack -C", "/s"), ["keepstate conntrack --gateway=/s -C"]);
        assert_eq!(of("keepstate control promote main", "/s"), ["keepstate control --socket /s promote main"]);
        assert_eq!(of("keepstate doctor --watch", "/s"), ["keepstate doctor --gateway=/s --watch"]);
    }

    #[test]
    fn a_full_table_of_a_gateway_may_choose_how_it_fails() {
        let mut space =
            ObservedNamespace { name: NAMESPACE_NAME.into(), is_ours: true, ..ObservedNamespace::default() };
        space.count = Some(Sourced::at("count", 1000));
        let limit = ObservedSysctl { value: 1000, source: "get".into(), ..ObservedSysctl::default() };
        space.sysctls.insert("nf_conntrack_max".into(), limit);
        let seen = Observations { namespaces: vec![space], ..Observations::default() };
        let mut report = keepstate_advisor::doctor::diagnose(&seen);
        rewrite_steps(&mut report, &seen, Path::new(DEFAULT_SOCKET));
        assert_eq!(report.findings[0].name, "table-full-assured");
        let lines: Vec<_> = report.findings[0].for_good.iter().filter_map(|step| step.command.as_deref()).collect();
        assert_eq!(lines, ["--set nf_conntrack_max=2048", "grow-to = 4000", "reserve = [\"10 for tcp 22\"]"]);
    }

    #[test]
    fn shards_are_read_whether_a_line_each_or_an_array() {
        let (one, other) = (
            "{\"cluster\":\"a\",\"shard\":\"x\",\"age_ms\":5,\"new_key\":1}",
            "{\"cluster\":\"a\",\"shard\":\"y\",\"age_ms\":7}",
        );
        for text in [format!("{one}\n{other}\n"), format!("[{one},{other}]\n")] {
            let ages: Vec<u64> = parse_shards(&text).iter().map(|shard| shard.age_ms).collect();
            assert_eq!(ages, [5, 7], "{text}");
        }
        assert_eq!(parse_shards("no cluster\n{\"epoch\":-1}\n"), []);
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let read = parse_counters(
            "received=9 lost=1\ncpu=0   \tfound=1 invalid=2 drop=30 early_drop=4 clash_resolve=5 \nfull=3\n",
        );
        assert_eq!((read.found, read.invalid, read.drop, read.early_drop), (1, 2, 30, 4));
        assert_eq!((read.clash_resolve, read.chaintoolong, read.insert_failed), (Some(5), None, 0));
    }
}
