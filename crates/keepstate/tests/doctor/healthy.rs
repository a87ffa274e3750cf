//! Busy machines that lack nothing: the doctor has no finding about them.
use crate::netns_fixture::{Connections, DoctorOutput, NetnsFixture, run, send_datagrams, unreachable};
use crate::stale_translations::{KUBE_IPTABLES, KUBE_NFT, load};
use keepstate_linux::netns;
use keepstate_test_support::uninterrupted;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A client and a server behind the two sides of a router.
struct Peers {
    client: String,
    server: String,
}

impl Peers {
    fn create(router: &NetnsFixture) -> Peers {
        let peers = Peers { client: format!("{}-c", router.name), server: format!("{}-s", router.name) };
        for (name, device, network) in [(&peers.client, "lan", "10.20.0"), (&peers.server, "wan", "10.30.0")] {
            let router = router.name.as_str();
            for words in [
                format!("netns add {name}"),
                format!("-n {router} link add {device} type veth peer name eth0 netns {name}"),
                format!("-n {router} addr add {network}.1/24 dev {device}"),
                format!("-n {router} link set {device} up"),
                format!("-n {name} link set lo up"),
                format!("-n {name} addr add {network}.2/24 dev eth0"),
                format!("-n {name} link set eth0 up"),
                format!("-n {name} route add default via {network}.1"),
            ] {
                let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
                assert!(run(&words), "{words:?}");
            }
        }
        router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        peers
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            run(&["ip", "netns", "del", name]);
        }
    }
}

fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    netns::find(name).unwrap().enter(work).unwrap()
}

/// Answers whoever asks, until it is over.
fn serve(listener: &TcpListener, socket: &UdpSocket, over: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut room = [0; 512];
    while !over.load(Ordering::Relaxed) {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            let _ = uninterrupted(|| stream.read(&mut room)).and_then(|length| stream.write_all(&room[..length]));
        }
        if let Ok((length, peer)) = uninterrupted(|| socket.recv_from(&mut room)) {
            let _ = socket.send_to(&room[..length], peer);
        }
    }
}

/// What clients do: requests with and without an answer, connections that are closed, refused, or given up.
fn ask(server: [u8; 4]) {
    let mut room = [0; 512];
    if let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::from((server, 80)), Duration::from_secs(1)) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(b"question").and_then(|()| uninterrupted(|| stream.read(&mut room)));
    }
    let _ = TcpStream::connect_timeout(&SocketAddr::from((server, 81)), Duration::from_millis(100));
    for port in [53, 9999] {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = socket.send_to(b"question", (std::net::Ipv4Addr::from(server), port));
        let _ = uninterrupted(|| socket.recv_from(&mut room));
    }
}

/// Runs the doctor on the router while a client asks the server.
fn run_doctor_during_traffic(router: &NetnsFixture, peers: &Peers, server: [u8; 4]) -> DoctorOutput {
    let (listener, socket) =
        enter(&peers.server, || (TcpListener::bind("0.0.0.0:80").unwrap(), UdpSocket::bind("0.0.0.0:53").unwrap()));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = crate::netns_fixture::SetOnDrop(&over);
        scope.spawn(|| serve(&listener, &socket, &over));
        router.run_doctor_during_in(&peers.client, || ask(server))
    })
}

#[test]
fn busy_nat_router() {
    let Some(router) = NetnsFixture::create_shared() else { return };
    let peers = Peers::create(&router);
    router.nft(
        "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname \"wan\" masquerade\n}\n}\n\
         table inet fw { chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept\n\
         iifname \"lan\" accept\n}\n}",
    );
    // Flows that began before, idle and unanswered, are there too.
    enter(&peers.client, || send_datagrams(SocketAddr::from(([10, 30, 0, 2], 9998)), 300));
    let said = run_doctor_during_traffic(&router, &peers, [10, 30, 0, 2]);
    assert_eq!(said.finding_names(), Vec::<&str>::new(), "{:#}", said.document["findings"]);
    assert!(said.document["namespaces"][0]["entries"].as_u64() > Some(300), "{:#}", said.document["namespaces"]);
}

#[test]
fn dns_server() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let server = bed.enter(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    let ask = || {
        let clients: Vec<UdpSocket> = (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut room = [0; 64];
        for client in &clients {
            client.send_to(b"question", "127.0.0.1:53").unwrap();
            let (length, peer) = uninterrupted(|| server.recv_from(&mut room)).unwrap();
            server.send_to(&room[..length], peer).unwrap();
        }
    };
    bed.nft("table inet filter { chain in { type filter hook input priority 0; ct state established,related accept\nudp dport 53 accept\n}\n}");
    let said = bed.run_doctor_during(ask);
    assert_eq!(said.finding_names(), Vec::<&str>::new(), "{:#}", said.document["findings"]);
}

#[test]
fn node_with_kube_proxys_rules() {
    for rules in [KUBE_IPTABLES, KUBE_NFT] {
        let Some(bed) = NetnsFixture::create_shared() else { return };
        if !load(&bed, rules) {
            continue;
        }
        bed.nft(
            "table inet kube-filter { chain forward { type filter hook forward priority 0; ct state invalid drop\n}\n}",
        );
        // As kube-proxy sets them.
        bed.set_sysctl("nf_conntrack_tcp_timeout_established", 86_400);
        bed.set_sysctl("nf_conntrack_tcp_timeout_close_wait", 3600);
        let held = bed.enter(|| Connections::open(10_250, 30));
        let said = bed.run_doctor_during(|| {
            // The service's address, whose endpoints do not answer here, and others of the same ports.
            for address in [[10, 9, 1, 1], [10, 9, 8, 8]] {
                send_datagrams(SocketAddr::from((address, 53)), 10);
            }
            send_datagrams(unreachable(8080), 3);
            send_datagrams(SocketAddr::from(([10, 9, 0, 1], 8080)), 3);
        });
        assert_eq!(said.finding_names(), Vec::<&str>::new(), "{:#}", said.document["findings"]);
        drop(held);
    }
}
