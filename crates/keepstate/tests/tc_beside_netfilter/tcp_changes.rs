//! What a router does to TCP: longest segments, the path's MTU in both directions, handshakes answered for a server, windows over a line that loses.
use crate::twin::{Case, Lab, run};
use std::io::{Read, Write};
use std::time::Duration;

impl Lab {
    pub fn bulk(&mut self, side: &str, from: &str, to: &str, server: (&str, &str), size: usize) -> String {
        let (client, served, _) = match self.connect(side, from, to, server) {
            Ok(connected) => connected,
            Err(text) => return text,
        };
        for (mut from, mut to) in [(&client, &served), (&served, &client)] {
            let mut bytes = vec![0; size];
            to.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let whole = std::thread::scope(|scope| {
                scope.spawn(move || from.write_all(&vec![7; size]).unwrap());
                to.read_exact(&mut bytes)
            });
            if let Err(error) = whole {
                return format!("breaks: {:?}", error.kind());
            }
        }
        self.streams.push((client, served));
        "both ways".to_owned()
    }
}

/// s is a router in the middle of the way to 10.0.9.2, which d has behind a link with another MTU.
const MIDDLE: &[&str] = &[
    "s ip link add far0 type veth peer name far1; ip link set far1 netns $d; ip link set far0 mtu 1300 up
     ip addr add 10.0.9.1/24 dev far0; ip addr add fd00:9::1/64 dev far0 nodad
     echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; ip route replace default via 10.0.2.1
     ip -6 route add default via fd00:2::1",
    "d ip link set far1 mtu 1300 up; ip addr add 10.0.9.2/24 dev far1; ip addr add fd00:9::2/64 dev far1 nodad
     ip route add 10.0.2.0/24 via 10.0.9.1; ip route add 10.0.1.0/24 via 10.0.9.1; ip -6 route add fd00:2::/64 via fd00:9::1
     ip -6 route add fd00:1::/64 via fd00:9::1",
    "r ip route add 10.0.9.0/24 via 10.0.2.2; ip -6 route add fd00:9::/64 via fd00:2::2; ip link set r0 mtu 1280",
    "c ip link set c0 mtu 1500",
];

#[test]
fn the_mtu_of_the_path_is_found_both_ways() {
    run(&Case {
        name: "tm",
        rules: "
table inet n {
	counter related {}
	counter invalid {}
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 8000 dnat ip to 10.0.1.2:8000
		iifname r1 ip6 daddr fd00:2::1 tcp dport 8000 dnat ip6 to [fd00:1::2]:8000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state invalid counter name invalid
		ct state established,related accept
		ct state new accept
	}
}
",
        prepare: const {
            &[
                MIDDLE[0],
                MIDDLE[1],
                "r ip route add 10.0.9.0/24 via 10.0.2.2; ip -6 route add fd00:9::/64 via fd00:2::2; ip link set r1 mtu 1400",
                "s ip link set s0 mtu 1400",
            ]
        },
        steps: &[
            ("bulk c 10.0.1.2:4001 10.0.9.2:7000 d 10.0.9.2:7000 1000000", "both ways"),
            ("bulk c [fd00:1::2]:4001 [fd00:9::2]:7000 d [fd00:9::2]:7000 1000000", "both ways"),
            (
                "run c ip route get 10.0.9.2 | grep -o 'mtu [0-9]*'; ip -6 route get fd00:9::2 | grep -o 'mtu [0-9]*'",
                "",
            ),
            ("bulk d 10.0.9.2:4002 10.0.2.1:8000 c 10.0.1.2:8000 1000000", "both ways"),
            ("bulk d [fd00:9::2]:4002 [fd00:2::1]:8000 c [fd00:1::2]:8000 1000000", "both ways"),
            ("bulk r 10.0.2.1:4003 10.0.9.2:7003 d 10.0.9.2:7003 1000000", "both ways"),
            ("bulk r [fd00:2::1]:4003 [fd00:9::2]:7003 d [fd00:9::2]:7003 1000000", "both ways"),
            ("counters inet n", ""),
        ],
    });
}

/// The client's link is the short one: the error goes to a peer behind the translation, about packets that it has sent to the outside address.
#[test]
fn the_mtu_of_the_inside_is_told_to_the_outside() {
    run(&Case {
        name: "ti",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 8000 dnat ip to 10.0.1.2:8000
		iifname r1 ip6 daddr fd00:2::1 tcp dport 8000 dnat ip6 to [fd00:1::2]:8000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        // The client offers long segments nevertheless.
        prepare: &[
            "c ip link set c0 mtu 1280; ip route replace default via 10.0.1.1 advmss 1460; ip -6 route replace default via fd00:1::1 advmss 1440",
            "r ip link set r0 mtu 1280",
        ],
        steps: &[
            ("bulk c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 1000000", "both ways"),
            ("bulk c [fd00:1::2]:4001 [fd00:2::2]:7000 s [fd00:2::2]:7000 1000000", "both ways"),
            ("bulk s 10.0.2.2:4002 10.0.2.1:8000 c 10.0.1.2:8000 1000000", "both ways"),
            ("bulk s [fd00:2::2]:4002 [fd00:2::1]:8000 c [fd00:1::2]:8000 1000000", "both ways"),
            (
                "run s ip route get 10.0.2.1 | grep -o 'mtu [0-9]*'; ip -6 route get fd00:2::1 | grep -o 'mtu [0-9]*'",
                "mtu 1280, mtu 1280",
            ),
        ],
    });
}

#[test]
fn longest_segments_are_lowered() {
    run(&Case {
        name: "ts",
        rules: "
table inet n {
	chain forward {
		type filter hook forward priority mangle;
		tcp dport 7000 tcp flags syn tcp option maxseg size set rt mtu
		tcp sport 7000 tcp flags syn tcp option maxseg size set rt mtu
		tcp dport 7001 tcp flags syn tcp option maxseg size set 1000
	}
	chain out {
		type filter hook output priority mangle;
		tcp dport 7002 tcp flags syn tcp option maxseg size set 900
	}
	chain in {
		type filter hook input priority mangle;
		tcp sport 7002 tcp flags syn tcp option maxseg size set 800
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[
            "r ip link set r1 mtu 1300",
            "s ip link set s0 mtu 1300; ip route replace 10.0.2.0/24 dev s0 advmss 1460; ip -6 route replace fd00:2::/64 dev s0 advmss 1440",
        ],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c [fd00:1::2]:4001 [fd00:2::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 same port"),
            ("tcp r 10.0.2.1:4002 10.0.2.2:7002 s 10.0.2.2:7002", "10.0.2.1 same port"),
            ("run c ss -tniH dport = :7000 | grep -o ' mss:[0-9]*' | sort", "mss:1228,  mss:1248"),
            ("run c ss -tniH dport = :7001 | grep -o ' mss:[0-9]*' | sort", "mss:1248"),
            ("run r ss -tniH dport = :7002 | grep -o ' mss:[0-9]*' | sort", "mss:788"),
            ("run s ss -tniH sport = :7000 | grep -o ' mss:[0-9]*' | sort", "mss:1228,  mss:1248"),
            ("run s ss -tniH sport = :7001 | grep -o ' mss:[0-9]*' | sort", "mss:988"),
            ("run s ss -tniH sport = :7002 | grep -o ' mss:[0-9]*' | sort", "mss:888"),
        ],
    });
}

/// Segments are lost in both directions behind the router; the windows are large. None is invalid.
#[test]
fn windows_over_a_line_that_loses() {
    run(&Case {
        name: "tl",
        rules: "
table inet n {
	counter invalid {}
	chain forward {
		type filter hook forward priority filter;
		ct state invalid counter name invalid drop
	}
	chain in {
		type filter hook input priority filter;
		ct state invalid counter name invalid drop
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[
            "c nft add table l; nft add chain l i '{ type filter hook input priority 0; }'; nft add rule l i tcp sport 7000-7010 numgen random mod 100 '< 2' drop
               nft add table ip6 l; nft add chain ip6 l i '{ type filter hook input priority 0; }'; nft add rule ip6 l i tcp sport 7000-7010 numgen random mod 100 '< 2' drop",
            "s nft add table l; nft add chain l i '{ type filter hook input priority 0; }'; nft add rule l i tcp dport 7000-7010 numgen random mod 100 '< 2' drop
               nft add table ip6 l; nft add chain ip6 l i '{ type filter hook input priority 0; }'; nft add rule ip6 l i tcp dport 7000-7010 numgen random mod 100 '< 2' drop",
        ],
        steps: &[
            ("bulk c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 3000000", "both ways"),
            ("bulk c [fd00:1::2]:4001 [fd00:2::2]:7000 s [fd00:2::2]:7000 3000000", "both ways"),
            ("bulk r 10.0.2.1:4002 10.0.2.2:7001 s 10.0.2.2:7001 3000000", "both ways"),
            ("bulk s 10.0.2.2:4003 10.0.2.1:7002 r 10.0.2.1:7002 3000000", "both ways"),
            ("counters inet n", ""),
        ],
    });
}

#[test]
fn handshakes_answered_for_a_server() {
    run(&Case {
        name: "ty",
        rules: "
table inet n {
	chain raw {
		type filter hook prerouting priority raw;
		tcp dport { 7000, 2222 } tcp flags syn notrack
	}
	chain forward {
		type filter hook forward priority filter;
		tcp dport 7000 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
		ct state invalid drop
	}
	chain in {
		type filter hook input priority filter;
		tcp dport 2222 ct state invalid,untracked synproxy mss 1400 wscale 5 timestamp sack-perm
		ct state invalid drop
	}
}
",
        prepare: &[],
        steps: &[
            ("sysctl nf_conntrack_tcp_loose 0", ""),
            ("bulk c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 300000", "both ways"),
            ("bulk d 10.0.3.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 300000", "both ways"),
            ("bulk c 10.0.1.2:4002 10.0.1.1:2222 r 10.0.1.1:2222 300000", "both ways"),
            ("tcp c 10.0.1.2:4003 10.0.2.99:7000 s 10.0.2.2:7000", "somebody else answers"),
        ],
    });
}
