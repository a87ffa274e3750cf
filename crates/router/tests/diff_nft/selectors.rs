//! Single selectors beside the kernel.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{ACK, Message, PSH, SYN, echo, ip_packet, tcp, udp};
use std::fmt::Write;

/// A chain at prerouting after tracking, and one at forward, with a counter behind each match.
fn ruleset(matches: &[String]) -> String {
    let mut text = "table inet t {\n".to_owned();
    for hook in ["prerouting", "forward"] {
        writeln!(text, "chain {hook} {{\ntype filter hook {hook} priority mangle;").unwrap();
        // What Linux sends itself.
        text += "ip6 saddr fe80::/10 accept\nip6 daddr ff00::/8 accept\n";
        matches.iter().for_each(|one| writeln!(text, "{one} counter").unwrap());
        text += "}\n";
    }
    text + "}\n"
}

pub fn from_lan(what: &str, v6: bool, message: &Message) -> Arrival {
    let (from, to) = if v6 { ("fd00:1::2", "2001:db8:f::9") } else { ("10.1.0.2", "198.51.100.9") };
    Arrival { what: what.to_owned(), device: 0, packet: ip_packet(v6, address(from), address(to), 64, message) }
}

pub fn from_wan(what: &str, v6: bool, message: &Message) -> Arrival {
    let (from, to) = if v6 { ("2001:db8:f::9", "fd00:1::2") } else { ("198.51.100.9", "10.1.0.2") };
    Arrival { what: what.to_owned(), device: 1, packet: ip_packet(v6, address(from), address(to), 64, message) }
}

/// A message of any protocol, its bytes 0, 1, 2, ….
fn raw(protocol: u8, first: &[u8], length: u8) -> Message {
    let mut bytes: Vec<u8> = (0..length).collect();
    bytes[..first.len()].copy_from_slice(first);
    Message { protocol, bytes, check_at: None }
}

fn with_udp_lite_checksum(mut message: Message) -> Message {
    message.protocol = 136;
    message.bytes[4..6].copy_from_slice(&[0, 0]);
    message
}

#[test]
fn ports_and_inner_headers_of_any_protocol_are_those_of_linux() {
    let mut matches = Vec::new();
    for value in [1_u16, 9, 53, 0x0203, 0x2020, 4000] {
        matches.push(format!("th dport {value}"));
        matches.push(format!("th sport {value}"));
    }
    for bits in ["@ih,0,8", "@ih,8,16", "@ih,32,32", "@th,0,8", "@th,96,8", "@nh,0,8"] {
        for value in [0, 1, 4, 8, 12, 16, 0x20, 0x45, 0x75, 0x78] {
            matches.push(format!("{bits} {value}"));
            matches.push(format!("{bits} & 0xf0 == {}", value & 0xf0));
        }
    }
    for protocol in ["tcp", "udp", "udplite", "sctp"] {
        matches.push(format!("{protocol} dport 53"));
        matches.push(format!("{protocol} sport != 53"));
    }
    let mut arrivals = Vec::new();
    for v6 in [false, true] {
        let icmp = if v6 { 58 } else { 1 };
        for (what, message) in [
            ("udp", udp(4000, 53, 10)),
            ("udp without payload", udp(4000, 53, 0)),
            ("tcp", tcp(4000, 53, 1, 0, SYN, 0)),
            ("tcp with data", tcp(4000, 53, 1, 1, ACK | PSH, 10)),
            ("udplite", with_udp_lite_checksum(udp(4000, 53, 10))),
            ("echo", echo(v6, true, 9)),
            ("icmp of another type", raw(icmp, &[200, 9, 0, 0], 12)),
            ("esp", raw(50, &[], 24)),
            ("gre", raw(47, &[0, 0, 8, 0], 24)),
            ("gre with key", raw(47, &[0x20, 0, 8, 0], 24)),
            ("gre with all", raw(47, &[0xb0, 0, 8, 0], 24)),
            ("gre with a source route", raw(47, &[0x40, 0, 8, 0], 24)),
            ("pptp", raw(47, &[0x30, 1, 0x88, 0x0b], 24)),
            ("ip in ip", raw(4, &[0x45], 24)),
            ("ip6 in ip", raw(41, &[0x60], 48)),
            ("ospf", raw(89, &[2, 1], 24)),
            ("a short packet", raw(89, &[2, 1], 3)),
            ("one byte", raw(253, &[], 1)),
        ] {
            arrivals.push(from_lan(what, v6, &message));
        }
    }
    in_own_thread(move || compare_rule_counters(&ruleset(&matches), &Additions::default(), &arrivals));
}

/// A label alone asks for one bit of many, behind an operator for all of them.
#[test]
fn labels_match_as_in_linux() {
    let written =
        ["ct label 1", "ct label 3", "ct label 3,5", "ct label 1,3", "ct label ! 3", "ct label ! 1", "ct label == 1"];
    let compared = ["ct label != 1", "ct label & 1 == 1", "ct label { 1, 2 }", "ct label 0", "ct label == 0"];
    let matches: Vec<String> = written.iter().chain(&compared).map(|one| (*one).to_owned()).collect();
    let marking = "chain marking {\ntype filter hook prerouting priority -150;\n\
        udp dport 53 ct label set 1 counter\nudp dport { 53, 54 } ct label set 2 counter\nudp dport 55 ct label set 1 counter\n}\n";
    let ruleset = ruleset(&matches).replacen("inet t {\n", &format!("inet t {{\n{marking}"), 1);
    let mut arrivals = Vec::new();
    for v6 in [false, true] {
        for (what, port) in [("two labels", 53), ("another label", 54), ("one label", 55), ("no label", 56)] {
            arrivals.push(from_lan(what, v6, &udp(4000, port, 10)));
        }
    }
    in_own_thread(move || compare_rule_counters(&ruleset, &Additions::default(), &arrivals));
}

#[test]
fn counters_of_connections_are_those_of_linux() {
    let mut matches = Vec::new();
    for direction in ["", "original ", "reply "] {
        for value in [0, 1, 2, 3, 4] {
            matches.push(format!("ct {direction}packets {value}"));
        }
        for value in [0, 28, 38, 56, 76, 133, 266] {
            matches.push(format!("ct {direction}bytes > {value}"));
            matches.push(format!("ct {direction}bytes {value}"));
            matches.push(format!("ct {direction}avgpkt > {value}"));
            matches.push(format!("ct {direction}avgpkt {value}"));
        }
    }
    let mut arrivals = Vec::new();
    for v6 in [false, true] {
        arrivals.push(from_lan("first", v6, &udp(4000, 53, 10)));
        arrivals.push(from_lan("second", v6, &udp(4000, 53, 0)));
        arrivals.push(from_wan("answer", v6, &udp(53, 4000, 200)));
        arrivals.push(from_wan("second answer", v6, &udp(53, 4000, 0)));
        arrivals.push(from_lan("third", v6, &udp(4000, 53, 3)));
    }
    in_own_thread(move || compare_rule_counters(&ruleset(&matches), &Additions::default(), &arrivals));
}

/// `ct helper` compares with the helper that expected the connection, not with the one that the connection has.
#[test]
fn helper_of_a_connection_is_that_of_its_master_as_in_linux() {
    let mut rules =
        ruleset(&["ct helper \"ftp\"".to_owned(), "ct state related".to_owned(), "ct status expected".to_owned()]);
    rules.insert_str(
        rules.find("chain").unwrap(),
        "ct helper ftp-standard { type \"ftp\" protocol tcp; }\nchain attach { type filter hook prerouting priority -190; tcp dport 21 ct helper set \"ftp-standard\"; }\n",
    );
    let announce = b"PORT 10,1,0,2,8,1\r\n";
    let mut port = tcp(4001, 21, 1001, 5001, ACK | PSH, announce.len());
    let at = port.bytes.len() - announce.len();
    port.bytes[at..].copy_from_slice(announce);
    let arrivals = [
        from_lan("syn", false, &tcp(4001, 21, 1000, 0, SYN, 0)),
        from_wan("syn-ack", false, &tcp(21, 4001, 5000, 1001, SYN | ACK, 0)),
        from_lan("ack", false, &tcp(4001, 21, 1001, 5001, ACK, 0)),
        from_lan("announcement", false, &port),
        from_wan("data connection", false, &tcp(20, 2049, 9000, 0, SYN, 0)),
        from_lan("its answer", false, &tcp(2049, 20, 3000, 9001, SYN | ACK, 0)),
        from_wan("another connection", false, &tcp(20, 2050, 9000, 0, SYN, 0)),
    ];
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &arrivals));
}
