//! Quotas, numbers of connections and priorities beside the kernel.
use crate::kernel::Kernel;
use crate::rule_counters::{Additions, Arrival, compare_rule_counters, in_own_thread};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ACK, FIN, PSH, RST, SYN, TrafficRng, checksum, tcp, udp};
use crate::{now, router_of};
use std::fmt::Write;

#[test]
fn quota_counts_from_what_is_used_as_in_linux() {
    // Packets of 38 bytes.
    let rules = "table ip t {
        quota part { over 200 bytes used 100 bytes; }
        quota full { 300 bytes used 300 bytes; }
        set template { type ipv4_addr; size 9; flags dynamic; quota over 100 bytes used 50 bytes; }
        set own { type ipv4_addr; size 9; flags dynamic; }
        chain c {
            type filter hook forward priority filter;
            quota over 200 bytes used 100 bytes counter
            quota 200 bytes used 123 bytes counter
            quota until 1 kbytes used 1024 bytes counter
            quota name \"part\" counter
            quota name \"full\" counter
            add @own { ip saddr quota over 100 bytes used 50 bytes } counter
            update @template { ip saddr quota until 100 bytes used 62 bytes } counter
        }
    }";
    let arrivals: Vec<Arrival> =
        (0..8).map(|number| from_lan(&format!("packet {number}"), false, &udp(4000, 53, 10))).collect();
    in_own_thread(move || compare_rule_counters(rules, &Additions::default(), &arrivals));
}

/// An element's counter, limit or quota applies wherever the element is found: in sets, and in maps to values, verdicts, objects and addresses.
#[test]
fn elements_with_state_apply_in_maps_as_in_linux() {
    let rules = "table ip t {
        map marks { type inet_service : mark; size 9; flags dynamic; limit rate 1/day burst 2 packets; elements = { 53 : 5 }; }
        map verdicts { type inet_service : verdict; limit rate 1/day burst 3 packets; elements = { 53 : accept, 54 : jump seen }; }
        map quotas { type inet_service : verdict; quota 100 bytes; elements = { 53 : jump seen }; }
        map counted { type inet_service : verdict; counter; elements = { 53 : jump seen, * : jump others }; }
        set every { type inet_service; limit rate 1/day burst 4 packets; elements = { 54, * }; }
        chain seen { counter; }
        chain others { counter; }
        chain by_verdict { udp dport vmap @verdicts; counter; }
        chain c {
            type filter hook forward priority filter;
            meta mark set udp dport map @marks counter
            jump by_verdict
            udp dport vmap @quotas
            udp dport vmap @counted
            udp dport @every counter
            counter
        }
    }";
    let arrivals: Vec<Arrival> =
        (0..24).map(|number| from_lan(&format!("packet {number}"), false, &udp(4000, 53 + number % 3, 10))).collect();
    in_own_thread(move || {
        let Some(mut kernel) = Kernel::new(rules) else { return false };
        let mut router = router_of(rules);
        for Arrival { what, device, packet } in &arrivals {
            router.handle(packet, *device as u32 + 1, now()).unwrap();
            while router.poll_output().is_some() {}
            kernel.handle(packet, *device, 1);
            // In the order of the listing, the elements' counters first.
            let counts = |listing: &str| -> Vec<String> {
                listing
                    .split("counter packets ")
                    .skip(1)
                    .map(|behind| behind.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
                    .collect()
            };
            let theirs = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
            let ours = router.program().list().to_string();
            assert_eq!(counts(&ours), counts(&String::from_utf8_lossy(&theirs)), "{what}\n{ours}");
        }
        true
    });
}

#[test]
fn priority_of_forwarded_packets_is_that_of_linux() {
    let mut rules = "table inet t {\n".to_owned();
    for (hook, set) in [("prerouting", ""), ("forward", ""), ("postrouting", ""), ("input", "")] {
        writeln!(rules, "chain {hook} {{\ntype filter hook {hook} priority 0;\nip6 saddr fe80::/10 accept\nip6 daddr ff00::/8 accept{set}").unwrap();
        (0..8).for_each(|class| writeln!(rules, "meta priority 0:{class} counter").unwrap());
        rules += "meta priority 1:2 counter\n";
        if hook == "prerouting" {
            rules += "udp dport 54 meta priority set 1:2 counter\n";
        }
        rules += "}\n";
    }
    rules += "}\n";
    let mut arrivals = Vec::new();
    for port in [53, 54] {
        for tos in 0..=255_u8 {
            let mut arrival = from_lan(&format!("TOS {tos:#x}"), false, &udp(4000, port, 1));
            arrival.packet[1] = tos;
            arrival.packet[10..12].fill(0);
            let sum = checksum(&arrival.packet[..20]);
            arrival.packet[10..12].copy_from_slice(&sum.to_be_bytes());
            arrivals.push(arrival);
        }
        for class in 0..=15_u8 {
            let mut arrival = from_lan(&format!("traffic class {class:#x}"), true, &udp(4000, port, 1));
            arrival.packet[0] |= class;
            arrival.packet[1] = class << 4;
            arrivals.push(arrival);
        }
    }
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &arrivals));
}

/// Some connections, at their limit and above it: handshakes, data, retransmissions, resets, ends.
fn connections(seed: u64, count: usize) -> Vec<Arrival> {
    let mut dice = TrafficRng::new(seed);
    let mut arrivals = Vec::new();
    for number in 0..count {
        let port = 4000 + dice.below(4) as u16;
        let what = |kind: &str| format!("{number}: {kind} of {port}");
        arrivals.push(match dice.below(12) {
            0..=3 => from_lan(&what("SYN"), false, &tcp(port, 80, 1000, 0, SYN, 0)),
            4 | 5 => from_wan(&what("SYN-ACK"), false, &tcp(80, port, 5000, 1001, SYN | ACK, 0)),
            6 => from_lan(&what("ACK"), false, &tcp(port, 80, 1001, 5001, ACK, 0)),
            7 => from_lan(&what("data"), false, &tcp(port, 80, 1001, 5001, ACK | PSH, 10)),
            8 => from_lan(&what("FIN"), false, &tcp(port, 80, 1001, 5001, ACK | FIN, 0)),
            9 => from_wan(&what("data back"), false, &tcp(80, port, 5001, 1001, ACK | PSH, 10)),
            10 => from_wan(&what("RST back"), false, &tcp(80, port, 5001, 1001, RST, 0)),
            _ => from_lan(&what("RST"), false, &tcp(port, 80, 1001, 5001, RST | ACK, 0)),
        });
    }
    arrivals
}

#[test]
fn number_of_connections_is_that_of_linux() {
    let rules = "table ip t {
        chain c {
            type filter hook forward priority filter;
            tcp dport 80 tcp flags ack ct count over 0 counter
            tcp dport 80 tcp flags ack ct count 0 counter
            tcp sport 80 ct count over 1 counter
            tcp flags rst ct count over 1 counter
            tcp dport 80 ct count 1 counter
            tcp dport 80 ct count 2 counter
            tcp dport 80 ct count over 2 counter drop
            tcp dport 80 ct count over 1 counter
        }
    }";
    for seed in 1..=6 {
        let arrivals = connections(seed, 60);
        // Printed if it fails: a difference is understood by what came before.
        println!(
            "seed {seed}: {}",
            arrivals.iter().map(|arrival| arrival.what.as_str()).collect::<Vec<_>>().join(", ")
        );
        // Linux keeps an entry without a connection for two ticks, and takes two packets of one tick for two connections.
        let spaced = Additions { ticks: 3, ..Additions::default() };
        in_own_thread(move || compare_rule_counters(rules, &spaced, &arrivals));
    }
}
