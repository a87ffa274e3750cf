//! `keepstate gateway` with real peers: two namespaces with the kernel's own TCP, and the gateway's TUN devices between them; and over a capture.
//!
//! Namespaces have names of this process's own and go at the end, even of a failed test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{TempFile, keepstate, report_skipped};
use keepstate_test_support::uninterrupted;
use peers::{download, run_ip, serve_once, spawn_in_netns, test_bytes};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname lan0 oifname wan0 accept
		iifname wan0 ct status dnat accept
	}
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname wan0 tcp dport 8080 dnat to 10.1.0.2:80
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 masquerade
	}
}
";

/// Client and server in namespaces of their own, the gateway between them.
struct TunTestbed {
    tag: String,
    gateway: Child,
    ruleset: TempFile,
}

impl TunTestbed {
    /// `None` where namespaces may not be made.
    fn new(name: &str) -> Option<TunTestbed> {
        TunTestbed::with_rules(name, RULES)
    }

    fn with_rules(name: &str, rules: &str) -> Option<TunTestbed> {
        let tag = format!("ksgw{}{name}", std::process::id());
        for side in ["c", "g", "s"] {
            if !run_ip(&["netns", "add", &format!("{tag}{side}")]) {
                report_skipped("the gateway between real peers: it needs root, network namespaces and iproute2");
                return None;
            }
        }
        let ruleset = TempFile::new(&format!("{name}.nft"), rules.as_bytes());
        let gateway = Command::new("ip")
            .args([
                "netns",
                "exec",
                &format!("{tag}g"),
                env!("CARGO_BIN_EXE_keepstate"),
                "gateway",
                "--ruleset",
                ruleset.path(),
            ])
            .args(["--device", "lan0=10.1.0.1/24,fd00:1::1/64", "--device", "wan0=192.0.2.1/24,2001:db8::1/64"])
            .args(["--route", "0.0.0.0/0=wan0", "--route", "::/0=wan0"])
            .args(["--control", &socket(&tag)])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lab = TunTestbed { tag, gateway, ruleset };
        lab.configure_side("lan0", "c", &["10.1.0.2/24", "fd00:1::2/64"]);
        lab.configure_side("wan0", "s", &["192.0.2.9/24", "2001:db8::9/64"]);
        Some(lab)
    }

    /// Gives a device to a namespace, with its addresses and the way to everybody.
    fn configure_side(&self, device: &str, side: &str, addresses: &[&str]) {
        let (from, to) = (format!("{}g", self.tag), format!("{}{side}", self.tag));
        let until = Instant::now() + Duration::from_secs(60);
        while !run_ip(&["-n", &from, "link", "set", device, "netns", &to]) {
            assert!(Instant::now() < until, "{device} was never made");
            std::thread::sleep(Duration::from_millis(20));
        }
        for address in addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            let words = [&["-n", &to, "addr", "add", address, "dev", device][..], nodad].concat();
            assert!(run_ip(&words));
        }
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "set", device, "up"],
            &["route", "add", "default", "dev", device],
            &["-6", "route", "add", "default", "dev", device],
        ] {
            assert!(run_ip(&[&["-n", to.as_str()][..], words].concat()), "{words:?}");
        }
    }

    /// Runs something in a namespace, on a thread of its own.
    fn spawn_in_netns<T: Send + 'static>(
        &self,
        side: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        spawn_in_netns(&format!("{}{side}", self.tag), what)
    }

    /// What the gateway answers, and the exit code.
    fn control(&self, words: &[&str]) -> (Option<i32>, String) {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    /// Asks a program to end, or to read its ruleset again, and gives what it said meanwhile once it has ended.
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.gateway.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for TunTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
        for side in ["c", "g", "s"] {
            run_ip(&["netns", "del", &format!("{}{side}", self.tag)]);
        }
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

/// From a client in `from` to a server in `to` that listens at `at` and is called `called`: whom the server saw.
fn transfer(lab: &TunTestbed, from: &str, to: &str, at: &'static str, called: &str, length: usize) -> IpAddr {
    let (ready, waits) = std::sync::mpsc::channel();
    let server = lab.spawn_in_netns(to, move || {
        let (_, serve) = serve_once(at, length);
        ready.send(()).unwrap();
        serve()
    });
    waits.recv().unwrap();
    let called: SocketAddr = called.parse().unwrap();
    let client = lab.spawn_in_netns(from, move || download(called));
    let got = client.join().unwrap();
    assert!(got == test_bytes(length), "{} of {length} octets, or other ones", got.len());
    server.join().unwrap()
}

#[test]
fn snat_out_and_dnat_in_with_real_tcp() {
    let Some(lab) = TunTestbed::new("a") else { return };
    const LENGTH: usize = 20_000_000;
    let seen = transfer(&lab, "c", "s", "192.0.2.9:7000", "192.0.2.9:7000", LENGTH);
    assert_eq!(seen, IpAddr::from([192, 0, 2, 1]), "masqueraded");
    let seen = transfer(&lab, "c", "s", "[2001:db8::9]:7000", "[2001:db8::9]:7000", LENGTH / 10);
    assert_eq!(seen, "fd00:1::2".parse::<IpAddr>().unwrap(), "IPv6 is not translated");
    let seen = transfer(&lab, "s", "c", "10.1.0.2:80", "192.0.2.1:8080", LENGTH / 10);
    assert_eq!(seen, IpAddr::from([192, 0, 2, 9]));
}

#[test]
fn log_that_nobody_reads_delays_no_packet() {
    const ROUNDS: u32 = 3000;
    // Each packet is logged with a long line: ten times what the pipe of standard error holds, and nobody reads it.
    let prefix = "x".repeat(120);
    let rules = format!(
        "table ip t {{ chain f {{ type filter hook forward priority 0; udp dport 7000 log prefix \"{prefix}\"; }} }}"
    );
    let Some(lab) = TunTestbed::with_rules("log", &rules) else { return };
    let (ready, waits) = std::sync::mpsc::channel();
    let server = lab.spawn_in_netns("s", move || {
        let socket = UdpSocket::bind("192.0.2.9:7000").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        ready.send(()).unwrap();
        let mut packet = [0; 4];
        while let Ok((_, from)) = uninterrupted(|| socket.recv_from(&mut packet)) {
            socket.send_to(&packet, from).unwrap();
            if packet == (ROUNDS - 1).to_be_bytes() {
                return;
            }
        }
    });
    waits.recv().unwrap();
    let client = lab.spawn_in_netns("c", || {
        let socket = UdpSocket::bind("10.1.0.2:7001").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = [0; 4];
        (0..ROUNDS).find(|number| {
            socket.send_to(&number.to_be_bytes(), "192.0.2.9:7000").unwrap();
            uninterrupted(|| socket.recv(&mut answer)).is_err()
        })
    });
    assert_eq!(client.join().unwrap(), None, "the first packet that was not forwarded");
    server.join().unwrap();
    assert_eq!(lab.control(&["count"]).0, Some(0), "control clients are served too");
}

/// RFC 1812, 4.3.3.6: the router's own addresses answer; nothing listens there.
#[test]
fn own_addresses_refuse_connections() {
    let rules = "table inet t { chain i { type filter hook input priority 0; udp dport 9 drop; }; }";
    let Some(lab) = TunTestbed::with_rules("own", rules) else { return };
    let client = lab.spawn_in_netns("c", || {
        for address in ["10.1.0.1", "192.0.2.1"] {
            let refused = TcpStream::connect((address, 7000)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{address}: {refused}");
            let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.connect((address, 7000)).unwrap();
            socket.send(b"x").unwrap();
            let refused = uninterrupted(|| socket.recv(&mut [0; 1])).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{address}: {refused}");
        }
    });
    client.join().unwrap();
}

#[test]
fn ruleset_reload_keeps_connections() {
    let Some(mut lab) = TunTestbed::new("b") else { return };
    let (ready, waits) = std::sync::mpsc::channel();
    let server = lab.spawn_in_netns("s", move || {
        let listener = TcpListener::bind("192.0.2.9:7000").unwrap();
        ready.send(()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut word = [0; 5];
        for _ in 0..2 {
            peer.read_exact(&mut word).unwrap();
            peer.write_all(&word).unwrap();
        }
    });
    waits.recv().unwrap();
    let (go, told) = std::sync::mpsc::channel();
    let (done, heard) = std::sync::mpsc::channel();
    let client = lab.spawn_in_netns("c", move || {
        let mut stream = TcpStream::connect("192.0.2.9:7000").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut word = [0; 5];
        for _ in 0..2 {
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut word).unwrap();
            done.send(()).unwrap();
            told.recv().unwrap();
        }
        // New ones are not let through any more.
        TcpStream::connect_timeout(&"192.0.2.9:7000".parse().unwrap(), Duration::from_secs(2)).is_err()
    });
    heard.recv_timeout(Duration::from_secs(30)).unwrap();
    let mut notes = std::io::BufReader::new(lab.gateway.stderr.take().unwrap());
    // First a ruleset that is refused, which changes nothing; then one that lets nobody new through.
    std::fs::write(lab.ruleset.path(), "table ip filter { chain forward { this is none; }; }").unwrap();
    lab.signal("-HUP");
    read_until(&mut notes, "the ruleset stays as it was");
    std::fs::write(lab.ruleset.path(), RULES.replace("iifname lan0 oifname wan0 accept", "")).unwrap();
    lab.signal("-HUP");
    read_until(&mut notes, "connections kept");
    go.send(()).unwrap();
    heard.recv_timeout(Duration::from_secs(30)).unwrap();
    go.send(()).unwrap();
    assert!(client.join().unwrap());
    server.join().unwrap();
    lab.signal("-TERM");
    read_until(&mut notes, "keepstate: rx ");
    assert!(lab.gateway.wait().unwrap().success());
}

fn read_until(notes: &mut impl std::io::BufRead, wanted: &str) {
    let mut all = String::new();
    while !all.contains(wanted) {
        assert!(notes.read_line(&mut all).unwrap() > 0, "{wanted:?} was never said:\n{all}");
    }
}

#[test]
fn control_commands_on_a_running_gateway() {
    let Some(lab) = TunTestbed::new("c") else { return };
    let seen = transfer(&lab, "c", "s", "192.0.2.9:7000", "192.0.2.9:7000", 100_000);
    assert_eq!(seen, IpAddr::from([192, 0, 2, 1]));
    let (code, list) = lab.control(&["list", "-p", "tcp"]);
    assert_eq!(code, Some(0), "{list}");
    assert!(list.contains("src=10.1.0.2 dst=192.0.2.9") && list.contains("src=192.0.2.9 dst=192.0.2.1"), "{list}");
    assert_eq!(lab.control(&["count"]), (Some(0), "1\n".to_owned()));
    assert!(lab.control(&["list", "-p", "udp"]).1.is_empty());
    assert!(lab.control(&["list", "-o", "json"]).1.contains("\"protocol\""));
    assert!(lab.control(&["stats"]).1.contains("forwarded="));
    assert_eq!(lab.control(&["set", "nf_conntrack_max=5000"]), (Some(0), "nf_conntrack_max = 5000\n".to_owned()));
    assert_eq!(lab.control(&["get", "net.netfilter.nf_conntrack_max"]), (Some(0), "5000\n".to_owned()));
    for (wrong, code, words) in [
        (&["get", "nonsense"][..], 1, "unknown sysctl nonsense"),
        (&["set", "nf_conntrack_max=many"], 1, "whole number"),
        (&["dance"], 2, "unrecognized subcommand"),
        (&["list", "--stats"], 2, "use control events, control stats"),
    ] {
        let (left, said) = lab.control(wrong);
        assert!(left == Some(code) && said.contains(words), "{wrong:?}: {left:?} {said}");
    }
    std::fs::write(lab.ruleset.path(), "table ip t { chain c { acept; }; }").unwrap();
    let (code, said) = lab.control(&["reload"]);
    assert!(
        code == Some(1)
            && said.contains("stays as it was")
            && said.contains(":1:24: expected a match, a statement or a verdict, found `acept`"),
        "{said}"
    );
    std::fs::write(lab.ruleset.path(), RULES).unwrap();
    assert!(lab.control(&["reload"]).1.contains("connections kept"));
    assert_eq!(lab.control(&["flush"]), (Some(0), "removed 1\n".to_owned()));
    // A client of another version, or without the protocol, gets an error, and nothing breaks.
    for (said, wanted) in [
        ("{\"v\":9,\"request\":\"count\"}\n", "speaks version 2"),
        ("GET / HTTP/1.1\n", "invalid request"),
        ("\n", "invalid request"),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(socket(&lab.tag)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(wanted), "{said:?}: {answer}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(socket(&lab.tag)).unwrap().permissions().mode() & 0o777, 0o660);
    lab.signal("-TERM");
    let until = Instant::now() + Duration::from_secs(60);
    while std::path::Path::new(&socket(&lab.tag)).exists() {
        assert!(Instant::now() < until, "the socket goes with the gateway");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, said) = lab.control(&["count"]);
    assert!(code == Some(1) && said.contains("no gateway listens there"), "{said}");
}

#[test]
fn offline_run_writes_a_readable_capture() {
    let ruleset = TempFile::new("offline.nft", RULES.as_bytes());
    let packets = [(1_000_000_000, common::udp_packet(4000, false)), (2_000_000_000, common::udp_packet(4000, true))];
    let input = common::pcap(common::ByteOrder::Little, true, 101, &packets);
    let input = TempFile::new("in.pcap", &input);
    let output = TempFile::new("out.pcap", b"");
    let devices = [
        "--device",
        "lan0=10.0.0.254/31",
        "--device",
        "wan0=10.0.0.3/31",
        "--route",
        "10.0.0.1/32=lan0",
        "--route",
        "0.0.0.0/0=wan0",
    ];
    let words = [
        &["gateway", "--ruleset", ruleset.path(), "--in", input.path(), "--out", output.path(), "--each"][..],
        &devices,
    ]
    .concat();
    let ran = keepstate(&words, b"");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        ran.out, "1 from lan0 to wan0\n2 from wan0 dropped by the ruleset\n",
        "the answer went to an address that nobody asked from"
    );
    let again = keepstate(&["replay", output.path()], b"");
    assert!(again.out.contains("src=10.0.0.3 dst=10.0.0.2 sport=4000 dport=53"), "{}{}", again.out, again.err);
    let wrong = keepstate(&["gateway", "--ruleset", "/nonexistent", "--device", "lan0=10.0.0.1/24"], b"");
    assert!(wrong.code == Some(1) && wrong.err.contains("/nonexistent cannot be read"), "{}", wrong.err);
    let wrong = keepstate(&["gateway", "--ruleset", ruleset.path(), "--device", "lan0=10.0.0.1/33"], b"");
    assert!(wrong.code == Some(2) && wrong.err.contains("0 to 32"), "{}", wrong.err);
    let wrong = keepstate(
        &["gateway", "--ruleset", ruleset.path(), "--device", "lan0=10.0.0.1/24", "--route", "0.0.0.0/0=eth7"],
        b"",
    );
    assert!(wrong.code == Some(2) && wrong.err.contains("there is no --device eth7"), "{}", wrong.err);
}
