//! Known flows at XDP (`--offload-xdp native`, since veth pairs are no hardware): packets leave as those at tc's hooks do, octet for octet, and all that is not a known flow's ordinary packet goes there.
use crate::common::report_skipped;
use crate::offload::{Conversation, offloaded, stat, wait_for};
use crate::packet_socket::PacketSocket;
use crate::peers::{run_ip, spawn_in_netns};
use crate::routes::in_netns;
use crate::{PATIENCE, SILENCE, TcTestbed};
use keepstate_wire::checksum;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 oifname r1 accept
	}
}
table inet nat {
	chain post { type nat hook postrouting priority srcnat; oifname r1 masquerade; }
}
";
const SENT: &str = "packets_sent_at_xdp";

/// Interfaces as of hardware whose driver has native XDP: packets as they are on a wire, VLAN tags in them.
fn testbed(name: &str, how: &[&str]) -> Option<TcTestbed> {
    let mut lab = TcTestbed::without_gateway(name, RULES)?;
    if !Command::new("ethtool").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        report_skipped("known flows at XDP: ethtool");
        return None;
    }
    for words in ["tx off", "rxvlan off", "txvlan off", "gro on"] {
        lab.netns.set_offload(words);
    }
    lab.start(&[&["--interface", "r0,r1"][..], how].concat());
    Some(lab)
}

const NATIVE: [&str; 2] = ["--offload-xdp", "native"];

/// Packets of a connection until one was sent on at XDP.
fn until_at_xdp(lab: &TcTestbed, talk: &mut Conversation) {
    let (before, until) = (stat(lab, SENT), Instant::now() + PATIENCE);
    while stat(lab, SENT) == before {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        talk.exchange(3000);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A UDP flow that the kernel has: the sockets, and the client's port.
fn known_udp(lab: &TcTestbed, client: &'static str, server: &'static str) -> [UdpSocket; 2] {
    let bind = |side, at: &'static str| {
        let socket = spawn_in_netns(&lab.netns.name(side), move || UdpSocket::bind(at).unwrap()).join().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (client, to) = (bind("c", client), server);
    let server = bind("s", server);
    let (flows, until) = (stat(lab, "offloaded_flows"), Instant::now() + PATIENCE);
    while stat(lab, "offloaded_flows") == flows {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        client.send_to(b"question", to).unwrap();
        let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut [0; 64]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    [client, server]
}

#[test]
fn known_flows_are_sent_on_at_xdp() {
    let Some(lab) = testbed("xk", &NATIVE) else { return };
    let mut talks = [
        offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000"),
        offloaded(&lab, "c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
    ];
    for talk in &mut talks {
        until_at_xdp(&lab, talk);
        let before = wait_for(&lab, SENT, |_| true);
        talk.exchange(1_000_000);
        // In both directions, 1,448 bytes at a time.
        wait_for(&lab, SENT, |sent| sent > before + 1200);
    }
    for udp in
        [known_udp(&lab, "10.0.1.2:4000", "10.0.2.2:5000"), known_udp(&lab, "[fd00:1::2]:4000", "[fd00:2::2]:5000")]
    {
        drop(udp);
    }
    // What the programs have counted is the connections' own.
    let list = lab.control(&["list"]);
    let bytes = |line: &str| -> u64 {
        line.split_whitespace()
            .filter_map(|word| word.strip_prefix("bytes="))
            .map(|word| word.parse::<u64>().unwrap())
            .sum()
    };
    if list.contains("bytes=") {
        assert_eq!(list.lines().filter(|line| bytes(line) > 2_000_000).count(), 2, "{list}");
    }
    drop(talks);
    wait_for(&lab, "offloaded_flows", |flows| flows <= 2);
    let list = lab.control(&["list"]);
    assert!(list.lines().all(|line| !line.contains("ESTABLISHED")), "{list}");
}

/// One packet of a flow, from the IP header on.
struct TestPacket {
    ends: [IpAddr; 2],
    ports: [u16; 2],
    protocol: u8,
    hops: u8,
    tos: u8,
    /// With TCP: the options.
    options: &'static [u8],
    payload: Vec<u8>,
    /// What becomes of the right checksum.
    check: fn(u16) -> u16,
}

impl TestPacket {
    fn bytes(&self) -> Vec<u8> {
        const TCP: u8 = 6;
        let [from, to] = self.ports.map(u16::to_be_bytes);
        let mut transport = [from, to].concat();
        let at = if self.protocol == TCP {
            let header = 20 + self.options.len();
            transport.extend([0, 0, 0, 7, 0, 0, 0, 9, u8::try_from(header * 4).unwrap(), 0x18, 1, 0, 0, 0, 0, 0]);
            transport.extend(self.options);
            16
        } else {
            transport.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            transport.extend([0, 0]);
            6
        };
        transport.extend(&self.payload);
        let length = u16::try_from(transport.len()).unwrap();
        let (mut header, pseudo) = match self.ends {
            [IpAddr::V4(from), IpAddr::V4(to)] => {
                let [high, low] = (20 + length).to_be_bytes();
                let mut ip = vec![0x45, self.tos, high, low, 0, 1, 0x40, 0, self.hops, self.protocol, 0, 0];
                ip.extend(from.octets().iter().chain(&to.octets()));
                let sum = checksum::internet(&ip).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                (ip, [from.octets(), to.octets()].concat())
            }
            [IpAddr::V6(from), IpAddr::V6(to)] => {
                let [high, low] = length.to_be_bytes();
                let mut ip = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0, high, low, self.protocol, self.hops];
                ip.extend(from.octets().iter().chain(&to.octets()));
                (ip, [from.octets(), to.octets()].concat())
            }
            _ => panic!("of two families"),
        };
        let pseudo = [pseudo, vec![0, self.protocol], length.to_be_bytes().to_vec(), transport.clone()].concat();
        let check = (self.check)(checksum::internet(&pseudo)).to_be_bytes();
        transport[at..at + 2].copy_from_slice(&check);
        header.extend(transport);
        header
    }
}

/// What is sent, of flows whose ends are given.
fn packets(ends: [IpAddr; 2], after: IpAddr) -> Vec<TestPacket> {
    let [from, to] = ends;
    let udp = |payload: Vec<u8>| TestPacket {
        ends: [from, to],
        ports: [4000, 5000],
        protocol: 17,
        hops: 64,
        tos: 0,
        options: &[],
        payload,
        check: |sum| if sum == 0 { 0xffff } else { sum },
    };
    let tcp = |payload: Vec<u8>| TestPacket { ports: [4001, 7000], protocol: 6, check: |sum| sum, ..udp(payload) };
    let mut all = vec![
        udp(vec![]),
        udp(vec![1]),
        udp(vec![7; 999]),
        udp(vec![255; 1400]),
        tcp(vec![]),
        tcp(vec![3; 1]),
        tcp(vec![200; 1400]),
    ];
    all.extend([2, 63, 255].map(|hops| TestPacket { hops, ..udp(vec![9; 10]) }));
    all.extend([2, 255].map(|hops| TestPacket { hops, ..tcp(vec![9; 10]) }));
    all.extend([0x08, 0x03, 0xb8, 0xfc].map(|tos| TestPacket { tos, ..udp(vec![9; 10]) }));
    all.push(TestPacket { options: &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], ..tcp(vec![5; 33]) });
    // Wrong ones stay wrong.
    all.push(TestPacket { check: |sum| sum ^ 0x1234, ..udp(vec![4; 20]) });
    all.push(TestPacket { check: |sum| sum ^ 0x1234, ..tcp(vec![4; 20]) });
    if from.is_ipv4() {
        all.push(TestPacket { check: |_| 0, ..udp(vec![4; 20]) });
    }
    // As it leaves, its sum is nothing, which UDP writes otherwise: the word of the payload makes it so.
    let mut balanced = TestPacket { ends: [after, to], ..udp(vec![0; 2]) };
    balanced.check = |sum| sum;
    let bytes = balanced.bytes();
    let at = if from.is_ipv4() { 26 } else { 46 };
    let [high, low] = [bytes[at], bytes[at + 1]];
    all.push(udp(vec![high, low]));
    // Addresses and ports whose sum carries.
    all.push(udp(vec![0xff; 3]));
    all
}

/// Sends the packets by the client's interface, and gives what arrives at the server's.
fn pass(lab: &TcTestbed, family: &str) -> Vec<Vec<u8>> {
    let (client, server, after) = match family {
        "v4" => ("10.0.1.2", "10.0.2.2", "10.0.2.1"),
        _ => ("fd00:1::2", "fd00:2::2", "fd00:2::1"),
    };
    let [client, server, after] = [client, server, after].map(|address| address.parse::<IpAddr>().unwrap());
    let macs = [lab.mac("r", "r0"), lab.mac("c", "c0")].concat();
    let ethertype = if family == "v4" { [8, 0] } else { [0x86, 0xdd] };
    let header = [macs, ethertype.to_vec()].concat();
    let outside = spawn_in_netns(&lab.netns.name("c"), || PacketSocket::open("c0")).join().unwrap();
    let inside = spawn_in_netns(&lab.netns.name("s"), || PacketSocket::open("s0")).join().unwrap();
    let mut arrived = Vec::new();
    for packet in packets([client, server], after) {
        let bytes = packet.bytes();
        outside.send(&[header.clone(), bytes.clone()].concat());
        let to = if family == "v4" { 16..20 } else { 24..40 };
        let is_it = |frame: &[u8]| {
            frame.len() == 14 + bytes.len()
                && frame.ends_with(&packet.payload)
                && frame[14..][to.clone()] == bytes[to.clone()]
        };
        let frame = inside.receive(PATIENCE, is_it);
        arrived.push(frame.unwrap_or_else(|| panic!("{family}: a packet is lost: {bytes:02x?}"))[14..].to_vec());
    }
    arrived
}

/// A TCP connection from a port that is known.
fn known_tcp(lab: &TcTestbed, family: &str) -> Conversation {
    let (bind, at) = match family {
        "v4" => ("10.0.1.2:4001", "10.0.2.2:7000"),
        _ => ("[fd00:1::2]:4001", "[fd00:2::2]:7000"),
    };
    let flows = stat(lab, "offloaded_flows");
    let mut talk = Conversation::begin_from(lab, bind, at);
    let until = Instant::now() + PATIENCE;
    while stat(lab, "offloaded_flows") <= flows {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        talk.exchange(100);
        std::thread::sleep(Duration::from_millis(20));
    }
    talk
}

#[test]
fn packets_leave_as_at_the_hooks_of_tc() {
    for family in ["v4", "v6"] {
        let (mut left, mut sent) = (Vec::new(), Vec::new());
        for (name, mode) in [("xa", "off"), ("xb", "native")] {
            let Some(lab) = testbed(name, &["--offload-xdp", mode]) else { return };
            let (client, server) = match family {
                "v4" => ("10.0.1.2:4000", "10.0.2.2:5000"),
                _ => ("[fd00:1::2]:4000", "[fd00:2::2]:5000"),
            };
            let _udp = known_udp(&lab, client, server);
            let mut talk = known_tcp(&lab, family);
            if mode == "native" {
                until_at_xdp(&lab, &mut talk);
            }
            let before = stat(&lab, SENT);
            left.push(pass(&lab, family));
            let expected = if mode == "native" { before + left[1].len() as u64 } else { 0 };
            sent.push(wait_for(&lab, SENT, |sent| sent >= expected));
        }
        assert_eq!(left[0].len(), left[1].len());
        for (number, (tc, xdp)) in left[0].iter().zip(&left[1]).enumerate() {
            assert_eq!(tc, xdp, "{family}: packet {number}");
        }
        assert_eq!(sent[0], 0);
    }
}

/// What a switch leads elsewhere is not forwarded here: frames of a VLAN, frames to another station, frames to a group of them.
#[test]
fn only_frames_to_the_machine_are_sent_on() {
    let Some(lab) = testbed("xo", &NATIVE) else { return };
    let _udp = known_udp(&lab, "10.0.1.2:4000", "10.0.2.2:5000");
    let packet =
        &packets(["10.0.1.2", "10.0.2.2"].map(|end| end.parse().unwrap()), "10.0.2.1".parse().unwrap())[2].bytes();
    let (to, from) = (lab.mac("r", "r0"), lab.mac("c", "c0"));
    let outside = spawn_in_netns(&lab.netns.name("c"), || PacketSocket::open("c0")).join().unwrap();
    let inside = spawn_in_netns(&lab.netns.name("s"), || PacketSocket::open("s0")).join().unwrap();
    let is_it = |frame: &[u8]| frame.len() == 14 + packet.len() && frame.ends_with(&packet[28..]);
    let frame = |to: &[u8], kind: &[u8]| [to, &from, kind, packet].concat();
    outside.send(&frame(&to, &[8, 0]));
    assert!(inside.receive(PATIENCE, is_it).is_some(), "its own");
    let group = [0xff; 6];
    let another = [2, 0, 0, 0, 0, 0x99];
    for (what, frame) in [
        ("tagged", frame(&to, &[0x81, 0, 0, 7, 8, 0])),
        ("to another station", frame(&another, &[8, 0])),
        ("to all stations", frame(&group, &[8, 0])),
    ] {
        outside.send(&frame);
        assert!(inside.receive(SILENCE, is_it).is_none(), "{what}");
    }
}

/// The gateway may die: its flows go on at tc's hooks, where the kernel knows its neighbours; the next one sends on at XDP again; detached, nothing is left.
#[test]
fn a_dead_gateway_leaves_its_flows_to_the_hooks_of_tc() {
    let Some(mut lab) = testbed("xd", &NATIVE) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    until_at_xdp(&lab, &mut talk);
    lab.kill();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        talk.exchange(100);
    }
    assert!(has_xdp(&lab, "r0") && has_xdp(&lab, "r1"));
    lab.start(&[&["--interface", "r0,r1"][..], &NATIVE].concat());
    until_at_xdp(&lab, &mut talk);
    lab.kill();
    // One that does not want it takes it away.
    lab.start(&["--interface", "r0,r1"]);
    assert!(!has_xdp(&lab, "r0") && !has_xdp(&lab, "r1"), "software interfaces have none by default");
    talk.exchange(100);
    lab.stop();
    lab.start(&[&["--interface", "r0,r1"][..], &NATIVE].concat());
    assert!(has_xdp(&lab, "r0"));
    lab.stop();
    assert_eq!(lab.detach().code, Some(0));
    assert!(!has_xdp(&lab, "r0") && !has_xdp(&lab, "r1"));
}

fn has_xdp(lab: &TcTestbed, device: &str) -> bool {
    let shown = Command::new("ip").args(["-n", &lab.netns.name("r"), "link", "show", device]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().contains("xdp")
}

/// What is sent at XDP the kernel does not see: it is told which neighbours are in use, and confirms them. A neighbour's new address is followed.
#[test]
fn neighbours_are_confirmed_and_followed() {
    let Some(lab) = testbed("xn", &NATIVE) else { return };
    let set = "sysctl -qw net.ipv4.neigh.r1.base_reachable_time_ms=1000 net.ipv4.neigh.r1.delay_first_probe_time=1";
    assert!(in_netns(&lab, "r", set) && in_netns(&lab, "r", "ip neigh flush dev r1"));
    let [client, server] = known_udp(&lab, "10.0.1.2:4000", "10.0.2.2:5000");
    let state = || {
        let shown =
            Command::new("ip").args(["-n", &lab.netns.name("r"), "neigh", "show", "10.0.2.2", "dev", "r1"]).output();
        String::from_utf8(shown.unwrap().stdout).unwrap()
    };
    // In one direction: nothing comes back that would confirm it.
    let passes = |is_confirmed: bool| {
        let until = Instant::now() + PATIENCE;
        while state().contains("REACHABLE") != is_confirmed {
            assert!(Instant::now() < until, "confirmed is not {is_confirmed}: {}", state());
            client.send_to(b"question", "10.0.2.2:5000").unwrap();
            server.recv_from(&mut [0; 64]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let before = wait_for(&lab, SENT, |_| true);
    for _ in 0..2 {
        // Stale, or asked already: which of them is seen depends on the moment.
        passes(false);
        passes(true);
    }
    wait_for(&lab, SENT, |sent| sent > before);

    assert!(in_netns(&lab, "s", "ip link set s0 address 02:00:00:00:00:77"));
    assert!(run_ip(&[
        "-n",
        &lab.netns.name("r"),
        "neigh",
        "replace",
        "10.0.2.2",
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "r1"
    ]));
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        client.send_to(b"moved", "10.0.2.2:5000").unwrap();
        if server.recv_from(&mut [0; 64]).is_ok() {
            break;
        }
        assert!(Instant::now() < until, "lost since its neighbour has moved");
    }
    let before = wait_for(&lab, SENT, |_| true);
    let until = Instant::now() + PATIENCE;
    while stat(&lab, SENT) == before {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        client.send_to(b"moved", "10.0.2.2:5000").unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where it cannot be, it is said why, and known flows go on at tc's hooks.
#[test]
fn what_stands_in_the_way_is_said() {
    let Some(mut lab) = testbed("xw", &["--offload-xdp", "off"]) else { return };
    lab.stop();
    lab.netns.set_offload("rxvlan on");
    let said = lab.start(&[&["--interface", "r0,r1"][..], &NATIVE].concat());
    assert!(said.contains("r0: not at XDP") && said.contains("ethtool -K r0 rxvlan off"), "{said}");
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    // It is followed.
    lab.netns.set_offload("rxvlan off");
    let until = Instant::now() + PATIENCE;
    while !has_xdp(&lab, "r0") {
        assert!(Instant::now() < until, "not attached");
        std::thread::sleep(Duration::from_millis(20));
    }
    until_at_xdp(&lab, &mut talk);
    // A shaper would be circumvented.
    assert!(in_netns(&lab, "r", "tc qdisc replace dev r1 root tbf rate 1gbit burst 1mbit latency 50ms"));
    let client_sends = |talk: &mut Conversation| {
        use std::io::{Read, Write};
        for _ in 0..20 {
            talk.client.write_all(b"?").unwrap();
            talk.server.read_exact(&mut [0; 1]).unwrap();
        }
    };
    let shaped = || {
        let shown = Command::new("ip")
            .args(["netns", "exec", &lab.netns.name("r"), "tc", "-s", "qdisc", "show", "dev", "r1"])
            .output();
        let text = String::from_utf8(shown.unwrap().stdout).unwrap();
        let at = text.find(" pkt").unwrap();
        text[..at].rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let before = shaped();
        client_sends(&mut talk);
        if shaped() >= before + 20 {
            break;
        }
        assert!(Instant::now() < until, "the shaper is circumvented");
    }
}
