//! Known flows: established connections whose packets go on in the kernel, and what keeps them from it or takes them back.
use crate::peers::spawn_in_netns;
use crate::watching::EventLines;
use crate::{PATIENCE, TcTestbed};
use keepstate_test_support::uninterrupted;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A connection that stays, for a question and its answer at a time.
pub(crate) struct Conversation {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Conversation {
    pub(crate) fn begin(lab: &TcTestbed, from: &str, to: &str, at: &'static str, called: &'static str) -> Conversation {
        let listener = spawn_in_netns(&lab.netns.name(to), move || TcpListener::bind(at).unwrap()).join().unwrap();
        Conversation::with(&listener, lab, from, called)
    }

    /// One more with this server.
    pub(crate) fn with(listener: &TcpListener, lab: &TcTestbed, from: &str, called: &'static str) -> Conversation {
        let client = spawn_in_netns(&lab.netns.name(from), move || {
            TcpStream::connect_timeout(&called.parse().unwrap(), PATIENCE).unwrap()
        });
        let (server, _) = listener.accept().unwrap();
        Conversation::of(client.join().unwrap(), server)
    }

    /// From a port of the client's to the server.
    pub(crate) fn begin_from(lab: &TcTestbed, bind: &'static str, at: &'static str) -> Conversation {
        use rustix::net::{AddressFamily, SocketType};
        let server = spawn_in_netns(&lab.netns.name("s"), move || TcpListener::bind(at).unwrap()).join().unwrap();
        let client = spawn_in_netns(&lab.netns.name("c"), move || {
            let [from, to] = [bind, at].map(|end| end.parse::<SocketAddr>().unwrap());
            let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
            rustix::net::bind(&socket, &from).unwrap();
            rustix::net::connect(&socket, &to).unwrap();
            TcpStream::from(socket)
        });
        let (server, _) = server.accept().unwrap();
        Conversation::of(client.join().unwrap(), server)
    }

    fn of(client: TcpStream, server: TcpStream) -> Conversation {
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Conversation { client, server }
    }

    /// A round trip of so many bytes each way.
    pub(crate) fn exchange(&mut self, length: usize) {
        let send = |mut from: &TcpStream, mut to: &TcpStream| {
            let mut bytes = vec![0; length];
            // Neither end has room for all of it.
            std::thread::scope(|scope| {
                scope.spawn(move || from.write_all(&vec![1; length]).unwrap());
                to.read_exact(&mut bytes).unwrap();
            });
            assert!(bytes.iter().all(|byte| *byte == 1));
        };
        send(&self.client, &self.server);
        send(&self.server, &self.client);
    }

    /// Does a question still get through within `patience`?
    pub(crate) fn is_heard(&mut self, patience: Duration) -> bool {
        self.server.set_read_timeout(Some(patience)).unwrap();
        self.client.write_all(b"?").is_ok() && self.server.read_exact(&mut [0; 1]).is_ok()
    }
}

/// A number of `control stats`.
pub(crate) fn stat(lab: &TcTestbed, name: &str) -> u64 {
    let json: serde_json::Value = serde_json::from_str(&lab.control(&["stats", "--json"])).unwrap();
    json[name].as_u64().unwrap_or(0)
}

/// Waits until a number of `control stats` is as wanted.
pub(crate) fn wait_for(lab: &TcTestbed, name: &str, wanted: impl Fn(u64) -> bool) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let value = stat(lab, name);
        if wanted(value) {
            return value;
        }
        assert!(Instant::now() < until, "{name} is {value}: {}", lab.control(&["stats"]));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An established connection that the kernel has: packets pass, and the router does not see them.
pub(crate) fn offloaded(lab: &TcTestbed, from: &str, to: &str, at: &'static str, called: &'static str) -> Conversation {
    let mut talk = Conversation::begin(lab, from, to, at, called);
    let until = Instant::now() + PATIENCE;
    loop {
        let received = stat(lab, "received");
        for _ in 0..50 {
            talk.exchange(1000);
        }
        // Others speak too: neighbours, groups.
        let seen = stat(lab, "received") - received;
        if seen < 20 {
            return talk;
        }
        assert!(Instant::now() < until, "{seen} of more than 100 packets came to the router");
    }
}

#[test]
fn established_connections_go_on_in_the_kernel() {
    let Some(lab) = TcTestbed::new("oe") else { return };
    // Forwarded and masqueraded; published; to the machine; redirected to it; from the machine.
    let mut talks = [
        offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000"),
        offloaded(&lab, "s", "c", "10.0.1.2:80", "10.0.2.1:8080"),
        offloaded(&lab, "c", "r", "10.0.1.1:2222", "10.0.1.1:2222"),
        offloaded(&lab, "r", "s", "10.0.2.2:7001", "10.0.2.2:7001"),
    ];
    assert!(lab.control(&["list"]).lines().all(|line| line.contains("[OFFLOAD]")), "{}", lab.control(&["list"]));
    for talk in &mut talks {
        // Large segments, with open checksums.
        talk.exchange(3_000_000);
    }
    wait_for(&lab, "offloaded_packets", |packets| packets > 400);
    drop(talks);
    // Closed connections come back, with their states.
    wait_for(&lab, "offloaded_flows", |flows| flows == 0);
    let list = lab.control(&["list"]);
    assert!(list.lines().all(|line| !line.contains("ESTABLISHED")), "{list}");
}

/// NAT of IPv6, beside the rules for both families.
const NAT66: &str = "
table ip6 nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 8080 dnat to [fd00:1::2]:80
		iifname r0 tcp dport 8022 redirect to :2222
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

#[test]
fn established_ipv6_connections_go_on_in_the_kernel() {
    let rules = [crate::RULES, NAT66].concat();
    let Some(lab) = TcTestbed::with_rules("o6", &rules, &["--interface", "r0,r1"]) else { return };
    let mut talks = [
        offloaded(&lab, "c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
        offloaded(&lab, "s", "c", "[fd00:1::2]:80", "[fd00:2::1]:8080"),
        offloaded(&lab, "c", "r", "[fd00:1::1]:2222", "[fd00:1::1]:2222"),
        offloaded(&lab, "c", "r", "[::]:2222", "[fd00:1::1]:8022"),
        offloaded(&lab, "r", "s", "[fd00:2::2]:7001", "[fd00:2::2]:7001"),
    ];
    assert_eq!(talks[0].server.peer_addr().unwrap().ip(), "fd00:2::1".parse::<IpAddr>().unwrap(), "masqueraded");
    assert!(lab.control(&["list"]).lines().all(|line| line.contains("[OFFLOAD]")), "{}", lab.control(&["list"]));
    for talk in &mut talks {
        // Large segments, with open checksums; then each with its own, computed before it is translated.
        talk.exchange(3_000_000);
    }
    lab.netns.set_offload("tx off gso off tso off");
    for talk in &mut talks {
        talk.exchange(300_000);
    }
    wait_for(&lab, "offloaded_packets", |packets| packets > 400);
    drop(talks);
    wait_for(&lab, "offloaded_flows", |flows| flows == 0);
    let list = lab.control(&["list"]);
    assert!(list.lines().all(|line| !line.contains("ESTABLISHED")), "{list}");
}

/// A known flow's packets are a hop older behind the router, as any other.
#[test]
fn hop_limit_of_known_flows_is_counted_down() {
    let Some(lab) = TcTestbed::new("oh") else { return };
    for (at, level, option) in [
        ("10.0.2.2:7000", libc::IPPROTO_IP, libc::IP_MINTTL),
        ("[fd00:2::2]:7000", libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    ] {
        let mut talk = offloaded(&lab, "c", "s", at, at);
        set_socket_option(&talk.server, level, option, 63);
        talk.exchange(1000);
        set_socket_option(&talk.server, level, option, 64);
        assert!(!talk.is_heard(Duration::from_millis(700)), "{at}: the hop limit was not counted down");
    }
}

pub(crate) fn set_socket_option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    #[allow(unsafe_code, reason = "setsockopt(2) of these options has no safe wrapper")]
    // SAFETY: the pointer and the length are those of the value, which outlives the call.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    assert_eq!(done, 0);
}

#[test]
fn datagrams_of_a_stream_go_on_in_the_kernel() {
    let rules = [crate::RULES, NAT66].concat();
    let Some(lab) = TcTestbed::with_rules("ou", &rules, &["--interface", "r0,r1"]) else { return };
    for (at, bind) in [("10.0.2.2:7001", "0.0.0.0:0"), ("[fd00:2::2]:7001", "[::]:0")] {
        exchange_datagrams(&lab, at, bind);
    }
}

/// The length of datagrams that are not the client's.
const OTHERS: usize = 1400;

fn exchange_datagrams(lab: &TcTestbed, at: &'static str, bind: &'static str) {
    let server = spawn_in_netns(&lab.netns.name("s"), move || UdpSocket::bind(at).unwrap()).join().unwrap();
    let client = spawn_in_netns(&lab.netns.name("c"), move || UdpSocket::bind(bind).unwrap()).join().unwrap();
    client.connect(at).unwrap();
    let stir = move || UdpSocket::bind(bind).unwrap().send_to(&[0; OTHERS], at).unwrap();
    let events = EventLines::watch(lab, "udp", || _ = spawn_in_netns(&lab.netns.name("c"), stir).join().unwrap());
    let flows = stat(lab, "offloaded_flows");
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let exchange = |length: usize| {
        client.send(&vec![3; length]).unwrap();
        let mut bytes = [0; 2000];
        let mut receive = || uninterrupted(|| server.recv_from(&mut bytes)).unwrap();
        let (received, from) = std::iter::repeat_with(&mut receive).find(|(received, _)| *received != OTHERS).unwrap();
        server.send_to(&bytes[..received], from).unwrap();
        assert_eq!((received, uninterrupted(|| client.recv(&mut bytes)).unwrap()), (length, length));
    };
    let until = Instant::now() + PATIENCE;
    while stat(lab, "offloaded_flows") == flows {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        exchange(10);
    }
    let received = stat(lab, "received");
    for length in 0..100 {
        exchange(length);
    }
    // Assured only two seconds after it began, as in Linux, by packets that the router has not seen.
    let port = format!("sport={} ", client.local_addr().unwrap().port());
    let mut told = Vec::new();
    while told.len() < 3 {
        assert!(Instant::now() < until, "{told:?}{}", lab.control(&["list"]));
        exchange(10);
        std::thread::sleep(Duration::from_millis(20));
        told.extend(events.lines.try_iter().filter(|line| line.contains(&port)));
    }
    assert!(told[0].contains("[NEW]") && told[1..].iter().all(|line| line.contains("[UPDATE]")), "{told:?}");
    let seen = stat(lab, "received") - received;
    assert!(seen < 20, "{seen} of more than 200 packets came to the router");
}

/// What the kernel has forwarded is counted for the connection, for the rules on its way, and keeps it alive.
#[test]
fn packets_of_known_flows_are_counted() {
    let rules = "table ip f {
        chain f {
            type filter hook forward priority 0; policy drop;
            ct state established counter accept
            counter accept
        }
    }";
    let Some(lab) = TcTestbed::with_rules("oc", rules, &["--interface", "r0,r1", "--set", "nf_conntrack_acct=1"])
    else {
        return;
    };
    let mut talk = Conversation::begin(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    for _ in 0..300 {
        talk.exchange(500);
    }
    let sum = |text: &str, before: &str| {
        let numbers = text.split(before).skip(1);
        numbers
            .filter_map(|rest| rest.split(|end: char| !end.is_ascii_digit()).next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let (list, rules) = (lab.control(&["list"]), lab.control(&["rules"]));
        let (connection, rules_sum) = (sum(&list, "packets="), sum(&rules, "packets "));
        // At least a packet each way for each exchange, and each of them passed a counter.
        if connection >= 600 && connection == rules_sum {
            break;
        }
        assert!(Instant::now() < until, "{list}{rules}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(stat(&lab, "offloaded_packets") > 300);
}

/// What may differ from packet to packet keeps a connection with the rules.
#[test]
fn rules_that_look_at_packets_hold_connections() {
    for (name, rule, reason) in [
        ("hl", "meta length > 9000 drop", "held_packet_content"),
        ("ht", "ip ttl 1 drop", "held_packet_content"),
        ("hf", "tcp flags urg drop", "held_packet_content"),
        ("hr", "limit rate 10000/second counter", "held_limit"),
        ("hq", "ct bytes > 1000000000 drop", "held_ct_counter"),
        ("hm", "meta priority 77 drop", "held_mark"),
        ("hn", "numgen random mod 4000000000 == 3999999999 drop", "held_numgen"),
        ("hd", "update @seen { ip saddr }", "held_dynamic_set"),
        ("hs", "ip dscp set cs1", "held_rewrite"),
    ] {
        let rules = format!(
            "table ip f {{
                set seen {{ type ipv4_addr; flags dynamic, timeout; timeout 1m; }}
                chain f {{
                    type filter hook forward priority 0; policy accept;
                    {rule}
                }}
            }}"
        );
        let Some(lab) = TcTestbed::with_rules(name, &rules, &["--interface", "r0,r1"]) else { return };
        let mut talk = Conversation::begin(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
        for _ in 0..20 {
            talk.exchange(100);
        }
        assert!(stat(&lab, reason) >= 40, "{rule}: {}", lab.control(&["stats"]));
        assert_eq!((stat(&lab, "offloaded_flows"), stat(&lab, "offloaded_packets")), (0, 0), "{rule}");
    }
}

/// A changed ruleset, set or route is in force for known flows when the command has returned.
#[test]
fn changes_are_in_force_for_known_flows_at_once() {
    let rules = "table ip f {
        set banned { type ipv4_addr; }
        chain f {
            type filter hook forward priority 0; policy accept;
            ip saddr @banned drop
        }
    }";
    let Some(lab) = TcTestbed::with_rules("oz", rules, &["--interface", "r0,r1"]) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    lab.control(&["nft", "add element ip f banned { 10.0.1.2 }"]);
    assert!(!talk.is_heard(Duration::from_millis(700)), "an element was added");
    lab.control(&["nft", "delete element ip f banned { 10.0.1.2 }"]);
    assert!(talk.is_heard(PATIENCE), "it is sent again");

    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7001", "10.0.2.2:7001");
    std::fs::write(lab.ruleset.path(), rules.replace("@banned", "10.0.1.2")).unwrap();
    lab.control(&["reload"]);
    assert!(!talk.is_heard(Duration::from_millis(700)), "the ruleset was reloaded");
}

/// A ban concerns the flows of whom it bans: all others go on in the kernel, however often somebody is banned.
#[test]
fn bans_of_others_leave_known_flows_alone() {
    let rules = "table inet f {
        set banned { type ipv4_addr; flags timeout; }
        set nets { type ipv4_addr; flags interval; }
        chain f {
            type filter hook forward priority 0; policy accept;
            ip saddr @banned drop
            ip daddr @nets drop
        }
    }";
    let Some(lab) = TcTestbed::with_rules("ob", rules, &["--interface", "r0,r1"]) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    let (received, flows) = (stat(&lab, "received"), stat(&lab, "offloaded_flows"));
    for number in 1..=40 {
        let script = format!(
            "add element inet f banned {{ 203.0.113.{number} timeout 1h }}; add element inet f nets {{ 198.51.100.{number} }}"
        );
        lab.control(&["nft", &script]);
        (0..5).for_each(|_| talk.exchange(1000));
    }
    // Others speak too: neighbours, groups.
    let seen = stat(&lab, "received") - received;
    assert!(seen < 20, "{seen} of more than 400 packets came to the router");
    assert_eq!(stat(&lab, "offloaded_flows"), flows);
    lab.control(&["nft", "add element inet f nets { 10.0.2.0/30 }"]);
    assert!(!talk.is_heard(Duration::from_millis(700)), "its own network");
}

/// Established connections go on while no gateway runs, and under the next one.
#[test]
fn established_connections_survive_a_killed_gateway() {
    let state = tempfile::tempdir().unwrap();
    let how = ["--interface", "r0,r1", "--state", state.path().to_str().unwrap()];
    let Some(mut lab) = TcTestbed::with_rules("ok", crate::RULES, &how) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    let mut local = offloaded(&lab, "c", "r", "10.0.1.1:2222", "10.0.1.1:2222");
    assert_eq!(stat(&lab, "offloaded_flows"), 2);
    lab.kill();
    for _ in 0..20 {
        talk.exchange(1000);
        local.exchange(1000);
    }
    lab.start(&how);
    for _ in 0..20 {
        talk.exchange(1000);
        local.exchange(1000);
    }
    wait_for(&lab, "offloaded_flows", |flows| flows == 2);
}
