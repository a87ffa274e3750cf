//! New connections that the rules judge as others before: the kernel opens them by itself, and the router is told.
use crate::offload::{Conversation, stat, wait_for};
use crate::peers::{run_ip, spawn_in_netns};
use crate::{PATIENCE, TcTestbed};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const RULES: &str = "
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
	counter arrived { }
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r0 tcp dport 8022 redirect to :2222
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// One connection after another, each with a request, an answer, and an end.
fn converse(lab: &TcTestbed, listener: &TcpListener, called: &'static str, connections: usize) {
    for _ in 0..connections {
        let mut talk = Conversation::with(listener, lab, "c", called);
        talk.exchange(100);
        talk.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Read::read(&mut &talk.server, &mut [0]).unwrap(), 0);
    }
}

fn listen(lab: &TcTestbed, side: &str, at: &'static str) -> TcpListener {
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

/// Forwarded and masqueraded, to the machine, redirected: nothing tells the connections that the kernel has opened from those that came to user space.
#[test]
fn connections_of_a_class_are_opened_in_the_kernel() {
    for (side, at, called) in [
        ("s", "10.0.2.2:7000", "10.0.2.2:7000"),
        ("r", "0.0.0.0:7000", "10.0.1.1:7000"),
        ("r", "0.0.0.0:2222", "10.0.1.1:8022"),
    ] {
        let run = |how: &[&str]| {
            let lab = TcTestbed::with_rules("cl", RULES, how)?;
            let listener = listen(&lab, side, at);
            // The class is known once two have been seen; its outside ports are looked up in many turns.
            let until = Instant::now() + PATIENCE;
            let (mut before, opens) = (0, how.len() == 2);
            while opens && stat(&lab, "opened_by_class") == 0 {
                assert!(Instant::now() < until, "none is opened: {}", lab.control(&["stats"]));
                converse(&lab, &listener, called, 2);
                before += 2;
            }
            converse(&lab, &listener, called, 40 - before % 40);
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
fn connect_from(lab: &TcTestbed, from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    spawn_in_netns(&lab.netns.name("c"), move || {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
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
    let Some(lab) = TcTestbed::with_rules("cp", RULES, &["--interface", "r0,r1"]) else { return };
    assert!(run_ip(&["-n", &lab.netns.name("c"), "addr", "add", "10.0.1.3/24", "dev", "c0"]));
    let server: SocketAddr = "10.0.2.2:7000".parse().unwrap();
    let listener = listen(&lab, "s", "10.0.2.2:7000");
    let [first, second] = ["10.0.1.2", "10.0.1.3"].map(|address| address.parse::<IpAddr>().unwrap());
    let mut port = 20_000;
    let mut next = || {
        port += 1;
        port
    };
    let talk = |from: IpAddr, port: u16| {
        let mut client = connect_from(&lab, (from, port).into(), server).unwrap();
        let (mut at_server, peer) = listener.accept().unwrap();
        client.write_all(&[1]).unwrap();
        at_server.read_exact(&mut [0]).unwrap();
        at_server.write_all(&[2]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        assert_eq!(peer.ip(), "10.0.2.1".parse::<IpAddr>().unwrap());
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
    for _ in 0..20 {
        let port = next();
        let (_one, _at_server, outside) = talk(first, port);
        assert_eq!(outside, port);
        let (_other, _at_server, taken) = talk(second, port);
        assert_ne!(taken, port, "while the first is open");
    }
    // While the first is in TIME_WAIT the router decides.
    for _ in 0..20 {
        let port = next();
        drop(talk(first, port));
        drop(talk(second, port));
    }
    assert_eq!(stat(&lab, "opened_and_taken_back"), 0);
}

/// Until one is opened by class, with a class of its own each time it is called.
fn opens_by_class(lab: &TcTestbed, listener: &TcpListener, called: &'static str) {
    let (opened, until) = (stat(lab, "opened_by_class"), Instant::now() + PATIENCE);
    while stat(lab, "opened_by_class") == opened {
        assert!(Instant::now() < until, "none is opened: {}", lab.control(&["stats"]));
        converse(lab, listener, called, 2);
    }
}

/// Once a command has returned, no connection is opened by what was before.
#[test]
fn changes_are_in_force_for_classes_at_once() {
    let Some(lab) = TcTestbed::with_rules("cc", RULES, &["--interface", "r0,r1"]) else { return };
    let (at, refused) = ("10.0.2.2:7000", Duration::from_millis(300));
    let listener = listen(&lab, "s", at);
    let drop_all = "table inet late { chain f { type filter hook forward priority 10; ct state new counter drop; }; }";
    for _ in 0..3 {
        opens_by_class(&lab, &listener, at);
        lab.control(&["nft", drop_all]);
        assert_eq!(lab.connect("c", at, refused), Err(ErrorKind::TimedOut));
        lab.control(&["nft", "delete table inet late"]);
        opens_by_class(&lab, &listener, at);
        // A route, and the limit of the table.
        assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "add", "prohibit", "10.0.2.2/32"]));
        wait_until_connects(&lab, &listener, at, false);
        assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "del", "prohibit", "10.0.2.2/32"]));
        wait_until_connects(&lab, &listener, at, true);
    }
    opens_by_class(&lab, &listener, at);
    lab.control(&["drain-all"]);
    assert_eq!(lab.connect("c", at, refused), Err(ErrorKind::TimedOut));
}

/// Until a connection succeeds, or none does.
fn wait_until_connects(lab: &TcTestbed, listener: &TcpListener, at: &'static str, connects: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let connected = lab.connect("c", at, Duration::from_millis(500)).is_ok();
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
    let Some(mut lab) = TcTestbed::without_gateway("ch", "") else { return };
    let at = "10.0.2.2:7000";
    let listener = listen(&lab, "s", at);
    for rule in [
        "tcp sport 1-65535",
        "tcp sport & 1 == 0 counter",
        "meta l4proto tcp ct original proto-src 1-65535",
        "limit rate 10000/second",
        "ct count 10000",
        "numgen random mod 2 0-1",
        "symhash mod 2 0-1",
        "jhash tcp sport mod 2 0-1",
        "ct status seen-reply,snat,dnat counter",
        "ip ttl 1-255",
        "tcp flags syn",
        "add @seen { ip saddr }",
        "log prefix \"new \"",
        "meta hour \"00:00\"-\"23:59\"",
        "ct mark set 7",
        "ct id 1",
    ] {
        let rules = format!(
            "table inet t {{ set seen {{ type ipv4_addr; size 100; flags dynamic; }}
            chain f {{ type filter hook forward priority filter; ct state new {rule}; }} }}"
        );
        std::fs::write(lab.ruleset.path(), rules).unwrap();
        lab.start(&["--interface", "r0,r1"]);
        converse(&lab, &listener, at, 12);
        assert_eq!(stat(&lab, "opened_by_class"), 0, "{rule}");
        lab.stop();
    }
    // And the same without such a rule.
    std::fs::write(
        lab.ruleset.path(),
        "table inet t { chain f { type filter hook forward priority filter; ct state new tcp dport 7000 counter; }; }",
    )
    .unwrap();
    lab.start(&["--interface", "r0,r1"]);
    converse(&lab, &listener, at, 12);
    assert!(stat(&lab, "opened_by_class") > 0, "{}", lab.control(&["stats"]));
}

/// What was opened just before the gateway died goes on, and the next gateway has it.
#[test]
fn opened_connections_outlive_the_gateway() {
    let Some(mut lab) = TcTestbed::with_rules("ck", RULES, &["--interface", "r0,r1"]) else { return };
    let at = "10.0.2.2:7000";
    let listener = listen(&lab, "s", at);
    for _ in 0..5 {
        opens_by_class(&lab, &listener, at);
        let mut talks: Vec<Conversation> = (0..30).map(|_| Conversation::with(&listener, &lab, "c", at)).collect();
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
    let Some(lab) = TcTestbed::with_rules("cf", RULES, &["--interface", "r0,r1", "--set", "nf_conntrack_max=60"])
    else {
        return;
    };
    let at = "10.0.2.2:7000";
    let listener = listen(&lab, "s", at);
    opens_by_class(&lab, &listener, at);
    let mut open = Vec::new();
    while count(&lab) < 60 {
        let client = connect_from(&lab, "0.0.0.0:0".parse().unwrap(), at.parse().unwrap()).unwrap();
        open.push((client, listener.accept().unwrap()));
        assert!(count(&lab) <= 60);
    }
    assert_eq!(lab.connect("c", at, Duration::from_millis(300)), Err(ErrorKind::TimedOut));
    assert_eq!(count(&lab), 60);
    assert!(open.len() > 8, "near the limit they come to user space: {}", open.len());
}
