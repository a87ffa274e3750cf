//! Sets of concatenated ranges beside the kernel: many types, with ranges, prefixes, single values and timeouts, changed while packets look them up.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{Message, SYN, TrafficRng, ip_packet, tcp, udp};
use std::fmt::Write;

/// Types of a key, and what a rule reads for it.
const KEYS: [(&str, &str); 9] = [
    ("ipv4_addr . inet_service", "ip saddr . th dport"),
    ("inet_service . ipv4_addr", "th dport . ip daddr"),
    ("ipv4_addr . ipv4_addr . inet_service", "ip saddr . ip daddr . th dport"),
    ("ipv4_addr . inet_proto . inet_service", "ip daddr . meta l4proto . th sport"),
    ("ipv6_addr . inet_service", "ip6 saddr . th dport"),
    ("ipv6_addr . ipv6_addr . inet_service . inet_service", "ip6 saddr . ip6 daddr . th sport . th dport"),
    ("inet_proto . inet_service", "meta l4proto . th dport"),
    ("ipv4_addr . mark . inet_service", "ip saddr . meta mark . th dport"),
    ("inet_service . inet_service", "th sport . th dport"),
];

/// A value of a type as it stands in an element: single, a range, or a prefix.
fn part(kind: &str, dice: &mut TrafficRng) -> String {
    match kind {
        "ipv4_addr" => {
            let (net, host) = (dice.below(2), dice.below(6));
            let base = ["10.1.0.", "198.51.100."][net];
            match dice.below(4) {
                0 => format!("{base}{host}"),
                1 => format!("{base}0/{}", 24 + dice.below(6)),
                2 => format!("{base}{host}-{base}{}", host + 1 + dice.below(5)),
                _ => "0.0.0.0/0".to_owned(),
            }
        }
        "ipv6_addr" => {
            let (net, host) = (dice.below(2), dice.below(6));
            let base = ["fd00:1::", "2001:db8:f::"][net];
            match dice.below(4) {
                0 => format!("{base}{host}"),
                1 => format!("{base}/{}", 64 + dice.below(64)),
                2 => format!("{base}{host}-{base}{}", host + 1 + dice.below(5)),
                _ => "::/0".to_owned(),
            }
        }
        "inet_proto" => ["tcp", "udp", "6-17", "0-255"][dice.below(4)].to_owned(),
        "mark" => ["0", "0-7", "5", "3-0xffffffff"][dice.below(4)].to_owned(),
        _ => {
            let first = 1 + dice.below(20);
            match dice.below(3) {
                0 => first.to_string(),
                1 => format!("{first}-{}", first + 1 + dice.below(10)),
                _ => "0-65535".to_owned(),
            }
        }
    }
}

fn elements(kinds: &str, number: usize, dice: &mut TrafficRng) -> Vec<String> {
    (0..number).map(|_| kinds.split(" . ").map(|kind| part(kind, dice)).collect::<Vec<_>>().join(" . ")).collect()
}

/// One element a set, since Linux refuses some that overlap; several sets of each type, plain, with timeouts, and as maps.
fn ruleset(dice: &mut TrafficRng) -> String {
    let (mut sets, mut rules) = (String::new(), String::new());
    for (at, (kinds, key)) in KEYS.iter().enumerate() {
        for (which, element) in elements(kinds, 6, dice).iter().enumerate() {
            let name = format!("s{at}x{which}");
            let (flags, timeout) = if which % 2 == 0 { ("interval", "") } else { ("interval, timeout", " timeout 1h") };
            writeln!(sets, "set {name} {{ type {kinds}; flags {flags}; elements = {{ {element}{timeout} }}; }}")
                .unwrap();
            writeln!(rules, "{key} @{name} counter").unwrap();
            writeln!(rules, "{key} != @{name} counter").unwrap();
            writeln!(
                sets,
                "map m{name} {{ type {kinds} : mark; flags interval; elements = {{ {element} : {which} }}; }}"
            )
            .unwrap();
            writeln!(rules, "ct mark set {key} map @m{name} counter").unwrap();
        }
    }
    format!("table inet t {{\n{sets}chain c {{\ntype filter hook forward priority filter;\n{rules}}}\n}}\n")
}

fn packets(dice: &mut TrafficRng) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for number in 0..60 {
        let v6 = dice.below(3) == 0;
        let (near, far) = (dice.below(8), dice.below(8));
        let (from, to) = match v6 {
            true => (format!("fd00:1::{}", near + 2), format!("2001:db8:f::{}", far + 2)),
            false => (format!("10.1.0.{}", near + 2), format!("198.51.100.{}", far + 1)),
        };
        let (sport, dport) = (1 + dice.below(32) as u16, 1 + dice.below(32) as u16);
        let message: Message = match dice.below(2) {
            0 => tcp(sport, dport, 1, 0, SYN, 0),
            _ => udp(sport, dport, 4),
        };
        arrivals.push(Arrival {
            what: format!("packet {number}: {from} {sport} > {to} {dport}"),
            device: 0,
            packet: ip_packet(v6, address(&from), address(&to), 64, &message),
        });
    }
    arrivals
}

#[test]
fn concatenated_ranges_match_as_in_linux() {
    for seed in 1..=4 {
        in_own_thread(move || {
            let mut dice = TrafficRng::new(seed);
            let rules = ruleset(&mut dice);
            compare_rule_counters(&rules, &Additions::default(), &packets(&mut dice))
        });
    }
}
