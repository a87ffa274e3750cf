//! What a STUN client (Debian's stun-client) finds out about the NAT it is behind: by default what it finds out about Linux's masquerade in the same place, and what
//! RFC 4787 wants where that is asked for.
//!
//! A server with two addresses and two ports is in one namespace, the client in another; between them is Linux, or `keepstate gateway`. Namespaces have names of this
//! process's own and go at the end, even of a failed test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]

mod common;

use common::{TempFile, report_skipped};
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "
table ip filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname lan0 accept
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 masquerade
	}
}
";

/// The server's addresses and ports.
const SERVERS: [&str; 4] = ["192.0.2.9:3500", "192.0.2.9:3501", "192.0.2.10:3500", "192.0.2.10:3501"];

/// Client, NAT and server.
struct StunTestbed {
    tag: String,
    /// The gateway, if it is ours; the server.
    children: Vec<Child>,
    ruleset: TempFile,
}

impl StunTestbed {
    /// `None` where it cannot be made, which was said. Without words the NAT is Linux's.
    fn new(name: &str, words: Option<&[&str]>) -> Option<StunTestbed> {
        let found = |program: &str| {
            let at = Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]).output();
            at.is_ok_and(|at| at.status.success())
        };
        if !["stun", "stund", "nft"].into_iter().all(found) {
            report_skipped(
                "what a STUN client finds out: it needs stun, stund and nft (Debian: stun-client, stun-server, nftables)",
            );
            return None;
        }
        let ruleset = TempFile::new(&format!("stun-{name}.nft"), RULES.as_bytes());
        let mut lab = StunTestbed { tag: format!("ksst{}{name}", std::process::id()), children: Vec::new(), ruleset };
        for side in ["c", "g", "s"] {
            if !run_ip(&["netns", "add", &lab.netns(side)]) {
                report_skipped("what a STUN client finds out: it needs root, network namespaces and iproute2");
                return None;
            }
        }
        match words {
            None => lab.set_up_linux_nat(),
            Some(words) => lab.start_gateway(words),
        }
        lab.configure_interface("c", "lan0", &["10.1.0.2/24", "10.1.0.3/24"]);
        lab.configure_interface("s", "wan0", &["192.0.2.9/24", "192.0.2.10/24"]);
        let server =
            lab.command("s", "stund").args(["-h", "192.0.2.9", "-a", "192.0.2.10", "-p", "3500", "-o", "3501"]).spawn();
        lab.children.push(server.unwrap());
        Some(lab)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    fn command(&self, side: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(side), program]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Linux forwards and masquerades between two pairs of devices.
    fn set_up_linux_nat(&self) {
        let router = self.netns("g");
        for (side, device, far, address) in
            [("c", "lan0", "lan0", "10.1.0.1/24"), ("s", "wan0", "wan0", "192.0.2.1/24")]
        {
            let there = self.netns(side);
            assert!(run_ip(&[
                "-n", &there, "link", "add", device, "type", "veth", "peer", "name", far, "netns", &router
            ]));
            assert!(run_ip(&["-n", &router, "addr", "add", address, "dev", far]));
            assert!(run_ip(&["-n", &router, "link", "set", far, "up"]));
        }
        let forwards = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        assert!(self.command("g", "sh").args(["-c", forwards]).status().unwrap().success());
        assert!(self.command("g", "nft").args(["-f", self.ruleset.path()]).status().unwrap().success());
    }

    fn start_gateway(&mut self, words: &[&str]) {
        let mut command = self.command("g", env!("CARGO_BIN_EXE_keepstate"));
        command.args(["gateway", "--ruleset", self.ruleset.path(), "--route", "0.0.0.0/0=wan0"]);
        command.args(["--device", "lan0=10.1.0.1/24", "--device", "wan0=192.0.2.1/24"]).args(words);
        self.children.push(command.spawn().unwrap());
        for (side, device) in [("c", "lan0"), ("s", "wan0")] {
            let until = Instant::now() + Duration::from_secs(60);
            while !run_ip(&["-n", &self.netns("g"), "link", "set", device, "netns", &self.netns(side)]) {
                assert!(Instant::now() < until, "{device} was never made");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Gives a device its addresses, and the way to everybody.
    fn configure_interface(&self, side: &str, device: &str, addresses: &[&str]) {
        let space = self.netns(side);
        for address in addresses {
            assert!(run_ip(&["-n", &space, "addr", "add", address, "dev", device]));
        }
        for words in [&["link", "set", "lo", "up"][..], &["link", "set", device, "up"]] {
            assert!(run_ip(&[&["-n", space.as_str()][..], words].concat()));
        }
        let through: &[&str] = if side == "c" && self.children.is_empty() { &["via", "10.1.0.1"] } else { &[] };
        assert!(run_ip(&[&["-n", space.as_str(), "route", "add", "default"][..], through, &["dev", device]].concat()));
    }

    /// A neighbour has `port` towards all the server's ends but the first: there, the client cannot have it too unless ports are shared.
    fn occupy(&self, port: u16) {
        let path = format!("/run/netns/{}", self.netns("c"));
        let neighbour = std::thread::spawn(move || {
            let door = File::open(path).unwrap();
            // SAFETY: the descriptor is open; only this thread changes its namespace.
            assert_eq!(unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            let socket = UdpSocket::bind(("10.1.0.3", port)).unwrap();
            for server in SERVERS.iter().skip(1) {
                socket.send_to(b"here I am", server).unwrap();
            }
        });
        neighbour.join().unwrap();
    }

    /// What the client says in the end.
    fn stun_nat_type(&self, port: u16) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut client = self.command("c", "stun");
            let ran = client.args(["192.0.2.9:3500", "-p", &port.to_string()]).stdout(Stdio::piped()).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            match said.lines().find_map(|line| line.strip_prefix("Primary:")) {
                Some(verdict) if !verdict.contains("Blocked") => return verdict.trim().to_owned(),
                // The server may not listen yet.
                _ => assert!(Instant::now() < until, "{said}"),
            }
        }
    }
}

impl Drop for StunTestbed {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for side in ["c", "g", "s"] {
            run_ip(&["netns", "del", &self.netns(side)]);
        }
    }
}

fn run_ip(words: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn default_nat_type_equals_linux_masquerade() {
    let Some(linux) = StunTestbed::new("l", None) else { return };
    let Some(ours) = StunTestbed::new("o", Some(&[])) else { return };
    for lab in [&linux, &ours] {
        lab.occupy(4100);
    }
    let verdicts = [&linux, &ours].map(|lab| [lab.stun_nat_type(4000), lab.stun_nat_type(4100)]);
    assert_eq!(verdicts[0], verdicts[1]);
    let [alone, with_neighbour] = &verdicts[0];
    assert_eq!(alone, "Independent Mapping, Port Dependent Filter, preserves ports, no hairpin");
    assert_eq!(with_neighbour, "Dependent Mapping, preserves ports, no hairpin", "the port is the neighbour's there");
}

#[test]
fn eim_nat_type_follows_rfc_4787() {
    for (filtering, wanted) in [
        ("per-connection", "Independent Mapping, Port Dependent Filter, "),
        ("address-dependent", "Independent Mapping, Address Dependent Filter, "),
        ("endpoint-independent", "Independent Mapping, Independent Filter, "),
    ] {
        let words = ["--nat-mapping", "endpoint-independent", "--nat-filtering", filtering];
        let Some(lab) = StunTestbed::new(&filtering[..1], Some(&words)) else { return };
        lab.occupy(4100);
        assert_eq!(lab.stun_nat_type(4000), format!("{wanted}preserves ports, will hairpin"));
        assert_eq!(lab.stun_nat_type(4100), format!("{wanted}random port, will hairpin"));
    }
}
