//! Which connections are offered to a data path, through a whole router.
use super::*;
use crate::{FibChange, FibTable, Interface, Route, RoutePlacement, Router};
use keepstate_engine::{ConnUpdate, FlowStats, Secret, Sysctls};
use keepstate_rules::{NoIncludes, RulesetError, compile, parse_with};
use keepstate_wire::checksum::Sum;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

/// A router without rules: the client's network behind interface 1, the server's behind 2.
fn router() -> Router {
    router_with("")
}

/// The same with these rules.
pub(crate) fn router_with(rules: &str) -> Router {
    try_router_with(rules).unwrap()
}

pub(crate) fn try_router_with(rules: &str) -> Result<Router, RulesetError> {
    let (tree, sources) = parse_with("test.nft", rules, &NoIncludes, &[])?;
    let outside = Interface::new(1, "wan0", 1500).with_address([192, 0, 2, 254].into(), 24);
    let inside = Interface::new(2, "lan0", 1500).with_address([10, 0, 0, 1].into(), 24);
    let outside = outside.with_address(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 254).into(), 64);
    let inside = inside.with_address(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), 64);
    let fib = FibTable::new(vec![outside, inside], vec![]);
    let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    Ok(Router::new(engine, compile(&tree, &sources)?, fib, (1, 2)).with_flow_offload())
}

pub(crate) fn at(milliseconds: u64) -> Instant {
    Instant(milliseconds * 1_000_000)
}

pub(super) fn datagram(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend([from.octets(), to.octets()].concat());
    let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend([0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]);
    packet
}

/// A question and its answer. Is the connection offered then?
fn exchange(router: &mut Router, now: Instant) -> Option<ConnId> {
    router.handle(&datagram(CLIENT, SERVER), 1, now).unwrap();
    router.handle(&datagram(SERVER, CLIENT), 2, now).unwrap();
    while router.poll_output().is_some() {}
    router.poll_offload().map(|[original, _]| original.conn_id)
}

/// A connection that lasts, as Linux has it: an exchange two seconds after the first.
fn offered(router: &mut Router) -> ConnId {
    assert_eq!(exchange(router, at(1000)), None);
    (0..3).find_map(|number| exchange(router, at(4000 + number))).unwrap()
}

/// Of UDP: a question and its answer are not worth it, nor are two; what goes on is known long before it is assured.
#[test]
fn a_young_connection_that_goes_on_is_offered() {
    let mut router = router();
    assert_eq!([1000, 1020].map(|now| exchange(&mut router, at(now))), [None; 2]);
    router.handle(&datagram(CLIENT, SERVER), 1, at(1040)).unwrap();
    assert!(router.poll_offload().is_none());
    router.handle(&datagram(SERVER, CLIENT), 2, at(1040)).unwrap();
    let [flow, _] = router.poll_offload().unwrap();
    assert_eq!(exchange(&mut router, at(1060)), None, "it was offered already");
    let conn_id = flow.conn_id;
    assert!(!router.engine().is_assured(conn_id));
    let stats = FlowStats { conn_id, direction: Direction::Original, packets: 1, bytes: 28, last_seen: at(4000) };
    router.count_offloaded(&[FlowReport { stats, way: Some(flow.way) }]);
    assert!(router.engine().is_assured(conn_id));
}

#[test]
fn a_connection_without_a_place_is_offered_again_later() {
    let mut router = router();
    let conn_id = offered(&mut router);
    router.refuse_offload(conn_id, at(4100));
    assert_eq!(router.poll_revoked(), Some(conn_id));
    router.forget_flow(conn_id);
    for later in [4200, 4600, 5000] {
        assert_eq!(exchange(&mut router, at(later)), None, "{later}");
    }
    assert_eq!(exchange(&mut router, at(5200)), Some(conn_id));
}

fn route(prefix: [u8; 4], length: u8) -> FibChange {
    FibChange::Route(vec![Route::new(prefix.into(), length, 2)], RoutePlacement::Last)
}

#[test]
fn a_change_of_routes_revokes_the_flows_to_its_destinations() {
    let mut router = router();
    let conn_id = offered(&mut router);
    let generation = router.flow_generation();
    for other in
        [route([198, 51, 100, 0], 24), FibChange::OtherRoute([10, 0, 1, 0].into(), 24), route([10, 0, 0, 8], 32)]
    {
        router.change_fib([other]);
    }
    assert_eq!((router.poll_revoked(), router.flow_generation()), (None, generation));
    // Either end's.
    for its in [route([10, 0, 0, 9], 32), FibChange::OtherRoute([192, 0, 2, 0].into(), 25)] {
        router.change_fib([its]);
        assert_eq!((router.poll_revoked(), router.flow_generation()), (Some(conn_id), generation));
        router.forget_flow(conn_id);
        assert_eq!(exchange(&mut router, at(6000)), Some(conn_id));
    }
    router.change_fib([FibChange::Routing]);
    assert_eq!((router.poll_revoked(), router.flow_generation()), (Some(conn_id), generation + 1));
}

/// One direction was seen before the route changed: what was noted of it does not count.
#[test]
fn ways_noted_before_a_change_of_routes_are_not_offered() {
    for changes in [1, change_log::MAX_RECENT_CHANGES + 1] {
        let mut router = router();
        let conn_id = offered(&mut router);
        router.revoke_flows();
        assert_eq!(router.poll_revoked(), Some(conn_id));
        router.forget_flow(conn_id);
        router.handle(&datagram(CLIENT, SERVER), 1, at(6000)).unwrap();
        router.change_fib([route([10, 0, 0, 0], 25)]);
        for _ in 1..changes {
            router.change_fib([route([198, 51, 100, 0], 24)]);
        }
        router.handle(&datagram(SERVER, CLIENT), 2, at(6000)).unwrap();
        assert!(router.poll_offload().is_none(), "after {changes} changes");
        while router.poll_revoked().is_some() {}
        assert_eq!(exchange(&mut router, at(6100)), Some(conn_id));
    }
}

/// What the data path is told of a connection's packets that come with `mark`, original first; `None` if the rules keep them here.
fn marks_told(rule: &str, mark: u32) -> Option<[(Option<u32>, bool); 2]> {
    let rules = format!("table ip t {{ chain f {{ type filter hook forward priority 0; policy accept; {rule}; }} }}");
    let mut router = router_with(&rules);
    router.set_packet_mark(mark);
    let exchange = |router: &mut Router, now| {
        router.handle(&datagram(CLIENT, SERVER), 1, now).unwrap();
        router.handle(&datagram(SERVER, CLIENT), 2, now).unwrap();
        while router.poll_output().is_some() {}
        router.poll_offload()
    };
    assert_eq!(exchange(&mut router, at(1000)), None);
    let offered = (0..5).find_map(|number| exchange(&mut router, at(4000 + number)));
    let held = router.flow_offload_stats().unwrap().held;
    assert_eq!(offered.is_none(), held.iter().any(|(reason, _)| *reason == HoldReasons::MARK), "{rule}: {held:?}");
    offered.map(|flows| flows.map(|flow| (flow.set_mark, flow.unmarked_only)))
}

#[test]
fn marks_are_told_where_every_packet_gets_the_same() {
    let both = |told| Some([told, told]);
    for (rule, expected) in [
        ("counter", both((None, false))),
        ("meta mark set 7", both((Some(7), false))),
        ("meta mark 0 accept", both((None, true))),
        ("meta mark set meta mark or 1", both((Some(1), true))),
        ("meta mark set 5; meta mark 5 accept", both((Some(5), false))),
        ("ct direction reply meta mark set 5", Some([(None, false), (Some(5), false)])),
        ("ct mark set 9; meta mark set ct mark", both((Some(9), false))),
        ("ct state new ct mark set 9; meta mark set ct mark", both((Some(9), false))),
        ("ct mark set ct mark or 0x10; meta mark set ct mark", both((Some(0x10), false))),
        ("meta mark set ip saddr map { 192.0.2.7 : 3, 10.0.0.9 : 4 }", Some([(Some(3), false), (Some(4), false)])),
        ("ct mark set meta mark", both((None, true))),
        // Each direction undoes what the other has done; each packet counts on.
        ("ct direction original ct mark set 1; ct direction reply ct mark set 2", None),
        ("ct mark set ct mark xor 1", None),
        ("meta priority 7 accept", None),
    ] {
        assert_eq!(marks_told(rule, 0), expected, "{rule}");
    }
    for (rule, expected) in [
        ("counter", both((None, false))),
        ("meta mark set 7", both((Some(7), false))),
        ("meta mark 3 accept", None),
        ("meta mark set meta mark or 1", None),
        ("ct mark set meta mark", None),
    ] {
        assert_eq!(marks_told(rule, 3), expected, "{rule}, marked");
    }
}

/// A mark that is set by request is what the next packet is judged by.
#[test]
fn a_changed_connection_mark_revokes_the_flow() {
    let mut router = router_with(
        "table ip t { chain f { type filter hook forward priority 0; policy accept; ct mark 9 drop; meta mark set ct mark; } }",
    );
    let conn_id = offered(&mut router);
    let change = |mark| ConnUpdate { mark: Some(mark), ..ConnUpdate::default() };
    let timeout = ConnUpdate { timeout: Some(100), ..ConnUpdate::default() };
    router.engine_mut().update(conn_id, &timeout, at(4500)).unwrap();
    assert_eq!(router.poll_revoked(), None);
    router.engine_mut().update(conn_id, &change(5), at(4500)).unwrap();
    assert_eq!(router.poll_revoked(), Some(conn_id));
    router.forget_flow(conn_id);
    // What was noted by another mark does not count.
    router.handle(&datagram(CLIENT, SERVER), 1, at(5000)).unwrap();
    router.engine_mut().update(conn_id, &change(6), at(5000)).unwrap();
    router.handle(&datagram(SERVER, CLIENT), 2, at(5000)).unwrap();
    assert_eq!(router.poll_offload(), None);
    router.handle(&datagram(CLIENT, SERVER), 1, at(5001)).unwrap();
    let told = router.poll_offload().map(|flows| flows.map(|flow| flow.set_mark));
    assert_eq!(told, Some([Some(6), Some(6)]));
}
