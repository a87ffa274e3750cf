//! `keepstate gateway --queue`: client, router and server in namespaces of their own, veth pairs between them, the kernel's own TCP at both ends, packets queued by a rule of the kernel's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/router_netns.rs"]
mod router_netns;

use common::{TempFile, keepstate, report_skipped};
use peers::run_ip;
use router_netns::RouterNetns;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

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

/// The namespaces, and the gateway in the middle one.
struct QueueTestbed {
    gateway: Child,
    socket: String,
    _ruleset: TempFile,
    netns: RouterNetns,
}

impl QueueTestbed {
    /// `None` where it cannot be made.
    fn new(name: &str) -> Option<QueueTestbed> {
        let tag = format!("ksdrv{}{name}", std::process::id());
        let tool = Command::new("ethtool").arg("--version").stdout(Stdio::null()).status().is_ok();
        let Some(netns) = RouterNetns::new(&tag, 1).filter(|_| tool) else {
            report_skipped("packets of a queue: it needs root, network namespaces, iproute2 and ethtool");
            return None;
        };
        // A veth leaves checksums to the hardware that it has not.
        netns.set_offload("tx off");
        let ruleset = TempFile::new(&format!("drv{name}.nft"), RULES.as_bytes());
        let socket = std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned();
        let words = ["--ruleset", ruleset.path(), "--control", &socket, "--queue", "7"];
        let (gateway, _) = netns.start_gateway(&words);
        Some(QueueTestbed { gateway, socket, _ruleset: ruleset, netns })
    }

    fn name(&self, side: &str) -> String {
        self.netns.name(side)
    }

    fn transfer(&self, from: &str, to: &str, at: &'static str, called: &str, length: usize) -> IpAddr {
        self.netns.transfer(from, to, at, called, length)
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &self.socket][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }
}

impl Drop for QueueTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn assert_transfers(lab: &QueueTestbed) {
    const LENGTH: usize = 10_000_000;
    let seen = lab.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", LENGTH);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]), "masqueraded");
    let seen = lab.transfer("c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000", LENGTH / 10);
    assert_eq!(seen, "fd00:1::2".parse::<IpAddr>().unwrap(), "IPv6 is not translated");
    let seen = lab.transfer("s", "c", "10.0.1.2:80", "10.0.2.1:8080", LENGTH / 10);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 2]), "published");
}

#[test]
fn nfqueue_packets_are_routed() {
    let Some(lab) = QueueTestbed::new("q") else { return };
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
