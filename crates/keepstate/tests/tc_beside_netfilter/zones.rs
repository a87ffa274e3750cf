//! Zones: networks with the same addresses behind two interfaces.
use crate::twin::{Case, run};

const SAME_ADDRESSES: &[&str] = &[
    "c ethtool -K c0 tx off >/dev/null",
    "d ethtool -K d0 tx off >/dev/null",
    "d ip addr del 10.0.3.2/24 dev d0; ip addr add 10.0.1.2/24 dev d0; ip route add default via 10.0.1.1",
    "r ip addr del 10.0.3.1/24 dev r2; ip addr add 10.0.1.1/32 dev r2
     ip rule add fwmark 2 lookup 102; ip route add 10.0.1.0/24 dev r2 table 102
     ip rule add fwmark 1 lookup 101; ip route add 10.0.1.0/24 dev r0 table 101",
];

/// Clients with one address, whose connections have the same tuple, told apart by zones of the original direction; the way back by the connection's mark.
#[test]
fn same_tuple_in_two_zones_masqueraded() {
    run(&Case {
        name: "zm",
        rules: "
table inet z {
	chain raw {
		type filter hook prerouting priority raw;
		ct original zone set iifname map { r0 : 1, r2 : 2 }
	}
	chain pre {
		type filter hook prerouting priority mangle;
		ct direction original iifname r0 ct mark set 1
		ct direction original iifname r2 ct mark set 2
		iifname r1 meta mark set ct mark
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: SAME_ADDRESSES,
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("ping c 10.0.2.2 -e 77", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping d 10.0.2.2 -e 77", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("tcp d 10.0.1.2:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 same port"),
            (
                "error c 10.0.1.2:4005 10.0.2.2:9",
                "ConnectionRefused from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4005 > 10.0.2.2:9 hops 63 length 48 sum bfc3 quoted 68",
            ),
            (
                "error d 10.0.1.2:4005 10.0.2.2:9",
                "ConnectionRefused from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4005 > 10.0.2.2:9 hops 63 length 48 sum bfc3 quoted 68",
            ),
        ],
    });
}

/// Zones of both directions: connections to the router itself from equal addresses.
#[test]
fn same_tuple_to_the_router_itself() {
    run(&Case {
        name: "zi",
        rules: "
table inet z {
	chain raw {
		type filter hook prerouting priority raw;
		ct zone set iifname map { r0 : 1, r2 : 2 }
	}
	chain out {
		type filter hook output priority raw;
		ct zone set oifname map { r0 : 1, r2 : 2 }
	}
	chain in {
		type filter hook input priority filter; policy drop;
		ct zone 1 tcp dport 2222 accept
		ct zone 2 udp dport 5353 accept
		ct state established accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		icmp type echo-request accept
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.1.1:2222 r 0.0.0.0:2222", "10.0.1.2 same port"),
            ("tcp d 10.0.3.2:4001 10.0.1.1:2222 r 0.0.0.0:2222", "TimedOut"),
            ("udp d 10.0.3.2:4001 10.0.3.1:5353 r 10.0.3.1:5353", "10.0.3.2 same port"),
            ("udp c 10.0.1.2:4001 10.0.1.1:5353 r 10.0.1.1:5353", "not heard"),
            ("ping c 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("ping d 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("tcp r 0.0.0.0:4002 10.0.1.2:7000 c 10.0.1.2:7000", "10.0.1.1 same port"),
            ("tcp r 0.0.0.0:4002 10.0.3.2:7000 d 10.0.3.2:7000", "10.0.3.1 same port"),
        ],
    });
}

/// The first chain's zone holds for connections of the router's own; translation into a zone picks other ports.
#[test]
fn sources_in_zones() {
    run(&Case {
        name: "zs",
        rules: "
table inet z {
	chain raw {
		type filter hook prerouting priority raw;
		ct original zone set iifname map { r0 : 1, r2 : 2 }
	}
	chain out {
		type filter hook output priority raw;
		tcp dport 7000 ct original zone set 5
	}
	chain pre {
		type filter hook prerouting priority mangle;
		iifname r1 meta mark set ct mark
		ct direction original iifname r0 ct mark set 1
		ct direction original iifname r2 ct mark set 2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 tcp dport 7000 snat ip to 10.0.2.1:6000-6003
		oifname r1 udp dport 7000 snat ip to 10.0.2.1:6000-6001
	}
}
",
        prepare: SAME_ADDRESSES,
        steps: &[
            ("tcp r 10.0.2.1:6000 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp d 10.0.1.2:4002 10.0.2.2:7000 s 10.0.2.2:7000", "TimedOut"),
        ],
    });
}
