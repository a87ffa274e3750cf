//! Which classes of new connections are found, and the proof that every connection of one is judged as the class says.
use super::*;
use crate::known_flow::hold_tests::{OBJECTS, RULES};
use crate::known_flow::tests::{CLIENT, SERVER, at, router_with, try_router_with};
use crate::{Egress, FlowReport, FlowTarget, KnownFlow};
use etherparse::{Ipv4Header, PacketBuilder, TcpOptionElement};
use keepstate_engine::{Direction, FlowStats};
use keepstate_wire::Packet;
use std::net::{IpAddr, Ipv4Addr};

/// A first SYN whose content differs with its port: hop limit, window, numbers, options, ECN.
fn syn(client: Ipv4Addr, port: u16) -> Vec<u8> {
    let odd = port % 2 == 1;
    let mut header = Ipv4Header::new(0, 32 + (port % 64) as u8, 6.into(), client.octets(), SERVER.octets()).unwrap();
    header.identification = port;
    header.dont_fragment = odd;
    let tcp = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()));
    let tcp = tcp.tcp(port, 80, u32::from(port) * 77_777, 1000 + port).syn();
    let tcp = if odd { tcp.ece().cwr() } else { tcp };
    let options = [TcpOptionElement::MaximumSegmentSize(1000 + port % 400), TcpOptionElement::WindowScale(3)];
    let tcp = tcp.options(options.get(..usize::from(port % 3)).unwrap_or_default()).unwrap();
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[]).unwrap();
    bytes
}

/// The class that the router has found after two connections of this client, if it has.
fn learn(router: &mut Router, client: Ipv4Addr) -> Option<SynClass> {
    learn_from(router, client, 4000)
}

fn learn_from(router: &mut Router, client: Ipv4Addr, first: u16) -> Option<SynClass> {
    for port in [first, first + 1] {
        assert_eq!(router.poll_syn_class(), None);
        let _ = router.handle(&syn(client, port), 1, at(1000));
        while router.poll_output().is_some() {}
        if let Some([original, reply]) = router.poll_offload() {
            establish(router, &original, &reply, port);
        }
    }
    router.poll_syn_class()
}

/// The data path tells of the rest of a handshake.
fn establish(router: &mut Router, original: &KnownFlow, reply: &KnownFlow, port: u16) {
    let address = |address: IpAddr| if let IpAddr::V4(address) = address { address.octets() } else { [0; 4] };
    let seq = u32::from(port) * 77_777;
    for (of, flow, numbers) in [(Direction::Reply, reply, None), (Direction::Original, original, Some(seq + 1))] {
        let tuple = flow.tuple;
        let ip = PacketBuilder::ipv4(address(tuple.source), address(tuple.destination), 64);
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
    let mut router = router_of("").unwrap();
    for port in 4000..4010 {
        router.handle(&syn(CLIENT, port), 1, at(1000)).unwrap();
        let [original, reply] = router.poll_offload().unwrap();
        assert_eq!(router.poll_syn_class(), None);
        if port == 4009 {
            establish(&mut router, &original, &reply, port);
        }
    }
    router.handle(&syn(CLIENT, 4010), 1, at(1000)).unwrap();
    assert!(router.poll_syn_class().is_some());
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
    let (mut found, mut kept, mut all_counted) = (0, 0, 0);
    let counted = |router: &Router| router.program().rule_counters().map(|(_, packets, _)| packets).sum::<u64>();
    for (rule, _) in RULES {
        let hook = if rule.starts_with("socket") { "prerouting" } else { "forward" };
        for rule in [(*rule).to_owned(), format!("ct state new {rule}")] {
            let rules = format!(
                "table ip t {{ {OBJECTS}
                    chain f {{ type filter hook {hook} priority 0; policy accept; {rule}; }} }}"
            );
            let Some(mut router) = router_of(&rules) else { continue };
            let Some(class) = learn(&mut router, CLIENT) else {
                kept += 1;
                continue;
            };
            found += 1;
            // It asks the rules for each connection.
            let mut asked = try_router_with(&rules).unwrap().with_flow_offload().with_handshake_offload();
            assert_eq!(learn(&mut asked, CLIENT), None);
            let FlowTarget::Forward { oif, .. } = class.flows[0].target else { panic!("{rule}: {class:?}") };
            for port in 5000..5200 {
                router.handle(&syn(CLIENT, port), 1, at(2000)).unwrap_or_else(|why| panic!("{rule}: {port}: {why}"));
                let Some(Egress::Forward { oif: out, packet, .. }) = router.poll_output() else {
                    panic!("{rule}: {port}")
                };
                let packet = Packet::parse(&packet).unwrap();
                assert_eq!((out, packet.transport().get(..2)), (oif, Some(&port.to_be_bytes()[..])), "{rule}");
                let offered =
                    router.poll_offload().map(|flows| flows.map(|flow| (flow.target, flow.fin_read, flow.set_mark)));
                let told = class.flows.map(|flow| (flow.target, flow.fin_read, flow.set_mark));
                assert_eq!(offered, Some(told), "{rule}: {port}");
            }
            let before = [counted(&router), counted(&asked)];
            for port in 5200..5210 {
                let offered = [&mut router, &mut asked].map(|router| {
                    router.handle(&syn(CLIENT, port), 1, at(2000)).unwrap();
                    let flows = router.poll_offload().unwrap();
                    router.count_offloaded(&flows.map(|flow| a_packet_of(&flow)));
                    flows.map(|flow| (flow.source, flow.target, flow.fin_read, flow.set_mark, flow.unmarked_only))
                });
                assert_eq!(offered[0], offered[1], "{rule}: {port}");
            }
            let counted_since = [counted(&router) - before[0], counted(&asked) - before[1]];
            assert_eq!(counted_since[0], counted_since[1], "{rule}");
            all_counted += counted_since[0];
        }
    }
    assert!(found > 20 && kept > 20, "{found} rules leave a class, {kept} do not");
    assert!(all_counted > 100, "{all_counted} packets of connections that follow were counted by a rule");
}

#[test]
fn what_tells_connections_apart_leaves_no_class() {
    for (rule, leaves) in [
        ("counter", true),
        ("tcp dport 80 counter", true),
        ("ip saddr 192.0.2.0/24 ct state new counter", true),
        ("ct state vmap { new : accept, established : accept }", true),
        ("fib saddr . iif oif missing drop", true),
        ("tcp sport 1-65535", false),
        ("th sport & 1 == 0 counter", false),
        ("@th,0,16 4000 counter", false),
        ("meta l4proto tcp ct original proto-src 1-65535", false),
        ("meta l4proto tcp ct reply proto-dst 1-65535", false),
        ("symhash mod 2 0 counter", false),
        ("jhash tcp sport mod 2 0 counter", false),
        ("jhash ip saddr mod 2 0 counter", true),
        ("ct status snat counter", false),
        ("tcp flags syn counter", false),
        ("ip dscp 0 counter", false),
        ("ct mark set 3", false),
        ("meta mark set 3", false),
        ("limit rate 1000000/second", false),
    ] {
        let rules = format!("table ip t {{ chain f {{ type filter hook forward priority 0; {rule}; }} }}");
        let class = learn(&mut router_of(&rules).unwrap_or_else(|| panic!("{rule}")), CLIENT);
        assert_eq!(class.is_some(), leaves, "{rule}");
    }
}

/// NAT that keeps the client's port, and NAT that may not.
#[test]
fn translation_that_chooses_ports_leaves_no_class() {
    for (hook, rule, leaves) in [
        ("postrouting priority 100", "masquerade", true),
        ("postrouting priority 100", "snat to 198.51.100.1", true),
        ("postrouting priority 100", "snat to 198.51.100.1-198.51.100.9", false),
        ("postrouting priority 100", "tcp dport 80 snat to 198.51.100.1:4000-5000", false),
        ("postrouting priority 100", "masquerade random", false),
        ("postrouting priority 100", "masquerade fully-random", false),
        ("postrouting priority 100", "tcp sport 4000-5000 masquerade", false),
        ("prerouting priority -100", "dnat to 10.0.0.9", true),
        ("prerouting priority -100", "tcp dport 80 dnat to 10.0.0.9:8080", true),
        ("prerouting priority -100", "tcp dport 80 dnat to 10.0.0.9:8080-8090", false),
        ("prerouting priority -100", "dnat to numgen inc mod 2 map { 0 : 10.0.0.8, 1 : 10.0.0.9 }", false),
        ("prerouting priority -100", "dnat to ip saddr map { 192.0.2.7 : 10.0.0.9 }", true),
    ] {
        let rules = format!("table ip t {{ chain n {{ type nat hook {hook}; {rule}; }} }}");
        let class = learn(&mut router_of(&rules).unwrap_or_else(|| panic!("{rule}")), CLIENT);
        assert_eq!(class.is_some(), leaves, "{rule}: {class:?}");
    }
}

/// Each change voids what was found before, and what forbids classes leaves no room for connections.
#[test]
fn changes_void_classes() {
    let mut router = router_with("").with_handshake_offload().with_syn_classes();
    assert!(learn(&mut router, CLIENT).is_some() && router.opening_budget() > 0);
    let before = router.syn_class_generation();
    router.revoke_flows();
    assert_ne!(router.syn_class_generation(), before);
    assert!(learn_from(&mut router, CLIENT, 5000).is_some(), "it is found again");
    let before = router.syn_class_generation();
    router.forget_classes();
    assert_ne!(router.syn_class_generation(), before);
    assert!(learn_from(&mut router, CLIENT, 6000).is_some(), "and again");
    router.set_draining(true);
    assert_eq!(router.opening_budget(), 0);
    router.set_draining(false);
    router.set_duty(ClusterDuty::Fenced);
    assert_eq!(router.opening_budget(), 0);
    router.set_duty(ClusterDuty::Active { until: None });
    router.engine_mut().set_sysctl(Sysctl::Max, 4).unwrap();
    assert_eq!(router.opening_budget(), 0, "the table is nearly full");
}
