//! Each selector and statement of the language, alone in a ruleset: whether it keeps a connection with the rules, and why. What goes is proven: packets of every kind are judged as the noted ones were.
use super::tests::{CLIENT, SERVER, at, router_with, try_router_with};
use super::*;
use crate::Router;
use etherparse::PacketBuilder;
use keepstate_rules::HoldReasons as Hold;
use keepstate_wire::checksum::Sum;
use std::net::Ipv4Addr;

/// Sets, maps and objects that the rules name.
pub(crate) const OBJECTS: &str = "
    set plain { type ipv4_addr; elements = { 192.0.2.7, 203.0.113.1 }; }
    set nets { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
    set pairs { type ipv4_addr . inet_service; elements = { 192.0.2.7 . 5000 }; }
    set timed { type ipv4_addr; timeout 1h; elements = { 192.0.2.7 }; }
    set expiring { type ipv4_addr; flags timeout; elements = { 192.0.2.7 timeout 1h }; }
    set ranges { type ipv4_addr; flags interval, timeout; elements = { 192.0.2.0/24 timeout 1h }; }
    set banned { type ipv4_addr; flags timeout; timeout 1h; elements = { 203.0.113.1 }; }
    set filled { type ipv4_addr; flags dynamic; }
    set counted { type ipv4_addr; counter; elements = { 192.0.2.7 }; }
    set limited { type ipv4_addr; flags dynamic; elements = { 192.0.2.7 limit rate 10000/second }; }
    map marks { type ipv4_addr : mark; elements = { 192.0.2.7 : 3 }; }
    map verdicts { type ipv4_addr : verdict; elements = { 203.0.113.1 : drop }; }
    counter c { }
    quota q { over 1000 mbytes }
    limit l { rate 100000/second }
    ct timeout t { protocol udp; policy = { replied : 100 }; }
    ct expectation e { protocol udp; dport 9; timeout 1h; size 1; l3proto ip; }
    chain other { accept; }
";

/// Rules, and what keeps connections from going; nothing if they may go.
pub(crate) const RULES: &[(&str, Hold)] = &[
    // Constant for a connection's packets in one direction.
    ("accept", Hold::empty()),
    ("counter", Hold::empty()),
    ("counter name c", Hold::empty()),
    ("ip saddr 203.0.113.1 drop", Hold::empty()),
    ("ip daddr 203.0.113.0/24 drop", Hold::empty()),
    ("ip protocol 6 drop", Hold::empty()),
    ("ip version 6 drop", Hold::empty()),
    ("udp sport 9 drop", Hold::empty()),
    ("udp dport { 7, 9 } drop", Hold::empty()),
    ("th dport 9 drop", Hold::empty()),
    ("iif wan0 counter", Hold::empty()),
    ("iifname \"wan*\" counter", Hold::empty()),
    ("oif wan0 counter", Hold::empty()),
    ("oifname wan9 drop", Hold::empty()),
    ("iifgroup 7 drop", Hold::empty()),
    ("iiftype 1 counter", Hold::empty()),
    ("meta iifkind \"veth\" drop", Hold::empty()),
    ("meta l4proto tcp drop", Hold::empty()),
    ("meta protocol ip6 drop", Hold::empty()),
    ("meta mark 7 drop", Hold::empty()),
    ("meta mark set 7", Hold::empty()),
    ("meta priority set 1:1", Hold::empty()),
    ("meta priority set 1:1 meta priority 1:1 counter", Hold::MARK),
    ("ct state invalid drop", Hold::empty()),
    ("ct state new limit rate 1/hour accept", Hold::empty()),
    ("ct direction reply counter", Hold::empty()),
    ("ct status dnat drop", Hold::empty()),
    ("ct status snat drop", Hold::empty()),
    ("ct status assured counter", Hold::empty()),
    ("ct mark 9 drop", Hold::empty()),
    ("ct mark set 9", Hold::empty()),
    // Every packet of the connection chooses the same.
    ("ct event set new,destroy", Hold::empty()),
    // Of new connections only.
    ("ct expectation set e", Hold::empty()),
    ("ct zone 7 drop", Hold::empty()),
    ("ct helper \"ftp\" drop", Hold::empty()),
    ("ct original ip saddr 203.0.113.1 drop", Hold::empty()),
    ("meta l4proto udp ct reply proto-dst 9 drop", Hold::empty()),
    ("ct protocol 6 drop", Hold::empty()),
    ("fib saddr . iif oif missing drop", Hold::empty()),
    ("fib daddr type broadcast drop", Hold::empty()),
    ("ip saddr @plain counter", Hold::empty()),
    ("ip saddr @nets counter", Hold::empty()),
    // It has no element of this connection that could expire.
    ("ip saddr @banned drop", Hold::empty()),
    ("ip saddr . udp sport @pairs counter", Hold::empty()),
    ("ip saddr vmap @verdicts", Hold::empty()),
    ("ip saddr vmap { 203.0.113.1 : drop }", Hold::empty()),
    ("meta mark set ip saddr map @marks", Hold::empty()),
    ("jump other", Hold::empty()),
    ("jhash ip saddr . udp sport mod 64 seed 0x1 == 7 counter", Hold::empty()),
    ("symhash mod 64 == 7 counter", Hold::empty()),
    // A part of the packet that the next one may have otherwise.
    ("ip dscp cs1 drop", Hold::PACKET_CONTENT),
    ("ip ecn ce drop", Hold::PACKET_CONTENT),
    ("ip ttl 7 drop", Hold::PACKET_CONTENT),
    ("ip length > 900 drop", Hold::PACKET_CONTENT),
    ("ip id 9 drop", Hold::PACKET_CONTENT),
    ("ip hdrlength 9 drop", Hold::PACKET_CONTENT),
    ("ip frag-off & 0x1fff != 0 drop", Hold::PACKET_CONTENT),
    ("ip checksum 9 drop", Hold::PACKET_CONTENT),
    ("udp length > 900 drop", Hold::PACKET_CONTENT),
    ("udp checksum 9 drop", Hold::PACKET_CONTENT),
    ("meta length > 900 drop", Hold::PACKET_CONTENT),
    ("meta pkttype broadcast drop", Hold::PACKET_CONTENT),
    ("@th,64,8 1 drop", Hold::PACKET_CONTENT),
    ("@nh,8,8 1 drop", Hold::PACKET_CONTENT),
    ("ip option lsrr exists drop", Hold::PACKET_CONTENT),
    ("jhash ip ttl mod 64 == 7 counter", Hold::PACKET_CONTENT),
    ("ip saddr . ip ttl { 203.0.113.1 . 9 } drop", Hold::PACKET_CONTENT),
    ("meta priority 7 drop", Hold::MARK),
    ("ct label 7 drop", Hold::MARK),
    // What has been, or the time.
    ("limit rate 100000/second", Hold::METER),
    ("limit rate over 100000/second drop", Hold::METER),
    ("limit name l", Hold::METER),
    ("quota over 1000 mbytes drop", Hold::METER),
    ("quota name q drop", Hold::METER),
    ("ct count over 1000 drop", Hold::METER),
    ("ip saddr @timed counter", Hold::DYNAMIC_SET),
    ("ip saddr @expiring counter", Hold::DYNAMIC_SET),
    ("ip saddr @ranges counter", Hold::DYNAMIC_SET),
    ("ip saddr @filled counter; add @filled { ip daddr }", Hold::DYNAMIC_SET),
    ("ip saddr @counted counter", Hold::DYNAMIC_SET),
    ("ip saddr @limited counter", Hold::DYNAMIC_SET),
    ("add @filled { ip saddr }", Hold::DYNAMIC_SET),
    ("update @filled { ip saddr }", Hold::DYNAMIC_SET),
    ("delete @filled { ip saddr }", Hold::DYNAMIC_SET),
    ("meter m { ip saddr limit rate 100000/second }", Hold::DYNAMIC_SET),
    ("ct packets > 1000000 drop", Hold::CT_COUNTER),
    ("ct original bytes > 1000000 drop", Hold::CT_COUNTER),
    ("ct avgpkt > 1000000 drop", Hold::CT_COUNTER),
    ("ct expiration < 1s counter", Hold::CT_COUNTER),
    ("meta hour \"03:00\"-\"03:01\" drop", Hold::TIME),
    ("meta day 6 drop", Hold::TIME),
    ("meta time < \"2001-01-01 00:00:00\" counter", Hold::TIME),
    ("numgen inc mod 1000000 == 999999 drop", Hold::NUMGEN),
    ("numgen random mod 1000000000 == 999999999 drop", Hold::NUMGEN),
    ("meta random 1 drop", Hold::NUMGEN),
    ("meta mark set numgen inc mod 2", Hold::NUMGEN),
    // Whose packet it is, and which way it goes.
    ("meta skuid 0 drop", Hold::SOCKET),
    ("meta skgid 0 drop", Hold::SOCKET),
    ("meta cgroup 1 drop", Hold::SOCKET),
    ("socket transparent 1 drop", Hold::SOCKET),
    ("rt classid 7 drop", Hold::SOCKET),
    // What is done to each packet.
    ("log", Hold::LOG),
    ("log prefix \"x\" accept", Hold::LOG),
    ("ip dscp set cs1", Hold::REWRITE),
    ("ip ttl set 64", Hold::REWRITE),
    ("meta nftrace set 1", Hold::REWRITE),
    ("ct label set 7", Hold::REWRITE),
    ("ct timeout set \"t\"", Hold::REWRITE),
    ("dup to 10.0.0.77", Hold::REWRITE),
];

/// What of a packet may differ while its connection is the same.
#[derive(Clone, Copy, Default)]
struct Variation {
    payload: u8,
    tos: u8,
    id: u8,
    ttl: Option<u8>,
    days_later: u64,
}

fn varied(from: Ipv4Addr, to: Ipv4Addr, kind: Variation) -> Vec<u8> {
    let payload = vec![kind.payload; usize::from(kind.payload) * 4];
    let length = u8::try_from(28 + payload.len() % 200).unwrap();
    let payload = &payload[..payload.len() % 200];
    let mut packet = vec![0x45, kind.tos, 0, length, 0, kind.id, 0, 0, kind.ttl.unwrap_or(64), 17, 0, 0];
    packet.extend([from.octets(), to.octets()].concat());
    let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend([0x13, 0x88, 0x13, 0x88, 0, length - 20, 0, 0]);
    packet.extend(payload);
    packet
}

/// One packet through the router: whether it passed, and its mark then.
fn passes(router: &mut Router, from: Ipv4Addr, to: Ipv4Addr, kind: Variation, now: u64) -> Option<u32> {
    let interface = if from == CLIENT { 1 } else { 2 };
    let now = at(now + kind.days_later * 86_400_000);
    let passed = router.handle(&varied(from, to, kind), interface, now).is_ok();
    let mark = std::iter::from_fn(|| router.poll_marked_output()).last().map(|marked| marked.mark);
    mark.filter(|_| passed)
}

#[test]
fn each_selector_and_statement_holds_or_goes() {
    let mut wrong = Vec::new();
    for (rule, holds) in RULES {
        let hook = if rule.starts_with("socket") { "prerouting" } else { "forward" };
        let rules = format!(
            "table ip t {{ {OBJECTS}
                chain f {{ type filter hook {hook} priority 0; policy accept; {rule}; }} }}"
        );
        let mut router = match try_router_with(&rules) {
            Ok(router) => router,
            Err(error) => {
                wrong.push(format!("{rule}: {error}"));
                continue;
            }
        };
        let mut offered = None;
        for now in [1000, 4000, 4001, 4002, 4003] {
            for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
                if passes(&mut router, from, to, Variation::default(), now).is_none() {
                    wrong.push(format!("{rule}: drops at {now}"));
                }
            }
            offered = offered.or(router.poll_offload());
        }
        let held = router.flow_offload_stats().unwrap().held;
        let reasons = held.iter().fold(Hold::empty(), |all, (reason, _)| all | *reason);
        if reasons != *holds || offered.is_some() != holds.is_empty() {
            wrong.push(format!("{rule}: held by {reasons:?}, offered: {}", offered.is_some()));
            continue;
        }
        // What the data path would do with any packet, the rules do.
        for flow in offered.into_iter().flatten() {
            let (from, to) = if flow.direction == Direction::Original { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
            for kind in [
                Variation { payload: 1, ..Variation::default() },
                Variation { payload: 44, id: 9, ..Variation::default() },
                Variation { tos: 0x23, ..Variation::default() },
                Variation { ttl: Some(7), ..Variation::default() },
                Variation { days_later: 0, id: 255, payload: 3, tos: 0xb8, ttl: Some(255) },
            ] {
                let mark = passes(&mut router, from, to, kind, 4100);
                if mark != Some(flow.set_mark.unwrap_or(0)) {
                    wrong.push(format!("{rule}: {:?} gets {mark:?}", flow.direction));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a connection is only later, when both its directions have been seen before: its first packets' judgement does not count.
#[test]
fn a_status_that_still_changes_is_not_relied_upon() {
    let rules =
        "table ip t { chain f { type filter hook forward priority 0; policy accept; ct status assured drop; } }";
    let mut router = router_with(rules);
    for now in [1000, 4000, 4001] {
        for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            passes(&mut router, from, to, Variation::default(), now);
        }
    }
    assert_eq!(passes(&mut router, CLIENT, SERVER, Variation::default(), 4002), None);
    assert_eq!(router.poll_offload(), None, "the rules drop its packets now");
}

/// A handshake's second and third segment are enough, unless rules have asked for what the third one changes.
#[test]
fn a_tcp_connection_is_offered_with_its_third_segment() {
    for (rule, offered_at) in [("ct state established,related accept", 3), ("ct status assured counter", 5)] {
        let mut router = router_with(&format!(
            "table ip t {{ chain f {{ type filter hook forward priority 0; policy accept; {rule}; }} }}"
        ));
        let (client, server) = (CLIENT.octets(), SERVER.octets());
        let to_server = || PacketBuilder::ipv4(client, server, 64);
        let to_client = || PacketBuilder::ipv4(server, client, 64);
        let segments = [
            to_server().tcp(4000, 80, 100, 9000).syn(),
            to_client().tcp(80, 4000, 500, 9000).syn().ack(101),
            to_server().tcp(4000, 80, 101, 9000).ack(501),
            to_server().tcp(4000, 80, 101, 9000).ack(501),
            to_client().tcp(80, 4000, 501, 9000).ack(101),
        ];
        for (number, segment) in segments.into_iter().enumerate() {
            let mut packet = Vec::new();
            segment.write(&mut packet, b"").unwrap();
            router.handle(&packet, if [1, 4].contains(&number) { 2 } else { 1 }, at(1000)).unwrap();
            let is_offered = router.poll_offload().is_some();
            assert_eq!(is_offered, number + 1 == offered_at, "{rule}: segment {}", number + 1);
        }
    }
}

/// Rules that ask for routes are asked again when those have changed, of connections of the machine itself too.
#[test]
fn routes_that_rules_have_asked_for_are_followed() {
    let us = Ipv4Addr::new(192, 0, 2, 254);
    let mut router = router_with(
        "table ip t { chain p { type filter hook prerouting priority 0; policy accept; fib saddr . iif oif missing drop; } }",
    );
    let mut offered = None;
    for now in [1000, 4000, 4001, 4002] {
        router.handle(&varied(CLIENT, us, Variation::default()), 1, at(now)).unwrap();
        router.handle_output(&mut varied(us, CLIENT, Variation::default()), None, 1, at(now)).unwrap();
        while router.poll_output().is_some() {}
        offered = offered.or(router.poll_offload());
    }
    let conn_id = offered.unwrap()[0].conn_id;
    let route = |prefix: [u8; 4], oif| {
        let route = crate::Route::new(prefix.into(), 30, oif);
        crate::FibChange::Route(vec![route], crate::RoutePlacement::Last)
    };
    router.change_fib([route([198, 51, 100, 0], 2)]);
    assert_eq!(router.poll_revoked(), None);
    // The client is behind the other interface now.
    router.change_fib([route([192, 0, 2, 4], 2)]);
    assert_eq!(router.poll_revoked(), Some(conn_id));
    assert!(router.handle(&varied(CLIENT, us, Variation::default()), 1, at(5000)).is_err());
}
