//! `fib` beside the kernel: each address, key and result.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{ip_packet, udp};
use keepstate_router::Route;
use std::fmt::Write;

/// A packet of each source to each destination, by both interfaces.
fn arrivals(sources: &[&str], destinations: &[&str]) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for source in sources {
        for destination in destinations {
            for (device, name) in ["lan0", "wan0"].into_iter().enumerate() {
                let v6 = source.contains(':');
                let packet = ip_packet(v6, address(source), address(destination), 64, &udp(40_000, 9, 4));
                arrivals.push(Arrival { what: format!("{source} -> {destination} from {name}"), device, packet });
            }
        }
    }
    arrivals
}

/// A rule for each address, key and result of `fib`, at the hooks where nft takes them.
fn every_fib_rule() -> String {
    let mut text = "table inet t {\n".to_owned();
    for (hook, keys) in [
        ("prerouting", &["", " . iif", " . mark", " . mark . iif"][..]),
        ("input", &["", " . iif"]),
        ("forward", &["", " . iif", " . oif"]),
        ("postrouting", &["", " . oif"]),
    ] {
        writeln!(text, "chain {hook} {{\ntype filter hook {hook} priority -250;").unwrap();
        // What Linux sends itself.
        text += "meta l4proto != udp accept\n";
        if hook == "input" {
            // Linux delivers the groups that the machine has joined only.
            text += "ip daddr 224.0.0.0/4 accept\nip6 daddr ff00::/8 accept\n";
        }
        for end in ["saddr", "daddr"] {
            for key in keys {
                for kind in [
                    "unspec",
                    "unicast",
                    "local",
                    "broadcast",
                    "anycast",
                    "multicast",
                    "blackhole",
                    "unreachable",
                    "prohibit",
                ] {
                    writeln!(text, "fib {end}{key} type {kind} counter").unwrap();
                }
                // A result is looked up where packets come in only.
                if hook != "postrouting" && *key != " . oif" {
                    for result in ["oif missing", "oif lan0", "oifname wan0", "oifname lan0", "oif exists"] {
                        writeln!(text, "fib {end}{key} {result} counter").unwrap();
                    }
                }
            }
        }
        text += "}\n";
    }
    text + "}\n"
}

const SOURCES4: [&str; 12] = [
    "10.1.0.2",
    "198.51.100.9",
    "100.64.0.5",
    "10.9.9.9",
    "10.1.0.1",
    "192.0.2.1",
    "0.0.0.0",
    "10.1.0.255",
    "10.8.0.7",
    "127.0.0.1",
    "0.0.0.9",
    "10.7.0.7",
];
const DESTINATIONS4: [&str; 10] = [
    "198.51.100.9",
    "10.1.0.3",
    "192.0.2.1",
    "10.1.0.1",
    "255.255.255.255",
    "224.0.0.251",
    "239.1.2.3",
    "10.1.0.255",
    "10.9.9.9",
    "10.1.0.0",
];
const SOURCES6: [&str; 8] =
    ["fd00:1::2", "2001:db8:f::9", "fe80::7", "fd00:9::9", "::", "fd00:1::1", "2001:db8::1", "fd00:8::7"];
const DESTINATIONS6: [&str; 11] = [
    "2001:db8:f::9",
    "fd00:1::3",
    "fd00:1::1",
    "2001:db8::1",
    "ff02::1",
    "ff02::5",
    "ff0e::5",
    "fe80::1",
    "fe80::9",
    "fd00:9::9",
    "fd00:1::",
];

/// Link-local addresses, and routes that refuse.
fn additions() -> Additions {
    Additions {
        commands: "addr add fe80::1/64 dev lan0 nodad\naddr add fe80::2/64 dev wan0 nodad\nroute add unreachable 10.9.0.0/16\n\
                   route add unreachable fd00:9::/32\nroute add 10.8.0.0/16 dev lan0\nroute add fd00:8::/32 dev lan0\n"
            .to_owned(),
        addresses: vec![(1, "fe80::1", 64), (2, "fe80::2", 64)],
        routes: vec![
            Route::new("10.9.0.0".parse().unwrap(), 16, 0),
            Route::new("fd00:9::".parse().unwrap(), 32, 0),
            Route::new("10.8.0.0".parse().unwrap(), 16, 1),
            Route::new("fd00:8::".parse().unwrap(), 32, 1),
        ],
        ..Additions::default()
    }
}

fn compare(sources: &'static [&str], destinations: &'static [&str]) {
    in_own_thread(|| compare_rule_counters(&every_fib_rule(), &additions(), &arrivals(sources, destinations)));
}

#[test]
fn fib_of_ipv4_is_that_of_linux() {
    compare(&SOURCES4, &DESTINATIONS4);
}

#[test]
fn fib_of_ipv6_is_that_of_linux() {
    compare(&SOURCES6, &DESTINATIONS6);
}
