//! What an administrator runs on a gateway, with the real programs: DHCP, DNS, routing daemons, failover, VPN; bridges and jumbo frames.
use crate::peers::{run_ip, spawn_in_netns};
use crate::routes::in_netns;
use crate::{PATIENCE, SILENCE, TcTestbed, report_skipped};
use keepstate_test_support::uninterrupted;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iifname { r0, br0 } meta l4proto { tcp, udp } th dport 53 accept
		iifname r1 ip protocol { 89, 112 } accept
		iifname r1 tcp dport 179 accept
		iifname r1 udp dport 51820 accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname { r0, br0 } oifname r1 accept
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// A program in a namespace, until this is dropped.
struct Program(Child);

impl Program {
    fn start(lab: &TcTestbed, side: &str, words: &[&str]) -> Program {
        let name = lab.netns.name(side);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name]).args(words).stdout(Stdio::null()).stderr(Stdio::null());
        Program(command.env("WG_PROCESS_FOREGROUND", "1").spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its children have its end to end with.
        if let Ok(pid) = self.0.id().try_into()
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says which of the tools is missing.
fn has_tools(tools: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let has = |tool: &&str| path.split(':').any(|folder| std::path::Path::new(folder).join(tool).exists());
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !has(tool)).collect();
    if !missing.is_empty() {
        report_skipped(&format!("the administrator's list: it needs {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Waits until what a command prints in a namespace is as wanted.
fn wait_until(lab: &TcTestbed, side: &str, words: &[&str], wanted: impl Fn(&str) -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let name = lab.netns.name(side);
        let output = Command::new("ip").args(["netns", "exec", &name]).args(words).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if wanted(&shown) {
            return;
        }
        assert!(Instant::now() < until, "{side}: {words:?} shows {shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn dnsmasq<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let common = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"];
    [&common[..], &["--no-resolv", "--no-hosts"], more].concat()
}

/// The router gets its address by DHCP, and renews the lease by an ordinary socket.
#[test]
fn dhcp_client_gets_and_renews_a_lease() {
    if !has_tools(&["dnsmasq", "udhcpc"]) {
        return;
    }
    let Some(lab) = TcTestbed::with_rules("pd", RULES, &["--interface", "r0,r1"]) else { return };
    assert!(run_ip(&["-n", &lab.netns.name("r"), "-4", "addr", "flush", "dev", "r1"]));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let script = format!(
        "#!/bin/sh\necho $1 >>{}\n[ $1 = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n",
        path("events")
    );
    std::fs::write(path("script"), script).unwrap();
    std::fs::write(path("events"), "").unwrap();
    assert!(Command::new("chmod").args(["+x", &path("script")]).status().unwrap().success());
    let leases = format!("--dhcp-leasefile={}", path("leases"));
    let server =
        dnsmasq(&["--port=0", "--interface=s0", "--dhcp-range=10.0.2.100,10.0.2.100,1h", &leases, "--no-ping"]);
    let _server = Program::start(&lab, "s", &server);
    let client = Program::start(&lab, "r", &["udhcpc", "-f", "-i", "r1", "-s", &path("script"), "-t", "30", "-T", "1"]);
    wait_until(&lab, "r", &["ip", "addr", "show", "dev", "r1"], |shown| shown.contains("10.0.2.100"));
    let pid = rustix::process::Pid::from_raw(client.0.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    wait_until(&lab, "r", &["cat", &path("events")], |events| events.contains("renew"));
    let seen = lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 100]), "masqueraded with the leased address");
}

/// A question for the address of test.example.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04test\x07example\x00\x00\x01\x00\x01";

/// Whether a resolver answers a side's question over UDP within `patience`, with the right address.
fn resolves(lab: &TcTestbed, side: &str, at: &'static str, patience: Duration) -> bool {
    let asks = move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let _ = socket.send(QUESTION);
            let mut answer = [0; 512];
            if let Ok(length) = uninterrupted(|| socket.recv(&mut answer)) {
                return answer[..length].ends_with(&[192, 0, 2, 7]);
            }
        }
        false
    };
    spawn_in_netns(&lab.netns.name(side), asks).join().unwrap()
}

/// dnsmasq serves the inner network, bound to its interface or not; from outside the input chain closes it.
#[test]
fn dns_server_is_open_inside_and_closed_outside() {
    if !has_tools(&["dnsmasq"]) {
        return;
    }
    let Some(lab) = TcTestbed::with_rules("pn", RULES, &["--interface", "r0,r1"]) else { return };
    for binding in [&["--interface=r0", "--bind-interfaces", "--except-interface=lo"][..], &[]] {
        let words = dnsmasq(&[&["--address=/test.example/192.0.2.7"][..], binding].concat());
        let _server = Program::start(&lab, "r", &words);
        assert!(resolves(&lab, "c", "10.0.1.1:53", PATIENCE), "{binding:?}");
        let over_tcp = || {
            let mut stream = TcpStream::connect("10.0.1.1:53").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&[&[0, QUESTION.len() as u8][..], QUESTION].concat()).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).unwrap();
            answer.ends_with(&[192, 0, 2, 7])
        };
        assert!(spawn_in_netns(&lab.netns.name("c"), over_tcp).join().unwrap(), "{binding:?}");
        assert!(!resolves(&lab, "s", "10.0.2.1:53", SILENCE), "an open resolver: {binding:?}");
    }
}

/// OSPF and BGP by bird: neighbours find each other, and the gateway routes by what they learn.
#[test]
fn routes_of_ospf_and_bgp_are_used() {
    if !has_tools(&["bird"]) {
        return;
    }
    let Some(lab) = TcTestbed::with_rules("pb", RULES, &["--interface", "r0,r1"]) else { return };
    assert!(in_netns(&lab, "s", "ip addr add 198.51.100.1/32 dev lo; ip addr add 203.0.113.1/32 dev lo"));
    let folder = tempfile::tempdir().unwrap();
    let start = |side: &str, us: &str, them: &str, device: &str, (our_as, their_as): (u32, u32), more: &str| {
        let config = format!(
            "router id {us};
             protocol device {{ scan time 1; }}
             protocol kernel {{ ipv4 {{ import none; export where proto != \"own\"; }}; }}
             protocol ospf v2 {{
                ipv4 {{ import all; export where net = 198.51.100.0/24; }};
                area 0 {{ interface \"{device}\" {{ type pointopoint; hello 1; dead 5; }}; }};
             }}
             protocol bgp {{
                local {us} as {our_as}; neighbor {them} as {their_as};
                connect delay time 1; connect retry time 1; error wait time 1, 2;
                ipv4 {{ import all; export where net = 203.0.113.0/24; }};
             }}
             {more}"
        );
        let path = |name: &str| folder.path().join(format!("{side}.{name}")).to_str().unwrap().to_owned();
        std::fs::write(path("conf"), config).unwrap();
        Program::start(&lab, side, &["bird", "-f", "-c", &path("conf"), "-s", &path("sock"), "-P", &path("pid")])
    };
    let own = "protocol static own { ipv4; route 198.51.100.0/24 blackhole; route 203.0.113.0/24 blackhole; }";
    let _s = start("s", "10.0.2.2", "10.0.2.1", "s0", (65_002, 65_001), own);
    let _r = start("r", "10.0.2.1", "10.0.2.2", "r1", (65_001, 65_002), "");
    wait_until(&lab, "r", &["ip", "route"], |routes| {
        ["198.51.100.0/24", "203.0.113.0/24"]
            .iter()
            .all(|net| routes.lines().any(|line| line.starts_with(net) && line.contains("via 10.0.2.2")))
    });
    for to in ["198.51.100.1:7000", "203.0.113.1:7000"] {
        let seen = lab.netns.transfer("c", "s", to, to, 100_000);
        assert_eq!(seen, IpAddr::from([10, 0, 2, 1]), "{to}");
    }
}

/// VRRP by keepalived with unicast peers: each hears the other, so only one has the shared address.
#[test]
fn keepalived_with_unicast_peers_hears_and_is_heard() {
    if !has_tools(&["keepalived"]) {
        return;
    }
    let Some(lab) = TcTestbed::with_rules("pk", RULES, &["--interface", "r0,r1"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = |side: &str, device: &str, (us, them): (&str, &str), priority: u8| {
        let config = format!(
            "vrrp_instance shared {{
                state BACKUP
                interface {device}
                virtual_router_id 7
                priority {priority}
                advert_int 1
                unicast_src_ip {us}
                unicast_peer {{ {them} }}
                virtual_ipaddress {{ 10.0.2.50/24 }}
             }}"
        );
        let path = |name: &str| folder.path().join(format!("{side}{priority}.{name}")).to_str().unwrap().to_owned();
        std::fs::write(path("conf"), config.replace("{ ", "{\n").replace(" }", "\n}")).unwrap();
        let (conf, main, vrrp) = (path("conf"), path("pid"), path("vrrp"));
        Program::start(&lab, side, &["keepalived", "-n", "-P", "-f", &conf, "-p", &main, "-r", &vrrp])
    };
    let has_it = |side: &str, device: &str, wanted: bool| {
        wait_until(&lab, side, &["ip", "addr", "show", "dev", device], |shown| shown.contains("10.0.2.50") == wanted);
    };
    let _s = start("s", "s0", ("10.0.2.2", "10.0.2.1"), 100);
    has_it("s", "s0", true);
    let router = start("r", "r1", ("10.0.2.1", "10.0.2.2"), 150);
    has_it("r", "r1", true);
    // The other has heard it.
    has_it("s", "s0", false);
    drop(router);
    has_it("s", "s0", true);
    // It hears the other: with less priority it takes nothing, which it would do after four seconds of silence.
    let _router = start("r", "r1", ("10.0.2.1", "10.0.2.2"), 50);
    let until = Instant::now() + Duration::from_secs(5);
    let name = lab.netns.name("r");
    while Instant::now() < until {
        let shown = Command::new("ip").args(["-n", &name, "addr", "show", "dev", "r1"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("10.0.2.50"), "it does not hear its peer");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Starts wireguard-go, and waits until it answers. One that ends at once is started again: it has done so on a busy machine.
fn start_wireguard(lab: &TcTestbed, side: &str, device: &str, log: &str) -> Program {
    let name = lab.netns.name(side);
    for _ in 0..5 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "wireguard-go", device]).env("WG_PROCESS_FOREGROUND", "1");
        let errors = std::fs::File::create(log).unwrap();
        let mut program = Program(command.stdout(Stdio::null()).stderr(errors).spawn().unwrap());
        while program.0.try_wait().unwrap().is_none() {
            if in_netns(lab, side, &format!("wg show {device} >/dev/null 2>&1")) {
                return program;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("wireguard-go ends: {}", std::fs::read_to_string(log).unwrap_or_default());
}

/// WireGuard in user space between the router and the server.
#[test]
fn wireguard_in_user_space_works() {
    if !has_tools(&["wireguard-go", "wg"]) {
        return;
    }
    let Some(lab) = TcTestbed::with_rules("pw", RULES, &["--interface", "r0,r1"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tag = std::process::id();
    let mut programs = Vec::new();
    for side in ["r", "s"] {
        let device = format!("wg{side}{tag}");
        programs.push(start_wireguard(&lab, side, &device, &path("log")));
        let made = format!("umask 077; wg genkey >{0}; wg pubkey <{0} >{0}.pub", path(side));
        assert!(in_netns(&lab, side, &made));
    }
    for (side, other, us, endpoint) in [("r", "s", "10.9.0.1", "10.0.2.2"), ("s", "r", "10.9.0.2", "10.0.2.1")] {
        let device = format!("wg{side}{tag}");
        let set = format!(
            "wg set {device} private-key {} listen-port 51820 peer $(cat {}.pub) allowed-ips 10.9.0.0/24 endpoint {endpoint}:51820
             ip addr add {us}/24 dev {device}; ip link set {device} up",
            path(side),
            path(other)
        );
        assert!(in_netns(&lab, side, &set), "{set}");
    }
    let seen = lab.netns.transfer("r", "s", "10.9.0.2:7000", "10.9.0.2:7000", 1_000_000);
    assert_eq!(seen, IpAddr::from([10, 9, 0, 1]));
}

/// The inner interface is a bridge: it is governed, its ports are not.
#[test]
fn bridge_is_governed() {
    let Some(mut lab) = TcTestbed::without_gateway("pr", RULES) else { return };
    assert!(in_netns(
        &lab,
        "r",
        "ip link add br0 type bridge; ip link set br0 up; ip link set r0 master br0; ip addr flush dev r0
         ip addr add 10.0.1.1/24 dev br0; ip addr add fd00:1::1/64 dev br0 nodad"
    ));
    let refused =
        lab.netns.gateway_command(&["--ruleset", lab.ruleset.path(), "--interface", "r0,r1"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("--interface br0"), "{said}");
    lab.start(&["--interface", "br0,r1"]);
    let seen = lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 3_000_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]));
    let seen = lab.netns.transfer("c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000", 3_000_000);
    assert_eq!(seen, "fd00:1::2".parse::<IpAddr>().unwrap());
    assert!(lab.connect("c", "10.0.1.1:2222", SILENCE).is_err(), "the input chain");
}

/// Jumbo frames: long datagrams pass whole, and streams too.
#[test]
fn jumbo_frames_pass() {
    let Some(lab) = TcTestbed::without_gateway("pj", RULES) else { return };
    for (side, device) in [("c", "c0"), ("r", "r0"), ("r", "r1"), ("s", "s0")] {
        assert!(run_ip(&["-n", &lab.netns.name(side), "link", "set", device, "mtu", "9000"]));
    }
    let mut lab = lab;
    lab.start(&["--interface", "r0,r1"]);
    let bind = || UdpSocket::bind((Ipv4Addr::new(10, 0, 2, 2), 7001)).unwrap();
    let server = spawn_in_netns(&lab.netns.name("s"), bind).join().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Not to be cut anywhere.
        crate::offload::set_socket_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO);
        socket.send_to(&[7; 8900], "10.0.2.2:7001").unwrap();
    };
    spawn_in_netns(&lab.netns.name("c"), send).join().unwrap();
    assert_eq!(uninterrupted(|| server.recv(&mut [0; 10_000])).unwrap(), 8900);
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 10_000_000);
}
