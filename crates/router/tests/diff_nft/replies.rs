//! What leaves for single packets, byte by byte: what rejects answer, and what is forwarded.
use crate::kernel::Kernel;
use crate::rule_counters::{Arrival, address, in_own_thread};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ACK, FIN, Message, PSH, RST, SYN, echo, ip_packet, tcp, udp};
use crate::{hex, now, router_of};
use keepstate_router::{Egress, Router};

/// Packets that leave are equal but for the identification of an ICMPv4 error and the flow label of a packet of Linux's own.
pub fn compare_output(rules: &str, arrivals: &[Arrival]) -> bool {
    let Some(mut kernel) = Kernel::new(rules) else { return false };
    let wrong = differences(&mut kernel, &mut router_of(rules), arrivals, normalize);
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
    true
}

/// What leaves the two routers and is not equal once it is normalized.
pub fn differences(
    kernel: &mut Kernel,
    router: &mut Router,
    arrivals: &[Arrival],
    normalize: fn(Vec<u8>) -> Vec<u8>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for Arrival { what, device, packet } in arrivals {
        let result = router.handle(packet, *device as u32 + 1, now());
        let mut ours = Vec::new();
        while let Some(out) = router.poll_output() {
            if let Egress::Forward { oif, packet, .. } = out {
                ours.push((oif as usize - 1, normalize(packet)));
            }
        }
        let theirs: Vec<_> = kernel
            .handle(packet, *device, ours.len())
            .into_iter()
            .map(|(device, out)| (device, normalize(out)))
            .collect();
        if ours != theirs {
            let show = |out: &[(usize, Vec<u8>)]| -> Vec<String> {
                out.iter().map(|(device, bytes)| format!("{device} {}", hex(bytes))).collect()
            };
            wrong.push(format!("{what} ({result:?}):\n  Linux {:?}\n  ours  {:?}", show(&theirs), show(&ours)));
        }
    }
    wrong
}

fn normalize(mut bytes: Vec<u8>) -> Vec<u8> {
    match bytes[0] >> 4 {
        4 if bytes[9] == 1 && !matches!(bytes[20], 0 | 8) => {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
        6 if bytes[6] == 58 && bytes[40] < 128 => bytes[1..4].fill(0),
        _ => (),
    }
    bytes
}

/// Every form of reject, by port.
const REJECTS: [&str; 18] = [
    "reject",
    "reject with tcp reset",
    "reject with icmpx port-unreachable",
    "reject with icmpx no-route",
    "reject with icmpx host-unreachable",
    "reject with icmpx admin-prohibited",
    "reject with icmp net-unreachable",
    "reject with icmp host-unreachable",
    "reject with icmp prot-unreachable",
    "reject with icmp port-unreachable",
    "reject with icmp net-prohibited",
    "reject with icmp host-prohibited",
    "reject with icmp admin-prohibited",
    "reject with icmpv6 no-route",
    "reject with icmpv6 admin-prohibited",
    "reject with icmpv6 addr-unreachable",
    "reject with icmpv6 port-unreachable",
    "reject with icmpv6 policy-fail",
];

#[test]
fn replies_of_every_reject_are_those_of_linux() {
    let mut rules = "table inet t {\nchain c {\ntype filter hook forward priority filter;\n".to_owned();
    let mut arrivals = Vec::new();
    for (at, reject) in REJECTS.iter().enumerate() {
        let port = 1000 + at as u16;
        let family = if reject.contains("icmp ") {
            "meta nfproto ipv4 "
        } else if reject.contains("icmpv6") {
            "meta nfproto ipv6 "
        } else {
            ""
        };
        for protocol in ["tcp", "udp"] {
            if !(reject.contains("tcp") && protocol == "udp") {
                rules += &format!("{family}{protocol} dport {port} {reject}\n");
            }
        }
        for v6 in [false, true] {
            for (what, message) in [
                ("syn", tcp(4000, port, 1000, 0, SYN, 0)),
                ("ack with data", tcp(4001, port, 1000, 7000, ACK | PSH, 10)),
                ("fin", tcp(4002, port, 1000, 7000, FIN | ACK, 3)),
                ("rst", tcp(4003, port, 1000, 0, RST, 0)),
                ("udp", udp(4004, port, 10)),
                ("long udp", udp(4005, port, 1000)),
            ] {
                let mut arrival = from_lan(&format!("{what} to {reject}, IPv6 {v6}"), v6, &message);
                if !v6 {
                    set_tos(&mut arrival.packet, 0x28);
                } else {
                    arrival.packet[0..2].copy_from_slice(&[0x62, 0x80]);
                }
                arrivals.push(arrival);
            }
        }
    }
    rules += "}\n}\n";
    in_own_thread(move || compare_output(&rules, &arrivals));
}

fn set_tos(packet: &mut [u8], tos: u8) {
    packet[1] = tos;
    packet[10..12].fill(0);
    let sum = crate::traffic::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn redirect_about_a_translated_connection_is_dropped_as_in_linux() {
    let rules = "table ip t {
        chain pre { type nat hook prerouting priority dstnat; tcp dport 80 dnat to 10.1.0.3; }
        chain post { type nat hook postrouting priority srcnat; udp dport 53 masquerade; }
    }";
    let mut arrivals = Vec::new();
    let redirect = |quoted: &[u8], code| {
        let mut bytes = vec![5, code, 0, 0, 198, 51, 100, 77];
        bytes.extend(&quoted[..28]);
        Message { protocol: 1, bytes, check_at: Some(2) }
    };
    let (us, inside, server) = (address("192.0.2.1"), address("10.1.0.2"), address("198.51.100.9"));
    let query = udp(4000, 53, 4);
    let plain = udp(4000, 54, 4);
    arrivals.push(from_lan("translated", false, &query));
    arrivals.push(from_lan("not translated", false, &plain));
    let packet = |from, to, message: &Message| ip_packet(false, from, to, 64, message);
    for (what, device, packet) in [
        ("redirect about the translated", 1, packet(server, us, &redirect(&packet(us, server, &query), 1))),
        ("redirect about the other", 1, packet(server, inside, &redirect(&packet(inside, server, &plain), 1))),
        (
            "redirect about its answer",
            0,
            packet(inside, server, &redirect(&packet(server, inside, &udp(53, 4000, 4)), 0)),
        ),
        ("redirect about nothing", 1, packet(server, inside, &redirect(&packet(inside, server, &udp(7, 7, 4)), 1))),
    ] {
        arrivals.push(Arrival { what: what.to_owned(), device, packet });
    }
    in_own_thread(move || compare_output(rules, &arrivals));
}

/// ICMPv6 redirects (RFC 4861, 4.5): from a router on the link, so a forwarding host passes none of them on; a rule may still see which connection one is about.
#[test]
fn redirect_of_ipv6_is_treated_as_in_linux() {
    let rules = "table ip6 t {
        chain pre { type nat hook prerouting priority dstnat; tcp dport 80 dnat to fd00:1::3; }
        chain post { type nat hook postrouting priority srcnat; udp dport 53 masquerade; }
    }";
    let (us, inside, server) = (address("2001:db8::1"), address("fd00:1::2"), address("2001:db8:f::9"));
    let near = address("fe80::77");
    let redirect = |quoted: &[u8]| {
        let mut bytes = vec![137, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(near);
        bytes.extend(server);
        let padded = quoted[..48].to_vec();
        bytes.extend([4, 1 + (padded.len() / 8) as u8, 0, 0, 0, 0, 0, 0]);
        bytes.extend(padded);
        Message { protocol: 58, bytes, check_at: Some(2) }
    };
    let (query, plain) = (udp(4000, 53, 4), udp(4000, 54, 4));
    let packet = |from, to, hops, message: &Message| ip_packet(true, from, to, hops, message);
    let mut arrivals = vec![from_lan("translated", true, &query), from_lan("not translated", true, &plain)];
    for (source, hops) in [(near, 255), (near, 64), (server, 255), (server, 64)] {
        // About the others a packet from a link-local source gets an ICMP error of Linux's: docs/differences.md.
        let count = if source == near { 2 } else { 4 };
        let cases = [
            ("about the translated", 1, us, packet(us, server, 64, &query)),
            ("about an answer", 0, server, packet(server, inside, 64, &udp(53, 4000, 4))),
            ("about the other", 1, inside, packet(inside, server, 64, &plain)),
            ("about nothing", 1, inside, packet(inside, server, 64, &udp(7, 7, 4))),
        ];
        for (what, device, to, quoted) in cases.into_iter().take(count) {
            let packet = packet(source, to, hops, &redirect(&quoted));
            arrivals.push(Arrival { what: format!("redirect {what}, hop limit {hops}"), device, packet });
        }
    }
    in_own_thread(move || compare_output(rules, &arrivals));
}

/// Next header 59: nothing follows (RFC 8200, 4.7). A router forwards it, with what may lie behind it.
#[test]
fn no_next_header_is_forwarded_as_in_linux() {
    let rules = "table inet t { chain c { type filter hook forward priority 0; ct state invalid,new,established,untracked accept; drop; }; }";
    let nothing = |protocol, bytes: &[u8]| Message { protocol, bytes: bytes.to_vec(), check_at: None };
    let arrivals = [
        from_lan("nothing", true, &nothing(59, &[])),
        from_lan("nothing, with bytes behind", true, &nothing(59, &[1, 2, 3, 4, 5, 6, 7, 8, 9])),
        from_lan("nothing behind destination options", true, &nothing(60, &[59, 0, 1, 4, 0, 0, 0, 0])),
        from_lan("nothing behind a routing header", true, &nothing(43, &[59, 0, 4, 0, 0, 0, 0, 0, 9, 9])),
        from_wan("nothing from outside", true, &nothing(59, &[1])),
        from_wan("protocol 59 of IPv4", false, &nothing(59, &[1, 2, 3, 4])),
        from_lan("echo", true, &echo(true, true, 7)),
    ];
    in_own_thread(move || compare_output(rules, &arrivals));
}
