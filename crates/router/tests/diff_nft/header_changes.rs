//! Header changes of a rule beside the kernel: every rule behind it, in the same chain, in later chains of the hook and at later hooks, sees the changed packet.
use crate::rule_counters::{Additions, Arrival, compare_rule_counters};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ACK, PSH, SYN, echo, tcp, udp};
use keepstate_test_support::report_skipped;
use std::fmt::Write;

/// What is changed; each is a ruleset of its own.
const CHANGES: &[&str] = &[
    "ip dscp set ef",
    "ip6 dscp set cs3",
    "ip ttl set 10",
    "ip6 hoplimit set 9",
    "ip ecn set ce",
    "ip6 ecn set ect0",
    "ip id set 7",
    "ip frag-off set 0x4000",
    "ip checksum set 5",
    "ip saddr set 10.1.0.77",
    "ip daddr set 198.51.100.7",
    "ip6 saddr set fd00:1::77",
    "ip6 daddr set 2001:db8:f::7",
    "ip6 flowlabel set 5",
    "tcp dport set 8080",
    "tcp dport set tcp dport map { 80 : 8080, 443 : 8443 }",
    "tcp sport set 9999",
    "udp dport set 8080",
    "udp sport set 9999",
    "udp checksum set 0",
    "tcp window set 100",
    "tcp urgptr set 7",
    "tcp flags set syn|ack",
    "tcp sequence set 1234",
    "tcp option maxseg size set 1000",
    "tcp option @2,16,16 set 1000",
    "tcp option timestamp tsval set 77",
    "tcp option timestamp tsecr set 5 ip ttl set 10",
    "tcp option timestamp tsval set tcp sequence",
    "tcp option sack left set 3 ip ttl set 10",
    "tcp option @8,72,16 set 3 ip ttl set 10",
    "tcp doff set 5",
    "tcp doff set 6",
    "tcp doff set 15",
    "ip hdrlength set 5",
    "ip version set 4",
    "ip6 version set 6",
    "reset tcp option timestamp",
    "reset tcp option maxseg",
    "icmp id set 99",
    "icmpv6 id set 99",
    "icmp sequence set 5",
    "@nh,8,8 set 0xb8",
    "@nh,64,8 set 5",
    "@nh,128,32 set 0xc6336407",
    "@th,16,16 set 53",
    "@th,0,8 set 1",
    "ip dscp set ef ip ttl set 10 tcp dport set 8080",
    "ip ttl set 10 meta mark set ip ttl map { 10 : 1, 64 : 2 }",
    "tcp dport set 8080 meta mark set tcp dport map { 8080 : 1, 80 : 2 }",
    "meta mark set 1 ct mark set meta mark",
    "meta priority set 1:2",
    "ip daddr set 198.51.100.7 meta mark set jhash ip daddr mod 7 seed 0x5",
];

const MATCHES: &[&str] = &[
    "ip dscp ef",
    "ip dscp cs3",
    "ip dscp cs0",
    "ip6 dscp cs3",
    "ip ttl 10",
    "ip ttl > 60",
    "ip ttl < 6",
    "ip6 hoplimit 9",
    "ip6 hoplimit > 60",
    "ip ecn ce",
    "ip6 ecn ect0",
    "ip id 7",
    "ip frag-off 0x4000",
    "ip checksum & 1 == 1",
    "ip checksum & 0x10 == 0x10",
    "ip checksum & 0x100 == 0x100",
    "ip saddr 10.1.0.77",
    "ip saddr 10.1.0.2",
    "ip daddr 198.51.100.7",
    "ip daddr 198.51.100.9",
    "ip daddr { 198.51.100.0/29, 203.0.113.0/24 }",
    "ip saddr . tcp dport { 10.1.0.77 . 80, 10.1.0.2 . 8080 }",
    "ip6 saddr fd00:1::77",
    "ip6 daddr 2001:db8:f::7",
    "ip6 flowlabel 5",
    "tcp dport 8080",
    "tcp dport 80",
    "tcp dport vmap { 8080 : continue }",
    "th dport 8080",
    "th dport 53",
    "tcp sport 9999",
    "udp sport 9999",
    "udp dport 8080",
    "udp checksum 0",
    "tcp checksum & 1 == 1",
    "tcp checksum & 0x20 == 0x20",
    "udp checksum & 1 == 1",
    "tcp window 100",
    "tcp urgptr 7",
    "tcp flags syn / syn,ack",
    "tcp flags & (syn|ack) == syn|ack",
    "tcp sequence 1234",
    "tcp option maxseg size 1000",
    "tcp option maxseg size 1001-65535",
    "tcp option maxseg exists",
    "tcp option timestamp tsval 77",
    "tcp option timestamp tsval 1000-2000",
    "tcp option timestamp tsecr 5",
    "tcp option sack left 3",
    "tcp doff 5",
    "tcp doff 6",
    "ip hdrlength 5",
    "ip version 4",
    "tcp checksum & 0x1100 == 0x100",
    "tcp option timestamp exists",
    "icmp id 99",
    "icmpv6 id 99",
    "icmp sequence 5",
    "@nh,8,8 0xb8",
    "@nh,64,8 5",
    "@th,16,16 53",
    "@th,16,16 8080",
    "@th,0,8 1",
    "meta mark 1",
    "meta mark 46",
    "meta mark & 3 == 3",
    "ct mark 1",
    "ct mark 10",
    "meta priority 1:2",
    "meta length 28-60",
    "meta l4proto tcp ct original proto-dst 80",
    "ct state new",
    "ct state invalid",
    "jhash ip daddr . tcp dport mod 2 seed 0x1 0",
    "fib daddr type unicast",
    "fib daddr . mark type unicast",
];

/// Four chains: the one that changes, a later one of the hook, and later hooks.
fn ruleset(change: &str, hook: &str) -> String {
    let mut text = "table inet t {\n".to_owned();
    let chains = [
        ("changes", hook, "mangle"),
        ("same", hook, "mangle + 5"),
        ("forward", "forward", "filter"),
        ("last", "postrouting", "mangle"),
    ];
    for (name, hook, priority) in chains {
        writeln!(text, "chain {name} {{\ntype filter hook {hook} priority {priority};").unwrap();
        // What Linux sends itself.
        text += "ip6 saddr fe80::/10 accept\nip6 daddr ff00::/8 accept\n";
        if name == "changes" {
            writeln!(text, "{change} counter").unwrap();
        }
        MATCHES.iter().for_each(|one| writeln!(text, "{one} counter").unwrap());
        text += "}\n";
    }
    text + "}\n"
}

fn arrivals() -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for v6 in [false, true] {
        arrivals.push(from_lan("SYN", v6, &tcp(4000, 80, 1000, 0, SYN, 0)));
        arrivals.push(from_wan("SYN-ACK", v6, &tcp(80, 4000, 5000, 1001, SYN | ACK, 0)));
        arrivals.push(from_lan("data", v6, &tcp(4000, 80, 1001, 5001, ACK | PSH, 11)));
        arrivals.push(from_lan("another SYN", v6, &tcp(4001, 443, 1000, 0, SYN, 0)));
        arrivals.push(from_lan("udp", v6, &udp(4000, 80, 9)));
        arrivals.push(from_wan("udp answer", v6, &udp(80, 4000, 0)));
        arrivals.push(from_lan("echo", v6, &echo(v6, true, 9)));
    }
    arrivals
}

#[test]
fn later_rules_see_a_changed_packet_as_in_linux() {
    let mut wrong = Vec::new();
    for change in CHANGES {
        for hook in ["prerouting", "forward"] {
            let rules = ruleset(change, hook);
            let compare = move || compare_rule_counters(&rules, &Additions::default(), &arrivals());
            match std::thread::spawn(compare).join() {
                Ok(true) => (),
                Ok(false) => return report_skipped("rules beside Linux need root and network namespaces"),
                Err(panic) => {
                    let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    wrong.push(format!("{change} at {hook}: {what}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CHANGES.len() * 2, wrong.join("\n"));
}
