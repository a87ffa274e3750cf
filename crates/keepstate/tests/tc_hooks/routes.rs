//! Routes are the kernel's: policy rules, several ways, routes of no avail, and changes of them in the middle of traffic.
use crate::offload::{Conversation, offloaded, set_socket_option, stat};
use crate::peers::{bind_udp, run_ip, spawn_in_netns};
use crate::{PATIENCE, SILENCE, TcTestbed};
use keepstate_test_support::uninterrupted;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Two ways to the server, told apart by the address that each masquerades with.
const TWO_WAYS: &str = "
table inet t {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		udp dport 7100 meta mark set 7
	}
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		oifname { r1, r2 } masquerade
	}
}
";

pub(crate) fn in_netns(lab: &TcTestbed, side: &str, script: &str) -> bool {
    let name = lab.netns.name(side);
    let status = Command::new("ip").args(["netns", "exec", &name, "sh", "-ec", script]).status();
    status.is_ok_and(|status| status.success())
}

/// The router's routes to the server's networks: directly, with mark 7 by the second way.
pub(crate) const SECOND_WAY_BY_MARK: &str = "
    ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2
    ip rule add fwmark 7 lookup 100; ip -6 rule add fwmark 7 lookup 100
    ip route add 198.51.100.0/24 via 10.0.3.2 table 100; ip -6 route add 2001:db8::/64 via fd00:3::2 table 100
";

/// A second link between router and server, r2 – s1, and forwarding by the kernel.
pub(crate) fn with_second_way(name: &str, rules: &str) -> Option<TcTestbed> {
    let lab = TcTestbed::without_gateway(name, rules)?;
    let [r, s] = ["r", "s"].map(|side| lab.netns.name(side));
    assert!(run_ip(&["link", "add", "s1", "netns", &s, "type", "veth", "peer", "name", "r2", "netns", &r]));
    let settings = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done";
    assert!(in_netns(&lab, "s", settings) && in_netns(&lab, "r", settings));
    assert!(in_netns(
        &lab,
        "r",
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip addr add 10.0.3.1/24 dev r2; ip addr add fd00:3::1/64 dev r2 nodad; ip link set r2 up"
    ));
    assert!(in_netns(
        &lab,
        "s",
        "ip addr add 10.0.3.2/24 dev s1; ip addr add fd00:3::2/64 dev s1 nodad; ip link set s1 up
         ip route add local 198.51.100.0/24 dev lo; ip -6 route add local 2001:db8::/64 dev lo"
    ));
    Some(lab)
}

/// Whom the server sees for datagrams from so many ports to as many addresses: the router's addresses, by the way each took.
fn ways_taken(lab: &TcTestbed, side: &str, v6: bool, dport: u16) -> Vec<IpAddr> {
    ways_taken_to(lab, side, v6, dport, |number| number)
}

/// The same, to the addresses of these numbers.
fn ways_taken_to(lab: &TcTestbed, side: &str, v6: bool, dport: u16, address: impl Fn(u16) -> u16) -> Vec<IpAddr> {
    let any = if v6 { "[::]" } else { "0.0.0.0" };
    let server = spawn_in_netns(&lab.netns.name("s"), move || bind_udp(&format!("{any}:{dport}")));
    let server = server.join().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = lab.netns.name(side);
    (1..=24_u16)
        .map(|number| {
            let to = address(number);
            let to = if v6 { format!("[2001:db8::{to}]:{dport}") } else { format!("198.51.100.{to}:{dport}") };
            let asks = move || {
                let socket = bind_udp(&format!("{any}:{}", 20_000 + number));
                socket.send_to(&number.to_be_bytes(), to).unwrap();
            };
            spawn_in_netns(&client, asks).join().unwrap();
            let mut question = [0; 2];
            let received = uninterrupted(|| server.recv_from(&mut question));
            let (_, from) = received.unwrap_or_else(|error| {
                let neighbours = Command::new("ip").args(["-n", &lab.netns.name("r"), "neigh"]).output().unwrap();
                panic!("{error}: datagram {number}, IPv6 {v6}: {}", String::from_utf8_lossy(&neighbours.stdout))
            });
            assert_eq!(question, number.to_be_bytes());
            from.ip()
        })
        .collect()
}

/// The kernel forwards by itself, with the same ruleset in nft; then the gateway does.
fn compare_ways(name: &str, set_up: &str, dport: u16, spreads: bool) {
    let Some(mut lab) = with_second_way(name, TWO_WAYS) else { return };
    assert!(in_netns(&lab, "r", set_up), "{set_up}");
    let nft = format!("nft -f {}", lab.ruleset.path());
    if !in_netns(&lab, "r", &nft) {
        crate::report_skipped("ways beside the kernel's: it needs nft");
        return;
    }
    let kernel = [false, true].map(|v6| ways_taken(&lab, "c", v6, dport));
    assert!(in_netns(&lab, "r", "nft flush ruleset"));
    lab.start(&["--interface", "r*"]);
    let ours = [false, true].map(|v6| ways_taken(&lab, "c", v6, dport));
    // Of several ways of IPv6 the kernel forwards by another one than it tells when asked.
    let compared = if spreads { 1 } else { 2 };
    assert_eq!(ours[..compared], kernel[..compared], "{set_up}");
    for ways in &ours {
        assert_eq!(ways.iter().any(|way| *way != ways[0]), spreads, "{ways:?}");
    }
    let by = |ways: &[IpAddr]| ways[0];
    if !spreads {
        let expected: [IpAddr; 2] = ["10.0.3.1".parse().unwrap(), "fd00:3::1".parse().unwrap()];
        assert_eq!([by(&ours[0]), by(&ours[1])], expected, "the second way");
    }
}

#[test]
fn policy_rule_by_source_is_followed() {
    let set_up = "ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2
        ip rule add from 10.0.1.0/24 lookup 100; ip -6 rule add from fd00:1::/64 lookup 100
        ip route add 198.51.100.0/24 via 10.0.3.2 table 100; ip -6 route add 2001:db8::/64 via fd00:3::2 table 100";
    compare_ways("rs", set_up, 7000, false);
}

#[test]
fn policy_rule_by_a_mark_of_the_ruleset_is_followed() {
    compare_ways("rm", SECOND_WAY_BY_MARK, 7100, false);
}

/// What the machine itself sends is routed again where a chain of type route has changed its mark, and only there.
#[test]
fn own_packets_are_routed_again_by_chains_of_type_route() {
    let rules = "
        table inet t {
            chain r {
                type route hook output priority mangle; policy accept;
                udp dport 7100 meta mark set 7
                tcp dport 7101 meta mark set 7
                udp dport 7103 meta mark set 8
            }
            chain f { type filter hook output priority mangle + 1; policy accept; udp dport { 7102, 7103 } meta mark set 7; }
            chain post { type nat hook postrouting priority srcnat; policy accept; oifname { r1, r2 } masquerade; }
        }";
    let Some(mut lab) = with_second_way("ro", rules) else { return };
    assert!(in_netns(&lab, "r", SECOND_WAY_BY_MARK));
    if !in_netns(&lab, "r", &format!("nft -f {}", lab.ruleset.path())) {
        crate::report_skipped("chains of type route beside the kernel's: it needs nft");
        return;
    }
    let ways =
        |lab: &TcTestbed| [7100, 7102, 7103, 7104].map(|dport| [false, true].map(|v6| ways_taken(lab, "r", v6, dport)));
    let kernel = ways(&lab);
    let [first, second] = [["10.0.2.1", "fd00:2::1"], ["10.0.3.1", "fd00:3::1"]];
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let seen = kernel.each_ref().map(|by_family| by_family.each_ref().map(|ways| ways[0]));
    assert_eq!(seen, [second, first, first, first].map(|ways| ways.map(address)), "by the kernel");
    assert!(in_netns(&lab, "r", "nft flush ruleset"));
    lab.start(&["--interface", "r*"]);
    assert_eq!(ways(&lab), kernel);
    // Known flows too, whose packets are no hop older for it.
    for (at, called, level, option) in [
        ("0.0.0.0:7101", "198.51.100.1:7101", libc::IPPROTO_IP, libc::IP_MINTTL),
        ("[::]:7101", "[2001:db8::1]:7101", libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    ] {
        let mut talk = offloaded(&lab, "r", "s", at, called);
        let before = packets_on(&lab, "r2");
        set_socket_option(&talk.server, level, option, 64);
        (0..50).for_each(|_| talk.exchange(1000));
        let its = packets_on(&lab, "r2") - before;
        assert!(its >= 50, "{called}: {its} by r2");
        talk.exchange(1_000_000);
    }
}

#[test]
fn several_ways_are_spread_as_the_kernel_spreads_them() {
    let set_up = "echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy
        echo 1 > /proc/sys/net/ipv6/fib_multipath_hash_policy
        ip route add 198.51.100.0/24 nexthop via 10.0.2.2 nexthop via 10.0.3.2
        ip -6 route add 2001:db8::/64 nexthop via fd00:2::2 nexthop via fd00:3::2";
    compare_ways("re", set_up, 7000, true);
}

/// Flows between two addresses, told apart by their ports alone: each way that the kernel chooses by them, also if it came while the gateway ran.
#[test]
fn flows_between_two_addresses_go_by_their_ports_where_the_kernel_does() {
    const ONE_WAY: &str =
        "ip route replace 198.51.100.0/24 via 10.0.2.2; ip -6 route replace 2001:db8::/64 via fd00:2::2
        echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy; echo 1 > /proc/sys/net/ipv6/fib_multipath_hash_policy";
    let rule = "
        ip route add 198.51.100.0/24 via 10.0.3.2 table 100; ip -6 route add 2001:db8::/64 via fd00:3::2 table 100
        ip rule add ipproto udp sport 20001-20009 lookup 100; ip -6 rule add ipproto udp sport 20001-20009 lookup 100";
    let several = "
        ip route replace 198.51.100.0/24 nexthop via 10.0.2.2 nexthop via 10.0.3.2
        ip -6 route replace 2001:db8::/64 nexthop via fd00:2::2 nexthop via fd00:3::2";
    let appended = "
        ip route replace 198.51.100.0/24 nexthop via 10.0.2.2 nexthop via 10.0.3.2
        ip -6 route append 2001:db8::/64 via fd00:3::2";
    let objects = "
        ip nexthop add id 1 via 10.0.2.2 dev r1; ip nexthop add id 2 via 10.0.3.2 dev r2
        ip nexthop add id 3 via fd00:2::2 dev r1; ip nexthop add id 4 via fd00:3::2 dev r2
        ip nexthop add id 10 group 1/2; ip nexthop add id 11 group 3/4
        ip route replace 198.51.100.0/24 nhid 10
        ip -6 route del 2001:db8::/64; ip -6 route add 2001:db8::/64 nhid 11";
    // Of several ways of IPv6 the kernel forwards by another one than it tells when asked.
    for (change, compared) in [(rule, 2), (several, 1), (appended, 1), (objects, 1)] {
        let Some(mut lab) = with_second_way("rf", TWO_WAYS) else { return };
        let ways = |lab: &TcTestbed, dport| [false, true].map(|v6| ways_taken_to(lab, "c", v6, dport, |_| 1));
        assert!(in_netns(&lab, "r", ONE_WAY));
        lab.start(&["--interface", "r*"]);
        let before = ways(&lab, 7000);
        assert!(before.iter().all(|ways| ways.iter().all(|way| *way == ways[0])), "{before:?}");
        assert!(in_netns(&lab, "r", change), "{change}");
        // A change after it: the gateway has seen both.
        assert!(in_netns(&lab, "r", "ip route add 203.0.113.7 via 10.0.2.2"));
        let until = Instant::now() + PATIENCE;
        while !lab.control(&["routes"]).contains("203.0.113.7") {
            assert!(Instant::now() < until, "the change is not seen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ours = ways(&lab, 7001);
        lab.stop();
        lab.detach();
        if !in_netns(&lab, "r", &format!("nft -f {}", lab.ruleset.path())) {
            crate::report_skipped("ways beside the kernel's: it needs nft");
            return;
        }
        let kernel = ways(&lab, 7001);
        assert_eq!(ours[..compared], kernel[..compared], "{change}");
        for ways in &ours {
            assert!(ways.iter().any(|way| *way != ways[0]), "{change}: {ways:?}");
        }
    }
}

/// What no route leads to is answered as the kernel answers it; a blackhole is silent.
#[test]
fn routes_that_lead_nowhere_are_answered_as_by_the_kernel() {
    let Some(mut lab) = with_second_way("rn", TWO_WAYS) else { return };
    assert!(in_netns(
        &lab,
        "r",
        "ip route add unreachable 203.0.113.1; ip route add prohibit 203.0.113.2; ip route add blackhole 203.0.113.3
         ip route add throw 203.0.113.4"
    ));
    // No more: the kernel answers only so many at once.
    let targets = ["203.0.113.1:9", "203.0.113.2:9", "203.0.113.3:9", "203.0.113.4:9"];
    let answers = |lab: &TcTestbed| targets.map(|to| lab.connect("c", to, SILENCE).unwrap_err());
    let kernel = answers(&lab);
    assert_eq!((kernel[0], kernel[2]), (ErrorKind::HostUnreachable, ErrorKind::TimedOut));
    lab.start(&["--interface", "r*"]);
    assert_eq!(answers(&lab), kernel);
}

/// A packet of a known flow that takes the new way: whom the server sees does not change with it, so the link tells.
pub(crate) fn packets_on(lab: &TcTestbed, device: &str) -> u64 {
    let path = format!("/sys/class/net/{device}/statistics/tx_packets");
    let name = lab.netns.name("r");
    let shown = Command::new("ip").args(["netns", "exec", &name, "cat", &path]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().trim().parse().unwrap()
}

/// A change of routes moves the known flows that it concerns, and leaves the others in the kernel, however often it comes.
#[test]
fn route_changes_concern_only_the_flows_to_their_destinations() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; } }";
    let Some(mut lab) = with_second_way("rc", rules) else { return };
    assert!(in_netns(&lab, "r", "ip route add 198.51.100.0/24 via 10.0.2.2"));
    lab.start(&["--interface", "r*"]);
    let mut talk = offloaded(&lab, "c", "s", "198.51.100.1:7000", "198.51.100.1:7000");
    // What the kernel still tells of the interfaces may take it back for a moment.
    let until = Instant::now() + PATIENCE;
    while stat(&lab, "offloaded_flows") == 0 {
        talk.exchange(1000);
        assert!(Instant::now() < until, "it is not known to the kernel");
    }
    let received = stat(&lab, "received");
    let churn = "for n in $(seq 1 200); do echo route add 203.0.113.$n via 10.0.2.2; echo route del 203.0.113.$n; done | ip -batch -";
    assert!(in_netns(&lab, "r", churn));
    for _ in 0..100 {
        talk.exchange(1000);
    }
    let seen = stat(&lab, "received") - received;
    assert!(seen < 50, "{seen} of more than 200 packets came to the router: the flow was dropped");

    // Its own route: all goes the other way, soon.
    assert!(in_netns(&lab, "r", "ip route replace 198.51.100.0/24 via 10.0.3.2"));
    let until = Instant::now() + PATIENCE;
    loop {
        let before = (packets_on(&lab, "r1"), packets_on(&lab, "r2"));
        for _ in 0..50 {
            talk.exchange(1000);
        }
        // The answers come by either link and leave by r0.
        if packets_on(&lab, "r1") - before.0 < 20 && packets_on(&lab, "r2") - before.1 >= 50 {
            break;
        }
        assert!(Instant::now() < until, "it still goes the old way");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A table as of a provider: what is known goes on in the kernel while it changes, and new connections find their way.
#[test]
fn a_hundred_thousand_routes_come_and_go() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; } }";
    let Some(mut lab) = with_second_way("rm", rules) else { return };
    // 198.18.0.0/15 has room for 131,072 of them.
    let each = |lab: &TcTestbed, verb: &str, count: u32, way: &str| {
        let routes = format!(
            "for n in $(seq 0 {}); do echo route {verb} 198.$((18 + n / 65536)).$((n / 256 % 256)).$((n % 256)){way}; done | ip -batch -",
            count - 1
        );
        assert!(in_netns(lab, "r", &routes), "{routes}");
    };
    each(&lab, "add", 100_000, " via 10.0.2.2");
    assert!(in_netns(&lab, "r", "ip route add 198.51.100.0/24 via 10.0.2.2"));
    lab.start(&["--interface", "r*"]);
    let mut talk = offloaded(&lab, "c", "s", "198.51.100.1:7000", "198.51.100.1:7000");
    let received = stat(&lab, "received");
    let mut exchanged = 0;
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            each(&lab, "replace", 20_000, " via 10.0.3.2");
            each(&lab, "del", 20_000, "");
        });
        while !churn.is_finished() {
            talk.exchange(1000);
            exchanged += 1;
            if exchanged % 500 == 0 {
                let mut new = Conversation::begin(&lab, "c", "s", "198.51.100.1:7001", "198.51.100.1:7001");
                new.exchange(1000);
            }
        }
    });
    let seen = stat(&lab, "received") - received;
    // Of a new connection at most a dozen packets come to the router.
    let expected = exchanged / 500 * 12 + exchanged / 4 + 50;
    assert!(exchanged > 100 && seen < expected, "{seen} packets came to the router in {exchanged} exchanges");
    // The changes are in force.
    let way = |to: &str| {
        let shown = Command::new("ip").args(["-n", &lab.netns.name("r"), "route", "get", to]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    assert!(!way("198.18.0.1").contains("via") && way("198.19.0.1").contains("via 10.0.2.2"));
}

/// What the machine itself sends is told of a smaller link that it is routed to by its mark, as by the kernel: transfers go on in smaller segments.
#[test]
fn own_packets_learn_of_a_smaller_link() {
    let rules = "table inet t {
        chain r { type route hook output priority mangle; policy accept; tcp dport 7101 meta mark set 7; }
        chain o { type filter hook output priority filter; policy accept; udp dport 7102 reject; }
        chain post { type nat hook postrouting priority srcnat; policy accept; oifname { r1, r2 } masquerade; }
    }";
    let Some(mut lab) = with_second_way("rp", rules) else { return };
    assert!(in_netns(&lab, "r", SECOND_WAY_BY_MARK) && in_netns(&lab, "r", "ip link set r2 mtu 1400"));
    // The other end of the link drops longer frames, too.
    assert!(in_netns(&lab, "s", "ip link set s1 mtu 1400"));
    lab.start(&["--interface", "r*"]);
    for (bind, to) in [("0.0.0.0:0", "198.51.100.1:7102"), ("[::]:0", "[2001:db8::1]:7102")] {
        let asks = move || {
            let socket = bind_udp(bind);
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"?").unwrap();
            uninterrupted(|| socket.recv(&mut [0; 9])).unwrap_err().kind()
        };
        let refused = spawn_in_netns(&lab.netns.name("r"), asks).join().unwrap();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "{to}: rejected");
    }
    for (at, called) in [("0.0.0.0:7101", "198.51.100.1:7101"), ("[::]:7101", "[2001:db8::1]:7101")] {
        let mut talk = Conversation::begin(&lab, "r", "s", at, called);
        let before = packets_on(&lab, "r2");
        talk.exchange(1_000_000);
        assert!(packets_on(&lab, "r2") > before, "{called}: by another way");
        let mut talk = offloaded(&lab, "r", "s", at, called);
        talk.exchange(1_000_000);
    }
}

/// Rules by the type of service: packets of a known flow go the way of theirs, and the ordinary ones stay in the kernel.
#[test]
fn known_flows_follow_rules_by_the_type_of_service() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; } }";
    let Some(mut lab) = with_second_way("rt", rules) else { return };
    let by_tos = "ip route add 198.51.100.0/24 via 10.0.2.2; ip route add 198.51.100.0/24 via 10.0.3.2 table 100
        ip rule add tos 0x10 lookup 100";
    assert!(in_netns(&lab, "r", by_tos));
    lab.start(&["--interface", "r*"]);
    let mut talk = offloaded(&lab, "c", "s", "198.51.100.1:7000", "198.51.100.1:7000");
    for (tos, way, other) in [(0x10, "r2", "r1"), (0, "r1", "r2")] {
        set_socket_option(&talk.client, libc::IPPROTO_IP, libc::IP_TOS, tos);
        let (before, received) = ((packets_on(&lab, way), packets_on(&lab, other)), stat(&lab, "received"));
        (0..100).for_each(|_| talk.exchange(1000));
        let taken = (packets_on(&lab, way) - before.0, packets_on(&lab, other) - before.1);
        assert!(taken.0 >= 100 && taken.1 < 20, "{tos}: {taken:?}");
        let seen = stat(&lab, "received") - received;
        assert!(if tos == 0 { seen < 50 } else { seen >= 100 }, "{tos}: {seen}");
    }
}
