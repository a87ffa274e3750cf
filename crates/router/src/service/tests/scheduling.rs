//! Where new connections go, and as whom.
use super::*;

const NAT: &str = "
table ip nat {
	chain pre { type nat hook prerouting priority dstnat; ip daddr 203.0.113.80 tcp dport 80 counter dnat to 10.0.0.99:1; }
	chain post { type nat hook postrouting priority srcnat; ip daddr 10.0.0.11 snat to 10.0.0.200; }
}";

#[test]
fn round_robin_and_existing_connections_stick() {
    let mut router = router("", vec![service(Transport::Tcp, 3)]);
    let first: Vec<_> = (1..=6).map(|client| open_connection(&mut router, client, 4000, at(1)).unwrap()).collect();
    let [a, b, c] = [11, 12, 13].map(|last| ip(&format!("10.0.0.{last}")));
    assert_eq!(first, [a, b, c, a, b, c]);
    for (client, backend) in (1..=6).zip(first) {
        let (result, ends, _) = send_on_connection(&mut router, client, 4000, at(2));
        assert_eq!((result, ends.1), (Ok(()), (backend, 8080)));
    }
    assert_eq!(connection_counts(&mut router, at(2)), [(2, 2); 3]);
    // What is no service's is none of our business.
    let (result, left) =
        send_packet(&mut router, 1, &tcp(endpoints(("192.0.2.9", 1), ("203.0.113.80", 81)), SYN, 1, 0), at(2));
    assert_eq!((result, parse_packet(&left[0]).0.1), (Ok(()), (ip("203.0.113.80"), 81)));
}

#[test]
fn services_override_ruleset_dnat_but_not_snat() {
    let mut router = router(NAT, vec![service(Transport::Tcp, 1)]);
    let (_, left) =
        send_packet(&mut router, 1, &tcp(endpoints(("192.0.2.9", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
    assert_eq!(parse_packet(&left[0]).0, endpoints(("10.0.0.200", 4000), ("10.0.0.11", 8080)));
    assert_eq!(router.program().rule_counters().next().unwrap().1, 0, "the rule was never asked");
}

#[test]
fn forward_rules_see_the_backend_address() {
    let rules = "table ip f { chain f { type filter hook forward priority filter; policy drop; ct state established accept; ct status dnat ip daddr 10.0.0.12 tcp dport 8080 accept; }; }";
    let mut router = router(rules, vec![service(Transport::Tcp, 2)]);
    assert_eq!(open_connection(&mut router, 1, 4000, at(1)), None, "dropped on its way to the first");
    assert_eq!(open_connection(&mut router, 1, 4000, at(1)), Some(ip("10.0.0.12")));
    assert_eq!(connection_counts(&mut router, at(1)), [(0, 0), (1, 1)], "who never came through counts for nothing");
}

#[test]
fn unspecified_address_matches_all_local_addresses_only() {
    let everywhere = |address: &str, to: &str| {
        ServiceConfig::new(address, (ip(address), 8000..=8009), Transport::Tcp).with_backend(BackendConfig {
            address: ip(to),
            port: Some(9000),
            weight: 1,
        })
    };
    let mut router = router("", vec![everywhere("0.0.0.0", "10.0.0.11"), everywhere("::", "fd00::11")]);
    for (asked, port, sent) in [
        ("192.0.2.254", 8000, Some(("10.0.0.11", 9000))),
        ("10.0.0.1", 8009, Some(("10.0.0.11", 9009))),
        ("2001:db8::fffe", 8003, Some(("fd00::11", 9003))),
        ("192.0.2.254", 8010, None),
        ("192.0.2.254", 7999, None),
        ("203.0.113.5", 8000, None),
    ] {
        let client = if ip(asked).is_ipv4() { "192.0.2.7" } else { "2001:db8::7" };
        let (_, left) = send_packet(&mut router, 1, &tcp(endpoints((client, port), (asked, port)), SYN, 1, 0), at(1));
        let (address, to) = sent.unwrap_or((asked, port));
        assert_eq!(parse_packet(&left[0]).0.1, (ip(address), to), "{asked}:{port}");
    }
}

#[test]
fn backend_without_port_keeps_the_destination_port() {
    let range = ServiceConfig::new("range", (ip("203.0.113.80"), 5000..=6000), Transport::Udp)
        .with_backend(BackendConfig { address: ip("10.0.0.11"), port: None, weight: 1 });
    let mut router = router("", vec![range]);
    let (_, left) = send_packet(&mut router, 1, &udp(endpoints(("192.0.2.7", 1), ("203.0.113.80", 5555))), at(1));
    assert_eq!(parse_packet(&left[0]).0.1, (ip("10.0.0.11"), 5555));
}

#[test]
fn hairpin_and_always_masquerade() {
    for (masquerade, neighbour, stranger) in [
        (Masquerade::Never, "10.0.0.7", "192.0.2.7"),
        (Masquerade::Hairpin, "10.0.0.1", "192.0.2.7"),
        (Masquerade::Always, "10.0.0.1", "10.0.0.1"),
    ] {
        let mut router = router("", vec![ServiceConfig { masquerade, ..service(Transport::Tcp, 1) }]);
        for (iif, client, seen) in [(2, "10.0.0.7", neighbour), (1, "192.0.2.7", stranger)] {
            let asked = endpoints((client, 4000), ("203.0.113.80", 80));
            let (_, left) = send_packet(&mut router, iif, &tcp(asked, SYN, 1, 0), at(1));
            let (sent, _) = parse_packet(&left[0]);
            assert_eq!(sent, endpoints((seen, sent.0.1), ("10.0.0.11", 8080)), "{masquerade:?} {client}");
            let (_, left) = send_packet(&mut router, 2, &tcp((sent.1, sent.0), SYN | ACK, 9, 2), at(1));
            assert_eq!(parse_packet(&left[0]).0, (asked.1, asked.0), "{masquerade:?} {client}");
        }
        // Another neighbour with the same port: both are to be told apart.
        let (result, left) =
            send_packet(&mut router, 2, &tcp(endpoints(("10.0.0.8", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
        assert_eq!((result, left.len()), (Ok(()), 1));
    }
}

#[test]
fn direct_backend_connection_does_not_clash_with_service() {
    let mut router = router("", vec![service(Transport::Tcp, 1)]);
    let (result, _) =
        send_packet(&mut router, 1, &tcp(endpoints(("192.0.2.7", 4000), ("10.0.0.11", 8080)), SYN, 1, 0), at(1));
    assert_eq!(result, Ok(()));
    let (result, left) =
        send_packet(&mut router, 1, &tcp(endpoints(("192.0.2.7", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
    assert_eq!(result, Ok(()));
    assert_ne!(parse_packet(&left[0]).0.0, (ip("192.0.2.7"), 4000), "the answers of both would look alike");
}

#[test]
fn no_backend_is_rejected() {
    let mut router = router(
        "",
        vec![service(Transport::Tcp, 0), ServiceConfig { name: "dns".into(), ..service(Transport::Udp, 0) }],
    );
    let asked = endpoints(("192.0.2.7", 4000), ("203.0.113.80", 80));
    let (result, left) = send_packet(&mut router, 1, &tcp(asked, SYN, 1, 0), at(1));
    assert_eq!((result, parse_packet(&left[0])), (Err(DropReason::NoBackend), ((asked.1, asked.0), RST | ACK)));
    let (result, left) = send_packet(&mut router, 1, &udp(endpoints(("192.0.2.7", 4000), ("203.0.113.80", 53))), at(1));
    assert_eq!(result, Err(DropReason::NoBackend));
    let error = Packet::parse(&left[0]).unwrap();
    assert_eq!((error.protocol(), error.transport()[..2].to_vec()), (1, vec![3, 3]));
    assert_eq!(router.engine().count(), 0, "nothing is left of it");
    let refused: Vec<_> = router.services().iter().map(ServiceState::refused).collect();
    assert_eq!(refused, [1, 1]);
}

#[test]
fn hash_schedulers_ignore_backend_order() {
    let clients = |services: ServiceConfig| {
        let mut router = router("", vec![services]);
        (1..=60).map(|client| open_connection(&mut router, client, 4000, at(1)).unwrap()).collect::<Vec<_>>()
    };
    for scheduler in [Scheduler::Maglev, Scheduler::SourceHash] {
        let one = ServiceConfig { scheduler, ..service(Transport::Tcp, 5) };
        let mut other = one.clone();
        other.backends.reverse();
        let (one, other, seeded) = (clients(one.clone()), clients(other), clients(ServiceConfig { seed: 1, ..one }));
        assert_eq!(one, other, "{scheduler:?}");
        assert_ne!(one, seeded, "{scheduler:?}");
    }
}

#[test]
fn validate_reports_config_errors() {
    let web = service(Transport::Tcp, 1);
    let wrong = |change: &dyn Fn(&mut ServiceConfig)| {
        let mut other = ServiceConfig { name: "other".into(), ports: 90..=99, ..web.clone() };
        change(&mut other);
        let found = validate(&[web.clone(), other]);
        assert!(found.iter().all(|error| error.service == 1));
        found.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(wrong(&|_| ()), "");
    assert!(wrong(&|other| other.name = "web".into()).contains("duplicate service name \"web\""));
    assert!(wrong(&|other| other.ports = 70..=80).contains("overlaps with service \"web\""));
    assert!(wrong(&|other| other.ports = 0..=7).contains("1 to 65535"));
    assert!(wrong(&|other| other.backends[0].address = ip("fd00::1")).contains("IPv6"));
    assert!(wrong(&|other| other.backends.push(backend(0))).contains("duplicate backend"));
    assert!(wrong(&|other| other.backends[0].port = Some(65_530)).contains("exceed 65535"));
    assert!(
        wrong(&|other| other.backends[0] = BackendConfig { address: other.address, port: Some(95), weight: 1 })
            .contains("would loop")
    );
    assert!(wrong(&|other| other.backends[0].address = ip("0.0.0.0")).contains("not a unicast address"));
}
