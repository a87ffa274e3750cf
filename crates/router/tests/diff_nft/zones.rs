//! Zones by direction beside the kernel: two networks with the same addresses, told apart by their DSCP as by an interface.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{TrafficRng, checksum, icmp_error, ip_packet, udp};
use keepstate_engine::Direction;
use std::fmt::Write;

const KEYS: [&str; 18] = [
    "ct zone 0",
    "ct zone 1",
    "ct zone 2",
    "ct original zone 0",
    "ct original zone 1",
    "ct original zone 2",
    "ct reply zone 0",
    "ct reply zone 1",
    "ct reply zone 2",
    "ct state new",
    "ct state established",
    "ct state invalid",
    "ct state untracked",
    "ct direction original",
    "ct direction reply",
    "ct mark 0",
    "ct status snat",
    "ct status seen-reply",
];

/// Each key at each hook; before tracking also behind the statements of `raw`.
fn ruleset(raw: &str, nat: &str) -> String {
    let keys = |text: &mut String| KEYS.iter().for_each(|key| writeln!(text, "{key} counter").unwrap());
    let mut text = "table ip t {\nchain raw {\ntype filter hook prerouting priority raw;\n".to_owned();
    keys(&mut text);
    text += raw;
    keys(&mut text);
    text += "}\n";
    for (hook, priority) in [("prerouting", "mangle"), ("forward", "filter"), ("postrouting", "300")] {
        writeln!(text, "chain {hook}{priority} {{\ntype filter hook {hook} priority {priority};").unwrap();
        text += "ip ttl 255 accept\n";
        keys(&mut text);
        text += "}\n";
    }
    text + nat + "}\n"
}

/// A packet of one of the two networks, told by its DSCP; 0 is outside.
fn packet(network: u8, from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
    let mut packet = ip_packet(false, address(from.0), address(to.0), 64, &udp(from.1, to.1, 4));
    set_dscp(&mut packet, network);
    packet
}

fn set_dscp(packet: &mut [u8], class: u8) {
    packet[1] = class << 2;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Two hosts of the same address and port ask the same server; its answers go to their addresses outside; then everything once more, and an error about each.
fn conversation() -> Vec<Arrival> {
    let (inside, server) = (("10.1.0.2", 4000), ("198.51.100.9", 53));
    let mut arrivals = Vec::new();
    for round in 1..=2 {
        for network in 1..=2 {
            let outside = (["203.0.113.1", "203.0.113.2"][usize::from(network) - 1], 4000);
            let mut add = |what: &str, device, packet| {
                arrivals.push(Arrival { what: format!("{what} {network}, round {round}"), device, packet });
            };
            add("request of network", 0, packet(network, inside, server));
            add("answer to network", 1, packet(0, server, outside));
            let translated = packet(network, outside, server);
            let error = icmp_error(false, &translated, &mut TrafficRng::new(1));
            add("error to network", 1, ip_packet(false, address(server.0), address(outside.0), 64, &error));
            add("first request of another port of network", 0, packet(network, ("10.1.0.2", 4001), server));
            add("same tuple in the other network than", 0, packet(3 - network, ("10.1.0.2", 4001), server));
            add("answer to another port of network", 1, packet(0, server, (outside.0, 4001)));
        }
    }
    arrivals
}

const NAT: &str = "chain post {
    type nat hook postrouting priority srcnat
    oifname wan0 ip dscp 1 snat to 203.0.113.1
    oifname wan0 ip dscp 2 snat to 203.0.113.2
}
";

fn compare(raw: &'static str) {
    in_own_thread(move || compare_rule_counters(&ruleset(raw, NAT), &Additions::default(), &conversation()));
}

#[test]
fn zone_of_the_original_direction_is_that_of_linux() {
    compare("ip dscp 1 ct original zone set 1\nip dscp 2 ct original zone set 2\n");
}

#[test]
fn zone_of_the_reply_direction_is_that_of_linux() {
    compare(
        "ip dscp 1 ct reply zone set 1\nip dscp 2 ct reply zone set 2\niifname wan0 ct reply zone set ip daddr map { 203.0.113.1 : 1, 203.0.113.2 : 2 }\n",
    );
}

#[test]
fn zone_of_both_directions_is_that_of_linux() {
    compare(
        "ip dscp 1 ct zone set 1\nip dscp 2 ct zone set 2\nct zone set ip daddr map { 203.0.113.1 : 1, 203.0.113.2 : 2 }\n",
    );
}

#[test]
fn first_zone_of_a_packet_wins_as_in_linux() {
    compare("ip dscp 1 ct zone set 1\nct original zone set 2\nnotrack\n");
}

#[test]
fn zone_after_notrack_is_that_of_linux() {
    compare("notrack\nip dscp 1 ct original zone set 0\nnotrack\n");
}

/// Masquerading two networks of the same addresses behind one: the second connection of a tuple gets a port of its own, and each answer finds its network.
#[test]
fn overlapping_networks_share_one_address() {
    let rules = "table ip t {
        chain raw { type filter hook prerouting priority raw; ip dscp 1 ct original zone set 1; ip dscp 2 ct original zone set 2; }
        chain marks { type filter hook prerouting priority mangle; ct direction original ct mark set ip dscp; }
        chain post { type nat hook postrouting priority srcnat; oifname wan0 masquerade; }
        chain last { type filter hook postrouting priority 300; ct direction reply ct mark 1 ip dscp set 1; ct direction reply ct mark 2 ip dscp set 2; }
    }";
    let mut router = crate::router_of(rules);
    let mut send = |packet: &[u8], iif| {
        router.handle(packet, iif, crate::now()).unwrap();
        router.poll_output().unwrap().into_packet()
    };
    let mut ports = Vec::new();
    for network in 1..=2 {
        let out = send(&packet(network, ("10.1.0.2", 4000), ("198.51.100.9", 53)), 1);
        assert_eq!(out[12..16], [192, 0, 2, 1]);
        ports.push(u16::from_be_bytes([out[20], out[21]]));
    }
    assert_ne!(ports[0], ports[1]);
    for (network, port) in [(1, ports[0]), (2, ports[1])] {
        let back = send(&packet(0, ("198.51.100.9", 53), ("192.0.2.1", port)), 2);
        assert_eq!(
            (back[1] >> 2, &back[16..20], &back[22..24]),
            (network, &[10, 1, 0, 2][..], &4000_u16.to_be_bytes()[..])
        );
    }
    let zones: Vec<(u16, u16)> = router
        .engine()
        .entries(crate::now())
        .map(|entry| (entry.zone.id_for(Direction::Original), entry.zone.id_for(Direction::Reply)))
        .collect();
    assert_eq!(zones.len(), 2);
    assert!(zones.contains(&(1, 0)) && zones.contains(&(2, 0)), "{zones:?}");
}
