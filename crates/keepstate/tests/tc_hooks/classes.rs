//! New connections that the rules judge as others before: the kernel opens them by itself, and the router is told. Each scene is played in both families, and with the machine itself as the client.
use crate::offload::{Conversation, stat, wait_for};
use crate::peers::{run_ip, spawn_in_netns};
use crate::{PATIENCE, TcTestbed};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Client and server of a scene, and what differs with them.
pub(crate) struct Ends {
    /// In names of testbeds.
    pub(crate) tag: &'static str,
    /// The client's side, the side of a second one, and the chain that its first packets pass.
    sides: [&'static str; 2],
    hook: &'static str,
    /// The server, behind the router, which listens where it is called.
    pub(crate) server: &'static str,
    /// Its address alone.
    server_prefix: &'static str,
    /// The addresses of both clients, and what is added where the second one is not there yet.
    pub(crate) clients: [&'static str; 2],
    second_client: Option<&'static str>,
    /// What masqueraded connections come from.
    outside: &'static str,
    /// Ports of the client's choice.
    any: &'static str,
    /// Rules that could tell two connections of the same ends apart, in this family alone.
    apart: &'static [&'static str],
    /// A network behind two ways of the router's.
    several_ways: [&'static str; 3],
    /// The type of its addresses in sets.
    address_type: &'static str,
    /// After so many connections some are opened, if any may be: where ports are shared, all have been looked up by then.
    connections: usize,
}

pub(crate) const V4: Ends = Ends {
    tag: "4",
    sides: ["c", "c"],
    hook: "forward",
    server: "10.0.2.2:7000",
    server_prefix: "10.0.2.2/32",
    clients: ["10.0.1.2", "10.0.1.3"],
    second_client: Some("10.0.1.3/24"),
    outside: "10.0.2.1",
    any: "0.0.0.0:0",
    apart: &["ip ttl 1-255", "ip dscp 0-63", "add @seen { ip saddr }"],
    several_ways: ["198.51.100.0/24", "10.0.2.2", "10.0.2.3"],
    address_type: "ipv4_addr",
    connections: 12,
};

pub(crate) const V6: Ends = Ends {
    tag: "6",
    sides: ["c", "c"],
    hook: "forward",
    server: "[fd00:2::2]:7000",
    server_prefix: "fd00:2::2/128",
    clients: ["fd00:1::2", "fd00:1::3"],
    second_client: Some("fd00:1::3/64"),
    outside: "fd00:2::1",
    any: "[::]:0",
    apart: &[
        "ip6 hoplimit 1-255",
        "ip6 dscp 0-63",
        "ip6 flowlabel 0-1048575",
        "exthdr dst missing counter",
        "add @seen { ip6 saddr }",
    ],
    several_ways: ["2001:db8::/64", "fd00:2::2", "fd00:2::3"],
    address_type: "ipv6_addr",
    connections: 12,
};

/// The machine itself; behind it, with its address, what comes from the client.
const OWN_V4: Ends = Ends {
    tag: "m",
    sides: ["r", "c"],
    hook: "output",
    clients: ["10.0.2.1", "10.0.1.2"],
    second_client: None,
    apart: &["meta skuid 0", "ip ttl 1-255", "add @seen { ip saddr }"],
    connections: 200,
    ..V4
};

const OWN_V6: Ends = Ends {
    tag: "n",
    sides: ["r", "c"],
    hook: "output",
    clients: ["fd00:2::1", "fd00:1::2"],
    second_client: None,
    apart: &["meta skuid 0", "ip6 flowlabel 0-1048575"],
    connections: 200,
    ..V6
};

const ALL: [Ends; 4] = [V4, V6, OWN_V4, OWN_V6];

pub(crate) const RULES: &str = "
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iifname r0 tcp dport { 2222, 7000 } ct state new counter name arrived accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 oifname r1 tcp dport 7000-7009 ct state new counter name arrived accept
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname r1 tcp dport 7000-7009 ct state new counter name arrived accept
	}
	counter arrived { }
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r0 tcp dport 8022 redirect to :2222
		iifname r0 tcp dport 8080 dnat to 10.0.2.2:7000
	}
	chain out {
		type nat hook output priority dstnat;
		ip daddr 198.51.100.7 tcp dport 7001 dnat to 10.0.2.2:7000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// Beside those, in which IPv6 is not translated.
const NAT66: &str = "
table ip6 nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r0 tcp dport 8022 redirect to :2222
		iifname r0 tcp dport 8080 dnat to [fd00:2::2]:7000
	}
	chain out {
		type nat hook output priority dstnat;
		ip6 daddr 2001:db8::7 tcp dport 7001 dnat to [fd00:2::2]:7000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// One connection after another, each with a request, an answer, and an end.
fn converse(lab: &TcTestbed, listener: &TcpListener, (from, called): (&str, &'static str), connections: usize) {
    for _ in 0..connections {
        let mut talk = Conversation::with(listener, lab, from, called);
        talk.exchange(100);
        talk.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Read::read(&mut &talk.server, &mut [0]).unwrap(), 0);
    }
}

pub(crate) fn listen(lab: &TcTestbed, side: &str, at: &'static str) -> TcpListener {
    spawn_in_netns(&lab.netns.name(side), move || TcpListener::bind(at).unwrap()).join().unwrap()
}

fn count(lab: &TcTestbed) -> usize {
    lab.control(&["count"]).trim().parse().unwrap()
}

fn arrived(lab: &TcTestbed) -> String {
    let list = lab.control(&["nft", "list", "counters"]);
    let line = list.lines().find(|line| line.contains("packets")).unwrap_or_default().trim().to_owned();
    assert!(!line.is_empty(), "{list}");
    line
}

/// Forwarded and masqueraded, published, to the machine, redirected, from the machine; IPv6 also without any translation: nothing tells the connections that the kernel has opened from those that came to user space.
#[test]
fn connections_of_a_class_are_opened_in_the_kernel() {
    let translated: &str = &[RULES, NAT66].concat();
    for (rules, from, side, at, called) in [
        (RULES, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000"),
        (RULES, "c", "s", "10.0.2.2:7000", "10.0.1.1:8080"),
        (RULES, "c", "r", "0.0.0.0:7000", "10.0.1.1:7000"),
        (RULES, "c", "r", "0.0.0.0:2222", "10.0.1.1:8022"),
        (RULES, "c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
        (RULES, "c", "r", "[::]:7000", "[fd00:1::1]:7000"),
        (translated, "c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
        (translated, "c", "s", "[fd00:2::2]:7000", "[fd00:1::1]:8080"),
        (translated, "c", "r", "[::]:2222", "[fd00:1::1]:8022"),
        // The machine's own: let out; led elsewhere by the output chain.
        (RULES, "r", "s", "10.0.2.2:7000", "10.0.2.2:7000"),
        (RULES, "r", "s", "10.0.2.2:7000", "198.51.100.7:7001"),
        (RULES, "r", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
        (translated, "r", "s", "[fd00:2::2]:7000", "[2001:db8::7]:7001"),
    ] {
        let run = |how: &[&str]| {
            let mut lab = TcTestbed::without_gateway("cl", rules)?;
            for (to, via) in [("198.51.100.0/24", "10.0.2.2"), ("2001:db8::/64", "fd00:2::2")] {
                assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "add", to, "via", via]));
            }
            lab.start(how);
            let listener = listen(&lab, side, at);
            // The class is known once two have been seen; its outside ports are looked up in many turns.
            let until = Instant::now() + PATIENCE;
            let (mut before, opens) = (0, how.len() == 2);
            while opens && stat(&lab, "opened_by_class") == 0 {
                assert!(Instant::now() < until, "none is opened: {}", lab.control(&["stats"]));
                converse(&lab, &listener, (from, called), 2);
                before += 2;
            }
            converse(&lab, &listener, (from, called), 40 - before % 40);
            let listed = count(&lab);
            let list = lab.control(&["list"]);
            assert!(list.lines().all(|line| line.contains("TIME_WAIT") && line.contains("[ASSURED]")), "{list}");
            assert_eq!(stat(&lab, "opened_and_taken_back"), 0);
            assert_eq!(stat(&lab, "opened_by_class") > 0, opens, "{}", lab.control(&["stats"]));
            wait_for(&lab, "offloaded_flows", |flows| flows == 0);
            let line = arrived(&lab);
            assert!(line.starts_with(&format!("packets {listed} bytes ")), "{line}: {listed} connections");
            let first = list.lines().next().unwrap_or_default();
            let fields = |line: &str| {
                line.split_whitespace()
                    .map(|word| word.split('=').next().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            };
            Some(fields(first).into_iter().filter(|word| word.parse::<u32>().is_err()).collect::<Vec<_>>())
        };
        let Some(opened) = run(&["--interface", "r0,r1"]) else { return };
        assert_eq!(run(&["--interface", "r0,r1", "--offload-new", "off"]), Some(opened), "{called}");
    }
}

/// A socket that connects from a port of its own choice.
fn connect_from(lab: &TcTestbed, side: &str, from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    spawn_in_netns(&lab.netns.name(side), move || {
        let family = if from.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &from)?;
        rustix::net::connect(&socket, &to)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
    .join()
    .unwrap()
}

/// Two clients with one port: the second gets another one outside, also if the kernel would have opened it, and also while the first is in TIME_WAIT.
#[test]
fn an_outside_port_is_given_to_one_connection() {
    ALL.iter().for_each(outside_port_of_one_connection);
}

fn outside_port_of_one_connection(ends: &Ends) {
    let (name, rules) = (format!("cp{}", ends.tag), [RULES, NAT66].concat());
    let Some(lab) = TcTestbed::with_rules(&name, &rules, &["--interface", "r0,r1"]) else { return };
    if let Some(address) = ends.second_client {
        let (client, nodad): (_, &[&str]) = (lab.netns.name("c"), if ends.tag == "6" { &["nodad"] } else { &[] });
        assert!(run_ip(&[&["-n", &client, "addr", "add", address, "dev", "c0"][..], nodad].concat()));
    }
    let server: SocketAddr = ends.server.parse().unwrap();
    let listener = listen(&lab, "s", ends.server);
    let [first, second] = [0, 1].map(|which| (ends.sides[which], ends.clients[which].parse::<IpAddr>().unwrap()));
    let mut port = 20_000;
    let mut next = || {
        port += 1;
        port
    };
    let talk = |(side, from): (&str, IpAddr), port: u16| {
        let mut client = connect_from(&lab, side, (from, port).into(), server).unwrap();
        let (mut at_server, peer) = listener.accept().unwrap();
        client.write_all(&[1]).unwrap();
        at_server.read_exact(&mut [0]).unwrap();
        at_server.write_all(&[2]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        assert_eq!(peer.ip(), ends.outside.parse::<IpAddr>().unwrap());
        (client, at_server, peer.port())
    };
    let until = Instant::now() + PATIENCE;
    for from in [first, second] {
        let opened = stat(&lab, "opened_by_class");
        while stat(&lab, "opened_by_class") == opened {
            assert!(Instant::now() < until, "none is opened: {}", lab.control(&["stats"]));
            talk(from, next());
        }
    }
    // Both are opened by class: the port is kept.
    let opened = stat(&lab, "opened_by_class");
    for from in [first, second] {
        let port = next();
        let (_client, _server, outside) = talk(from, port);
        assert_eq!(outside, port);
    }
    wait_for(&lab, "opened_by_class", |count| count >= opened + 2);
    let pairs = [(first, second), (second, first)].into_iter().cycle();
    for (one, other) in pairs.clone().take(20) {
        let port = next();
        let (_one, _at_server, outside) = talk(one, port);
        assert_eq!(outside, port);
        let (_other, _at_server, taken) = talk(other, port);
        assert_ne!(taken, port, "while the first is open");
    }
    // While the first is in TIME_WAIT the router decides.
    for (one, other) in pairs.take(20) {
        let port = next();
        drop(talk(one, port));
        drop(talk(other, port));
    }
    assert_eq!(stat(&lab, "opened_and_taken_back"), 0);
}

/// Until one is opened by class, with a class of its own each time it is called.
pub(crate) fn opens_by_class(lab: &TcTestbed, listener: &TcpListener, ends: &Ends) {
    let (opened, until) = (stat(lab, "opened_by_class"), Instant::now() + PATIENCE);
    while stat(lab, "opened_by_class") == opened {
        assert!(Instant::now() < until, "none is opened: {}", lab.control(&["stats"]));
        converse(lab, listener, (ends.sides[0], ends.server), 2);
    }
}

/// Once a command has returned, no connection is opened by what was before.
#[test]
fn changes_are_in_force_for_classes_at_once() {
    ALL.iter().for_each(changes_void_classes);
}

fn changes_void_classes(ends: &Ends) {
    let name = format!("cc{}", ends.tag);
    let Some(lab) = TcTestbed::with_rules(&name, RULES, &["--interface", "r0,r1"]) else { return };
    let (at, refused) = (ends.server, Duration::from_millis(300));
    let listener = listen(&lab, "s", at);
    let hook = ends.hook;
    let drop_all =
        format!("table inet late {{ chain f {{ type filter hook {hook} priority 10; ct state new counter drop; }}; }}");
    for _ in 0..3 {
        opens_by_class(&lab, &listener, ends);
        lab.control(&["nft", &drop_all]);
        assert_eq!(lab.connect(ends.sides[0], at, refused), Err(ErrorKind::TimedOut));
        lab.control(&["nft", "delete table inet late"]);
        opens_by_class(&lab, &listener, ends);
        // A route, and the limit of the table.
        assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "add", "prohibit", ends.server_prefix]));
        wait_until_connects(&lab, &listener, ends, false);
        assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "del", "prohibit", ends.server_prefix]));
        wait_until_connects(&lab, &listener, ends, true);
    }
    opens_by_class(&lab, &listener, ends);
    lab.control(&["drain-all"]);
    // What the machine itself begins is not refused.
    let refuses = ends.hook == "forward";
    assert!(!refuses || lab.connect(ends.sides[0], at, refused) == Err(ErrorKind::TimedOut));
}

/// Until a connection succeeds, or none does.
fn wait_until_connects(lab: &TcTestbed, listener: &TcpListener, ends: &Ends, connects: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let connected = lab.connect(ends.sides[0], ends.server, Duration::from_millis(500)).is_ok();
        if connected {
            listener.accept().unwrap();
        }
        if connected == connects {
            return;
        }
        assert!(Instant::now() < until, "the route is not followed");
    }
}

/// Rules that could tell two connections of the same ends apart keep their first packets in user space.
#[test]
fn what_rules_could_tell_apart_is_not_opened() {
    ALL.iter().for_each(told_apart_is_not_opened);
}

fn told_apart_is_not_opened(ends: &Ends) {
    let Some(mut lab) = TcTestbed::without_gateway(&format!("ch{}", ends.tag), "") else { return };
    let at = ends.server;
    let listener = listen(&lab, "s", at);
    let of_both = [
        "tcp sport 1-65535",
        "tcp sport & 1 == 0 counter",
        "meta l4proto tcp ct original proto-src 1-65535",
        "limit rate 10000/second",
        "ct count 10000",
        "numgen random mod 2 0-1",
        "symhash mod 2 0-1",
        "jhash tcp sport mod 2 0-1",
        "ct status seen-reply,snat,dnat counter",
        "tcp flags syn",
        "log prefix \"new \"",
        "meta hour \"00:00\"-\"23:59\"",
        "ct mark set 7",
        "ct id 1",
    ];
    for rule in of_both.iter().chain(ends.apart) {
        let rules = format!(
            "table inet t {{ set seen {{ type {}; size 100; flags dynamic; }}
            chain f {{ type filter hook {} priority filter; ct state new {rule}; }} }}",
            ends.address_type, ends.hook
        );
        std::fs::write(lab.ruleset.path(), rules).unwrap();
        lab.start(&["--interface", "r0,r1"]);
        converse(&lab, &listener, (ends.sides[0], at), ends.connections);
        assert_eq!(stat(&lab, "opened_by_class"), 0, "{rule}");
        lab.stop();
    }
    // And the same without such a rule, but where ways go by ports; then where they do not.
    let rules = format!(
        "table inet t {{ chain f {{ type filter hook {} priority filter; ct state new tcp dport 7000 counter; }} }}",
        ends.hook
    );
    std::fs::write(lab.ruleset.path(), rules).unwrap();
    let (router, [to, one, other]) = (lab.netns.name("r"), ends.several_ways);
    assert!(run_ip(&["-n", &router, "route", "add", to, "nexthop", "via", one, "nexthop", "via", other]));
    lab.start(&["--interface", "r0,r1"]);
    converse(&lab, &listener, (ends.sides[0], at), ends.connections);
    assert_eq!(stat(&lab, "opened_by_class"), 0, "several ways");
    lab.stop();
    assert!(run_ip(&["-n", &router, "route", "del", to]));
    lab.start(&["--interface", "r0,r1"]);
    converse(&lab, &listener, (ends.sides[0], at), ends.connections);
    assert!(stat(&lab, "opened_by_class") > 0, "{}", lab.control(&["stats"]));
}

/// What was opened just before the gateway died goes on, and the next gateway has it.
#[test]
fn opened_connections_outlive_the_gateway() {
    ALL.iter().for_each(opened_outlive_the_gateway);
}

fn opened_outlive_the_gateway(ends: &Ends) {
    let name = format!("ck{}", ends.tag);
    let Some(mut lab) = TcTestbed::with_rules(&name, RULES, &["--interface", "r0,r1"]) else { return };
    let at = ends.server;
    let listener = listen(&lab, "s", at);
    for _ in 0..5 {
        opens_by_class(&lab, &listener, ends);
        let mut talks: Vec<Conversation> =
            (0..30).map(|_| Conversation::with(&listener, &lab, ends.sides[0], at)).collect();
        lab.kill();
        talks.iter_mut().for_each(|talk| talk.exchange(100));
        lab.start(&["--interface", "r0,r1"]);
        talks.iter_mut().for_each(|talk| talk.exchange(100));
        let list = lab.control(&["list"]);
        for talk in &talks {
            let port = format!("sport={} dport=7000", talk.client.local_addr().unwrap().port());
            assert!(list.contains(&port), "{port}: {list}");
        }
    }
}

/// The table's limit holds for connections that the kernel has opened too.
#[test]
fn a_full_table_opens_nothing() {
    ALL.iter().for_each(full_table_opens_nothing);
}

fn full_table_opens_nothing(ends: &Ends) {
    let (name, how) = (format!("cf{}", ends.tag), ["--interface", "r0,r1", "--set", "nf_conntrack_max=60"]);
    let Some(lab) = TcTestbed::with_rules(&name, RULES, &how) else { return };
    let at = ends.server;
    let listener = listen(&lab, "s", at);
    opens_by_class(&lab, &listener, ends);
    let mut open = Vec::new();
    while count(&lab) < 60 {
        let client = connect_from(&lab, ends.sides[0], ends.any.parse().unwrap(), at.parse().unwrap()).unwrap();
        open.push((client, listener.accept().unwrap()));
        assert!(count(&lab) <= 60);
    }
    assert_eq!(lab.connect(ends.sides[0], at, Duration::from_millis(300)), Err(ErrorKind::TimedOut));
    assert_eq!(count(&lab), 60);
    assert!(open.len() > 8, "near the limit they come to user space: {}", open.len());
}
