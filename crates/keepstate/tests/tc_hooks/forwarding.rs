//! What the machine's own settings of forwarding mean, and what passes beside known flows: tags of a priority alone, flows without a gateway.
use crate::offload::{offloaded, stat};
use crate::packet_socket::PacketSocket;
use crate::peers::{bind_udp, spawn_in_netns};
use crate::routes::in_netns;
use crate::{PATIENCE, RULES, SILENCE, TcTestbed, report_skipped};
use keepstate_wire::checksum;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// A host with rules of its own does not become a router by them, as little as with netfilter.
#[test]
fn rules_of_a_host_forward_nothing_where_the_machine_does_not() {
    let rules = "table inet t { chain i { type filter hook input priority 0; policy accept; } }";
    let Some(lab) = TcTestbed::with_rules("fh", rules, &["--interface", "r0,r1"]) else { return };
    let ends = ["10.0.2.2:7000", "[fd00:2::2]:7000"];
    assert!(in_netns(&lab, "r", "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"));
    for at in ends {
        assert_eq!(lab.connect("c", at, SILENCE), Err(ErrorKind::TimedOut), "{at}");
    }
    assert!(lab.control(&["drops"]).contains("not_forwarding"), "{}", lab.control(&["drops"]));
    assert_eq!(lab.connect("c", "10.0.1.1:7000", PATIENCE), Err(ErrorKind::ConnectionRefused), "the machine itself");
    assert!(in_netns(&lab, "r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"));
    for at in ends {
        assert_eq!(lab.connect("c", at, PATIENCE), Err(ErrorKind::ConnectionRefused), "{at}");
    }
}

/// A tag that names no VLAN says only how urgent a frame is: the kernel takes the packet as if it had none, and so do the rules.
#[test]
fn packets_with_a_tag_of_a_priority_alone_pass_the_rules() {
    let Some(mut lab) = TcTestbed::new("ft") else { return };
    let sockets = spawn_in_netns(&lab.netns.name("r"), || [5353, 53].map(|port| bind_udp(&format!("10.0.1.1:{port}"))));
    let [closed, open] = sockets.join().unwrap();
    let outside = spawn_in_netns(&lab.netns.name("c"), || PacketSocket::open("c0")).join().unwrap();
    let (to, from) = (lab.mac("r", "r0"), lab.mac("c", "c0"));
    let send = |port: u16| outside.send(&[&to[..], &from, &[0x81, 0, 0xa0, 0, 8, 0], &datagram(port)].concat());
    let hears = |socket: &UdpSocket, patience| {
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    };
    send(53);
    assert!(hears(&open, PATIENCE), "the rules let it in");
    send(5353);
    assert!(!hears(&closed, SILENCE), "no rule lets it in");
    lab.kill();
    send(5353);
    assert!(!hears(&closed, SILENCE), "closed");
    lab.detach();
    send(5353);
    assert!(hears(&closed, PATIENCE), "the kernel alone takes it");
}

/// UDP over IPv4 from the client to the machine.
fn datagram(port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 1, 2, 10, 0, 1, 1];
    let check = checksum::internet(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    let [high, low] = port.to_be_bytes();
    [&ip[..], &[0x17, 0x70, high, low, 0, 12, 0, 0], b"word"].concat()
}

/// By choice established connections do not outlive their gateway for long. The next one has them again.
#[test]
fn known_flows_end_without_a_gateway_after_the_time_chosen() {
    let how = ["--interface", "r0,r1", "--offload-unattended", "10s"];
    let Some(mut lab) = TcTestbed::with_rules("fu", RULES, &how) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    let received = stat(&lab, "received");
    (0..20).for_each(|_| talk.exchange(1000));
    assert!(stat(&lab, "received") < received + 5, "it is known to the kernel");
    lab.kill();
    talk.exchange(1000);
    let until = Instant::now() + Duration::from_secs(60);
    while talk.is_heard(Duration::from_millis(500)) {
        assert!(Instant::now() < until, "it goes on without a gateway");
    }
    lab.start(&how);
    assert!(talk.is_heard(PATIENCE), "the next gateway has it");
}

/// IPsec policies hold for what is forwarded, as in the kernel alone; for flows that are known to it, too.
#[test]
fn ipsec_policies_block_what_is_forwarded() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; } }";
    let Some(mut lab) = TcTestbed::without_gateway("fi", rules) else { return };
    assert!(in_netns(&lab, "r", "sysctl -qw net.ipv4.ip_forward=1"));
    let policy = |does: &str, port: u16, direction: &str| {
        let of =
            format!("ip xfrm policy {does} src 10.0.1.0/24 dst 10.0.2.0/24 proto tcp dport {port} dir {direction}");
        in_netns(&lab, "r", &if does == "add" { format!("{of} action block") } else { of })
    };
    if !policy("add", 7001, "fwd") {
        return report_skipped("IPsec policies: this kernel has none");
    }
    let blocked = |lab: &TcTestbed| {
        assert_eq!(lab.connect("c", "10.0.2.2:7001", SILENCE), Err(ErrorKind::TimedOut), "blocked");
        assert_eq!(lab.connect("c", "10.0.2.2:7002", PATIENCE), Err(ErrorKind::ConnectionRefused), "another port");
    };
    blocked(&lab);
    let said = lab.start(&["--interface", "r0,r1"]);
    assert!(said.contains("IPsec"), "{said}");
    blocked(&lab);
    assert!(lab.control(&["drops"]).contains("ipsec_policy"), "{}", lab.control(&["drops"]));
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    let policy = |does: &str| {
        let of = format!("ip xfrm policy {does} src 10.0.1.0/24 dst 10.0.2.0/24 proto tcp dport 7000 dir out");
        in_netns(&lab, "r", &if does == "add" { format!("{of} action block") } else { of })
    };
    assert!(policy("add"));
    let until = Instant::now() + PATIENCE;
    while talk.is_heard(Duration::from_millis(500)) {
        assert!(Instant::now() < until, "a known flow goes on");
    }
    assert!(policy("delete"));
    assert!(talk.is_heard(PATIENCE), "and is heard again");
}
