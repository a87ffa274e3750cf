//! What becomes of connections when backends come, go, fail and are drained.
use super::*;
use keepstate_engine::WindowTrust;

#[test]
fn drained_backend_keeps_connections_and_gets_no_new_ones() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    let [a, b] = [ip("10.0.0.11"), ip("10.0.0.12")];
    assert_eq!([1, 2].map(|client| open_connection(&mut router, client, 4000, at(1))), [Some(a), Some(b)]);
    assert_eq!(router.drain(true, |_, backend| backend.address == a), 1);
    for client in 3..9 {
        assert_eq!(open_connection(&mut router, client, 4000, at(2)), Some(b));
    }
    let (result, ends, _) = send_on_connection(&mut router, 1, 4000, at(3));
    assert_eq!((result, ends.1.0), (Ok(()), a), "not cut off");
    assert_eq!(connection_counts(&mut router, at(3)), [(1, 1), (7, 7)]);
    // A reload keeps what the operator has drained.
    router.replace_services(vec![service(Transport::Tcp, 2)], at(4));
    assert_eq!(open_connection(&mut router, 10, 4000, at(4)), Some(b));
    router.drain(false, |_, backend| backend.address == a);
    let both = [11, 12].map(|client| open_connection(&mut router, client, 4000, at(5)).unwrap());
    assert!(both.contains(&a) && both.contains(&b));
    router.drain(true, |_, _| true);
    assert_eq!(open_connection(&mut router, 13, 4000, at(6)), None, "no backend is left");
}

fn states(router: &mut Router, now: Instant) -> Vec<(BackendStatus, u64)> {
    let services = router.services_with_fresh_counts(now);
    services.iter().flat_map(ServiceState::backends).map(|member| (member.status(), member.active())).collect()
}

/// The services without the first backend.
fn without_first(transport: Transport, drain: u64) -> ServiceConfig {
    let mut less = ServiceConfig { drain: std::time::Duration::from_secs(drain), ..service(transport, 2) };
    less.backends.remove(0);
    less
}

#[test]
fn removed_backend_drains_for_the_time_given_then_is_deleted() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    let a = ip("10.0.0.11");
    assert_eq!(open_connection(&mut router, 1, 4000, at(1)), Some(a));
    assert_eq!(open_connection(&mut router, 2, 4000, at(1)), Some(ip("10.0.0.12")));
    assert_eq!(open_connection(&mut router, 3, 4000, at(1)), Some(a));
    router.replace_services(vec![without_first(Transport::Tcp, 30)], at(2));
    assert_eq!(
        router.poll_log().unwrap().text,
        "web: 10.0.0.11:8080 removed; its 2 connections end in 30 s at the latest"
    );
    assert_eq!(states(&mut router, at(2)), [(BackendStatus::Removed, 2), (BackendStatus::Up, 1)]);
    assert_eq!(router.services().backends().count(), 1, "the removed backend needs no health check");
    assert_eq!(open_connection(&mut router, 4, 4000, at(2)), Some(ip("10.0.0.12")));
    assert_eq!(send_on_connection(&mut router, 1, 4000, at(31)).1.1.0, a, "drained");
    let (result, _, flags) = send_on_connection(&mut router, 1, 4000, at(32));
    assert_eq!((result, flags), (Err(DropReason::NoBackend), RST), "the time is over");
    assert_eq!(send_on_connection(&mut router, 2, 4000, at(32)).0, Ok(()), "the other backend's go on");
    // One that says nothing is forgotten a minute later, and its backend with it.
    router.poll(at(93));
    assert_eq!(states(&mut router, at(93)), [(BackendStatus::Up, 2)]);
}

#[test]
fn no_packet_reaches_a_removed_backend() {
    // An active sender, whose flow never times out; answered or not.
    for answered in [false, true] {
        let mut router = router("", vec![service(Transport::Udp, 2)]);
        let asked = endpoints(("192.0.2.7", 4000), ("203.0.113.80", 53));
        let ask = |router: &mut Router, now| {
            let (_, left) = send_packet(router, 1, &udp(asked), now);
            let (sent, _) = parse_packet(&left[0]);
            if answered {
                assert_eq!(send_packet(router, 2, &udp((sent.1, sent.0)), now).0, Ok(()));
            }
            sent.1.0
        };
        let [a, b] = [ip("10.0.0.11"), ip("10.0.0.12")];
        assert_eq!([1, 2, 3].map(|second| ask(&mut router, at(second))), [a; 3]);
        router.replace_services(vec![without_first(Transport::Udp, 0)], at(4));
        assert_eq!([4, 5, 6].map(|second| ask(&mut router, at(second))), [b; 3], "answered: {answered}");
        assert_eq!(states(&mut router, at(7)), [(BackendStatus::Up, 1)]);
    }
}

#[test]
fn retransmitted_syn_goes_to_another_backend_once_its_own_is_removed() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    let syn = tcp(endpoints(("192.0.2.7", 4000), ("203.0.113.80", 80)), SYN, 100, 0);
    let to = |router: &mut Router, second| parse_packet(&send_packet(router, 1, &syn, at(second)).1[0]).0.1.0;
    assert_eq!([1, 2].map(|second| to(&mut router, second)), [ip("10.0.0.11"); 2]);
    router.replace_services(vec![without_first(Transport::Tcp, 0)], at(3));
    assert_eq!(to(&mut router, 3), ip("10.0.0.12"));
}

#[test]
fn backend_named_again_in_time_keeps_its_connections() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    assert_eq!(open_connection(&mut router, 1, 4000, at(1)), Some(ip("10.0.0.11")));
    router.replace_services(vec![without_first(Transport::Tcp, 30)], at(2));
    router.replace_services(vec![service(Transport::Tcp, 2)], at(10));
    router.poll(at(100));
    assert_eq!(send_on_connection(&mut router, 1, 4000, at(101)).1.1.0, ip("10.0.0.11"));
}

#[test]
fn removed_service_ends_its_connections() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    open_connection(&mut router, 1, 4000, at(1)).unwrap();
    router.replace_services(Vec::new(), at(2));
    assert_eq!(send_on_connection(&mut router, 1, 4000, at(3)).0, Err(DropReason::NoBackend));
    router.poll(at(63));
    assert_eq!(router.services().iter().count(), 0);
}

#[test]
fn removed_backends_end_in_bounded_steps_and_no_packet_waits_for_them() {
    let mut router = router("", vec![service(Transport::Udp, 1)]);
    let asked = |number: u32| {
        let port = u16::try_from(number % 50_000).unwrap() + 1;
        endpoints((if number < 50_000 { "192.0.2.7" } else { "192.0.2.8" }, port), ("203.0.113.80", 53))
    };
    const COUNT: u32 = 10_000;
    for number in 0..COUNT {
        assert_eq!(send_packet(&mut router, 1, &udp(asked(number)), at(1)).0, Ok(()));
    }
    let mut other = service(Transport::Udp, 2);
    other.backends.remove(0);
    router.replace_services(vec![other], at(2));
    let left = router.engine().count();
    assert!((1..10_000).contains(&left), "one step ends a bounded number: {left} of {COUNT} are left");
    // The first connections come last; theirs is not sent to the removed backend meanwhile.
    let (result, out) = send_packet(&mut router, 1, &udp(asked(0)), at(2));
    assert_eq!((result, out.len()), (Err(DropReason::NoBackend), 0));
    let (_, out) = send_packet(&mut router, 1, &udp(asked(0)), at(2));
    assert_eq!(parse_packet(&out[0]).0.1.0, ip("10.0.0.12"));
    (0..3).for_each(|_| router.poll(at(2)));
    assert_eq!(router.engine().count(), 1);
}

#[test]
fn udp_fails_over_when_its_backend_is_down() {
    let mut router = router("", vec![service(Transport::Udp, 2)]);
    let asked = endpoints(("192.0.2.7", 4000), ("203.0.113.80", 53));
    let ask = |router: &mut Router, now| {
        let (_, left) = send_packet(router, 1, &udp(asked), now);
        let (sent, _) = parse_packet(&left[0]);
        assert_eq!(send_packet(router, 2, &udp((sent.1, sent.0)), now).0, Ok(()));
        sent.1.0
    };
    let [a, b] = [ip("10.0.0.11"), ip("10.0.0.12")];
    assert_eq!([1, 2, 3].map(|second| ask(&mut router, at(second))), [a; 3], "one connection");
    let first = backend_id(&mut router, 0);
    assert!(router.set_health(first, false, at(4)));
    assert_eq!(ask(&mut router, at(5)), b);
    assert!(router.set_health(first, true, at(6)) && !router.set_health(first, true, at(6)));
    assert_eq!(ask(&mut router, at(7)), b, "and stays there");
    assert_eq!(connection_counts(&mut router, at(7)), [(0, 1), (1, 1)]);
}

#[test]
fn unanswered_syn_fails_over() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    let syn = tcp(endpoints(("192.0.2.7", 4000), ("203.0.113.80", 80)), SYN, 100, 0);
    let to = |router: &mut Router, second| parse_packet(&send_packet(router, 1, &syn, at(second)).1[0]).0.1.0;
    assert_eq!([1, 2].map(|second| to(&mut router, second)), [ip("10.0.0.11"); 2]);
    let first = backend_id(&mut router, 0);
    router.set_health(first, false, at(3));
    assert_eq!(to(&mut router, 4), ip("10.0.0.12"));
}

#[test]
fn when_down_keeps_or_resets_tcp() {
    for when_down in [WhenDown::Keep, WhenDown::Reset] {
        let mut router = router("", vec![ServiceConfig { when_down, ..service(Transport::Tcp, 2) }]);
        for client in 1..=4 {
            open_connection(&mut router, client, 4000, at(1)).unwrap();
        }
        let first = backend_id(&mut router, 0);
        router.set_health(first, false, at(2));
        assert_eq!(open_connection(&mut router, 5, 4000, at(2)), Some(ip("10.0.0.12")));
        let asked = endpoints(("192.0.2.1", 4000), ("203.0.113.80", 80));
        if when_down == WhenDown::Keep {
            let (result, ends, _) = send_on_connection(&mut router, 1, 4000, at(3));
            assert_eq!((result, ends.1.0), (Ok(()), ip("10.0.0.11")));
            continue;
        }
        // What the backend still says is refused, and ends nothing.
        let late = endpoints(("10.0.0.11", 8080), ("192.0.2.1", 4000));
        let (result, left) = send_packet(&mut router, 2, &tcp(late, ACK, 901, 101), at(3));
        assert_eq!((result, parse_packet(&left[0]).1), (Err(DropReason::NoBackend), RST));
        let (result, told, flags) = send_on_connection(&mut router, 1, 4000, at(3));
        assert_eq!((result, told, flags), (Err(DropReason::NoBackend), (asked.1, asked.0), RST));
        // The other backend's connections are none of this one's business, and one that has not spoken meanwhile is saved when it comes back.
        assert_eq!(send_on_connection(&mut router, 2, 4000, at(3)).0, Ok(()));
        router.set_health(first, true, at(4));
        assert_eq!(send_on_connection(&mut router, 3, 4000, at(5)).1.1.0, ip("10.0.0.11"));
        assert_eq!(connection_counts(&mut router, at(5)), [(1, 2), (3, 3)]);
    }
}

#[test]
fn affinity_times_out_like_kube_proxy() {
    let mut router = router("", vec![ServiceConfig { affinity: Some(100), ..service(Transport::Tcp, 3) }]);
    let (a, b) = (ip("10.0.0.11"), ip("10.0.0.12"));
    let ports = [(4000, 0), (4001, 100), (4002, 200)];
    assert_eq!(
        ports.map(|(port, second)| open_connection(&mut router, 1, port, at(second))),
        [Some(a); 3],
        "each begins it anew"
    );
    assert_eq!(open_connection(&mut router, 2, 4000, at(200)), Some(b), "another source");
    // Its time over, it is like anybody.
    assert_eq!(open_connection(&mut router, 1, 4003, at(301)), Some(ip("10.0.0.13")));
    // Its backend drained or down, it moves, and stays where it went.
    let third = backend_id(&mut router, 2);
    router.set_health(third, false, at(302));
    assert_eq!(open_connection(&mut router, 1, 4004, at(303)), Some(a));
    router.set_health(third, true, at(304));
    assert_eq!(open_connection(&mut router, 1, 4005, at(305)), Some(a));
    router.drain(true, |_, backend| backend.address == a);
    let next = open_connection(&mut router, 1, 4006, at(306)).unwrap();
    assert_ne!(next, a);
    router.drain(false, |_, _| true);
    assert_eq!(open_connection(&mut router, 1, 4007, at(307)), Some(next));
}

#[test]
fn least_connections_counts_active_connections() {
    let mut router =
        router("", vec![ServiceConfig { scheduler: Scheduler::LeastConnections, ..service(Transport::Tcp, 2) }]);
    let [a, b] = [ip("10.0.0.11"), ip("10.0.0.12")];
    let first: Vec<_> = (1..=4).map(|client| open_connection(&mut router, client, 4000, at(1)).unwrap()).collect();
    assert_eq!(first, [a, b, a, b]);
    for client in [1, 3] {
        reset_connection(&mut router, client, 4000, at(2));
    }
    router.poll(at(2));
    let next: Vec<_> = (5..=7).map(|client| open_connection(&mut router, client, 4000, at(3)).unwrap()).collect();
    assert_eq!(next, [a, a, a], "two had gone");
}

#[test]
fn new_service_adopts_existing_connections() {
    let mut router = router("", vec![service(Transport::Tcp, 2)]);
    open_connection(&mut router, 1, 4000, at(1)).unwrap();
    // The same under another name: one service goes, another comes.
    router.replace_services(vec![ServiceConfig { name: "renamed".into(), ..service(Transport::Tcp, 2) }], at(2));
    let shown = |router: &mut Router| {
        let services = router.services_with_fresh_counts(at(2));
        services
            .iter()
            .map(|running| {
                (running.config().name.clone(), running.backends().iter().map(BackendState::active).sum::<u64>())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut router), [("renamed".into(), 1)], "it moves with its backend");
    assert_eq!(send_on_connection(&mut router, 1, 4000, at(2)).0, Ok(()));
    // Datagrams that went elsewhere ask again when a service comes.
    let asked = endpoints(("192.0.2.7", 4000), ("203.0.113.80", 53));
    assert_eq!(parse_packet(&send_packet(&mut router, 1, &udp(asked), at(3)).1[0]).0, asked);
    router.replace_services(vec![ServiceConfig { name: "dns".into(), ..service(Transport::Udp, 1) }], at(4));
    assert_eq!(parse_packet(&send_packet(&mut router, 1, &udp(asked), at(5)).1[0]).0.1.0, ip("10.0.0.11"));
}

#[test]
fn restored_connections_are_adopted() {
    let rules = "table ip n { chain p { type nat hook prerouting priority dstnat; ip daddr 203.0.113.80 tcp dport 80 dnat to 10.0.0.12:8080; }; }";
    let mut router = router(rules, Vec::new());
    assert_eq!(open_connection(&mut router, 1, 4000, at(1)), Some(ip("10.0.0.12")));
    router.replace_services(vec![service(Transport::Tcp, 2)], at(2));
    assert_eq!(connection_counts(&mut router, at(2)), [(0, 0), (1, 0)]);
}

#[test]
fn connections_taken_over_are_adopted_in_bounded_steps() {
    let mut active = router("", vec![service(Transport::Udp, 1)]);
    for port in 1..=6000 {
        let asked = endpoints(("192.0.2.7", port), ("203.0.113.80", 53));
        assert_eq!(send_packet(&mut active, 1, &udp(asked), at(1)).0, Ok(()));
    }
    let mut standby = router("", vec![service(Transport::Udp, 1)]);
    for connection in active.engine_mut().export_all(at(1)) {
        standby.engine_mut().import(&connection, std::time::Duration::ZERO, WindowTrust::Lenient, at(1)).unwrap();
    }
    let live = |router: &mut Router| {
        router.services().iter().flat_map(ServiceState::backends).map(BackendState::active).sum::<u64>()
    };
    standby.begin_adoption();
    assert_eq!(live(&mut standby), 0, "nothing in the turn of the promotion");
    standby.poll(at(1));
    let first = live(&mut standby);
    assert!((1..=4096).contains(&first), "{first} in one turn");
    (0..3).for_each(|_| standby.poll(at(1)));
    assert_eq!(live(&mut standby), 6000);
}

#[test]
fn sweeps_are_bounded_and_find_all_removed_connections() {
    let mut router = router("", vec![service(Transport::Udp, 1)]);
    for port in 1..=1000 {
        let asked = endpoints(("192.0.2.7", port), ("203.0.113.80", 53));
        assert_eq!(send_packet(&mut router, 1, &udp(asked), at(1)).0, Ok(()));
    }
    let live = |router: &mut Router| {
        router.services().iter().flat_map(ServiceState::backends).map(BackendState::active).sum::<u64>()
    };
    assert_eq!(live(&mut router), 1000);
    router.engine_mut().flush(at(2));
    let left: Vec<_> = (0..5)
        .map(|_| {
            router.poll(at(2));
            live(&mut router)
        })
        .collect();
    assert_eq!(left, [744, 488, 232, 0, 0]);
}

#[test]
fn reload_of_same_config_keeps_round_robin_position() {
    let mut router = router("", vec![service(Transport::Tcp, 3)]);
    let mut order = Vec::new();
    for client in 1..=6 {
        order.push(open_connection(&mut router, client, 4000, at(1)).unwrap());
        router.replace_services(vec![service(Transport::Tcp, 3)], at(1));
    }
    let [a, b, c] = [11, 12, 13].map(|last| ip(&format!("10.0.0.{last}")));
    assert_eq!(order, [a, b, c, a, b, c]);
}
