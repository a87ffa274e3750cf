//! `ct expectation set` beside the kernel: which connections are expected, of how many, and what the connection that comes is for the rules.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{ACK, Message, SYN, ip_packet, tcp, udp};
use std::fmt::Write;

// Packets of the other family than the object's are left out: Linux expects connections of what it reads as addresses of its family.
const OBJECTS: &str = "
    ct expectation one { protocol udp; dport 7000; timeout 1h; size 1; l3proto ip; }
    ct expectation few { protocol tcp; dport 7001; timeout 1h; size 2; l3proto ip; }
    ct expectation more { protocol udp; dport 7002; timeout 1h; size 3; l3proto ip; }
    ct expectation six { protocol udp; dport 7003; timeout 1h; size 9; l3proto ip6; }
";

/// Each state at each hook, around the rules that expect.
fn ruleset(hook: &str, rules: &str, nat: &str) -> String {
    let keys = |text: &mut String| {
        for key in ["new", "established", "related", "invalid"] {
            writeln!(text, "ct state {key} counter").unwrap();
        }
        *text += "ct status expected counter\nct mark 5 counter\n";
    };
    let mut text = format!("table inet t {{{OBJECTS}");
    for (name, at) in [("prerouting", "-50"), ("forward", "0"), ("postrouting", "50")] {
        writeln!(text, "chain {name} {{\ntype filter hook {name} priority {at};").unwrap();
        keys(&mut text);
        if name == hook {
            text += rules;
            keys(&mut text);
        }
        text += "}\n";
    }
    text + nat + "}\n"
}

fn arrival(what: &str, device: usize, (from, to): (&str, &str), message: &Message) -> Arrival {
    let v6 = from.contains(':');
    Arrival { what: what.to_owned(), device, packet: ip_packet(v6, address(from), address(to), 64, message) }
}

const CLIENT: &str = "10.1.0.2";
const SERVER: &str = "198.51.100.9";

/// Masters, what is expected of them, and what is not: the wrong port, protocol, server, client.
fn conversation(outside: &str) -> Vec<Arrival> {
    let (there, back) = ((CLIENT, SERVER), (SERVER, outside));
    let mut arrivals = Vec::new();
    let mut add = |what: &str, device: usize, ends: (&str, &str), message: Message| {
        arrivals.push(arrival(what, device, ends, &message));
    };
    add("before any master", 1, back, udp(53, 7000, 4));
    add("master", 0, there, udp(4000, 80, 4));
    add("wrong port", 1, back, udp(9, 7009, 4));
    add("wrong protocol", 1, back, tcp(9, 7000, 1, 0, SYN, 0));
    add("another server", 1, ("198.51.100.8", outside), udp(9, 7000, 4));
    add("the other way round", 0, there, udp(9, 7000, 4));
    add("master again", 0, there, udp(4000, 80, 4));
    add("answer to the master", 1, back, udp(80, 4000, 4));
    add("expected", 1, back, udp(4444, 7000, 4));
    add("answer to the expected", 0, there, udp(7000, 4444, 4));
    add("expected again", 1, back, udp(4444, 7000, 4));
    add("one more, after it came", 1, back, udp(4445, 7000, 4));
    add("expected of the second kind", 1, back, tcp(4446, 7001, 1, 0, SYN, 0));
    add("second master of the same ends", 0, there, udp(4001, 80, 4));
    add("third master of the same ends", 0, there, udp(4002, 80, 4));
    add("master of another client", 0, ("10.1.0.3", SERVER), udp(4000, 80, 4));
    add("master that a SYN begins", 0, (CLIENT, "198.51.100.7"), tcp(4003, 80, 1, 0, SYN, 0));
    add("master in the middle", 0, (CLIENT, "198.51.100.6"), tcp(4004, 80, 5, 7, ACK, 0));
    add("master of IPv6", 0, ("fd00:1::2", "2001:db8:f::9"), udp(4005, 80, 4));
    add("expected of IPv6", 1, ("2001:db8:f::9", "fd00:1::2"), udp(4006, 7003, 4));
    add("expected of the SYN's", 1, ("198.51.100.7", outside), udp(4007, 7000, 4));
    arrivals
}

fn compare(hook: &'static str, rules: &'static str, nat: &'static str, outside: &'static str) {
    in_own_thread(move || {
        compare_rule_counters(&ruleset(hook, rules, nat), &Additions::default(), &conversation(outside))
    });
}

#[test]
fn expected_connection_is_related_as_in_linux() {
    compare(
        "forward",
        "ip version 4 udp dport 80 ct expectation set \"one\" counter\nth dport 80 counter\n",
        "",
        CLIENT,
    );
}

#[test]
fn number_of_expected_connections_is_that_of_linux() {
    let rules = "ip version 4 th dport 80 ct expectation set \"few\" counter
        ip version 4 th dport 80 ct expectation set \"one\" counter
        ip version 4 th dport 80 ct expectation set \"more\" counter
        ip version 4 th dport 80 ct expectation set \"more\" counter
        ip version 4 th dport 80 ct expectation set \"one\" counter
        ct mark set 5 counter
    ";
    compare("forward", rules, "", CLIENT);
}

#[test]
fn expectations_of_a_map_and_of_ipv6_are_those_of_linux() {
    let rules = "ip6 daddr ::/0 ct expectation set \"six\" counter
        ip daddr 0.0.0.0/0 ct expectation set th dport map { 80 : \"one\", 81 : \"few\" } counter
    ";
    compare("prerouting", rules, "", CLIENT);
}

#[test]
fn expected_connection_takes_the_mark_of_its_master_as_in_linux() {
    compare("prerouting", "ip version 4 udp dport 80 ct mark set 5 ct expectation set \"one\" counter\n", "", CLIENT);
}

/// As in Linux, what is expected goes to the address that the client has at that hook: behind source NAT only what is translated before.
#[test]
fn expectations_of_translated_connections_are_those_of_linux() {
    // Linux answers what is sent to its own address, our router leaves that to the host.
    let nat = "chain post {\ntype nat hook postrouting priority srcnat;\noifname wan0 counter masquerade\n}
        chain input {\ntype filter hook input priority 0;\ncounter drop\n}\n";
    for hook in ["forward", "postrouting"] {
        compare(hook, "ip version 4 th dport 80 ct expectation set \"one\" counter\n", nat, "192.0.2.1");
    }
}

/// The master of a packet that a rule drops expects nothing.
#[test]
fn dropped_packet_expects_nothing_as_in_linux() {
    compare(
        "forward",
        "ip version 4 th dport 80 ct expectation set \"one\" counter\nth sport 4000-4001 drop\n",
        "",
        CLIENT,
    );
}
