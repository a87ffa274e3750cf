//! Which classes of new connections are found, and the proof that every connection of one is judged as the class says.
use super::*;
use crate::known_flow::hold_tests::{OBJECTS, RULES};
use crate::known_flow::tests::{CLIENT, SERVER, at, router_with, try_router_with};
use crate::{DropReason, Egress, FlowReport, FlowTarget, KnownFlow};
use etherparse::{IpHeaders, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpOptionElement};
use keepstate_engine::{Direction, FlowStats, Instant};
use keepstate_wire::Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Client and server of each family; then with the router itself as the client.
const ENDS: [[IpAddr; 2]; 4] = [
    [IpAddr::V4(CLIENT), IpAddr::V4(SERVER)],
    [IpAddr::V6(CLIENT_V6), IpAddr::V6(SERVER_V6)],
    [OWN, IpAddr::V4(SERVER)],
    [OWN_V6, IpAddr::V6(SERVER_V6)],
];
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

/// A first SYN whose content differs with its port: hop limit, window, numbers, options, ECN; of IPv6 the flow label.
fn syn([client, server]: [IpAddr; 2], port: u16) -> Vec<u8> {
    let (odd, hops) = (port % 2 == 1, 32 + (port % 64) as u8);
    let ip = match (client, server) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            let mut header = Ipv4Header::new(0, hops, 6.into(), client.octets(), server.octets()).unwrap();
            header.identification = port;
            header.dont_fragment = odd;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(client), IpAddr::V6(server)) => {
            let flow_label = Ipv6FlowLabel::try_new(u32::from(port) * 9).unwrap();
            let (source, destination) = (client.octets(), server.octets());
            let header = Ipv6Header { flow_label, hop_limit: hops, source, destination, ..Ipv6Header::default() };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => panic!("of two families"),
    };
    let tcp = PacketBuilder::ip(ip).tcp(port, 80, u32::from(port) * 77_777, 1000 + port).syn();
    let tcp = if odd { tcp.ece().cwr() } else { tcp };
    let options = [TcpOptionElement::MaximumSegmentSize(1000 + port % 400), TcpOptionElement::WindowScale(3)];
    let tcp = tcp.options(options.get(..usize::from(port % 3)).unwrap_or_default()).unwrap();
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[]).unwrap();
    bytes
}

/// A first SYN comes in by interface 1, or the router itself sends it by interface 2.
fn begin(router: &mut Router, ends: [IpAddr; 2], port: u16, now: Instant) -> Result<(), DropReason> {
    if [OWN, OWN_V6].contains(&ends[0]) {
        router.handle_output(&mut syn(ends, port), None, 2, now)
    } else {
        router.handle(&syn(ends, port), 1, now)
    }
}

/// The chain that it passes.
fn hook_of(ends: [IpAddr; 2]) -> &'static str {
    if [OWN, OWN_V6].contains(&ends[0]) { "output" } else { "forward" }
}

/// Those whose packets rules of a table's family see.
fn ends_of(table: &str) -> impl Iterator<Item = [IpAddr; 2]> {
    ENDS.into_iter().filter(move |ends| table == "inet" || ends[0].is_ipv6() == (table == "ip6"))
}

/// The class that the router has found after two connections between these ends, if it has.
fn learn(router: &mut Router, ends: [IpAddr; 2]) -> Option<SynClass> {
    learn_from(router, ends, 4000)
}

fn learn_from(router: &mut Router, ends: [IpAddr; 2], first: u16) -> Option<SynClass> {
    for port in [first, first + 1] {
        assert_eq!(router.poll_syn_class(), None);
        let _ = begin(router, ends, port, at(1000));
        while router.poll_output().is_some() {}
        if let Some([original, reply]) = router.poll_offload() {
            establish(router, &original, &reply, port);
        }
    }
    router.poll_syn_class()
}

/// The data path tells of the rest of a handshake.
fn establish(router: &mut Router, original: &KnownFlow, reply: &KnownFlow, port: u16) {
    let seq = u32::from(port) * 77_777;
    for (of, flow, numbers) in [(Direction::Reply, reply, None), (Direction::Original, original, Some(seq + 1))] {
        let tuple = flow.tuple;
        let ip = match (tuple.source, tuple.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            _ => panic!("of two families"),
        };
        let tcp = ip.tcp(tuple.source_key, tuple.destination_key, numbers.unwrap_or(500), 9000);
        let tcp = if numbers.is_some() { tcp.ack(501) } else { tcp.syn().ack(seq + 1) };
        let mut headers = Vec::new();
        tcp.write(&mut headers, &[]).unwrap();
        router.note_segment((flow.conn_id, of), &headers, at(1000));
    }
}

/// A server that does not answer.
#[test]
fn a_class_is_found_once_a_connection_was_established() {
    for ends in ENDS {
        let mut router = router_of("").unwrap();
        for port in 4000..4010 {
            begin(&mut router, ends, port, at(1000)).unwrap();
            let [original, reply] = router.poll_offload().unwrap();
            assert_eq!(router.poll_syn_class(), None);
            if port == 4009 {
                establish(&mut router, &original, &reply, port);
            }
        }
        begin(&mut router, ends, 4010, at(1000)).unwrap();
        assert!(router.poll_syn_class().is_some());
    }
}

/// What the data path tells of a packet.
fn a_packet_of(flow: &KnownFlow) -> FlowReport {
    let KnownFlow { conn_id, direction, way, .. } = *flow;
    let stats = FlowStats { conn_id, direction, packets: 1, bytes: 40, last_seen: at(2000) };
    FlowReport { stats, way: Some(way) }
}

fn router_of(rules: &str) -> Option<Router> {
    Some(try_router_with(rules).ok()?.with_flow_offload().with_handshake_offload().with_syn_classes())
}

/// A rule for each selector and statement, alone: where it leaves a class, two hundred further SYNs of it are judged as the class says, and what follows them goes the ways that the rules would say if they were asked.
#[test]
fn every_connection_of_a_class_is_judged_as_the_class_says() {
    for (table, ends) in ["ip", "inet", "ip", "inet"].into_iter().zip(ENDS) {
        let (mut found, mut kept, mut all_counted) = (0, 0, 0);
        for (rule, _) in RULES {
            let hook = if rule.starts_with("socket") { "prerouting" } else { hook_of(ends) };
            for rule in [(*rule).to_owned(), format!("ct state new {rule}")] {
                let rules = format!(
                    "table {table} t {{ {OBJECTS}
                        chain f {{ type filter hook {hook} priority 0; policy accept; {rule}; }} }}"
                );
                let Some(mut router) = router_of(&rules) else { continue };
                let Some(class) = learn(&mut router, ends) else {
                    kept += 1;
                    continue;
                };
                found += 1;
                assert_judged_as(&class, &mut router, ends, &rule);
                // It asks the rules for each connection.
                let mut asked = try_router_with(&rules).unwrap().with_flow_offload().with_handshake_offload();
                assert_eq!(learn(&mut asked, ends), None);
                all_counted += assert_followed_as([&mut router, &mut asked], ends, &rule);
            }
        }
        assert!(found > 20 && kept > 20, "{table}: {found} rules leave a class, {kept} do not");
        assert!(all_counted > 50, "{table}: {all_counted} packets that follow were counted by a rule");
    }
}

/// Two hundred further SYNs.
fn assert_judged_as(class: &SynClass, router: &mut Router, ends: [IpAddr; 2], rule: &str) {
    for port in 5000..5200 {
        begin(router, ends, port, at(2000)).unwrap_or_else(|why| panic!("{rule}: {port}: {why}"));
        let (to, packet) = match router.poll_output() {
            Some(Egress::Forward { oif, next_hop, packet }) => (FlowTarget::Forward { oif, next_hop }, packet),
            Some(Egress::LetOut(packet)) => (FlowTarget::LetOut, packet),
            other => panic!("{rule}: {port}: {other:?}"),
        };
        let packet = Packet::parse(&packet).unwrap();
        assert_eq!((to, packet.transport().get(..2)), (class.flows[0].target, Some(&port.to_be_bytes()[..])), "{rule}");
        let offered = router.poll_offload().map(|flows| flows.map(|flow| (flow.target, flow.fin_read, flow.set_mark)));
        let told = class.flows.map(|flow| (flow.target, flow.fin_read, flow.set_mark));
        assert_eq!(offered, Some(told), "{rule}: {port}");
    }
}

/// What follows a first SYN goes the same ways in both routers. Gives how many packets of that a rule has counted.
fn assert_followed_as(mut routers: [&mut Router; 2], ends: [IpAddr; 2], rule: &str) -> u64 {
    let counted = |router: &Router| router.program().rule_counters().map(|(_, packets, _)| packets).sum::<u64>();
    let before = routers.each_ref().map(|router| counted(router));
    for port in 5200..5210 {
        let offered = routers.each_mut().map(|router| {
            begin(router, ends, port, at(2000)).unwrap();
            let flows = router.poll_offload().unwrap();
            router.count_offloaded(&flows.map(|flow| a_packet_of(&flow)));
            flows.map(|flow| (flow.source, flow.target, flow.fin_read, flow.set_mark, flow.unmarked_only))
        });
        assert_eq!(offered[0], offered[1], "{rule}: {port}");
    }
    let since = [0, 1].map(|index| counted(routers[index]) - before[index]);
    assert_eq!(since[0], since[1], "{rule}");
    since[0]
}

#[test]
fn what_tells_connections_apart_leaves_no_class() {
    for (table, rule, leaves) in [
        ("inet", "counter", true),
        ("inet", "tcp dport 80 counter", true),
        ("ip", "ip saddr 192.0.2.0/24 ct state new counter", true),
        ("ip6", "ip6 saddr 2001:db8::/64 ct state new counter", true),
        ("inet", "ct state vmap { new : accept, established : accept }", true),
        ("inet", "fib daddr type unicast counter", true),
        ("inet", "tcp sport 1-65535", false),
        ("inet", "th sport & 1 == 0 counter", false),
        ("inet", "@th,0,16 4000 counter", false),
        ("inet", "meta l4proto tcp ct original proto-src 1-65535", false),
        ("inet", "meta l4proto tcp ct reply proto-dst 1-65535", false),
        ("inet", "symhash mod 2 0 counter", false),
        ("inet", "jhash tcp sport mod 2 0 counter", false),
        ("ip", "jhash ip saddr mod 2 0 counter", true),
        ("ip6", "jhash ip6 saddr mod 2 0 counter", true),
        ("inet", "ct status snat counter", false),
        ("inet", "tcp flags syn counter", false),
        ("ip", "ip dscp 0 counter", false),
        ("ip6", "ip6 dscp 0 counter", false),
        ("ip6", "ip6 hoplimit 1-255 counter", false),
        ("ip6", "ip6 flowlabel 0-1048575 counter", false),
        ("ip6", "exthdr frag missing counter", false),
        ("inet", "ct mark set 3", false),
        ("inet", "meta mark set 3", false),
        ("inet", "limit rate 1000000/second", false),
        ("inet", "meta skuid 0 counter", false),
        ("inet", "meta cgroup 1 counter", false),
    ] {
        for ends in ends_of(table) {
            let hook = hook_of(ends);
            let rules = format!("table {table} t {{ chain f {{ type filter hook {hook} priority 0; {rule}; }} }}");
            let class = learn(&mut router_of(&rules).unwrap_or_else(|| panic!("{rule}")), ends);
            assert_eq!(class.is_some(), leaves, "{ends:?}: {rule}");
        }
    }
}

/// NAT that keeps the client's port, and NAT that may not.
#[test]
fn translation_that_chooses_ports_leaves_no_class() {
    const POST: &str = "postrouting priority 100";
    const PRE: &str = "prerouting priority -100";
    const OUTPUT: &str = "output priority -100";
    for (table, hook, rule, leaves) in [
        ("inet", POST, "masquerade", true),
        ("ip", POST, "snat to 198.51.100.1", true),
        ("ip6", POST, "snat to 2001:db8:9::1", true),
        ("ip", POST, "snat to 198.51.100.1-198.51.100.9", false),
        ("ip6", POST, "snat to 2001:db8:9::1-2001:db8:9::9", false),
        ("ip", POST, "tcp dport 80 snat to 198.51.100.1:4000-5000", false),
        ("ip6", POST, "tcp dport 80 snat to [2001:db8:9::1]:4000-5000", false),
        ("inet", POST, "masquerade random", false),
        ("inet", POST, "masquerade fully-random", false),
        ("inet", POST, "tcp sport 4000-5000 masquerade", false),
        ("ip", PRE, "dnat to 10.0.0.9", true),
        ("ip6", PRE, "dnat to fd00::9", true),
        ("ip", PRE, "tcp dport 80 dnat to 10.0.0.9:8080", true),
        ("ip6", PRE, "tcp dport 80 dnat to [fd00::9]:8080", true),
        ("ip", PRE, "tcp dport 80 dnat to 10.0.0.9:8080-8090", false),
        ("ip6", PRE, "tcp dport 80 dnat to [fd00::9]:8080-8090", false),
        ("ip", PRE, "dnat to numgen inc mod 2 map { 0 : 10.0.0.8, 1 : 10.0.0.9 }", false),
        ("ip6", PRE, "dnat to numgen inc mod 2 map { 0 : fd00::8, 1 : fd00::9 }", false),
        ("ip", PRE, "dnat to ip saddr map { 192.0.2.7 : 10.0.0.9 }", true),
        ("ip6", PRE, "dnat to ip6 saddr map { 2001:db8::7 : fd00::9 }", true),
        ("ip", OUTPUT, "tcp dport 80 dnat to 10.0.0.8:8080", true),
        ("ip", OUTPUT, "tcp dport 80 dnat to 10.0.0.8:8080-8090", false),
        ("ip6", OUTPUT, "tcp dport 80 dnat to [fd00::8]:8080", true),
    ] {
        let rules = format!("table {table} t {{ chain n {{ type nat hook {hook}; {rule}; }} }}");
        let passes = |ends: &[IpAddr; 2]| hook == POST || (hook == PRE) == (hook_of(*ends) == "forward");
        for ends in ends_of(table).filter(passes) {
            let class = learn(&mut router_of(&rules).unwrap_or_else(|| panic!("{rule}")), ends);
            assert_eq!(class.is_some(), leaves, "{ends:?}: {rule}: {class:?}");
        }
    }
}

/// More classes than there is room for: they are found anew once a minute at most, since each costs something to be told; until then the others take the ordinary way.
#[test]
fn classes_beyond_the_room_are_found_anew_now_and_then() {
    let mut router = router_of("").unwrap();
    let ends = |client: u16| [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, client).into(), SERVER_V6.into()];
    let mut learn_at = |client: u16, port: u16, now: Instant| {
        for port in [port, port + 1] {
            begin(&mut router, ends(client), port, now).unwrap();
            while router.poll_output().is_some() {}
            let [original, reply] = router.poll_offload().unwrap();
            establish(&mut router, &original, &reply, port);
        }
        (router.poll_syn_class().is_some(), router.syn_class_generation())
    };
    let room = u16::try_from(crate::MAX_SYN_CLASSES).unwrap();
    let (_, first) = learn_at(0, 4000, at(1000));
    for client in 1..room {
        assert_eq!(learn_at(client, 4000, at(1000)), (true, first), "{client}");
    }
    assert_eq!(learn_at(room, 4000, at(1000)), (true, first + 1), "the first time at once");
    for client in 1..room {
        assert_eq!(learn_at(client, 5000, at(1000)), (true, first + 1), "{client}");
    }
    for client in [0, room + 1, room + 2] {
        assert_eq!(learn_at(client, 6000, at(60_000)), (false, first + 1), "{client}");
    }
    assert_eq!(learn_at(0, 7000, at(61_001)), (true, first + 2));
}

/// Each change voids what was found before, and what forbids classes leaves no room for connections.
#[test]
fn changes_void_classes() {
    for ends in ENDS {
        let mut router = router_with("").with_handshake_offload().with_syn_classes();
        assert!(learn(&mut router, ends).is_some() && router.opening_budget() > 0);
        let before = router.syn_class_generation();
        router.revoke_flows();
        assert_ne!(router.syn_class_generation(), before);
        assert!(learn_from(&mut router, ends, 5000).is_some(), "it is found again");
        let before = router.syn_class_generation();
        router.forget_classes();
        assert_ne!(router.syn_class_generation(), before);
        assert!(learn_from(&mut router, ends, 6000).is_some(), "and again");
        router.set_draining(true);
        assert_eq!(router.opening_budget(), 0);
        router.set_draining(false);
        router.set_duty(ClusterDuty::Fenced);
        assert_eq!(router.opening_budget(), 0);
        router.set_duty(ClusterDuty::Active { until: None });
        router.engine_mut().set_sysctl(Sysctl::Max, 4).unwrap();
        assert_eq!(router.opening_budget(), 0, "the table is nearly full");
    }
}
