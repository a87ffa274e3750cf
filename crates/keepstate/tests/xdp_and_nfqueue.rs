//! `keepstate gateway --xdp` and `--queue` on real devices: client, router and server in namespaces of their own, veth pairs between them, the kernel's own TCP at both ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/router_netns.rs"]
mod router_netns;

use common::{TempFile, keepstate, report_skipped};
use keepstate_test_support::uninterrupted;
use peers::{enable_icmp_errors, run_ip, spawn_in_netns};
use router_netns::RouterNetns;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 oifname r1 accept
		ct status dnat accept
	}
	chain early {
		type filter hook prerouting priority mangle
		ct state invalid drop
	}
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 8080 dnat to 10.0.1.2:80
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// The ways in and out.
const XDP_SEND_SOCKETS: &[&str] = &["--xdp", "r0,r1", "--xdp-send", "sockets"];
const XDP_LIVE_FRAMES: &[&str] = &["--xdp", "r0,r1"];
const NFQUEUE: &[&str] = &["--queue", "7"];

/// The namespaces, and the gateway in the middle one.
struct XdpTestbed {
    tag: String,
    gateway: Child,
    ruleset: TempFile,
    netns: RouterNetns,
}

impl XdpTestbed {
    /// `None` where it cannot be made.
    fn new(name: &str, how: &[&str]) -> Option<XdpTestbed> {
        XdpTestbed::with_queues(name, how, 1)
    }

    /// The same, its devices with so many queues.
    fn with_queues(name: &str, how: &[&str], queues: u32) -> Option<XdpTestbed> {
        let tag = format!("ksdrv{}{name}", std::process::id());
        let tool = Command::new("ethtool").arg("--version").stdout(Stdio::null()).status().is_ok();
        let Some(netns) = RouterNetns::new(&tag, queues).filter(|_| tool) else {
            report_skipped("the gateway on real devices: it needs root, network namespaces, iproute2 and ethtool");
            return None;
        };
        // A veth leaves checksums to the hardware that it has not; bursts need a peer that polls.
        netns.set_offload("tx off");
        netns.set_offload("gro on");
        let ruleset = TempFile::new(&format!("drv{name}.nft"), RULES.as_bytes());
        let gateway = start_gateway(&netns, ruleset.path(), how);
        Some(XdpTestbed { tag, gateway, ruleset, netns })
    }

    fn name(&self, side: &str) -> String {
        self.netns.name(side)
    }

    fn transfer(&self, from: &str, to: &str, at: &'static str, called: &str, length: usize) -> IpAddr {
        self.netns.transfer(from, to, at, called, length)
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }
}

/// Starts the gateway in the middle, and waits until it routes.
fn start_gateway(netns: &RouterNetns, ruleset: &str, how: &[&str]) -> Child {
    let socket = socket(&netns.tag);
    let words = [&["--ruleset", ruleset, "--control", &socket][..], how].concat();
    let (gateway, said) = netns.start_gateway(&words);
    assert_eq!(said.contains("batched tx"), how == XDP_LIVE_FRAMES, "{said}");
    gateway
}

impl Drop for XdpTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

fn assert_transfers(lab: &XdpTestbed) {
    const LENGTH: usize = 10_000_000;
    let seen = lab.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", LENGTH);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]), "masqueraded");
    let seen = lab.transfer("c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000", LENGTH / 10);
    assert_eq!(seen, "fd00:1::2".parse::<IpAddr>().unwrap(), "IPv6 is not translated");
    let seen = lab.transfer("s", "c", "10.0.1.2:80", "10.0.2.1:8080", LENGTH / 10);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 2]), "published");
}

#[test]
fn xdp_transmits_by_sockets() {
    let Some(lab) = XdpTestbed::new("a", XDP_SEND_SOCKETS) else { return };
    assert_transfers(&lab);
}

/// Waits until the gateway knows the way to `to`, where nothing listens yet: the server itself refuses the connection then.
fn wait_until_routed(lab: &XdpTestbed, to: &'static str) {
    let until = Instant::now() + Duration::from_secs(60);
    let connect = move || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(1)).map(drop);
    loop {
        let result = spawn_in_netns(&lab.name("c"), connect).join().unwrap();
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return;
        }
        assert!(Instant::now() < until, "no route to {to}: {result:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn xdp_transmits_live_frames_and_follows_route_changes() {
    let Some(lab) = XdpTestbed::new("b", XDP_LIVE_FRAMES) else { return };
    assert_transfers(&lab);
    // A network that nobody knew at the beginning.
    assert!(run_ip(&["-n", &lab.name("s"), "addr", "add", "203.0.113.9/32", "dev", "lo"]));
    assert!(run_ip(&["-n", &lab.name("r"), "route", "add", "203.0.113.0/24", "via", "10.0.2.2"]));
    wait_until_routed(&lab, "203.0.113.9:7001");
    let seen = lab.transfer("c", "s", "203.0.113.9:7001", "203.0.113.9:7001", 100_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]));
}

#[test]
fn one_worker_per_rx_queue() {
    for (name, how) in [("w", XDP_SEND_SOCKETS), ("x", XDP_LIVE_FRAMES)] {
        let Some(lab) = XdpTestbed::with_queues(name, how, 2) else { return };
        std::thread::scope(|scope| {
            for at in ["10.0.2.2:7000", "10.0.2.2:7001", "10.0.2.2:7002", "10.0.2.2:7003", "10.0.2.2:7004"] {
                let lab = &lab;
                scope.spawn(move || {
                    for _ in 0..4 {
                        assert_eq!(lab.transfer("c", "s", at, at, 2_000_000), IpAddr::from([10, 0, 2, 1]));
                    }
                });
            }
        });
        // Both queues had their part: the kernel chooses one for each stream.
        let queues = (0..2).map(|queue| xdp_counter(&lab, "r0", &format!("rx_queue_{queue}_xdp_redirect")));
        let queues: Vec<u64> = queues.collect();
        assert!(queues.iter().all(|&frames| frames > 100), "{queues:?}");
        assert_eq!(lab.control(&["count"]), "20\n");
    }
}

/// What a device counts.
fn xdp_counter(lab: &XdpTestbed, device: &str, what: &str) -> u64 {
    let out = Command::new("ip").args(["netns", "exec", &lab.name("r"), "ethtool", "-S", device]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(what));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{what}: {text}"))
}

/// Whoever asks for somebody who is not there is told so, though he is translated: as by Linux, when nobody has answered three times.
#[test]
fn unresolved_neighbour_sends_icmp_unreachable() {
    let Some(lab) = XdpTestbed::new("n", XDP_LIVE_FRAMES) else { return };
    for (to, from) in [("10.0.2.77:9", "0.0.0.0:0"), ("[fd00:2::77]:9", "[::]:0")] {
        let asked = spawn_in_netns(&lab.name("c"), move || {
            let socket = UdpSocket::bind(from).unwrap();
            enable_icmp_errors(&socket);
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.send(b"hello").unwrap();
            uninterrupted(|| socket.recv(&mut [0; 9])).unwrap_err().kind()
        });
        assert_eq!(asked.join().unwrap(), ErrorKind::HostUnreachable, "{to}");
    }
}

#[test]
fn nfqueue_packets_are_routed() {
    let Some(lab) = XdpTestbed::new("q", NFQUEUE) else { return };
    for device in ["r0", "r1"] {
        for tool in ["iptables-legacy", "ip6tables-legacy"] {
            let words = ["-t", "raw", "-I", "PREROUTING", "-i", device, "-j", "NFQUEUE", "--queue-num", "7"];
            let done = run_ip(&[&["netns", "exec", &lab.name("r"), tool][..], &words].concat());
            if !done {
                report_skipped(
                    "packets of a queue: iptables-legacy, or NFQUEUE in the kernel, is missing. Type: apt-get install iptables",
                );
                return;
            }
        }
    }
    assert_transfers(&lab);
    // What is the machine's own goes on to it.
    let seen = lab.transfer("c", "r", "10.0.1.1:2222", "10.0.1.1:2222", 100_000);
    assert_eq!(seen, IpAddr::from([10, 0, 1, 2]));
    assert!(lab.control(&["stats"]).contains("delivered="));
}

/// Somebody's ssh to the router itself is the kernel's affair, and no full table and no rule about what is invalid cuts it.
#[test]
fn local_traffic_is_left_to_the_kernel() {
    let Some(lab) = XdpTestbed::new("h", XDP_LIVE_FRAMES) else { return };
    let (ready, waits) = channel();
    let server = spawn_in_netns(&lab.name("r"), move || {
        let listener = TcpListener::bind("10.0.1.1:2222").unwrap();
        ready.send(()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut word = [0; 4];
        for _ in 0..2 {
            peer.read_exact(&mut word).unwrap();
            peer.write_all(&word).unwrap();
        }
    });
    waits.recv().unwrap();
    let (done, heard) = channel();
    let (go, told) = channel();
    let client = spawn_in_netns(&lab.name("c"), move || {
        let mut stream = TcpStream::connect("10.0.1.1:2222").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut word = [0; 4];
        for _ in 0..2 {
            stream.write_all(b"ssh!").unwrap();
            stream.read_exact(&mut word).unwrap();
            done.send(()).unwrap();
            told.recv().unwrap();
        }
    });
    heard.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(lab.control(&["count"]), "0\n", "the machine's own connections do not stand in the gateway's table");
    // A full table: one place, which a forwarded connection takes and keeps.
    lab.control(&["set", "nf_conntrack_max=1"]);
    lab.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 1000);
    go.send(()).unwrap();
    heard.recv_timeout(Duration::from_secs(30)).unwrap();
    go.send(()).unwrap();
    client.join().unwrap();
    server.join().unwrap();
}

/// One gateway at a time has the devices; whoever comes after one that was killed finds them as they were.
#[test]
fn killed_gateway_detaches_xdp() {
    let Some(mut lab) = XdpTestbed::new("k", XDP_LIVE_FRAMES) else { return };
    let second = Command::new("ip")
        .args(["netns", "exec", &lab.name("r"), env!("CARGO_BIN_EXE_keepstate"), "gateway"])
        .args(["--ruleset", lab.ruleset.path(), "--xdp", "r0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && said.contains("one gateway per network namespace"), "{said}");
    lab.gateway.kill().unwrap();
    lab.gateway.wait().unwrap();
    lab.gateway = start_gateway(&lab.netns, lab.ruleset.path(), XDP_LIVE_FRAMES);
    lab.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
}

#[test]
fn unusable_interfaces_are_reported() {
    let ruleset = TempFile::new("xdpwrong.nft", RULES.as_bytes());
    for (words, code, said) in [
        (&["--xdp", "nothere0"][..], 1, "no such interface"),
        (&["--xdp", "lo", "--device", "a=10.0.0.1/24"], 2, "cannot be used with"),
        (&["--xdp-mode", "copy"], 2, "--xdp"),
    ] {
        let ran = keepstate(&[&["gateway", "--ruleset", ruleset.path()][..], words].concat(), b"");
        // Without root it fails earlier, and says so.
        let denied = ran.code == Some(1) && (ran.err.contains("CAP_NET_ADMIN") || ran.err.contains("socket"));
        assert!(denied || ran.code == Some(code) && ran.err.contains(said), "{words:?}: {:?} {}", ran.code, ran.err);
    }
}

#[test]
fn rules_see_the_ethernet_header_of_xdp_frames() {
    let Some(lab) = XdpTestbed::new("m", XDP_SEND_SOCKETS) else { return };
    let address = |side: &str, device: &str| {
        let path = format!("/sys/class/net/{device}/address");
        let told = Command::new("ip").args(["netns", "exec", &lab.name(side), "cat", &path]).output().unwrap();
        String::from_utf8(told.stdout).unwrap().trim().to_owned()
    };
    let (client, router) = (address("c", "c0"), address("r", "r0"));
    let rules = [
        format!("ether saddr {client} ether daddr {router} ether type ip meta iifkind \"veth\" counter"),
        format!("ether saddr != {client} counter"),
        "ether type ip6 counter".to_owned(),
        "vlan id 1 counter".to_owned(),
    ];
    for rule in &rules {
        lab.control(&["nft", &format!("add rule inet filter early iifname \"r0\" meta l4proto tcp {rule}")]);
    }
    lab.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    let listed = lab.control(&["nft", "list", "chain", "inet", "filter", "early"]);
    let counts: Vec<u64> = listed
        .lines()
        .filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert!(matches!(counts.as_slice(), [1..=u64::MAX, 0, 0, 0]), "{listed}");
}
