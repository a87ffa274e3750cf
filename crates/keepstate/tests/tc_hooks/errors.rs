//! What the router itself tells a sender: time exceeded, unreachable, too big.
use crate::offload::{offloaded, stat};
use crate::peers::{enable_icmp_errors, run_ip, spawn_in_netns};
use crate::{PATIENCE, RULES, TcTestbed};
use keepstate_test_support::uninterrupted;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Instant;

/// What a datagram socket of the client hears when it sends `length` bytes with this hop limit.
fn error_of_datagram(lab: &TcTestbed, to: &'static str, hops: u32, length: usize) -> ErrorKind {
    let asks = move || {
        let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
        enable_icmp_errors(&socket);
        if to.starts_with('[') {
            rustix::net::sockopt::set_ipv6_unicast_hops(&socket, Some(hops.try_into().unwrap())).unwrap();
        } else {
            socket.set_ttl(hops).unwrap();
        }
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(&vec![1; length]).unwrap();
        uninterrupted(|| socket.recv(&mut [0; 9])).unwrap_err().kind()
    };
    spawn_in_netns(&lab.netns.name("c"), asks).join().unwrap()
}

#[test]
fn errors_of_the_router_reach_the_sender() {
    let Some(lab) = TcTestbed::new("e") else { return };
    assert_eq!(error_of_datagram(&lab, "10.0.2.2:9", 1, 5), ErrorKind::HostUnreachable, "time exceeded");
    assert_eq!(error_of_datagram(&lab, "[fd00:2::2]:9", 1, 5), ErrorKind::HostUnreachable, "time exceeded");
    assert_eq!(error_of_datagram(&lab, "192.0.2.1:9", 64, 5), ErrorKind::NetworkUnreachable, "no route");
    assert_eq!(error_of_datagram(&lab, "[2001:db8::1]:9", 64, 5), ErrorKind::NetworkUnreachable, "no route");
}

/// A neighbour that never answers: the client is told, as by the kernel, instead of waiting.
#[test]
fn a_neighbour_that_does_not_answer_is_reported() {
    let Some(lab) = TcTestbed::new("eh") else { return };
    for to in ["10.0.2.77:7000", "[fd00:2::77]:7000"] {
        assert_eq!(lab.connect("c", to, PATIENCE), Err(ErrorKind::HostUnreachable), "{to}");
        assert_eq!(error_of_datagram(&lab, to, 64, 5), ErrorKind::HostUnreachable, "{to}");
    }
}

/// A link behind the router becomes shorter in the middle of a transfer: the sender learns it, and what may be cut is cut.
#[test]
fn path_mtu_is_learnt_in_the_middle_of_known_flows() {
    let Some(lab) = TcTestbed::with_rules("em", RULES, &["--interface", "r0,r1"]) else { return };
    let mut talks = ["10.0.2.2:7000", "[fd00:2::2]:7000"].map(|at| offloaded(&lab, "c", "s", at, at));
    assert!(run_ip(&["-n", &lab.netns.name("r"), "link", "set", "r1", "mtu", "1300"]));
    for talk in &mut talks {
        talk.exchange(1_000_000);
    }
    // They are in the kernel again, with shorter segments.
    let until = Instant::now() + PATIENCE;
    loop {
        let received = stat(&lab, "received");
        for talk in &mut talks {
            (0..50).for_each(|_| talk.exchange(1000));
        }
        if stat(&lab, "received") - received < 50 {
            break;
        }
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
    }
}
