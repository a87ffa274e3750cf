//! Where new connections go, and as whom.
use super::*;

const NAT: &str = "
table ip nat {
	chain pre { type nat hook prerouting priority dstnat; ip daddr 203.0.113.80 tcp dport 80 counter dnat to 10.0.0.99:1; }
	chain post { type nat hook postrouting priority srcnat; ip daddr 10.0.0.11 snat to 10.0.0.200; }
}";

#[test]
fn connections_go_round_and_stay_where_they_went() {
    let mut router = router("", vec![service(Transport::Tcp, 3)]);
    let first: Vec<_> = (1..=6).map(|client| open(&mut router, client, 4000, at(1)).unwrap()).collect();
    let [a, b, c] = [11, 12, 13].map(|last| ip(&format!("10.0.0.{last}")));
    assert_eq!(first, [a, b, c, a, b, c]);
    for (client, backend) in (1..=6).zip(first) {
        let (said, ends, _) = go_on(&mut router, client, 4000, at(2));
        assert_eq!((said, ends.1), (Ok(()), (backend, 8080)));
    }
    assert_eq!(figures(&mut router, at(2)), [(2, 2); 3]);
    // What is no service's is none of our business.
    let (said, left) = pass(&mut router, 1, &tcp(ends(("192.0.2.9", 1), ("203.0.113.80", 81)), SYN, 1, 0), at(2));
    assert_eq!((said, read(&left[0]).0.1), (Ok(()), (ip("203.0.113.80"), 81)));
}

#[test]
fn services_stand_before_the_rulesets_dnat_and_leave_it_its_snat() {
    let mut router = router(NAT, vec![service(Transport::Tcp, 1)]);
    let (_, left) = pass(&mut router, 1, &tcp(ends(("192.0.2.9", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
    assert_eq!(read(&left[0]).0, ends(("10.0.0.200", 4000), ("10.0.0.11", 8080)));
    assert_eq!(router.program().counters().next().unwrap().1, 0, "the rule was never asked");
}

#[test]
fn the_ruleset_sees_the_backend_where_it_filters() {
    let rules = "table ip f { chain f { type filter hook forward priority filter; policy drop; ct state established accept; ct status dnat ip daddr 10.0.0.12 tcp dport 8080 accept; }; }";
    let mut router = router(rules, vec![service(Transport::Tcp, 2)]);
    assert_eq!(open(&mut router, 1, 4000, at(1)), None, "dropped on its way to the first");
    assert_eq!(open(&mut router, 1, 4000, at(1)), Some(ip("10.0.0.12")));
    assert_eq!(figures(&mut router, at(1)), [(0, 0), (1, 1)], "who never came through counts for nothing");
}

#[test]
fn published_ports_are_those_of_every_address_of_ours_and_of_nobody_else() {
    let everywhere = |address: &str, to: &str| {
        Service::new(address, (ip(address), 8000..=8009), Transport::Tcp).with(Backend {
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
        let (_, left) = pass(&mut router, 1, &tcp(ends((client, port), (asked, port)), SYN, 1, 0), at(1));
        let (address, to) = sent.unwrap_or((asked, port));
        assert_eq!(read(&left[0]).0.1, (ip(address), to), "{asked}:{port}");
    }
}

#[test]
fn without_a_port_of_its_own_a_backend_has_the_one_that_was_asked_for() {
    let range = Service::new("range", (ip("203.0.113.80"), 5000..=6000), Transport::Udp).with(Backend {
        address: ip("10.0.0.11"),
        port: None,
        weight: 1,
    });
    let mut router = router("", vec![range]);
    let (_, left) = pass(&mut router, 1, &udp(ends(("192.0.2.7", 1), ("203.0.113.80", 5555))), at(1));
    assert_eq!(read(&left[0]).0.1, (ip("10.0.0.11"), 5555));
}

#[test]
fn a_neighbour_of_the_backend_is_masqueraded_and_others_as_is_wanted() {
    for (masquerade, neighbour, stranger) in [
        (Masquerade::Never, "10.0.0.7", "192.0.2.7"),
        (Masquerade::Hairpin, "10.0.0.1", "192.0.2.7"),
        (Masquerade::Always, "10.0.0.1", "10.0.0.1"),
    ] {
        let mut router = router("", vec![Service { masquerade, ..service(Transport::Tcp, 1) }]);
        for (iif, client, seen) in [(2, "10.0.0.7", neighbour), (1, "192.0.2.7", stranger)] {
            let asked = ends((client, 4000), ("203.0.113.80", 80));
            let (_, left) = pass(&mut router, iif, &tcp(asked, SYN, 1, 0), at(1));
            let (sent, _) = read(&left[0]);
            assert_eq!(sent, ends((seen, sent.0.1), ("10.0.0.11", 8080)), "{masquerade:?} {client}");
            let (_, left) = pass(&mut router, 2, &tcp((sent.1, sent.0), SYN | ACK, 9, 2), at(1));
            assert_eq!(read(&left[0]).0, (asked.1, asked.0), "{masquerade:?} {client}");
        }
        // Another neighbour with the same port: both are to be told apart.
        let (said, left) = pass(&mut router, 2, &tcp(ends(("10.0.0.8", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
        assert_eq!((said, left.len()), (Ok(()), 1));
    }
}

#[test]
fn one_who_asks_the_backend_itself_from_the_same_port_is_told_apart() {
    let mut router = router("", vec![service(Transport::Tcp, 1)]);
    let (said, _) = pass(&mut router, 1, &tcp(ends(("192.0.2.7", 4000), ("10.0.0.11", 8080)), SYN, 1, 0), at(1));
    assert_eq!(said, Ok(()));
    let (said, left) = pass(&mut router, 1, &tcp(ends(("192.0.2.7", 4000), ("203.0.113.80", 80)), SYN, 1, 0), at(1));
    assert_eq!(said, Ok(()));
    assert_ne!(read(&left[0]).0.0, (ip("192.0.2.7"), 4000), "the answers of both would look alike");
}

#[test]
fn nobody_there_is_answered_as_reject_does() {
    let mut router =
        router("", vec![service(Transport::Tcp, 0), Service { name: "dns".into(), ..service(Transport::Udp, 0) }]);
    let asked = ends(("192.0.2.7", 4000), ("203.0.113.80", 80));
    let (said, left) = pass(&mut router, 1, &tcp(asked, SYN, 1, 0), at(1));
    assert_eq!((said, read(&left[0])), (Err(Loss::NoBackend), ((asked.1, asked.0), RST | ACK)));
    let (said, left) = pass(&mut router, 1, &udp(ends(("192.0.2.7", 4000), ("203.0.113.80", 53))), at(1));
    assert_eq!(said, Err(Loss::NoBackend));
    let error = Packet::parse(&left[0]).unwrap();
    assert_eq!((error.protocol(), error.transport()[..2].to_vec()), (1, vec![3, 3]));
    assert_eq!(router.engine().count(), 0, "nothing is left of it");
    let refused: Vec<_> = router.services().iter().map(Running::refused).collect();
    assert_eq!(refused, [1, 1]);
}

#[test]
fn routers_with_the_same_backends_agree_whatever_their_order() {
    let clients = |services: Service| {
        let mut router = router("", vec![services]);
        (1..=60).map(|client| open(&mut router, client, 4000, at(1)).unwrap()).collect::<Vec<_>>()
    };
    for scheduler in [Scheduler::Maglev, Scheduler::SourceHash] {
        let one = Service { scheduler, ..service(Transport::Tcp, 5) };
        let mut other = one.clone();
        other.backends.reverse();
        let (one, other, seeded) = (clients(one.clone()), clients(other), clients(Service { seed: 1, ..one }));
        assert_eq!(one, other, "{scheduler:?}");
        assert_ne!(one, seeded, "{scheduler:?}");
    }
}

#[test]
fn what_cannot_be_is_said_before() {
    let web = service(Transport::Tcp, 1);
    let wrong = |change: &dyn Fn(&mut Service)| {
        let mut other = Service { name: "other".into(), ports: 90..=99, ..web.clone() };
        change(&mut other);
        let found = misfits(&[web.clone(), other]);
        assert!(found.iter().all(|misfit| misfit.service == 1));
        found.into_iter().map(|misfit| misfit.what).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(wrong(&|_| ()), "");
    assert!(wrong(&|other| other.name = "web".into()).contains("already"));
    assert!(wrong(&|other| other.ports = 70..=80).contains("the service \"web\"'s already"));
    assert!(wrong(&|other| other.ports = 0..=7).contains("1 to 65535"));
    assert!(wrong(&|other| other.backends[0].address = ip("fd00::1")).contains("IPv6"));
    assert!(wrong(&|other| other.backends.push(backend(0))).contains("twice"));
    assert!(wrong(&|other| other.backends[0].port = Some(65_530)).contains("do not suffice"));
    assert!(
        wrong(&|other| other.backends[0] = Backend { address: other.address, port: Some(95), weight: 1 })
            .contains("round and round")
    );
    assert!(wrong(&|other| other.backends[0].address = ip("0.0.0.0")).contains("nobody's own"));
}
