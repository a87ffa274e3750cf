//! What a client keeps over a takeover beside its connections: the outside port of its endpoint-independent mapping, to which third parties send, and its block of ports.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/cluster_pair.rs"]
mod cluster_pair;
mod common;
#[path = "common/peers.rs"]
mod peers;

use cluster_pair::{Cluster, PATIENCE, RULES};
use peers::{run_ip, spawn_in_netns};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Between two attempts of a client, whose packets nobody answers for.
const RETRY: Duration = Duration::from_millis(200);
const KEYS: &str = "lease = \"manual\"\naddress = [\"192.0.2.77\"]\n";
const BLOCK: u16 = 64;

/// A pair with the first one active, and hosts at these addresses beside the server.
fn pair(name: &str, nat: &str, hosts: &[&str]) -> Option<Cluster> {
    let mut cluster = Cluster::new(name)?;
    for host in hosts {
        assert!(run_ip(&["-n", &cluster.netns("s"), "addr", "add", &format!("{host}/32"), "dev", "lo"]));
    }
    // A mapping is for whoever comes from outside: the ruleset lets it in.
    let rules = RULES.replace("iifname \"lan*\" ct state new accept", "ct state new accept");
    for index in 0..2 {
        cluster.start_as(index, &format!("{KEYS}{nat}"), &rules);
    }
    assert_eq!(cluster.control(0, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(0);
    Some(cluster)
}

/// The first gateway is gone; the other one has its table, and becomes active.
fn take_over(cluster: &mut Cluster) {
    cluster.wait_in_step(0, 1);
    let mut dead = cluster.gateways[0].take().unwrap();
    dead.kill().unwrap();
    dead.wait().unwrap();
    assert_eq!(cluster.control(1, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(1);
}

fn socket(cluster: &Cluster, side: &str, address: &'static str) -> UdpSocket {
    let bind = move || UdpSocket::bind(address).unwrap();
    let socket = spawn_in_netns(&cluster.netns(side), bind).join().unwrap();
    socket.set_read_timeout(Some(RETRY)).unwrap();
    socket
}

/// Sends until it has come; from where it came.
fn send(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> SocketAddr {
    let until = Instant::now() + PATIENCE;
    let mut bytes = [0; 16];
    loop {
        from.send_to(b"ping", address).unwrap();
        match to.recv_from(&mut bytes) {
            Ok((_, source)) => return source,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < until, "nothing comes to {address}");
    }
}

#[test]
fn a_mapping_that_does_not_depend_on_the_peer_is_taken_over() {
    let nat = "[nat]\nmapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\"\n";
    let Some(mut cluster) = pair("m", nat, &["192.0.2.10", "192.0.2.11"]) else { return };
    let client = socket(&cluster, "c", "10.1.0.2:5555");
    let [first, second, third] =
        ["192.0.2.9:7000", "192.0.2.10:7001", "192.0.2.11:7002"].map(|address| socket(&cluster, "s", address));
    let outside = send(&client, &first, first.local_addr().unwrap());
    assert_eq!(outside.ip().to_string(), "192.0.2.77");
    take_over(&mut cluster);
    // A third party that the client has never sent to reaches it at once, by its mapping.
    assert_eq!(send(&third, &client, outside), third.local_addr().unwrap(), "{}", cluster.logs());
    // A new peer sees the same outside port, and so does the first one.
    assert_eq!(send(&client, &second, second.local_addr().unwrap()), outside, "{}", cluster.logs());
    assert_eq!(send(&client, &first, first.local_addr().unwrap()), outside);
}

#[test]
fn a_clients_block_of_ports_is_taken_over() {
    let Some(mut cluster) = pair("b", &format!("[nat]\nport-block = {BLOCK}\n"), &[]) else { return };
    let server = socket(&cluster, "s", "192.0.2.9:7000");
    let address = server.local_addr().unwrap();
    let open = |cluster: &Cluster| {
        let client = socket(cluster, "c", "10.1.0.2:0");
        send(&client, &server, address).port()
    };
    let before: Vec<u16> = (0..6).map(|_| open(&cluster)).collect();
    take_over(&mut cluster);
    let after: Vec<u16> = (0..6).map(|_| open(&cluster)).collect();
    let blocks = |ports: &[u16]| ports.iter().map(|port| port / BLOCK).collect::<Vec<u16>>();
    let own = before[0] / BLOCK;
    assert!(blocks(&before).iter().chain(&blocks(&after)).all(|block| *block == own), "{before:?} {after:?}");
    assert!(after.iter().all(|port| !before.contains(port)), "{before:?} {after:?}");
}
