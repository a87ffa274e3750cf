//! What is seen in one namespace: by files below a root, and by asking the kernel where a file is missing.
use super::observe::unseen;
use keepstate_advisor::doctor as seen;
use keepstate_advisor::doctor::{Growth, Knob, Namespace, Seen, Unseen};
use keepstate_linux::ctnetlink::{Family, Flow, Listing, Protocol, Restriction, TcpState, status};
use keepstate_linux::{Root, Unreadable, addresses, counters, ctnetlink, program, rules, sample, sockets};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Where the knobs are.
const KNOBS: &str = "/proc/sys/net/netfilter";

/// Where people log in.
const LOGIN: u16 = 22;

/// Everything in this thread's namespace, or in files; and what could not be seen.
pub fn look(root: &Root, bound: usize) -> (Namespace, Vec<Unseen>) {
    let mut space = Namespace::default();
    let mut missing = Vec::new();
    read_counters(root, &mut space, &mut missing);
    knobs(root, &mut space);
    space.count = keepstate_linux::sysctl::number(root, "net.netfilter.nf_conntrack_count")
        .ok()
        .flatten()
        .map(|count| Seen::at(format!("{KNOBS}/nf_conntrack_count"), count));
    space.is_initial = space.knobs.get("nf_conntrack_max").and_then(|knob| knob.mode).map(|mode| mode & 0o222 != 0);
    match sockets::read(root) {
        Ok(found) => {
            let found =
                seen::Sockets { tcp: found.tcp, orphans: found.orphans, time_wait: found.time_wait, udp: found.udp };
            space.sockets = Some(Seen::at("/proc/net/sockstat", found));
        }
        Err(error) => missing.push(unseen("sockets", &error, "collect /proc/net/sockstat too")),
    }
    take_sample(root, bound, &mut space, &mut missing);
    take_rules(root, &mut space, &mut missing);
    space.addresses = addresses::own(root).unwrap_or_default();
    space.management_port = addresses::listens(root, LOGIN).ok().flatten().map(|path| Seen::at(path, LOGIN));
    (space, missing)
}

/// The counters and knobs once more.
pub fn look_again(root: &Root, space: &mut Namespace, begun: Instant) {
    compare(root, space, begun.elapsed());
}

/// Compares counters and knobs with a later reading.
pub fn compare(later: &Root, space: &mut Namespace, over: Duration) {
    let mut after = Namespace::default();
    read_counters(later, &mut after, &mut Vec::new());
    if let (Some(before), Some(after)) = (&space.counters, &after.counters) {
        let by = rise(&before.value, &after.value);
        space.growth = Some(Growth { over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX), by });
    }
    space.counters = after.counters.take().or(space.counters.take());
    knobs(later, &mut after);
    for (name, knob) in &mut space.knobs {
        let value = after.knobs.get(name).map(|after| after.value);
        knob.later = value.filter(|value| *value != knob.value);
    }
}

/// Modes that a copy did not keep say nothing.
pub fn forget_modes(space: &mut Namespace) {
    space.is_initial = None;
    for knob in space.knobs.values_mut() {
        (knob.mode, knob.is_writable) = (None, None);
    }
}

/// What each counter grew by. The kernel's are 32 bits wide on each processor; a sum that went back has wrapped, or the namespace is
/// another one, and counts as not grown.
pub(super) fn rise(before: &seen::Counters, after: &seen::Counters) -> seen::Counters {
    let both = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    seen::Counters {
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

fn read_counters(root: &Root, space: &mut Namespace, missing: &mut Vec<Unseen>) {
    match counters::read(root) {
        Ok(read) => {
            let sum = |name: &str| read.sum(name).unwrap_or(0);
            let found = seen::Counters {
                found: sum("found"),
                invalid: sum("invalid"),
                insert_failed: sum("insert_failed"),
                drop: sum("drop"),
                early_drop: sum("early_drop"),
                search_restart: sum("search_restart"),
                clash_resolve: read.sum("clashres"),
                chaintoolong: read.sum("chainlength"),
            };
            space.counters = Some(Seen::at(counters::PATH, found));
        }
        Err(counters::Missing::Unreadable(error)) if error.is_absent() => {
            space.lacks_statistics = true;
            space.counters = if root.is_live() { asked() } else { None };
            if space.counters.is_none() {
                missing.push(unseen("counters", &error, "run it as root: ctnetlink has them too (CAP_NET_ADMIN)"));
            }
        }
        Err(error) => missing.push(unseen("counters", &error, "run it as root")),
    }
}

/// The counters by ctnetlink.
fn asked() -> Option<Seen<seen::Counters>> {
    let every = ctnetlink::Table::open().ok()?.statistics().ok()?;
    let sum = |one: fn(&ctnetlink::Statistics) -> Option<u32>| -> Option<u64> {
        every.iter().filter_map(one).map(u64::from).reduce(u64::saturating_add)
    };
    let found = seen::Counters {
        found: sum(|one| one.found).unwrap_or(0),
        invalid: sum(|one| one.invalid).unwrap_or(0),
        insert_failed: sum(|one| one.insert_failed).unwrap_or(0),
        drop: sum(|one| one.drop).unwrap_or(0),
        early_drop: sum(|one| one.early_drop).unwrap_or(0),
        search_restart: sum(|one| one.search_restart).unwrap_or(0),
        clash_resolve: sum(|one| one.clash_resolve),
        chaintoolong: sum(|one| one.chain_toolong),
    };
    Some(Seen::at("ctnetlink (conntrack -S)", found))
}

/// Every knob of tracking that is a number, and whether anyone may write it.
fn knobs(root: &Root, space: &mut Namespace) {
    let frozen = is_frozen(root);
    for name in root.names(KNOBS).unwrap_or_default() {
        if !name.starts_with("nf_conntrack_") || name == "nf_conntrack_count" {
            continue;
        }
        let source = format!("{KNOBS}/{name}");
        let Some(value) = root.read(&source).ok().and_then(|text| text.trim().parse().ok()) else { continue };
        let mode = root.path(&source).metadata().ok().map(|metadata| metadata.mode() & 0o777);
        let is_writable = mode.map(|mode| mode & 0o222 != 0 && !frozen);
        space.knobs.insert(name, Knob { value, later: None, is_writable, mode, source });
    }
}

/// Is `/proc/sys` mounted read-only, as containers have it?
fn is_frozen(root: &Root) -> bool {
    let mounts = root.read("/proc/self/mounts").or_else(|_| root.read("/proc/mounts")).unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/proc/sys")
            && words.nth(1).is_some_and(|options| options.split(',').any(|one| one == "ro"))
    })
}

fn take_sample(root: &Root, bound: usize, space: &mut Namespace, missing: &mut Vec<Unseen>) {
    let found = match sample::read(root, bound) {
        Ok(found) => Ok((sample::PATH, found)),
        Err(error) if root.is_live() && error.is_absent() => {
            listed(bound).map(|found| ("ctnetlink", found)).ok_or(error)
        }
        Err(error) if !root.is_live() => kept(root, bound).map(|found| ("conntrack -L", found)).ok_or(error),
        Err(error) => Err(error),
    };
    match found {
        Ok((source, found)) => {
            let flows = found.flows.into_iter().map(flow).collect();
            space.sample = Some(Seen::at(source, seen::Sample { flows, is_whole: found.is_whole }));
        }
        Err(error) => missing.push(unseen("entries of the table", &error, how_entries(root, &error))),
    }
}

fn how_entries(root: &Root, error: &Unreadable) -> &'static str {
    match (root.is_live(), error.is_denied()) {
        (false, _) => "collect it with `sudo keepstate collect`",
        (true, true) => "run it as root (CAP_NET_ADMIN)",
        (true, false) => "load nf_conntrack_netlink, and run it as root",
    }
}

/// A listing that another program left in the files.
fn kept(root: &Root, bound: usize) -> Option<sample::Sample> {
    let path = program::kept_beginning(root, &["conntrack", "-L"]).into_iter().next()?;
    let text = root.read(path).ok()?;
    let flows: Vec<_> = text.lines().filter_map(sample::flow).take(bound).collect();
    let is_whole = flows.len() < bound;
    Some(sample::Sample { flows, is_whole })
}

/// Entries by ctnetlink, cut short at the bound.
fn listed(bound: usize) -> Option<sample::Sample> {
    let mut found = sample::Sample { flows: Vec::new(), is_whole: true };
    let mut table = ctnetlink::Table::open().ok()?;
    let taken = table.list(Listing::Confirmed, &Restriction::default(), |told| {
        if found.flows.len() >= bound {
            found.is_whole = false;
            return ControlFlow::Break(());
        }
        found.flows.extend(told_flow(told));
        ControlFlow::Continue(())
    });
    taken.ok()?;
    Some(found)
}

fn told_flow(told: &Flow) -> Option<sample::Flow> {
    let tuple = |tuple: &ctnetlink::Tuple| {
        Some(sample::Tuple {
            source: tuple.source?,
            destination: tuple.destination?,
            source_port: tuple.source_port.unwrap_or(0),
            destination_port: tuple.destination_port.unwrap_or(0),
        })
    };
    let bits = told.status.unwrap_or(0);
    debug_assert!(told.family.is_none_or(|family| matches!(family, Family::V4 | Family::V6)));
    let state = match &told.protocol {
        Protocol::Tcp(info) => info.state.and_then(TcpState::numbered).map(|state| state.name().to_owned()),
        Protocol::Sctp(info) => info.state.map(|state| state.name().to_owned()),
        Protocol::Nothing => None,
    };
    Some(sample::Flow {
        protocol: told.original.protocol?,
        timeout: told.timeout.map(u64::from),
        state,
        original: tuple(&told.original)?,
        reply: tuple(&told.reply)?,
        is_unreplied: bits & status::SEEN_REPLY == 0,
        is_assured: bits & status::ASSURED != 0,
        is_counted: told.counts.iter().any(Option::is_some),
        helper: told.helper.as_deref().map(str::to_owned),
    })
}

pub(super) fn flow(flow: sample::Flow) -> seen::Flow {
    let tuple = |tuple: sample::Tuple| seen::Tuple {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    };
    seen::Flow {
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

fn take_rules(root: &Root, space: &mut Namespace, missing: &mut Vec<Unseen>) {
    let (found, silent) = rules::read(root);
    if found.sources.is_empty() {
        let why = silent.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        missing.push(unseen(
            "the packet filter's rules",
            &why,
            "run it as root, where nft or iptables-save is installed",
        ));
        return;
    }
    let source = found.sources.join(", ");
    let source_nat =
        |nat: rules::SourceNat| seen::SourceNat { rule: nat.rule, ports: nat.ports, is_random: nat.is_random };
    let destination_nat = |nat: rules::DestinationNat| seen::DestinationNat {
        rule: nat.rule,
        protocol: nat.protocol,
        port: nat.port,
        to: nat.to,
        to_port: nat.to_port,
    };
    let found = seen::Rules {
        drop_invalid: found.drop_invalid,
        ask_state: found.ask_state,
        source_nat: found.source_nat.into_iter().map(source_nat).collect(),
        destination_nat: found.destination_nat.into_iter().map(destination_nat).collect(),
        untracked: found.untracked,
        helpers: found.helpers,
        guards: found.guards,
    };
    space.rules = Some(Seen::at(source, found));
}
