//! `keepstate gateway --interface`: client, router and server in namespaces of their own, veth pairs with all offloads between them, the kernel's own TCP at all three.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod asked;
mod classes;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod first_syns;
mod floods;
mod forwarding;
mod gaps;
mod handshakes;
mod interfaces;
mod machine;
mod marks;
mod offload;
mod packet_socket;
#[path = "../common/peers.rs"]
mod peers;
mod programs;
mod restarts;
#[path = "../common/router_netns.rs"]
mod router_netns;
mod routes;
mod watching;
mod xdp;

use common::{ProgramOutput, TempFile, keepstate, report_skipped};
use keepstate_test_support::uninterrupted;
use peers::{bind_udp, run_ip, spawn_in_netns};
use router_netns::RouterNetns;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iifname r0 tcp dport 2222 counter accept
		iifname r0 udp dport 53 accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 oifname r1 accept
		ct status dnat accept
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ct state invalid drop
		oifname r1 tcp dport 9 reject with tcp reset
		oifname r1 udp dport 9 drop
	}
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 8080 dnat to 10.0.1.2:80
		iifname r0 tcp dport 8022 redirect to :2222
	}
	chain out {
		type nat hook output priority dstnat;
		ip daddr 198.51.100.7 tcp dport 7000 dnat to 10.0.2.2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// The namespaces, and the gateway in the middle one.
struct TcTestbed {
    gateway: Option<Child>,
    ruleset: TempFile,
    socket: String,
    netns: RouterNetns,
}

impl TcTestbed {
    /// `None` where it cannot be made.
    fn new(name: &str) -> Option<TcTestbed> {
        TcTestbed::with_rules(name, RULES, &["--interface", "r0,r1"])
    }

    fn with_rules(name: &str, rules: &str, how: &[&str]) -> Option<TcTestbed> {
        let mut lab = TcTestbed::without_gateway(name, rules)?;
        lab.start(how);
        Some(lab)
    }

    /// The namespaces and the ruleset.
    fn without_gateway(name: &str, rules: &str) -> Option<TcTestbed> {
        let tag = format!("kstc{}{name}", std::process::id());
        let Some(netns) = RouterNetns::new(&tag, 1) else {
            report_skipped("the gateway at tc's hooks: it needs root, network namespaces and iproute2");
            return None;
        };
        // Without masquerading the server must know the way back.
        assert!(run_ip(&["-n", &netns.name("s"), "route", "add", "10.0.1.0/24", "via", "10.0.2.1"]));
        // An address that becomes usable is a change of routes, after which every flow is judged anew.
        let until = Instant::now() + PATIENCE;
        let tentative = || {
            let router = netns.name("r");
            let shown = Command::new("ip").args(["-n", &router, "-6", "addr", "show", "tentative"]).output().unwrap();
            !shown.stdout.is_empty()
        };
        while tentative() {
            assert!(Instant::now() < until, "addresses stay tentative");
            std::thread::sleep(Duration::from_millis(20));
        }
        let socket = std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned();
        let ruleset = TempFile::new(&format!("tc{name}.nft"), rules.as_bytes());
        Some(TcTestbed { gateway: None, ruleset, socket, netns })
    }

    /// Starts a gateway in the middle, and waits until it routes. Returns what it has said by then.
    fn start(&mut self, how: &[&str]) -> String {
        let words = [&["--ruleset", self.ruleset.path(), "--control", &self.socket][..], how].concat();
        let (gateway, said) = self.netns.start_gateway(&words);
        self.gateway = Some(gateway);
        said
    }

    fn kill(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    /// Stops it as `kill PID` does.
    fn stop(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        let pid = rustix::process::Pid::from_raw(gateway.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(gateway.wait().unwrap().success());
    }

    fn detach(&self) -> ProgramOutput {
        let output = self.netns.gateway_command(&["--detach"]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        ProgramOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &self.socket][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }

    /// The MAC address of an interface.
    fn mac(&self, side: &str, device: &str) -> Vec<u8> {
        let shown = Command::new("ip").args(["-n", &self.netns.name(side), "-br", "link", "show", device]).output();
        let text = String::from_utf8(shown.unwrap().stdout).unwrap();
        let mac = text.split_whitespace().nth(2).unwrap();
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// What becomes of a TCP connection from `side` to `to` within `patience`.
    fn connect(&self, side: &str, to: &'static str, patience: Duration) -> Result<(), ErrorKind> {
        let connect = move || TcpStream::connect_timeout(&to.parse().unwrap(), patience).map(drop);
        spawn_in_netns(&self.netns.name(side), connect).join().unwrap().map_err(|error| error.kind())
    }
}

impl Drop for TcTestbed {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        self.detach();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Nobody answers: the packet was dropped.
const SILENCE: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn forwarded_packets_are_filtered_and_translated() {
    let Some(lab) = TcTestbed::new("f") else { return };
    const LENGTH: usize = 10_000_000;
    let seen = lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", LENGTH);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]), "masqueraded");
    let seen = lab.netns.transfer("c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000", LENGTH);
    assert_eq!(seen, "fd00:1::2".parse::<IpAddr>().unwrap(), "IPv6 is not translated");
    let seen = lab.netns.transfer("s", "c", "10.0.1.2:80", "10.0.2.1:8080", LENGTH);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 2]), "published");
    assert_eq!(lab.connect("s", "[fd00:1::2]:81", SILENCE), Err(ErrorKind::TimedOut), "dropped by the forward chain");
    assert_eq!(lab.control(&["count"]).trim(), "3");
}

#[test]
fn packets_to_the_machine_pass_the_input_chain() {
    let Some(lab) = TcTestbed::new("i") else { return };
    let seen = lab.netns.transfer("c", "r", "10.0.1.1:2222", "10.0.1.1:2222", 3_000_000);
    assert_eq!(seen, IpAddr::from([10, 0, 1, 2]));
    // Redirected to the machine itself, and the answers translated back.
    let seen = lab.netns.transfer("c", "r", "10.0.1.1:2222", "10.0.1.1:8022", 3_000_000);
    assert_eq!(seen, IpAddr::from([10, 0, 1, 2]));
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "dropped by the input chain");
    assert_eq!(lab.connect("s", "10.0.2.1:2222", SILENCE), Err(ErrorKind::TimedOut), "not from this interface");
    assert_eq!(lab.control(&["count"]).trim(), "2");
}

/// A socket bound to an interface, as dnsmasq's or a DHCP server's, gets its packets on it, broadcasts too.
#[test]
fn sockets_bound_to_an_interface_are_served() {
    let Some(lab) = TcTestbed::new("b") else { return };
    for (to, from) in [("10.0.1.1:53", "10.0.1.2:0"), ("10.0.1.255:53", "10.0.1.2:0")] {
        let server = spawn_in_netns(&lab.netns.name("r"), || {
            let socket = bind_udp("0.0.0.0:53");
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            bind_to_device(&socket, "r0");
            socket
        });
        let socket = server.join().unwrap();
        let client = spawn_in_netns(&lab.netns.name("c"), move || {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"question", to).unwrap();
            let mut answer = [0; 16];
            let (length, from) = uninterrupted(|| socket.recv_from(&mut answer)).unwrap();
            (answer[..length].to_vec(), from)
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut question = [0; 16];
        let (length, asks) = uninterrupted(|| socket.recv_from(&mut question)).unwrap();
        assert_eq!(&question[..length], b"question");
        socket.send_to(b"answer", asks).unwrap();
        let (answer, from) = client.join().unwrap();
        assert_eq!((&answer[..], from), (&b"answer"[..], "10.0.1.1:53".parse().unwrap()), "{to}");
    }
}

pub(crate) fn bind_to_device(socket: &UdpSocket, name: &str) {
    use std::os::fd::AsRawFd;
    let length = libc::socklen_t::try_from(name.len()).unwrap();
    #[allow(unsafe_code, reason = "SO_BINDTODEVICE has no safe wrapper")]
    // SAFETY: the pointer and the length are those of the name, which outlives the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length)
    };
    assert_eq!(done, 0);
}

#[test]
fn packets_of_the_machine_pass_the_output_chain() {
    let Some(lab) = TcTestbed::new("o") else { return };
    let seen = lab.netns.transfer("r", "s", "10.0.2.2:7000", "10.0.2.2:7000", 3_000_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]));
    let seen = lab.netns.transfer("r", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000", 3_000_000);
    assert_eq!(seen, "fd00:2::1".parse::<IpAddr>().unwrap());
    assert!(run_ip(&["-n", &lab.netns.name("r"), "route", "add", "198.51.100.0/24", "via", "10.0.2.2"]));
    let seen = lab.netns.transfer("r", "s", "10.0.2.2:7000", "198.51.100.7:7000", 1_000_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]), "translated on its way out");
    assert_eq!(lab.connect("r", "10.0.2.2:9", PATIENCE), Err(ErrorKind::ConnectionRefused), "rejected");
    assert_eq!(lab.control(&["count"]).trim(), "3");
}

/// Fragments, both of forwarded packets and of the machine's own.
#[test]
fn fragments_are_tracked_as_whole_packets() {
    let Some(lab) = TcTestbed::new("g") else { return };
    for side in ["c", "r"] {
        for (at, bind) in [("10.0.2.2:7001", "0.0.0.0:0"), ("[fd00:2::2]:7001", "[::]:0")] {
            let server = spawn_in_netns(&lab.netns.name("s"), move || bind_udp(at)).join().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let client = spawn_in_netns(&lab.netns.name(side), move || {
                let socket = UdpSocket::bind(bind).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send_to(&[7; 4000], at).unwrap();
                uninterrupted(|| socket.recv(&mut [0; 8000])).unwrap()
            });
            let mut question = [0; 8000];
            let (length, asks) = uninterrupted(|| server.recv_from(&mut question)).unwrap();
            assert_eq!((length, question[3999]), (4000, 7));
            server.send_to(&question[..length], asks).unwrap();
            assert_eq!(client.join().unwrap(), 4000, "{side} {at}");
        }
    }
}

/// A killed gateway leaves nothing open; the next one takes over; only who says so gets the interfaces back.
#[test]
fn closed_when_it_dies_until_the_next_one_or_detached() {
    let Some(mut lab) = TcTestbed::new("k") else { return };
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    let second = lab.netns.gateway_command(&["--ruleset", lab.ruleset.path(), "--interface", "r0"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && said.contains("another gateway runs"), "{said}");
    let refused = lab.detach();
    assert!(refused.code == Some(1) && refused.err.contains("stop it first"), "{}", refused.err);

    lab.kill();
    let forwards = Command::new("ip")
        .args(["netns", "exec", &lab.netns.name("r"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        .status();
    assert!(forwards.unwrap().success());
    for to in ["10.0.2.2:7000", "10.0.1.1:2223"] {
        assert_eq!(lab.connect("c", to, SILENCE), Err(ErrorKind::TimedOut), "{to}");
    }
    assert_eq!(lab.connect("r", "10.0.2.2:7000", SILENCE), Err(ErrorKind::TimedOut));

    lab.start(&["--interface", "r*"]);
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    lab.stop();
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "closed");
    let detached = lab.detach();
    assert!(detached.code == Some(0) && detached.err.contains("2 interfaces given back"), "{}", detached.err);
    assert_eq!(lab.connect("c", "10.0.1.1:2223", PATIENCE), Err(ErrorKind::ConnectionRefused), "the kernel's own");
    let nothing = lab.detach();
    assert!(nothing.code == Some(1) && nothing.err.contains("no gateway has left"), "{}", nothing.err);

    lab.start(&["--interface", "*", "--on-exit", "open"]);
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut));
    lab.stop();
    assert_eq!(lab.connect("c", "10.0.1.1:2223", PATIENCE), Err(ErrorKind::ConnectionRefused));
}

/// The administrator is not locked out by a gateway that has died: the lifeline needs none. Nothing else passes.
#[test]
fn lifeline_is_open_while_no_gateway_runs() {
    let how = ["--interface", "r0,r1", "--lifeline", "r0:2223"];
    let Some(mut lab) = TcTestbed::with_rules("l", RULES, &how) else { return };
    let listener = spawn_in_netns(&lab.netns.name("r"), || std::net::TcpListener::bind("10.0.1.1:2223").unwrap());
    let _listener = listener.join().unwrap();
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "the rules drop it");
    lab.kill();
    assert_eq!(lab.connect("c", "10.0.1.1:2223", Duration::from_secs(40)), Ok(()), "once it is known to be dead");
    assert_eq!(lab.connect("c", "10.0.1.1:2222", SILENCE), Err(ErrorKind::TimedOut), "another port");
    for forwards in ["0", "1"] {
        let path = format!("echo {forwards} > /proc/sys/net/ipv4/ip_forward");
        let router = lab.netns.name("r");
        assert!(Command::new("ip").args(["netns", "exec", &router, "sh", "-c", &path]).status().unwrap().success());
        assert_eq!(lab.connect("c", "10.0.2.2:2223", SILENCE), Err(ErrorKind::TimedOut), "another machine");
        assert_eq!(lab.connect("c", "10.0.1.1:2223", PATIENCE), Ok(()));
    }
    lab.start(&how);
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "the rules again");
}

/// By choice a gateway that is killed leaves the interfaces open.
#[test]
fn open_after_it_was_killed_by_choice() {
    let Some(mut lab) = TcTestbed::with_rules("p", RULES, &["--interface", "r0,r1", "--on-exit", "open"]) else {
        return;
    };
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut));
    assert_eq!(lab.connect("s", "10.0.1.2:7001", SILENCE), Err(ErrorKind::TimedOut), "dropped by the forward chain");
    lab.kill();
    assert!(routes::in_netns(&lab, "r", "sysctl -qw net.ipv4.ip_forward=1"));
    let until = Instant::now() + Duration::from_secs(60);
    while lab.connect("c", "10.0.1.1:2223", SILENCE) != Err(ErrorKind::ConnectionRefused) {
        assert!(Instant::now() < until, "it stays closed");
    }
    assert!(run_ip(&["-n", &lab.netns.name("s"), "route", "replace", "10.0.1.0/24", "via", "10.0.2.1"]));
    assert_eq!(lab.connect("s", "10.0.1.2:7001", PATIENCE), Err(ErrorKind::ConnectionRefused), "the kernel forwards");
}

#[test]
fn unusable_interfaces_are_reported() {
    let ruleset = TempFile::new("tcwrong.nft", RULES.as_bytes());
    for (words, code, said) in [
        (&["--interface", "nothere0"][..], 1, "no such interface"),
        (&["--interface", "lo"], 2, "not governed"),
        (&["--interface", "nothere*"], 1, "no interface has such a name"),
        (&["--interface", "r0", "--queue", "7"], 2, "cannot be used with"),
        (&["--on-exit", "open"], 2, "--interface"),
        (&["--interface", "nothere0", "--lifeline", "nothere0:0"], 2, "like eth0:22"),
        (&["--on-exit", "open", "--device", "a=10.0.0.1/24"], 2, "cannot be used with"),
        (&["--offload-xdp", "native", "--device", "a=10.0.0.1/24"], 2, "cannot be used with"),
    ] {
        let ran = keepstate(&[&["gateway", "--ruleset", ruleset.path()][..], words].concat(), b"");
        assert!(ran.code == Some(code) && ran.err.contains(said), "{words:?}: {:?} {}", ran.code, ran.err);
    }
    let ran = keepstate(&["gateway", "--detach", "--interface", "r0"], b"");
    assert!(ran.code == Some(2) && ran.err.contains("--detach"), "{}", ran.err);
}
