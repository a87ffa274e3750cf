//! Compares our router with Linux and nft: the same ruleset and the same packets on both; the packets that leave and the connection tables must be equal.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod collisions;
mod concat_ranges;
mod copies;
mod element_timeouts;
mod expectations;
mod fib;
mod header_changes;
mod ingress;
mod ipv4_options;
mod kernel;
mod kernel_log;
mod local_replies;
mod log_lines;
mod log_packets;
mod meters;
mod nat_addresses;
mod random_numbers;
mod rates;
mod replies;
mod rule_counters;
mod selectors;
mod timeouts;
mod traffic;
mod zones;

use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_router::{DropReason, Egress, FibTable, Interface, LINK_TYPE_NONE, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use kernel::Kernel;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use traffic::TrafficRng;

/// Rulesets on which the two routers may differ, and why.
const NONDETERMINISTIC: [(&str, &str); 1] = [(
    "limits.nft",
    "numbers of connections: Linux counts those that were refused for some milliseconds more; see the tests of programs",
)];

/// A test that changes machine-wide conntrack sysctls holds an exclusive lock on this file.
const SYSCTL_LOCK: &str = "/tmp/keepstate-global-knobs.lock";

/// Rulesets that drop nearly everything.
const LOW_TRAFFIC: [&str; 1] = ["spoofing.nft"];

/// The interfaces and routes of the kernel's side.
fn fib() -> FibTable {
    let interface = |index, name: &str, addresses: &[(&str, u8)]| Interface {
        index,
        name: name.to_owned(),
        mtu: 1500,
        group: 0,
        link_type: LINK_TYPE_NONE,
        kind: String::new(),
        addresses: addresses.iter().map(|(address, length)| (address.parse().unwrap(), *length)).collect(),
    };
    let lan = interface(1, "lan0", &[("10.1.0.1", 24), ("fd00:1::1", 64)]);
    let wan = interface(2, "wan0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]);
    let default = |prefix: &str| Route::new(prefix.parse().unwrap(), 0, 2);
    let carrier = Route::new("100.64.0.0".parse().unwrap(), 10, 1);
    FibTable::new(vec![lan, wan], vec![default("0.0.0.0"), default("::"), carrier])
}

/// The ruleset without randomness, for the test's interfaces: random numbers become counters, since two random ones never match, and rate limits never apply, since they
/// depend on timing.
fn deterministic_ruleset(ruleset: &Path) -> String {
    let mut text = fs::read_to_string(ruleset).unwrap();
    for (from, to) in [
        ("numgen random", "numgen inc"),
        ("symhash mod", "numgen inc mod"),
        (" fully-random", ""),
        // A random port would differ.
        ("[fd00:1::20]-[fd00:1::29]:8000-8009 random", "[fd00:1::20]-[fd00:1::29]:8000-8009"),
        ("\"eth0\"", "\"wan0\""),
        ("\"wan\"", "\"wan0\""),
        ("\"lan\"", "\"lan0\""),
        ("\"br-lan\"", "\"lan0\""),
    ] {
        text = text.replace(from, to);
    }
    text.lines().map(|line| without_rate_limits(line) + "\n").collect()
}

/// Raises packet rate limits, of rules and of objects (`limit pings { rate … }`, also with a line of its own), so that nothing reaches them; byte rates stay, since the traffic never reaches them.
fn without_rate_limits(line: &str) -> String {
    let is_own_line = line.trim_start().starts_with("rate ");
    let marker = ["limit rate ", "{ rate "].into_iter().filter_map(|marker| Some((line.find(marker)?, marker))).min();
    let Some(marker) = marker.map(|(_, marker)| marker).or(is_own_line.then_some("rate ")) else {
        return line.to_owned();
    };
    let Some((before, rest)) = line.split_once(marker) else { return line.to_owned() };
    let (over, rest) = rest.strip_prefix("over ").map_or(("", rest), |rest| ("over ", rest));
    let Some((rate, mut behind)) = rest.split_once(' ').or(Some((rest, ""))).filter(|(rate, _)| rate.contains('/'))
    else {
        return line.to_owned();
    };
    let Some((_, per)) = rate.split_once('/') else { return line.to_owned() };
    if let Some(burst) = behind.strip_prefix("burst ") {
        behind = burst.split_once("packets").map_or("", |(_, behind)| behind.trim_start());
    }
    let per = per.trim_end_matches('}');
    format!("{before}{marker}{over}1000000/{per} burst 100000 packets {}", without_rate_limits(behind))
}

#[test]
fn no_rate_limit_of_packets_is_reached() {
    for (line, raised) in [
        ("limit pings { rate 5/second burst 10 packets }", "limit pings { rate 1000000/second burst 100000 packets }"),
        ("\trate 400/minute burst 20 packets", "\trate 1000000/minute burst 100000 packets "),
        (
            "limit rate over 3/minute drop; limit rate 4/day burst 2 packets accept",
            "limit rate over 1000000/minute burst 100000 packets drop; limit rate 1000000/day burst 100000 packets accept",
        ),
        ("add limit ip nat l1 { rate 1 mbytes/second burst 9000 bytes }", ""),
        ("ip saddr 10.0.0.1 accept", ""),
    ] {
        assert_eq!(without_rate_limits(line), if raised.is_empty() { line } else { raised });
    }
}

fn router(ruleset: &Path) -> Router {
    let text = deterministic_ruleset(ruleset);
    let (tree, sources) =
        parse_with(&ruleset.to_string_lossy(), &text, &NoIncludes, &[]).unwrap_or_else(|refused| panic!("{refused}"));
    let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
    let engine = Engine::new(Sysctls::default(), Secret([9; 16]));
    Router::new(engine, program, fib(), (1, 2))
}

/// A router of these rules, on the interfaces of the kernel's side.
fn router_of(rules: &str) -> Router {
    let (tree, sources) = parse_with("rules", rules, &NoIncludes, &[]).unwrap_or_else(|refused| panic!("{refused}"));
    let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
    Router::new(Engine::new(Sysctls::default(), Secret([9; 16])), program, fib(), (1, 2))
}

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

fn conntrack_table(router: &mut Router) -> Vec<String> {
    let tuple = |tuple: &keepstate_engine::Tuple| {
        let keys = match tuple.protocol {
            1 | 58 => format!(" type={} code={} id={}", tuple.icmp_type(), tuple.icmp_code(), tuple.source_key),
            6 | 17 | 132 | 136 => format!(" sport={} dport={}", tuple.source_key, tuple.destination_key),
            47 => format!(" srckey={:#x} dstkey={:#x}", tuple.source_key, tuple.destination_key),
            _ => String::new(),
        };
        format!("src={} dst={}{keys}", tuple.source, tuple.destination)
    };
    let entries = router.engine().entries(now());
    let mut lines: Vec<String> = entries
        .map(|entry| format!("{} {} {}", entry.original.protocol, tuple(&entry.original), tuple(&entry.reply)))
        .collect();
    lines.sort();
    lines
}

/// Clears random and counter fields: the identification of the router's own replies.
fn normalize(mut bytes: Vec<u8>) -> Vec<u8> {
    let whole = bytes[6] & 0x3f == 0 && bytes[7] == 0;
    let own = bytes[0] >> 4 == 4
        && whole
        && match traffic::transport(&bytes) {
            (1, at) => !matches!(bytes[at], 0 | 8),
            (6, at) => bytes[at + 13] & 4 != 0,
            _ => false,
        };
    if own {
        bytes[4..8].fill(0);
        bytes[10..12].fill(0);
    }
    // Linux clears DF in some fragments, depending on its memory layout.
    if bytes[0] >> 4 == 4 && !whole {
        bytes[6] &= !0x40;
        bytes[10..12].fill(0);
    }
    // Timestamps of two clocks, a moment apart.
    if bytes[0] == 0x48 && bytes[20] == 68 {
        let first = if bytes[23] & 15 == 0 { 24 } else { 28 };
        bytes[first..32].fill(0);
        bytes[10..12].fill(0);
    }
    // The identification of a fragmented IPv6 packet.
    if bytes[0] >> 4 == 6 && bytes[6] == 44 {
        bytes[44..48].fill(0);
    }
    // Linux selects the flow label of packets it sends itself.
    if bytes[0] >> 4 == 6 && (bytes[6] == 58 && bytes[40] < 128 || bytes[6] == 6 && bytes[53] & 4 != 0) {
        bytes[1..4].fill(0);
    }
    bytes
}

/// Identifies a packet's flow: protocol, addresses, ports.
fn flow_key(packet: &[u8]) -> Vec<u8> {
    let (protocol, at) = traffic::transport(packet);
    let addresses = if packet[0] >> 4 == 6 { 8..40 } else { 12..20 };
    let ports = packet.get(at..at + 4).unwrap_or_default();
    [&[protocol], &packet[addresses], ports].concat()
}

/// The two random ports, where both routers resolved a port clash. The rest of the packet must be equal.
fn random_ports(ours: &[(usize, Vec<u8>)], theirs: &[(usize, Vec<u8>)]) -> Option<[u16; 2]> {
    let ([(our_device, ours)], [(their_device, theirs)]) = (ours, theirs) else { return None };
    let (protocol, at) = traffic::transport(ours);
    let check_at = match protocol {
        6 => at + 16,
        17 => at + 6,
        _ => return None,
    };
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let rest = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 2].fill(0);
        bytes[check_at..check_at + 2].fill(0);
        bytes
    };
    let drawn = [port(ours), port(theirs)];
    let same = our_device == their_device && ours.len() == theirs.len() && rest(ours) == rest(theirs);
    let class = |port: u16| (port >= 512, port >= 1024);
    (same && drawn[0] != drawn[1] && class(drawn[0]) == class(drawn[1])).then_some(drawn)
}

fn format_output(out: &[(usize, Vec<u8>)]) -> String {
    out.iter().map(|(device, bytes)| format!("\n    {} {}", ["lan0", "wan0"][*device], hex(bytes))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(80).map(|byte| format!("{byte:02x}")).collect()
}

/// Sends the same packets through both routers; panics at the first difference. False if Linux cannot be tested here.
fn compare_with_linux(ruleset: &Path, seed: u64, packets: usize) -> bool {
    // Linux tracks only address families that a rule needs; ours always tracks both.
    let asks = "table inet asks { chain about { ct state new; }; }";
    let Some(mut kernel) = Kernel::new(&format!("{}\n{asks}\n", deterministic_ruleset(ruleset))) else { return false };
    let mut router = router(ruleset);
    let mut dice = TrafficRng::new(seed);
    let mut waiting: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut came_out = 0;
    let mut lots = BTreeSet::new();
    let mut local_flows = BTreeSet::new();
    for number in 0..packets {
        let (device, packet) = match waiting.is_empty() || dice.below(4) == 0 {
            true => traffic::new_packet(&mut dice),
            false => {
                let at = dice.below(waiting.len());
                waiting.swap_remove(at)
            }
        };
        if local_flows.contains(&flow_key(&packet)) {
            continue;
        }
        let leaves = |out: &Egress| match out {
            Egress::Forward { oif, packet, .. } => Some((*oif as usize - 1, packet.clone())),
            Egress::LocalDeliver(_) | Egress::LetOut(_) | Egress::ToProxy { .. } | Egress::Loop { .. } => None,
        };
        // One packet in eight is fragmented.
        let pieces = if dice.below(8) == 0 { traffic::fragment(&packet, &mut dice) } else { vec![packet.clone()] };
        let (mut ours, mut theirs, mut delivered, mut result) = (Vec::new(), Vec::new(), false, Ok(()));
        for piece in &pieces {
            result = router.handle(piece, device as u32 + 1, now());
            let out: Vec<Egress> = std::iter::from_fn(|| router.poll_output()).collect();
            let before = ours.len();
            ours.extend(out.iter().filter_map(leaves));
            delivered |= out.iter().any(|out| matches!(out, Egress::LocalDeliver(_)));
            theirs.extend(kernel.handle(piece, device, ours.len() - before));
        }
        // In its ICMP errors Linux repeats the recorded options, and includes the original packet with a checksum that is no longer correct.
        let refused = matches!(
            result,
            Err(DropReason::RulesetReject | DropReason::TtlExceeded | DropReason::NoRoute | DropReason::PacketTooBig)
        );
        if refused && traffic::has_recording_options(&packet) {
            continue;
        }
        let reset = |bytes: &[u8]| match bytes[0] >> 4 {
            4 => bytes[9] == 6 && bytes.get(33).is_some_and(|flags| flags & 4 != 0) && bytes[4..6] == [0, 0],
            _ => bytes[6] == 6 && bytes[53] & 4 != 0,
        };
        let own_stack = ours.is_empty() && theirs.len() == 1 && reset(&theirs[0].1);
        if delivered || own_stack {
            // Linux's own stack replies to it, which changes its table; ours has no stack. So no more packets of that flow are sent.
            local_flows.insert(flow_key(&packet));
            theirs.clear();
            ours.clear();
        }
        for (device, bytes) in &theirs {
            came_out += 1;
            if let Some(answer) = traffic::reply_to(bytes, &mut dice) {
                waiting.push((*device, answer));
            }
        }
        if waiting.len() > 40 {
            waiting.clear();
        }
        let normal = |out: Vec<(usize, Vec<u8>)>| {
            let mut out: Vec<_> = out.into_iter().map(|(device, bytes)| (device, normalize(bytes))).collect();
            out.sort();
            out
        };
        let (ours, theirs) = (normal(ours), normal(theirs));
        // Later fragments have no ports, and must be equal in any case.
        let later = |out: &[(usize, Vec<u8>)]| -> (Vec<_>, Vec<_>) {
            let is_later = |bytes: &[u8]| match bytes[0] >> 4 {
                4 => u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff != 0,
                _ => bytes[6] == 44 && u16::from_be_bytes([bytes[42], bytes[43]]) & !7 != 0,
            };
            out.iter().cloned().partition(|(_, bytes)| is_later(bytes))
        };
        let ((our_pieces, ours_whole), (their_pieces, theirs_whole)) = (later(&ours), later(&theirs));
        if our_pieces == their_pieces
            && let Some(drawn) = random_ports(&ours_whole, &theirs_whole)
        {
            lots.extend(drawn);
            waiting.clear();
            continue;
        }
        assert!(
            ours == theirs,
            "{}: seed {seed}, packet {number}, in {} pieces, into {}:\n    {}\n  Linux:{}\n  ours ({result:?}):{}",
            ruleset.file_name().unwrap().to_string_lossy(),
            pieces.len(),
            ["lan0", "wan0"][device],
            hex(&packet),
            format_output(&theirs),
            format_output(&ours)
        );
    }
    // Leave out flows to the router's own addresses: Linux's own stack replied to them; ours has none.
    let elsewhere = |lines: Vec<String>| -> Vec<String> {
        let local = ["10.1.0.1", "192.0.2.1", "fd00:1::1", "2001:db8::1"].map(|address| format!(" src={address} "));
        let is_local = |line: &String| {
            line.match_indices(" src=")
                .nth(1)
                .is_some_and(|(at, _)| local.iter().any(|local| line[at..].starts_with(local)))
        };
        let drawn = |line: &String| {
            line.split(' ').any(|word| {
                let port = word.strip_prefix("sport=").or_else(|| word.strip_prefix("dport="));
                port.is_some_and(|port| lots.contains(&port.parse::<u16>().unwrap()))
            })
        };
        lines.into_iter().filter(|line| !is_local(line) && !drawn(line)).collect()
    };
    let (ours, theirs) = (elsewhere(conntrack_table(&mut router)), elsewhere(kernel.table()));
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{}: seed {seed}: only Linux has {missing:#?}, only we have {extra:#?}",
        ruleset.display()
    );
    assert!(
        came_out > packets / 20 || LOW_TRAFFIC.iter().any(|name| ruleset.ends_with(name)),
        "{}: only {came_out} packets came out",
        ruleset.display()
    );
    true
}

#[test]
fn every_ruleset_behaves_like_linux() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/tests/rulesets");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wanted = std::env::var("KEEPSTATE_RULESET").unwrap_or_default();
    let seed = std::env::var("KEEPSTATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let packets = std::env::var("KEEPSTATE_PACKETS").ok().and_then(|number| number.parse().ok()).unwrap_or(5000);
    // The limit is machine-wide: a test that lowers it holds this lock exclusively.
    let knobs = File::options().create(true).truncate(false).write(true).open(SYSCTL_LOCK).unwrap();
    knobs.lock_shared().unwrap();
    let mut failed = Vec::new();
    files.retain(|file| NONDETERMINISTIC.iter().all(|(name, _)| !file.ends_with(name)));
    assert!(files.len() >= 40, "{} rulesets", files.len());
    for file in files.into_iter().filter(|file| file.to_string_lossy().contains(&wanted)) {
        // One thread per ruleset: its namespace ends with it.
        let one = std::thread::spawn(move || compare_with_linux(&file, seed, packets)).join();
        match one {
            Ok(true) => (),
            Ok(false) => {
                return keepstate_test_support::report_skipped(
                    "rulesets beside Linux need root and network namespaces",
                );
            }
            Err(panic) => failed.push(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
