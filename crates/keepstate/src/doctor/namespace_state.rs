//! Observations of one network namespace: from files below a root, and by netlink if a file is missing.
use keepstate_advisor::doctor as seen;
use keepstate_advisor::doctor::{CounterGrowth, MissingInput, ObservedNamespace, ObservedSysctl, Sourced};
use keepstate_linux::ctnetlink::{CtDumpKind, CtFamily, CtFlow, CtProtoInfo, DumpFilter, Status, TcpState};
use keepstate_linux::{
    FileError, SysRoot, addresses, command, ctnetlink, proc_conntrack, proc_ct_stat, routes, ruleset_scan, snmp,
    sockstat,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The directory of the sysctls.
const SYSCTL_DIRECTORY: &str = "/proc/sys/net/netfilter";

/// The SSH port.
const SSH_PORT: u16 = 22;

/// Observes this thread's namespace, or files; and lists missing inputs.
pub fn gather(root: &SysRoot, limit: usize) -> (ObservedNamespace, Vec<MissingInput>) {
    let mut space = ObservedNamespace::default();
    let mut missing = Vec::new();
    gather_counters(root, &mut space, &mut missing);
    gather_sysctls(root, &mut space);
    space.count = keepstate_linux::sysctl::read_u64(root, "net.netfilter.nf_conntrack_count")
        .ok()
        .flatten()
        .map(|count| Sourced::at(format!("{SYSCTL_DIRECTORY}/nf_conntrack_count"), count));
    space.is_initial = space.sysctls.get("nf_conntrack_max").and_then(|knob| knob.mode).map(|mode| mode & 0o222 != 0);
    match sockstat::read(root) {
        Ok(found) => {
            let found = seen::ObservedSockets {
                tcp: found.tcp,
                orphans: found.orphans,
                time_wait: found.time_wait,
                udp: found.udp,
            };
            space.sockets = Some(Sourced::at("/proc/net/sockstat", found));
        }
        Err(error) => missing.push(MissingInput::new("sockets", &error, "collect /proc/net/sockstat too")),
    }
    space.resets_sent = read_resets_sent(root);
    space.checksum_errors = read_checksum_errors(root);
    gather_sample(root, limit, &mut space, &mut missing);
    gather_rules(root, &mut space, &mut missing);
    space.addresses = addresses::local_addresses(root).unwrap_or_default();
    space.routes = gather_routes(root);
    space.management_port =
        addresses::find_tcp_listener(root, SSH_PORT).ok().flatten().map(|path| Sourced::at(path, SSH_PORT));
    (space, missing)
}

/// Reads counters and sysctls again.
pub fn reread(root: &SysRoot, space: &mut ObservedNamespace, begun: Instant) {
    compare_readings(root, space, begun.elapsed());
}

/// Compares counters and sysctls with a later reading.
pub fn compare_readings(later: &SysRoot, space: &mut ObservedNamespace, over: Duration) {
    let mut after = ObservedNamespace::default();
    gather_counters(later, &mut after, &mut Vec::new());
    if let (Some(before), Some(after)) = (&space.counters, &after.counters) {
        let by = counter_growth(&before.value, &after.value);
        space.growth = Some(CounterGrowth { over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX), by });
    }
    let resets = read_resets_sent(later);
    if let (Some(before), Some(after)) = (&space.resets_sent, &resets) {
        space.resets_sent_growth = Some(after.value.saturating_sub(before.value));
    }
    let errors = read_checksum_errors(later);
    space.checksum_errors_growth =
        space.checksum_errors.zip(errors).map(|(before, after)| after.saturating_sub(before));
    space.resets_sent = resets.or(space.resets_sent.take());
    space.counters = after.counters.take().or(space.counters.take());
    gather_sysctls(later, &mut after);
    for (name, knob) in &mut space.sysctls {
        let value = after.sysctls.get(name).map(|after| after.value);
        knob.reread_value = value.filter(|value| *value != knob.value);
    }
}

fn read_resets_sent(root: &SysRoot) -> Option<Sourced<u64>> {
    let sent = snmp::read_tcp_resets_sent(root).ok().flatten()?;
    Some(Sourced::at(format!("{}, OutRsts", snmp::PATH), sent))
}

fn gather_routes(root: &SysRoot) -> Vec<seen::ObservedRoute> {
    let routes = routes::read(root).into_iter();
    routes
        .map(|route| seen::ObservedRoute {
            destination: route.destination,
            prefix_length: route.prefix_length,
            interface: route.interface,
        })
        .collect()
}

fn read_checksum_errors(root: &SysRoot) -> Option<u64> {
    snmp::read_tcp_checksum_errors(root).ok().flatten()
}

/// Removes file modes, for copies that did not keep them.
pub fn clear_modes(space: &mut ObservedNamespace) {
    space.is_initial = None;
    for knob in space.sysctls.values_mut() {
        (knob.mode, knob.is_writable) = (None, None);
    }
}

/// The growth of each counter. The kernel's counters have 32 bits per CPU; a sum that decreased has wrapped, or belongs to another
/// namespace, and counts as no growth.
pub(super) fn counter_growth(
    before: &seen::ObservedCounters,
    after: &seen::ObservedCounters,
) -> seen::ObservedCounters {
    let both = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    seen::ObservedCounters {
        found: after.found.saturating_sub(before.found),
        invalid: after.invalid.saturating_sub(before.invalid),
        insert_failed: after.insert_failed.saturating_sub(before.insert_failed),
        drop: after.drop.saturating_sub(before.drop),
        early_drop: after.early_drop.saturating_sub(before.early_drop),
        search_restart: after.search_restart.saturating_sub(before.search_restart),
        clash_resolve: both(before.clash_resolve, after.clash_resolve),
        chaintoolong: both(before.chaintoolong, after.chaintoolong),
    }
}

fn gather_counters(root: &SysRoot, space: &mut ObservedNamespace, missing: &mut Vec<MissingInput>) {
    match proc_ct_stat::read(root) {
        Ok(read) => {
            let sum = |name: &str| read.sum(name).unwrap_or(0);
            let found = seen::ObservedCounters {
                found: sum("found"),
                invalid: sum("invalid"),
                insert_failed: sum("insert_failed"),
                drop: sum("drop"),
                early_drop: sum("early_drop"),
                search_restart: sum("search_restart"),
                clash_resolve: read.sum("clashres"),
                chaintoolong: read.sum("chainlength"),
            };
            space.counters = Some(Sourced::at(proc_ct_stat::PATH, found));
        }
        Err(proc_ct_stat::CtStatError::Unreadable(error)) if error.is_not_found() => {
            space.lacks_statistics = true;
            space.counters = if root.is_live() { ctnetlink_counters() } else { None };
            if space.counters.is_none() {
                missing.push(MissingInput::new(
                    "counters",
                    &error,
                    "run as root: ctnetlink has them too (CAP_NET_ADMIN)",
                ));
            }
        }
        Err(error) => missing.push(MissingInput::new("counters", &error, "run as root")),
    }
}

/// Reads the counters by ctnetlink.
fn ctnetlink_counters() -> Option<Sourced<seen::ObservedCounters>> {
    let every = ctnetlink::CtClient::open().ok()?.cpu_stats().ok()?;
    let sum = |one: fn(&ctnetlink::CtCpuStats) -> Option<u32>| -> Option<u64> {
        every.iter().filter_map(one).map(u64::from).reduce(u64::saturating_add)
    };
    let found = seen::ObservedCounters {
        found: sum(|one| one.found).unwrap_or(0),
        invalid: sum(|one| one.invalid).unwrap_or(0),
        insert_failed: sum(|one| one.insert_failed).unwrap_or(0),
        drop: sum(|one| one.drop).unwrap_or(0),
        early_drop: sum(|one| one.early_drop).unwrap_or(0),
        search_restart: sum(|one| one.search_restart).unwrap_or(0),
        clash_resolve: sum(|one| one.clash_resolve),
        chaintoolong: sum(|one| one.chain_toolong),
    };
    Some(Sourced::at("ctnetlink (conntrack -S)", found))
}

/// Reads every numeric conntrack sysctl, and whether it can be written.
fn gather_sysctls(root: &SysRoot, space: &mut ObservedNamespace) {
    let frozen = is_proc_sys_read_only(root);
    for name in root.list_dir(SYSCTL_DIRECTORY).unwrap_or_default() {
        if !name.starts_with("nf_conntrack_") || name == "nf_conntrack_count" {
            continue;
        }
        let source = format!("{SYSCTL_DIRECTORY}/{name}");
        let Some(value) = root.read(&source).ok().and_then(|text| text.trim().parse().ok()) else { continue };
        let mode = root.mode(&source).map(|mode| mode & 0o777);
        let is_writable = mode.map(|mode| mode & 0o222 != 0 && !frozen);
        space.sysctls.insert(name, ObservedSysctl { value, reread_value: None, is_writable, mode, source });
    }
}

/// Is `/proc/sys` mounted read-only, as in containers?
fn is_proc_sys_read_only(root: &SysRoot) -> bool {
    let mounts = root.read("/proc/self/mounts").or_else(|_| root.read("/proc/mounts")).unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/proc/sys")
            && words.nth(1).is_some_and(|options| options.split(',').any(|one| one == "ro"))
    })
}

fn gather_sample(root: &SysRoot, limit: usize, space: &mut ObservedNamespace, missing: &mut Vec<MissingInput>) {
    let found = match proc_conntrack::read(root, limit) {
        Ok(found) => Ok((proc_conntrack::PATH, found)),
        Err(error) if root.is_live() && error.is_not_found() => {
            ctnetlink_listing(limit).map(|found| ("ctnetlink", found)).ok_or(error)
        }
        Err(error) if !root.is_live() => bundled_listing(root, limit).map(|found| ("conntrack -L", found)).ok_or(error),
        Err(error) => Err(error),
    };
    match found {
        Ok((source, found)) => {
            let flows = found.entries.into_iter().map(to_observed_flow).collect();
            space.sample = Some(Sourced::at(source, seen::ObservedSample { flows, is_complete: found.is_complete }));
        }
        Err(error) => missing.push(MissingInput::new("conntrack entries", &error, how_to_read_entries(root, &error))),
    }
}

fn how_to_read_entries(root: &SysRoot, error: &FileError) -> &'static str {
    match (root.is_live(), error.is_permission_denied()) {
        (false, _) => "collect it with `sudo keepstate collect`",
        (true, true) => "run as root (CAP_NET_ADMIN)",
        (true, false) => "load nf_conntrack_netlink, and run as root",
    }
}

/// A listing of another program in the files.
fn bundled_listing(root: &SysRoot, limit: usize) -> Option<proc_conntrack::ProcConntrackSample> {
    let path = command::collected_files(root, &["conntrack", "-L"]).into_iter().next()?;
    let text = root.read(path).ok()?;
    let flows: Vec<_> = text.lines().filter_map(proc_conntrack::parse_line).take(limit).collect();
    let is_whole = flows.len() < limit;
    Some(proc_conntrack::ProcConntrackSample { entries: flows, is_complete: is_whole })
}

/// Reads entries by ctnetlink, at most `limit`.
fn ctnetlink_listing(limit: usize) -> Option<proc_conntrack::ProcConntrackSample> {
    let mut found = proc_conntrack::ProcConntrackSample { entries: Vec::new(), is_complete: true };
    let mut table = ctnetlink::CtClient::open().ok()?;
    let taken = table.dump(CtDumpKind::Confirmed, &DumpFilter::default(), |flow| {
        if found.entries.len() >= limit {
            found.is_complete = false;
            return ControlFlow::Break(());
        }
        found.entries.extend(flow_from_ctnetlink(flow));
        ControlFlow::Continue(())
    });
    taken.ok()?;
    Some(found)
}

fn flow_from_ctnetlink(flow: &CtFlow) -> Option<proc_conntrack::ProcConntrackEntry> {
    let tuple = |tuple: &ctnetlink::CtTuple| {
        Some(proc_conntrack::ProcConntrackTuple {
            source: tuple.source?,
            destination: tuple.destination?,
            source_port: tuple.source_port.unwrap_or(0),
            destination_port: tuple.destination_port.unwrap_or(0),
        })
    };
    let bits = flow.status.unwrap_or_default();
    debug_assert!(flow.family.is_none_or(|family| matches!(family, CtFamily::V4 | CtFamily::V6)));
    let state = match &flow.protoinfo {
        CtProtoInfo::Tcp(info) => info.state.and_then(TcpState::from_number).map(|state| state.name().to_owned()),
        CtProtoInfo::Sctp(info) => info.state.map(|state| state.name().to_owned()),
        CtProtoInfo::Empty => None,
    };
    Some(proc_conntrack::ProcConntrackEntry {
        protocol: flow.original.protocol?,
        timeout: flow.timeout.map(u64::from),
        state,
        original: tuple(&flow.original)?,
        reply: tuple(&flow.reply)?,
        is_unreplied: !bits.contains(Status::SEEN_REPLY),
        is_assured: bits.contains(Status::ASSURED),
        is_counted: flow.counters.iter().any(Option::is_some),
        helper: flow.helper.as_deref().map(str::to_owned),
    })
}

pub(super) fn to_observed_flow(flow: proc_conntrack::ProcConntrackEntry) -> seen::ObservedFlow {
    let tuple = |tuple: proc_conntrack::ProcConntrackTuple| seen::ObservedTuple {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    };
    seen::ObservedFlow {
        protocol: flow.protocol,
        timeout: flow.timeout,
        state: flow.state,
        original: tuple(flow.original),
        reply: tuple(flow.reply),
        is_unreplied: flow.is_unreplied,
        is_assured: flow.is_assured,
        helper: flow.helper,
    }
}

fn gather_rules(root: &SysRoot, space: &mut ObservedNamespace, missing: &mut Vec<MissingInput>) {
    let (found, errors) = ruleset_scan::scan(root);
    if found.commands.is_empty() {
        let why = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        missing.push(MissingInput::new(
            "packet filter rules",
            &why,
            "run as root, with nft or iptables-save installed",
        ));
        return;
    }
    let source = found.commands.join(", ");
    let source_nat =
        |nat: ruleset_scan::SnatRule| seen::ObservedSnat { rule: nat.rule, ports: nat.ports, is_random: nat.is_random };
    let destination_nat = |nat: ruleset_scan::DnatRule| seen::ObservedDnat {
        rule: nat.rule,
        protocol: nat.protocol,
        port: nat.port,
        to: nat.to,
        to_port: nat.to_port,
    };
    let listings = found.commands.iter().zip(found.texts);
    let listings =
        listings.map(|(command, text)| seen::ObservedRulesetText { command: command.clone(), text }).collect();
    let found = seen::ObservedRules {
        listings,
        drop_invalid: found.drop_invalid,
        drop_unaccepted: found.drop_unaccepted,
        match_state: found.ct_matches,
        source_nat: found.source_nat.into_iter().map(source_nat).collect(),
        destination_nat: found.destination_nat.into_iter().map(destination_nat).collect(),
        notrack: found.notrack,
        helpers: found.helpers,
        half_open_limits: found.syn_protection,
    };
    space.rules = Some(Sourced::at(source, found));
}
