//! Masquerade's source beside the kernel's, on interfaces with several addresses of every kind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::*;
use keepstate_linux::netns::AnonNetns;
use keepstate_linux::rtnetlink::{RouteSelectors, RtMonitor, RtNextHop};
use keepstate_rules::Fib;
use keepstate_test_support::report_skipped;
use std::net::{IpAddr, UdpSocket};
use std::process::Stdio;

/// `d1` has the sender's addresses; packets leave by `d0`, and by `d2`, which has none of its own. Without ARP, so that no IPv6 address is tentative.
const SETUP: &str = "
    link add d0 type veth peer name e0
    link add d1 type veth peer name e1
    link add d2 type veth peer name e2
    link set e0 up
    link set d0 arp off up
    link set e1 up
    link set d1 arp off up
    link set e2 up
    link set d2 arp off up
    addr add 10.9.0.1/24 dev d1
    addr add 2001:db8:9::1/64 dev d1
    addr add fd00:9::1/64 dev d1
    addr add 192.168.7.1/24 scope link dev d0
    addr add 10.0.0.1/24 dev d0
    addr add 10.0.0.2/24 dev d0
    addr add 10.1.0.1/24 dev d0
    addr add 172.16.0.1 peer 172.16.0.2/32 dev d0
    addr add 169.254.9.1/24 scope link dev d2
    route add 198.51.100.0/24 via 10.1.0.254 dev d0
    route add 203.0.113.0/24 via 10.0.0.254 dev d0
    route add 198.18.0.0/24 dev d0
    route add 198.19.0.0/24 dev d2
    addr add 2001:db8:1::1/64 dev d0
    addr add 2001:db8:1::2/64 dev d0 preferred_lft 0
    addr add 2001:db8:2::1/64 dev d0
    addr add 2001:db8:3::1/64 dev d0 preferred_lft 0
    addr add fd00:1::1/64 dev d0
    route add 2001:db8:aa::/48 dev d0
    route add 2001:db8:2::/48 dev d0
    route add fd00:77::/32 dev d0
    route add 2002::/16 dev d0
    route add 2001:db8:bb::/48 dev d2
    route add fd00:bb::/32 dev d2
";

const DESTINATIONS: [(&str, &str); 20] = [
    ("d0", "198.51.100.9"),
    ("d0", "203.0.113.9"),
    ("d0", "198.18.0.9"),
    ("d0", "10.0.0.77"),
    ("d0", "10.1.0.77"),
    ("d0", "172.16.0.2"),
    ("d0", "192.168.7.7"),
    ("d2", "198.19.0.9"),
    ("d0", "2001:db8:1::77"),
    ("d0", "2001:db8:2::77"),
    ("d0", "2001:db8:3::77"),
    ("d0", "2001:db8:aa::9"),
    ("d0", "2001:db8:aa:1::9"),
    ("d0", "fd00:1::77"),
    ("d0", "fd00:77::9"),
    ("d0", "2002:a00:1::9"),
    ("d2", "2001:db8:bb::9"),
    ("d2", "2001:db8:bb:8000::9"),
    ("d2", "fd00:bb::9"),
    ("d0", "2001:db8:2:8000::9"),
];

const RULES: &str =
    "table inet t { chain p { type nat hook postrouting priority srcnat; oifname { d0, d2 } masquerade; }; }";

fn ip(namespace: &AnonNetns, words: &str) -> bool {
    let ran = namespace.command("ip").args(words.split_whitespace()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// The source that the kernel gave a packet from `d1`'s address.
fn masqueraded_by_kernel(namespace: &AnonNetns, to: IpAddr) -> Option<IpAddr> {
    let (from, family) = if to.is_ipv4() { ("10.9.0.1", "ipv4") } else { ("2001:db8:9::1", "ipv6") };
    let sent = namespace.enter(|| {
        let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 4000)).unwrap();
        socket.send_to(b"x", (to, 4000))
    });
    sent.unwrap().unwrap_or_else(|error| panic!("to {to}: {error}"));
    let listed = namespace.command("conntrack").args(["-L", "-f", family, "-d", &to.to_string()]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.split_whitespace().filter_map(|word| word.strip_prefix("dst=")).next_back()?.parse().ok()
}

#[test]
fn masquerade_picks_the_source_that_linux_picks() {
    let skipped =
        || report_skipped("masquerade beside the kernel's: it needs root, namespaces, iproute2, nft and conntrack");
    let Ok(namespace) = AnonNetns::create() else { return skipped() };
    let rules = namespace.command("nft").arg(RULES).status();
    let tool = namespace.command("conntrack").arg("--version").stdout(Stdio::null()).status();
    if rules.is_err() || tool.is_err() || !ip(&namespace, "link set lo up") {
        return skipped();
    }
    assert!(rules.unwrap().success(), "nft refuses {RULES}");
    for line in SETUP.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(ip(&namespace, line), "{line}");
    }
    let messages = namespace.enter(|| RtMonitor::open().unwrap().dump_all().unwrap()).unwrap();
    let (_, fib) = build_fib(messages.clone());
    let index = |name: &str| links(&messages).into_iter().find(|link| link.name == name).unwrap().index;
    let mut wrong = Vec::new();
    for (device, to) in DESTINATIONS {
        let to: IpAddr = to.parse().unwrap();
        let (ours, theirs) = (fib.source_address(index(device), to, None), masqueraded_by_kernel(&namespace, to));
        if ours != theirs || theirs.is_none() {
            wrong.push(format!("to {to} by {device}: the kernel {theirs:?}, here {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn link(index: u32, is_up: bool, has_carrier: bool) -> RtMessage {
    let (name, kind) = (format!("eth{index}"), String::new());
    let (mtu, mac, group, master, link_type) = (1500, None, 0, None, 1);
    let (qdisc, has_xdp) = (String::new(), false);
    RtMessage::Link(RtLink {
        index,
        name,
        mtu,
        mac,
        is_up,
        has_carrier,
        group,
        master,
        link_type,
        kind,
        qdisc,
        has_xdp,
    })
}

/// Whatever the kernel may have rerouted with an interface is told as a change of routing; an interface that no route has ever led to changes none.
#[test]
fn interfaces_change_routing_only_where_routes_may_lead_to_them() {
    let route = |table, prefix: &str, ifindex| {
        let nexthops = vec![RtNextHop { ifindex, gateway: None }];
        let prefix = prefix.parse().unwrap();
        let route =
            RtRoute { prefix, prefix_length: 64, nexthops, rejects: false, metric: 0, table, has_several_ways: false };
        RtMessage::Route(route, RtPlacement::Append)
    };
    let tell = |links: &mut KernelLinks, message| {
        let mut changes = Vec::new();
        let _ = links.apply(message, &mut changes);
        let routing = changes.contains(&FibChange::Routing);
        let of_it = changes.into_iter().find(|change| *change != FibChange::Routing);
        (routing, of_it.map(|change| format!("{change:?}").chars().take_while(|c| *c != '(').collect::<String>()))
    };
    let there = |routing| (routing, Some("Interface".to_owned()));
    let (mut links, _) = build_fib(vec![link(1, true, true)]);
    let links = &mut links;
    // A new one, without routes but those of its own link.
    assert_eq!(tell(links, link(5, false, false)), (false, None));
    assert_eq!(tell(links, link(5, true, false)), there(false));
    assert!(!tell(links, route(254, "fe80::", 5)).0);
    assert_eq!(tell(links, link(5, true, true)), there(false));
    assert_eq!(tell(links, RtMessage::LinkGone(5)), (false, Some("UnroutedInterfaceGone".to_owned())));
    // With a route, of whatever table; and one that was there at the start.
    for table in [254, 100] {
        tell(links, link(6, true, true));
        tell(links, route(table, "2001:db8::", 6));
        for index in [1, 6] {
            assert_eq!(tell(links, link(index, true, false)), there(true));
            assert_eq!(tell(links, link(index, true, false)), there(false), "nothing has changed");
            assert_eq!(tell(links, link(index, false, false)), (false, Some("InterfaceGone".to_owned())));
            assert_eq!(tell(links, link(index, true, true)), there(true));
        }
        assert_eq!(tell(links, RtMessage::LinkGone(6)), (false, Some("InterfaceGone".to_owned())));
    }
    // The carrier's own comes back with each start of the gateway.
    let carrier = |has_carrier| match link(9, true, has_carrier) {
        RtMessage::Link(link) => RtMessage::Link(RtLink { name: CARRIER_NAME.to_owned(), ..link }),
        other => other,
    };
    let (mut restarted, _) = build_fib(vec![link(1, true, true), carrier(false)]);
    assert_eq!(tell(&mut restarted, carrier(true)), there(false));
    tell(&mut restarted, RtMessage::RoutingChanged(RouteSelectors::default()));
    assert_eq!(tell(&mut restarted, carrier(false)), there(false));
    assert_eq!(tell(&mut restarted, link(1, true, false)), there(true));
    // Nexthop objects name interfaces; routes need not.
    tell(links, link(7, true, true));
    tell(links, RtMessage::RoutingChanged(RouteSelectors::default()));
    assert_eq!(tell(links, link(7, true, false)), there(true));
}

/// What every interface has by itself, and gets up to two seconds after it is up, changes the way of no flow: neither do the settings of a new interface.
#[test]
fn what_an_interface_has_by_itself_changes_no_routing() {
    let Ok(namespace) = AnonNetns::create() else {
        return report_skipped("link-local addresses of a new interface: it needs root, namespaces and iproute2");
    };
    for line in
        ["link add d0 type veth peer name e0", "addr add 10.0.0.1/24 dev d0", "link set e0 up", "link set d0 up"]
    {
        assert!(ip(&namespace, line), "{line}");
    }
    let mut monitor = namespace.enter(|| RtMonitor::open().unwrap()).unwrap();
    let messages = monitor.dump_all().unwrap();
    let index = links(&messages).into_iter().find(|link| link.name == "d0").unwrap().index;
    let (mut links, _) = build_fib(messages);
    assert!(ip(&namespace, "link add d9 type veth peer name e9"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut is_there = false;
    while !is_there {
        assert!(std::time::Instant::now() < until, "no link-local address came");
        for message in monitor.wait_changes(std::time::Duration::from_secs(1)).unwrap().messages {
            is_there |= matches!(&message, RtMessage::Address(of) if of.ifindex == index && is_of_link(of.address));
            let (mut changes, told) = (Vec::new(), format!("{message:?}"));
            let _ = links.apply(message, &mut changes);
            assert!(!changes.contains(&FibChange::Routing), "{told}");
        }
    }
}
