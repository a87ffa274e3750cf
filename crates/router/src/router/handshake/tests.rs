//! Which handshakes are offered to a data path, and that asking for it changes nothing.
use super::*;
use crate::known_flow::hold_tests::{OBJECTS, RULES};
use crate::known_flow::tests::{CLIENT, SERVER, at, router_with, try_router_with};
use crate::{Egress, KnownFlow};
use etherparse::PacketBuilder;
use keepstate_engine::{ProtocolInfo, Status, TcpState};
use std::net::Ipv4Addr;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;

/// A segment between client and server, as it comes in.
fn segment(from: Ipv4Addr, to: Ipv4Addr, (seq, ack): (u32, u32), flags: u8, data: &[u8]) -> Vec<u8> {
    let (sport, dport) = if from == SERVER { (80, 4000) } else { (4000, 80) };
    let mut tcp = PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp(sport, dport, seq, 9000);
    tcp = if flags & SYN != 0 { tcp.syn() } else { tcp };
    tcp = if flags & FIN != 0 { tcp.fin() } else { tcp };
    tcp = if flags & ACK != 0 { tcp.ack(ack) } else { tcp };
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, data).unwrap();
    bytes
}

fn syn() -> Vec<u8> {
    segment(CLIENT, SERVER, (100, 0), SYN, &[])
}

/// The client's first SYN, and what is offered after it.
fn begin(router: &mut Router) -> Option<[KnownFlow; 2]> {
    let _ = router.handle(&syn(), 1, at(1000));
    while router.poll_output().is_some() {}
    router.poll_offload()
}

/// What else than the table's own view may have changed: rules and their state, drops, counters, log lines.
fn seen_from_outside(router: &mut Router) -> String {
    let log: Vec<String> = std::iter::from_fn(|| router.poll_log()).map(|line| line.text).collect();
    let program = router.program();
    let drops = format!("{:?}", program.rule_drops());
    format!("{}\n{drops}\n{:?}\n{:?}\n{log:?}", program.list(), router.counters(), router.engine().counters())
}

#[test]
fn probes_change_nothing_and_offer_what_may_go() {
    let mut wrong = Vec::new();
    for (rule, holds) in RULES {
        let hook = if rule.starts_with("socket") { "prerouting" } else { "forward" };
        let rules = format!(
            "table ip t {{ {OBJECTS}
                chain f {{ type filter hook {hook} priority 0; policy accept; {rule}; }} }}"
        );
        let (mut asked, mut plain) = (router_with(&rules).with_handshake_offload(), try_router_with(&rules).unwrap());
        let offered = begin(&mut asked);
        assert_eq!(begin(&mut plain), None, "{rule}");
        if plain.counters().dropped > 0 {
            assert_eq!(offered, None, "{rule}");
            continue;
        }
        // The status changes while the handshake goes on.
        if offered.is_some() != (holds.is_empty() && !rule.starts_with("ct status")) {
            wrong.push(format!("{rule}: offered: {}", offered.is_some()));
        }
        let (ours, expected) = (seen_from_outside(&mut asked), seen_from_outside(&mut plain));
        if ours != expected {
            wrong.push(format!("{rule}: a probe has left traces:\n{ours}\nnot\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_for_new_connections_alone_hold_no_handshake() {
    for (rules, is_offered) in [
        ("ct state established,related accept; ct state new tcp dport 80 accept; drop", true),
        (
            "ct state vmap { established : accept, related : accept, invalid : drop }; limit rate 100/second counter accept; drop",
            true,
        ),
        ("ct state new add @filled { ip saddr }; ct state new log prefix \"new\"; accept", true),
        ("ct state established counter accept; accept", true),
        // The server's answers are judged too.
        ("iifname wan0 accept; drop", false),
        ("ct state new accept; iifname lan0 log; accept", false),
        ("ct state new accept; tcp flags ack tcp window > 0 accept; drop", false),
        ("ct state new accept; reject with tcp reset", false),
        ("ct direction reply flow add @x; accept", false),
        // The server's answer has SYN; FIN is not in a handshake.
        ("tcp flags syn tcp option maxseg size set 1400; accept", false),
        ("tcp flags fin counter; tcp flags rst counter; accept", true),
        ("tcp flags psh counter; accept", false),
    ] {
        let flowtable = if rules.contains("flow add") { "flowtable x { hook ingress priority 0; }" } else { "" };
        let rules = format!(
            "table ip t {{ set filled {{ type ipv4_addr; flags dynamic; }} {flowtable}
                chain f {{ type filter hook forward priority 0; policy accept; {rules}; }} }}"
        );
        let mut router = router_with(&rules).with_handshake_offload();
        assert_eq!(begin(&mut router).is_some(), is_offered, "{rules}");
        assert_eq!(router.output_len(), 0, "nobody was answered: {rules}");
    }
}

/// With NAT: what the data path is told, then the segments that it tells; the table is what it would be had they come here.
#[test]
fn a_told_handshake_and_end_leave_the_table_as_if_they_had_come() {
    const RULES: &str = "table ip t {
        chain pre { type nat hook prerouting priority -100; ip daddr 192.0.2.254 tcp dport 80 dnat to 10.0.0.9; }
        chain f { type filter hook forward priority 0; policy drop; ct state established counter accept; ct state new accept; }
    }";
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
    let (mut router, mut twin) = (router_with(RULES).with_handshake_offload(), router_with(RULES));
    let first = segment(CLIENT, OUTSIDE, (100, 0), SYN, &[]);
    router.handle(&first, 1, at(1000)).unwrap();
    twin.handle(&first, 1, at(1000)).unwrap();
    let flows = router.poll_offload().unwrap();
    assert_eq!(flows.map(|flow| flow.opening), [Some(101); 2]);
    assert_eq!(flows.map(|flow| flow.source), [FlowSource::Interface(1), FlowSource::Interface(2)]);
    assert_eq!((flows[0].translated.destination, flows[1].translated.source), (SERVER.into(), OUTSIDE.into()));
    let conn_id = flows[0].conn_id;
    let hello = b"hello";
    for (number, (from_server, numbers, flags, data)) in [
        (true, (500, 101), SYN | ACK, &b""[..]),
        (false, (101, 501), ACK, b""),
        (false, (101, 501), FIN | ACK, hello),
        (true, (501, 107), ACK, b""),
        (true, (501, 107), FIN | ACK, b""),
        (false, (107, 502), ACK, b""),
    ]
    .into_iter()
    .enumerate()
    {
        let now = at(2000 + number as u64 * 1000);
        let (from, to, iif) = if from_server { (SERVER, CLIENT, 2) } else { (CLIENT, OUTSIDE, 1) };
        let packet = segment(from, to, numbers, flags, data);
        twin.handle(&packet, iif, now).unwrap();
        let direction = if from_server { Direction::Reply } else { Direction::Original };
        router.note_segment((conn_id, direction), &packet[..packet.len() - data.len()], now);
        let entries = [&router, &twin].map(|router| router.engine().entries(now).next().unwrap());
        let of = entries.each_ref().map(|entry| (entry.status - Status::OFFLOAD, entry.timeout));
        assert_eq!(of[0], of[1], "{number}");
        let state = |protocol: &ProtocolInfo| match protocol {
            ProtocolInfo::Tcp { state, .. } => *state,
            _ => TcpState::None,
        };
        assert_eq!(state(&entries[0].protocol), state(&entries[1].protocol), "{number}");
    }
    assert_eq!(router.poll_revoked(), Some(conn_id), "it has closed");
    router.forget_flow(conn_id);
}

#[test]
fn a_flood_of_syns_leaves_room_for_connections() {
    let mut router = router_with("").with_handshake_offload();
    let mut offered = 0;
    for number in 0..20_000_u32 {
        let source = Ipv4Addr::new(192, 0, 2, (number % 200) as u8 + 1);
        let mut packet = Vec::new();
        let sport = 1024 + (number / 200) as u16;
        PacketBuilder::ipv4(source.octets(), SERVER.octets(), 64)
            .tcp(sport, 80, 1, 9000)
            .syn()
            .write(&mut packet, &[])
            .unwrap();
        let _ = router.handle(&packet, 1, at(1000));
        assert!(matches!(router.poll_output(), None | Some(Egress::Forward { .. })));
        offered += usize::from(router.poll_offload().is_some());
    }
    assert_eq!(offered, 16_384);
    // Where one has become a connection, there is room for another.
    assert_eq!(router.flow_offload_stats().unwrap().flows, offered);
}

#[test]
fn what_is_no_plain_syn_is_not_offered() {
    for (packet, what) in [
        (segment(CLIENT, SERVER, (100, 0), SYN, b"early"), "data with the SYN"),
        (segment(CLIENT, SERVER, (100, 7), ACK, b""), "picked up in the middle"),
    ] {
        let mut router = router_with("").with_handshake_offload();
        router.handle(&packet, 1, at(1000)).unwrap();
        assert_eq!(router.poll_offload(), None, "{what}");
    }
    let mut router = router_with("");
    assert_eq!(begin(&mut router), None, "the data path forwards none");
}

/// The usual clamp of the segment size, and matches of the flags that make a segment other than ordinary: the connection goes to the data path with its handshake done, its FIN only if nobody asks for it.
#[test]
fn matches_of_syn_and_fin_hold_no_established_connection() {
    for (rule, told) in [
        ("tcp flags syn tcp option maxseg size set 1400; accept", Some(false)),
        ("tcp flags & (syn | rst) == syn tcp option maxseg size set 1400; accept", Some(false)),
        ("tcp flags & (fin | syn | rst | ack) == syn counter; accept", Some(true)),
        ("tcp flags fin counter; accept", Some(true)),
        ("tcp flags syn accept; tcp flags ! syn accept; drop", Some(false)),
        ("tcp flags & (fin | syn | rst | psh) == psh counter; accept", None),
        ("tcp flags == ack counter; accept", None),
        ("tcp flags syn accept; ct state established accept; drop", Some(false)),
    ] {
        let rules =
            format!("table ip t {{ chain f {{ type filter hook forward priority 0; policy accept; {rule}; }} }}");
        let mut router = router_with(&rules).with_handshake_offload();
        let packets = [
            segment(CLIENT, SERVER, (100, 0), SYN, b""),
            segment(SERVER, CLIENT, (500, 101), SYN | ACK, b""),
            segment(CLIENT, SERVER, (101, 501), ACK, b""),
            segment(SERVER, CLIENT, (501, 101), ACK, b"hello"),
            segment(CLIENT, SERVER, (101, 506), ACK, b"hello"),
        ];
        let mut offered = None;
        for (number, packet) in packets.iter().enumerate() {
            let iif = if number % 2 == 1 { 2 } else { 1 };
            router.handle(packet, iif, at(1000)).unwrap();
            while router.poll_output().is_some() {}
            let flows = router.poll_offload();
            offered = offered.or(flows.map(|flows| (number, flows[0].fin_read)));
        }
        assert_eq!(offered.map(|(_, fin_read)| fin_read), told, "{rule}: {offered:?}");
    }
}
