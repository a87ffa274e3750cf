//! What the machine's own sockets are to the rules, and what the rules' marks are to the machine.
use crate::offload::{Conversation, offloaded};
use crate::peers::{run_ip, spawn_in_netns};
use crate::{PATIENCE, TcTestbed, report_skipped};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

const RULES: &str = "
table inet t {
	chain out {
		type filter hook output priority 0; policy accept;
		meta mark 0x77 tcp dport 7300 reject with tcp reset
		meta skuid 12345 tcp dport 7300 reject with tcp reset
		tcp dport 7302 meta mark set 0x55
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		tcp dport 7303 meta mark set 0x55
	}
}
";

/// What becomes of a connection of the router's own, by a socket with this mark that this user has opened.
fn connect_as(lab: &TcTestbed, to: &'static str, mark: u32, user: u32) -> Result<(), ErrorKind> {
    let connect = move || {
        #[allow(unsafe_code, reason = "setfsuid(2) has no safe wrapper")]
        // SAFETY: it has no pointers, and concerns this thread alone.
        unsafe {
            libc::setfsuid(user)
        };
        let kind = rustix::net::SocketType::STREAM;
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
        #[allow(unsafe_code, reason = "SO_MARK has no safe wrapper")]
        // SAFETY: the pointer and the length are those of the value, which outlives the call.
        let done = unsafe {
            let length = size_of::<u32>() as libc::socklen_t;
            let value = (&raw const mark).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, value, length)
        };
        assert_eq!(done, 0);
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(PATIENCE)).unwrap();
        let to: SocketAddr = to.parse().unwrap();
        rustix::net::connect(&socket, &to).map_err(|error| std::io::Error::from(error).kind())
    };
    spawn_in_netns(&lab.netns.name("r"), connect).join().unwrap()
}

#[test]
fn marks_and_users_of_sockets_are_seen_in_the_output_chain() {
    let Some(lab) = TcTestbed::with_rules("ms", RULES, &["--interface", "r0,r1"]) else { return };
    let listen = || TcpListener::bind("10.0.2.2:7300").unwrap();
    let _listener = spawn_in_netns(&lab.netns.name("s"), listen).join().unwrap();
    let to = "10.0.2.2:7300";
    assert_eq!(connect_as(&lab, to, 0, 0), Ok(()));
    assert_eq!(connect_as(&lab, to, 0x77, 0), Err(ErrorKind::ConnectionRefused), "by its mark");
    assert_eq!(connect_as(&lab, to, 0, 12345), Err(ErrorKind::ConnectionRefused), "by its user");
    assert_eq!(connect_as(&lab, to, 0x78, 12346), Ok(()));
}

/// Classic BPF that loads the mark, and compares it with 0x55.
pub(crate) const MARKED: &str = "4,32 0 0 4294963220,21 0 1 85,6 0 0 4294967295,6 0 0 0";

pub(crate) fn tc(lab: &TcTestbed, words: &[&str]) -> bool {
    let status = Command::new("tc").args(["-n", &lab.netns.name("r")]).args(words).status();
    status.is_ok_and(|status| status.success())
}

/// Makes an interface where nobody is, and a place for filters at r1.
pub(crate) fn can_take_away(lab: &TcTestbed) -> bool {
    let router = lab.netns.name("r");
    assert!(run_ip(&["-n", &router, "link", "add", "away0", "type", "veth", "peer", "name", "away1"]));
    assert!(["away0", "away1"].iter().all(|device| run_ip(&["-n", &router, "link", "set", device, "up"])));
    tc(lab, &["qdisc", "add", "dev", "r1", "clsact"])
}

/// What leaves by r1 and matches goes to the interface where nobody is.
pub(crate) fn take_away(lab: &TcTestbed, priority: &str, bytecode: &str) -> bool {
    let words = ["filter", "add", "dev", "r1", "egress", "protocol", "all", "prio", priority, "bpf", "bytecode"];
    let action = [bytecode, "action", "mirred", "egress", "redirect", "dev", "away0"];
    tc(lab, &[&words[..], &action].concat())
}

/// A mark that a rule sets is on the packet when the kernel has it again: for tc's filters and the machine's own routing.
#[test]
fn marks_of_rules_are_seen_by_the_kernel() {
    let Some(lab) = TcTestbed::with_rules("mr", RULES, &["--interface", "r0,r1"]) else { return };
    if !can_take_away(&lab) || !take_away(&lab, "9", MARKED) {
        report_skipped("marks for tc's filters: it needs tc with the filter bpf and the action mirred");
        return;
    }
    let listen = || [7301, 7302, 7303].map(|port| TcpListener::bind(("10.0.2.2", port)).unwrap());
    let _listeners = spawn_in_netns(&lab.netns.name("s"), listen).join().unwrap();
    for (side, to, passes) in [
        ("r", "10.0.2.2:7301", true),
        ("r", "10.0.2.2:7302", false),
        ("c", "10.0.2.2:7302", true),
        ("c", "10.0.2.2:7303", false),
    ] {
        assert_eq!(lab.connect(side, to, crate::SILENCE).is_ok(), passes, "{side} {to}");
    }
    // Known flows pass the same filters.
    let mut talk: Conversation = offloaded(&lab, "c", "s", "10.0.2.2:7400", "10.0.2.2:7400");
    assert!(take_away(&lab, "1", "1,6 0 0 4294967295"));
    assert!(!talk.is_heard(std::time::Duration::from_millis(700)), "the filter drops everything");
}

/// What the machine sends to itself by its rules needs two settings of the loopback interface. Whoever gives the interfaces back puts them back, also after a death, and under the limits of a running gateway.
#[test]
fn settings_of_the_loopback_interface_are_put_back() {
    const RULES: &str = "table ip nat { chain out { type nat hook output priority -100; ip daddr 198.51.100.1 tcp dport 80 redirect to :2222; }; }";
    let Some(mut lab) = TcTestbed::without_gateway("lb", RULES) else { return };
    let router = lab.netns.name("r");
    let in_router = |script: &str| {
        let ran = Command::new("ip").args(["netns", "exec", &router, "sh", "-c", script]).output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let conf = "cd /proc/sys/net/ipv4/conf/lo";
    let settings = || in_router(&format!("{conf}; cat accept_local route_localnet"));
    in_router("ip route add 198.51.100.0/24 via 10.0.2.2");
    let listener = spawn_in_netns(&router, || TcpListener::bind("0.0.0.0:2222").unwrap());
    let _listener = listener.join().unwrap();
    for (before, on_exit) in [("0\n0\n", "closed"), ("0\n1\n", "open")] {
        let [first, second] = [&before[..1], &before[2..3]];
        in_router(&format!("{conf}; echo {first} > accept_local; echo {second} > route_localnet"));
        let how = ["--interface", "r0,r1", "--on-exit", on_exit];
        lab.start(&how);
        assert_eq!(lab.connect("r", "198.51.100.1:80", PATIENCE), Ok(()));
        assert_eq!(settings(), "1\n1\n");
        lab.kill();
        lab.start(&how);
        assert_eq!(lab.connect("r", "198.51.100.1:80", PATIENCE), Ok(()));
        lab.stop();
        if on_exit == "closed" {
            assert_eq!(settings(), "1\n1\n", "connections to itself go on with the next gateway");
            assert_eq!(lab.detach().code, Some(0));
        }
        assert_eq!(settings(), before);
    }
}

/// Rules translate what the machine sends to itself, and the gateway is asked of each connection: without one it goes on untranslated.
#[test]
fn a_machine_whose_gateway_has_died_speaks_with_itself() {
    let rules = "table ip n { chain out { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport 7090 redirect to :7091; } }";
    let Some(mut lab) = TcTestbed::with_rules("mx", rules, &["--interface", "r0,r1"]) else { return };
    let router = lab.netns.name("r");
    let [asked, led] = ["127.0.0.1:7090", "127.0.0.1:7091"]
        .map(|at| spawn_in_netns(&router, move || TcpListener::bind(at).unwrap()).join().unwrap());
    let connect = || {
        let to = "127.0.0.1:7090".parse().unwrap();
        spawn_in_netns(&router, move || TcpStream::connect_timeout(&to, PATIENCE).unwrap()).join().unwrap()
    };
    let client = connect();
    assert_eq!(led.accept().unwrap().1, client.local_addr().unwrap(), "the gateway translates it");
    lab.kill();
    let client = connect();
    assert_eq!(asked.accept().unwrap().1, client.local_addr().unwrap(), "nobody translates it");
}
