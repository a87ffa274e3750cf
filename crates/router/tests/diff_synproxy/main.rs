//! Compares Linux's synproxy with ours, with the same clients and servers. Cookies and timestamps differ, so they are shown relative to their bases; everything that
//! leaves must be equal: options, flags, windows, numbers, echoes, and the connection tables.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod conversation;
#[path = "../diff_nft/kernel.rs"]
mod kernel;

use conversation::{RouterUnderTest, Scenario};
use keepstate_engine::{Engine, Instant, Secret, Sysctl, Sysctls, Tuple};
use keepstate_router::{Egress, FibTable, Interface, LINK_TYPE_NONE, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use kernel::Kernel;
use std::time::{SystemTime, UNIX_EPOCH};

const RULES: &str = "
table inet early {
	synproxy web {
		mss 1440
		wscale 9
		timestamp sack-perm
	}
	chain pre {
		type filter hook prerouting priority raw;
		iifname lan0 tcp dport { 80, 81, 82 } tcp flags & (fin | syn | rst | ack) == syn notrack
	}
	chain forward {
		type filter hook forward priority filter;
		ct state invalid,untracked jump answer
		ct state invalid drop
	}
	chain answer {
		oifname lan0 return
		tcp dport 80 synproxy mss 1460 wscale 7 timestamp sack-perm
		tcp dport 81 synproxy name web
		tcp dport 82 counter synproxy mss 1300
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 ip saddr 10.1.0.128/25 masquerade
	}
}
";

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

struct OurRouter(Router);

impl RouterUnderTest for OurRouter {
    fn handle(&mut self, bytes: &[u8], device: usize, _expected: usize) -> Vec<(usize, Vec<u8>)> {
        let _ = self.0.handle(bytes, device as u32 + 1, now());
        let leaves = |out: Egress| match out {
            Egress::Forward { oif, packet, .. } => Some((oif as usize - 1, packet)),
            Egress::LocalDeliver(_) | Egress::LetOut(_) | Egress::ToProxy { .. } | Egress::Loop { .. } => None,
        };
        std::iter::from_fn(|| self.0.poll_output()).filter_map(leaves).collect()
    }
}

impl RouterUnderTest for Kernel {
    fn handle(&mut self, bytes: &[u8], device: usize, expected: usize) -> Vec<(usize, Vec<u8>)> {
        Kernel::handle(self, bytes, device, expected)
    }
}

fn our_router() -> OurRouter {
    let (tree, sources) =
        parse_with("synproxy.nft", RULES, &NoIncludes, &[]).unwrap_or_else(|refused| panic!("{refused}"));
    let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
    assert!(program.has_synproxy());
    let interface = |index, name: &str, addresses: &[(&str, u8)]| Interface {
        index,
        name: name.to_owned(),
        mtu: 1500,
        group: 0,
        link_type: LINK_TYPE_NONE,
        kind: String::new(),
        addresses: addresses.iter().map(|(address, length)| (address.parse().unwrap(), *length)).collect(),
    };
    let lan = interface(1, "lan0", &[("10.1.0.1", 24), ("fd00:1::1", 64)]);
    let wan = interface(2, "wan0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]);
    let default = |prefix: &str| Route::new(prefix.parse().unwrap(), 0, 2);
    let map = FibTable::new(vec![lan, wan], vec![default("0.0.0.0"), default("::")]);
    let mut knobs = Sysctls::default();
    knobs.set(Sysctl::TcpLoose, 0).unwrap();
    OurRouter(Router::new(Engine::new(knobs, Secret([9; 16])), program, map, (1, 2)))
}

#[test]
fn synproxy_handshakes_and_splicing_match_linux() {
    // Without checksum offload Linux verifies an IPv6 segment as if it were IPv4, and drops it.
    let Some(mut kernel) = Kernel::with_checksum_offload(RULES) else {
        return keepstate_test_support::report_skipped("synproxy beside Linux needs root and network namespaces");
    };
    std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0").unwrap();
    let mut ours = our_router();
    let seed: u64 = std::env::var("KEEPSTATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut spliced = 0;
    for number in 0..400_u16 {
        let scenario = Scenario::random(seed, number);
        let steps = scenario.run(&mut ours);
        // The number of packets to wait for is known from our router.
        let theirs = scenario.run_expecting(&mut kernel, &steps);
        let [ours, theirs] =
            [&steps, &theirs].map(|steps| steps.iter().map(|step| step.text.clone()).collect::<Vec<_>>());
        assert_eq!(ours, theirs, "{scenario:?}\nours: {ours:#?}\nLinux: {theirs:#?}");
        spliced += usize::from(ours.iter().any(|line| line.contains("hello from the server")));
    }
    assert!(spliced > 100, "only {spliced} conversations");
    let tuple = |tuple: &Tuple| {
        let (source, destination) = (tuple.source_key, tuple.destination_key);
        format!("src={} dst={} sport={source} dport={destination}", tuple.source, tuple.destination)
    };
    let entries = ours.0.engine().entries(now());
    let mut table: Vec<String> =
        entries.map(|entry| format!("tcp {} {}", tuple(&entry.original), tuple(&entry.reply))).collect();
    table.sort();
    let mut theirs = kernel.table();
    theirs.iter_mut().for_each(|line| *line = format!("tcp {}", line.split_once(' ').unwrap().1));
    theirs.sort();
    assert_eq!(table, theirs);
    ours.0.engine().check_invariants().unwrap();
    assert!(
        ours.0.synproxy_stats().cookie_valid > 100 && ours.0.synproxy_stats().cookie_invalid > 5,
        "{:?}",
        ours.0.synproxy_stats()
    );
}
