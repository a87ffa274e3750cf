//! Rates, running numbers and hashes beside the kernel: nothing here depends on the time that a test takes, since no bucket fills while it runs.
use crate::rule_counters::{Additions, Arrival, compare_rule_counters, in_own_thread};
use crate::selectors::from_lan;
use crate::traffic::{ACK, SYN, tcp, udp};
use std::fmt::Write;

/// Packets of both families, protocols, many ports and lengths.
fn mixed_packets() -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for number in 0..40_u16 {
        let v6 = number % 5 == 4;
        let what = format!("packet {number}");
        arrivals.push(match number % 3 {
            0 => from_lan(
                &what,
                v6,
                &tcp(4000 + number % 7, 80 + number % 4, 1000, 0, if number % 2 == 0 { SYN } else { ACK }, 0),
            ),
            _ => from_lan(&what, v6, &udp(4000 + number % 7, 53 + number % 5, usize::from(number * 3))),
        });
    }
    arrivals
}

#[test]
fn rates_and_bursts_are_those_of_linux() {
    let mut rules = "table inet t {
        limit slow { rate 2/hour burst 4 packets; }
        limit volume { rate over 300 bytes/day burst 200 bytes; }
        set plain { type ipv4_addr; size 90; flags dynamic; }
        set ports { type ipv4_addr . inet_service; size 90; flags dynamic; }
        set shared { type inet_service; size 90; flags dynamic; limit rate 1/day burst 2 packets; }
        set over { type inet_service; size 90; flags dynamic,timeout; timeout 1h; }
        set conns { type ipv4_addr; size 90; flags dynamic; }
        set small { type inet_service; size 3; flags dynamic; }
        set gone { type inet_service; size 90; flags dynamic; }
        map learned { type inet_service : mark; size 90; flags dynamic; }
        chain c {
            type filter hook forward priority filter;\n"
        .to_owned();
    for over in ["", "over "] {
        for (rate, burst) in [
            ("1/hour", ""),
            ("1/hour", " burst 1 packets"),
            ("1/hour", " burst 7 packets"),
            ("3/day", " burst 2 packets"),
            ("10/week", ""),
            ("100 bytes/hour", ""),
            ("100 bytes/hour", " burst 50 bytes"),
            ("100 bytes/day", " burst 1 kbytes"),
            ("1 kbytes/week", ""),
        ] {
            writeln!(rules, "limit rate {over}{rate}{burst} counter").unwrap();
        }
    }
    rules += "limit name \"slow\" counter
            limit name \"volume\" counter
            limit name \"slow\" counter
            add @plain { ip saddr limit rate 1/hour burst 3 packets } counter
            update @ports { ip saddr . udp dport limit rate over 1/hour burst 2 packets } counter
            update @shared { udp dport } counter
            add @shared { udp sport } counter
            update @over { th dport timeout 1h limit rate over 40 bytes/hour burst 100 bytes } counter
            add @conns { ip saddr ct count over 3 } counter
            add @small { udp dport } counter
            udp dport @small counter
            meter m size 90 { ip saddr . th dport limit rate 2/hour burst 2 packets } counter
            meter n { iif . meta l4proto limit rate over 2/hour burst 2 packets } counter
            add @learned { udp dport : 0x10 } counter
            meta mark set udp sport map @learned counter
            meta mark set udp dport map @learned counter
            add @gone { udp dport } counter
            delete @gone { udp dport } counter
            udp dport @gone counter
        }
    }";
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &mixed_packets()));
}

#[test]
fn running_numbers_are_those_of_linux() {
    let mut rules = "table inet t { chain c { type filter hook forward priority filter;\n".to_owned();
    for number in 0..3 {
        // Each `numgen` has a counter of its own.
        writeln!(rules, "numgen inc mod 3 == {number} counter").unwrap();
        writeln!(rules, "numgen inc mod 3 offset 100 {} counter", 100 + number).unwrap();
        writeln!(rules, "udp dport 53 numgen inc mod 3 <= {number} counter").unwrap();
    }
    rules += "meta mark set numgen inc mod 4 offset 2 counter\n";
    (0..6).for_each(|mark| writeln!(rules, "meta mark {mark} counter").unwrap());
    rules += "meta mark set numgen inc mod 2 map { 0 : 0x100, 1 : 0x200 } counter
        meta mark 0x100 counter
        numgen inc mod 1 0 counter
        numgen inc mod 4 { 0, 2-3 } counter
        }
        }";
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &mixed_packets()));
}

#[test]
fn hashes_are_those_of_linux() {
    let mut rules =
        "table inet t { chain c { type filter hook forward priority filter;\nmeta mark set 0x1234 counter\n".to_owned();
    for key in [
        "ip saddr",
        "ip6 saddr",
        "udp dport",
        "th sport",
        "ip saddr . udp dport",
        "ip saddr . ip daddr . th sport . th dport",
        "ip6 saddr . ip6 daddr",
        "ip6 saddr . th dport . meta l4proto",
        "meta mark",
        "meta length . th dport",
        "ct zone . th dport",
        "ct zone",
        "meta iifgroup . ip saddr",
        "meta protocol",
        "meta nfproto",
        "meta mark . ip saddr",
        "meta l4proto",
        "ip protocol . ip ttl",
        "ip ttl",
        "ip id . ip length",
        "ip6 hoplimit . ip6 nexthdr",
        "tcp flags",
        "tcp sequence . tcp window",
        "meta length",
        "meta nfproto . th dport",
        "iifname . ip saddr",
        "oifname",
        "ct state . ip saddr",
        "ct direction . th dport",
        "ct status",
        "ct mark . th dport",
        "@th,0,16",
        "@nh,96,8 . @nh,104,24",
        "meta pkttype . meta protocol",
    ] {
        for (modulus, seed, offset) in [(2, "0xdeadbeef", ""), (7, "0x1", " offset 3"), (100, "0x0", "")] {
            let first = if offset.is_empty() { 0 } else { 3 };
            for half in [first, first + modulus / 2] {
                let range = format!("{half}-{}", half + modulus / 2 - u32::from(modulus > 1));
                writeln!(rules, "jhash {key} mod {modulus} seed {seed}{offset} {range} counter").unwrap();
            }
        }
    }
    rules += "}\n}\n";
    let rules = rules.replace("0-0 ", "0 ").replace("1-1 ", "1 ");
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &mixed_packets()));
}
