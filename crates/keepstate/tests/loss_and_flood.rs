//! `keepstate gateway` on bad days: a line that loses and reorders under load, and a flood of first segments with the table at its limit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{TempFile, keepstate, report_skipped};
use keepstate_linux::nfqueue::{NfQueue, QueueVerdict};
use keepstate_linux::raw_socket::RawIpSender;
use peers::{connect, download, run_ip, spawn_in_netns, test_bytes};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	set busy {
		type ipv4_addr
		flags dynamic
		size 1024
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		ip saddr 10.1.0.66 ct state new add @busy { ip saddr ct count over 50 } drop
		iifname lan0 accept
	}
}
table inet nat {
	chain post {
		type nat hook postrouting priority srcnat
		meta nfproto ipv4 oifname wan0 masquerade
	}
}
";

/// Client, a way to the gateway, the gateway, a server: namespaces, and TUN devices that the gateway makes.
struct LossyTestbed {
    tag: String,
    gateway: Child,
    _ruleset: TempFile,
}

impl LossyTestbed {
    fn new(name: &str, rules: &str) -> Option<LossyTestbed> {
        let tag = format!("kshard{}{name}", std::process::id());
        for side in ["c", "m", "g", "s"] {
            if !run_ip(&["netns", "add", &format!("{tag}{side}")]) {
                report_skipped("the gateway on bad days: it needs root, network namespaces and iproute2");
                return None;
            }
        }
        let ruleset = TempFile::new(&format!("hard{name}.nft"), rules.as_bytes());
        let gateway = Command::new("ip")
            .args(["netns", "exec", &format!("{tag}g"), env!("CARGO_BIN_EXE_keepstate"), "gateway"])
            .args(["--ruleset", ruleset.path(), "--control", &socket(&tag)])
            .args(["--device", "lan0=10.1.0.1/24,fd00:1::1/64", "--device", "wan0=192.0.2.1/24,fd00:2::1/64"])
            .args(["--route", "0.0.0.0/0=wan0"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lab = LossyTestbed { tag, gateway, _ruleset: ruleset };
        // Client – (c0 m0) – the way – (lan0) – gateway – (wan0) – server.
        let [c, m, s] = ["c", "m", "s"].map(|side| lab.name(side));
        assert!(run_ip(&["link", "add", "c0", "netns", &c, "type", "veth", "peer", "name", "m0", "netns", &m]));
        lab.move_interface("lan0", &m);
        lab.move_interface("wan0", &s);
        for (space, device, address) in [
            (&c, "c0", "10.1.0.2/24"),
            (&c, "c0", "10.1.0.66/24"),
            (&c, "c0", "fd00:1::2/64"),
            (&m, "m0", "10.9.9.1/32"),
            (&m, "m0", "fd00:9::1/128"),
            (&s, "wan0", "192.0.2.9/24"),
            (&s, "wan0", "fd00:2::9/64"),
        ] {
            let nodad: &[&str] = if address.contains("fd00") { &["nodad"] } else { &[] };
            assert!(run_ip(&[&["-n", space, "addr", "add", address, "dev", device][..], nodad].concat()));
        }
        for (space, device) in [(&c, "c0"), (&m, "m0"), (&m, "lan0"), (&s, "wan0")] {
            assert!(run_ip(&["-n", space, "link", "set", "lo", "up"]));
            assert!(run_ip(&["-n", space, "link", "set", device, "txqueuelen", "5000", "up"]));
        }
        for words in [
            format!("-n {c} route add 10.9.9.1 dev c0"),
            format!("-n {c} route add default via 10.9.9.1"),
            format!("-n {c} -6 route add fd00:9::1 dev c0"),
            format!("-n {c} -6 route add default via fd00:9::1"),
            format!("-n {m} route add 10.1.0.0/24 dev m0"),
            format!("-n {m} route add default dev lan0"),
            format!("-n {m} -6 route add fd00:1::/64 dev m0"),
            format!("-n {m} -6 route add default dev lan0"),
            format!("-n {s} -6 route add default dev wan0"),
        ] {
            assert!(run_ip(&words.split(' ').collect::<Vec<_>>()), "{words}");
        }
        for key in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            assert!(run_ip(&["netns", "exec", &m, "sysctl", "-qw", key]));
        }
        Some(lab)
    }

    fn name(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    /// Moves a device of the gateway's into a namespace.
    fn move_interface(&self, device: &str, to: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !run_ip(&["-n", &self.name("g"), "link", "set", device, "netns", to]) {
            assert!(Instant::now() < until, "{device} was never made");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }

    /// KiB that the gateway occupies.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for LossyTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
        for side in ["c", "m", "g", "s"] {
            run_ip(&["netns", "del", &self.name(side)]);
        }
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

/// Of a hundred packets this many are lost, and this many held back until some others have passed.
const LOSS_PERCENT: u64 = 2;
const REORDER_PERCENT: u64 = 5;
/// Packets that overtake one that is held back.
const REORDER_DISTANCE: usize = 4;

/// A line that loses and reorders what the kernel hands over: how many of both.
fn lossy_link(ended: &AtomicBool, ready: &std::sync::mpsc::Sender<()>) -> (u64, u64) {
    let mut queue = NfQueue::bind(3).unwrap();
    ready.send(()).unwrap();
    let (mut state, mut lost, mut reordered) = (7_u64, 0, 0);
    let mut held: VecDeque<(u32, usize)> = VecDeque::new();
    let mut come = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        if !queue.receive(|packet| come.push(packet.id)).unwrap() {
            // Nobody comes behind them: they go on.
            for (id, _) in held.drain(..) {
                queue.send_verdict(id, QueueVerdict::Accept, None).unwrap();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        for id in come.drain(..) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (state >> 33) % 100 {
                luck if luck < LOSS_PERCENT => {
                    lost += 1;
                    queue.send_verdict(id, QueueVerdict::Drop, None).unwrap();
                }
                luck if luck < LOSS_PERCENT + REORDER_PERCENT => {
                    reordered += 1;
                    held.push_back((id, 0));
                }
                _ => queue.send_verdict(id, QueueVerdict::Accept, None).unwrap(),
            }
            held.iter_mut().for_each(|(_, passed)| *passed += 1);
            while held.front().is_some_and(|(_, passed)| *passed > REORDER_DISTANCE) {
                let (id, _) = held.pop_front().unwrap();
                queue.send_verdict(id, QueueVerdict::Accept, None).unwrap();
            }
        }
    }
    (lost, reordered)
}

/// Eight transfers at once, IPv4 and IPv6, both directions of each line shaken.
#[test]
fn transfers_survive_loss_and_reordering() {
    const LENGTH: usize = 1_500_000;
    let Some(lab) = LossyTestbed::new("l", RULES) else { return };
    for tool in ["iptables-legacy", "ip6tables-legacy"] {
        let words = "-t raw -I PREROUTING -p tcp -j NFQUEUE --queue-num 3";
        let all = format!("netns exec {} {tool} {words}", lab.name("m"));
        if !run_ip(&all.split(' ').collect::<Vec<_>>()) {
            report_skipped(
                "a bad line: iptables-legacy, or NFQUEUE in the kernel, is missing. Type: apt-get install iptables",
            );
            return;
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let (ready, waits) = channel();
    let over = ended.clone();
    let line = spawn_in_netns(&lab.name("m"), move || lossy_link(&over, &ready));
    waits.recv().unwrap();
    let (listening, listens) = channel();
    let servers: Vec<_> = (0..8)
        .map(|number| {
            let listening = listening.clone();
            spawn_in_netns(&lab.name("s"), move || {
                let at: SocketAddr =
                    format!("{}:{}", if number % 2 == 0 { "192.0.2.9" } else { "[fd00:2::9]" }, 7000 + number)
                        .parse()
                        .unwrap();
                let listener = TcpListener::bind(at).unwrap();
                listening.send(()).unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                peer.write_all(&test_bytes(LENGTH)).unwrap();
                at
            })
        })
        .collect();
    (0..8).for_each(|_| listens.recv().unwrap());
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let at: SocketAddr =
                format!("{}:{}", if number % 2 == 0 { "192.0.2.9" } else { "[fd00:2::9]" }, 7000 + number)
                    .parse()
                    .unwrap();
            spawn_in_netns(&lab.name("c"), move || download(at))
        })
        .collect();
    for client in clients {
        let got = client.join().unwrap();
        assert!(got == test_bytes(LENGTH), "{} of {LENGTH} octets, or other ones", got.len());
    }
    for server in servers {
        server.join().unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    let (lost, reordered) = line.join().unwrap();
    assert!(lost > 50 && reordered > 100, "the line was not bad: {lost} lost, {reordered} reordered");
}

/// A first segment from this address and port.
fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    bytes.extend(source);
    bytes.extend([192, 0, 2, 9]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0x1b, 0x58, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&bytes[12..20], &[0, 6, 0, 20][..], &bytes[20..40]].concat();
    let check = keepstate_wire::checksum::internet(&pseudo);
    bytes[36..38].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// How many packets one interface did not take because its queue was full.
struct InterfaceDrops {
    /// proc(5)'s net/dev of the namespace that the file was opened in.
    table: File,
    interface: &'static str,
}

impl InterfaceDrops {
    fn open(namespace: &str, interface: &'static str) -> InterfaceDrops {
        let table = spawn_in_netns(namespace, || File::open("/proc/thread-self/net/dev").unwrap());
        InterfaceDrops { table: table.join().unwrap(), interface }
    }

    fn read(&mut self) -> u64 {
        let mut text = String::new();
        self.table.rewind().unwrap();
        self.table.read_to_string(&mut text).unwrap();
        let line =
            text.lines().find_map(|line| line.trim_start().strip_prefix(self.interface)?.strip_prefix(':')).unwrap();
        // Eight numbers received, then bytes, packets, errors and drops sent.
        line.split_whitespace().nth(11).unwrap().parse().unwrap()
    }
}

/// Sends first segments from everybody, some 50,000 a second: more would only find the device's queue full, and the sessions' segments too. Counts them.
fn syn_flood(ended: &AtomicBool, count: &AtomicU64, lan: &mut InterfaceDrops) {
    let (sender, mut sent, mut state) = (RawIpSender::open().unwrap(), 0_u64, 1_u32);
    let mut dropped = lan.read();
    let to = IpAddr::from([192, 0, 2, 9]);
    while !ended.load(Ordering::Relaxed) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [host, high, low, one] = state.to_be_bytes();
        // One of eight comes from the address that is limited.
        let host = if one < 32 { 66 } else { host.clamp(10, 60) };
        // As fast as the gateway takes it, on a machine with other work too: when its queue overflows, most of it is left to be read.
        if sent % 32 == 0 {
            let now = lan.read();
            std::thread::sleep(Duration::from_micros(if now > dropped { 20_000 } else { 500 }));
            dropped = now;
        }
        sent += u64::from(sender.send(to, &syn([10, 1, 0, host], u16::from_be_bytes([high, low]).max(1024))));
        count.store(sent, Ordering::Relaxed);
    }
}

#[test]
fn syn_flood_keeps_sessions_and_memory() {
    const LIMIT: usize = 3000;
    const SESSIONS: usize = 20;
    let Some(lab) = LossyTestbed::new("f", RULES) else { return };
    let (ready, waits) = channel();
    let server = spawn_in_netns(&lab.name("s"), move || {
        let listener = TcpListener::bind("192.0.2.9:6999").unwrap();
        ready.send(()).unwrap();
        let peers: Vec<_> = (0..SESSIONS).map(|_| listener.accept().unwrap().0).collect();
        let echo = |mut peer: TcpStream| {
            let mut word = [0; 8];
            while peer.read_exact(&mut word).is_ok() {
                peer.write_all(&word).unwrap();
            }
        };
        let threads: Vec<_> = peers.into_iter().map(|peer| std::thread::spawn(move || echo(peer))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    waits.recv().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let (over, count) = (ended.clone(), answered.clone());
    let (open, opened) = channel();
    let client = spawn_in_netns(&lab.name("c"), move || {
        let connect = |_| TcpStream::connect("192.0.2.9:6999").unwrap();
        let mut peers: Vec<TcpStream> = (0..SESSIONS).map(connect).collect();
        open.send(()).unwrap();
        while !over.load(Ordering::Relaxed) {
            for peer in &mut peers {
                peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let mut word = [0; 8];
                peer.write_all(b"are you?").unwrap();
                peer.read_exact(&mut word).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        peers.len()
    });
    opened.recv().unwrap();
    lab.control(&["set", &format!("nf_conntrack_max={LIMIT}")]);
    // The server's answers (resets) would free the places again: it drops what it is flooded with.
    let drop_them = format!("netns exec {} iptables-legacy -A INPUT -p tcp --dport 7000 -j DROP", lab.name("s"));
    if !run_ip(&drop_them.split(' ').collect::<Vec<_>>()) {
        report_skipped("a flood: iptables-legacy is missing. Type: apt-get install iptables");
        return;
    }
    let sent = Arc::new(AtomicU64::new(0));
    let (over, count) = (ended.clone(), sent.clone());
    let mut lan = InterfaceDrops::open(&lab.name("m"), "lan0");
    let attacker = spawn_in_netns(&lab.name("c"), move || syn_flood(&over, &count, &mut lan));
    // On a busy machine it takes a little longer.
    let sends = |more: u64| {
        let (goal, until) = (sent.load(Ordering::Relaxed) + more, Instant::now() + Duration::from_secs(240));
        while sent.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < until, "that is no flood");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Full, and warm: from now on nothing may grow.
    let until = Instant::now() + Duration::from_secs(60);
    while lab.control(&["count"]).trim().parse::<usize>().unwrap() < LIMIT {
        assert!(Instant::now() < until, "the table never filled");
        std::thread::sleep(Duration::from_millis(50));
    }
    sends(30_000);
    let (memory, before) = (lab.memory(), answered.load(Ordering::Relaxed));
    sends(100_000);
    let grown = lab.memory().saturating_sub(memory);
    assert!(grown < 4096, "{grown} KiB more than before");
    let words = answered.load(Ordering::Relaxed) - before;
    assert!(
        words > 10 * SESSIONS as u64,
        "the sessions stood still: {words} answers to 100,000 first segments; {}",
        lab.control(&["stats"])
    );
    // One may have been let go, and the next not have come, at this very moment.
    let count: usize = lab.control(&["count"]).trim().parse().unwrap();
    assert!((LIMIT - 100..=LIMIT).contains(&count), "{count} connections, by a limit of {LIMIT}");
    ended.store(true, Ordering::Relaxed);
    assert_eq!(client.join().unwrap(), SESSIONS);
    attacker.join().unwrap();
    server.join().unwrap();
    // A table is listed in pieces: only now does nobody come and go meanwhile.
    let limited = lab.control(&["list", "-s", "10.1.0.66"]).lines().count();
    assert!((1..=50).contains(&limited), "{limited} connections of an address that may have 50");
}

const SYNPROXY_RULES: &str = "
table inet filter {
	chain early {
		type filter hook prerouting priority raw
		iifname lan0 tcp flags & (fin | syn | rst | ack) == syn notrack
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
		ct state established,related,new accept
	}
}
table inet nat {
	chain post {
		type nat hook postrouting priority srcnat
		meta nfproto ipv4 oifname wan0 masquerade
	}
}
";

/// A flood against handshakes that the gateway answers itself: nobody who does not exist gets a place in the table or reaches the server, and whoever exists gets in.
#[test]
fn spoofed_syn_flood_creates_no_entries_behind_synproxy() {
    const LENGTH: usize = 50_000;
    const CLIENTS: usize = 10;
    let Some(lab) = LossyTestbed::new("p", SYNPROXY_RULES) else { return };
    lab.control(&["set", "nf_conntrack_tcp_loose=0"]);
    let (ready, waits) = channel();
    let server = spawn_in_netns(&lab.name("s"), move || {
        let listener = TcpListener::bind(("::", 7000)).unwrap();
        ready.send(()).unwrap();
        for _ in 0..2 * CLIENTS {
            let mut peer = listener.accept().unwrap().0;
            std::thread::spawn(move || {
                peer.read_exact(&mut [0; 1]).unwrap();
                peer.write_all(&test_bytes(LENGTH)).unwrap();
            });
        }
    });
    waits.recv().unwrap();
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (over, count) = (ended.clone(), sent.clone());
    let mut lan = InterfaceDrops::open(&lab.name("m"), "lan0");
    let attacker = spawn_in_netns(&lab.name("c"), move || syn_flood(&over, &count, &mut lan));
    let clients = spawn_in_netns(&lab.name("c"), move || {
        for number in 0..2 * CLIENTS {
            let to: SocketAddr = if number % 2 == 0 { "192.0.2.9:7000" } else { "[fd00:2::9]:7000" }.parse().unwrap();
            // The client speaks first: of a handshake by cookies its last segment, if it is lost, is not sent again.
            let mut stream = connect(to);
            stream.write_all(b"?").unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == test_bytes(LENGTH), "client {number}: {} of {LENGTH} octets, or other ones", got.len());
        }
    });
    clients.join().unwrap();
    let until = Instant::now() + Duration::from_secs(240);
    while sent.load(Ordering::Relaxed) < 50_000 {
        assert!(Instant::now() < until, "that is no flood");
        std::thread::sleep(Duration::from_millis(20));
    }
    let count: usize = lab.control(&["count"]).trim().parse().unwrap();
    assert!(count <= 2 * CLIENTS, "{count} connections of {} clients", 2 * CLIENTS);
    ended.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    server.join().unwrap();
    let stats = lab.control(&["stats"]);
    let answered = stats.split_whitespace().find_map(|word| word.strip_prefix("syn_received=")).unwrap();
    assert!(answered.parse::<u64>().unwrap() > 30_000, "{stats}");
}
