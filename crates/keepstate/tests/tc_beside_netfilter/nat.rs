//! Translation of what is forwarded, and of what comes to the router itself.
use crate::twin::{Case, run};

#[test]
fn packets_to_the_router_itself() {
    run(&Case {
        name: "ni",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.2.2 tcp dport 80 redirect to :8080
		ip6 daddr fd00:2::2 tcp dport 80 redirect to :8080
		ip daddr 10.0.2.2 udp dport 53 redirect to :5353
		ip daddr 10.0.2.50 dnat ip to 10.0.1.1
		ip daddr 10.0.2.51 tcp dport 81 dnat ip to 10.0.2.1:8081
		ip daddr 10.0.2.2 icmp type echo-request redirect
		ip6 daddr fd00:2::2 icmpv6 type echo-request redirect
	}
	chain in {
		type nat hook input priority 100;
		tcp dport 9000 snat ip to 192.0.2.9
		udp dport 9000 snat ip to 192.0.2.9:999
	}
}
",
        prepare: &["r ip route add 192.0.2.9/32 via 10.0.1.2", "c ethtool -K c0 tx off >/dev/null"],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:80 r 10.0.1.1:8080", "10.0.1.2 same port"),
            ("tcp c [fd00:1::2]:4001 [fd00:2::2]:80 r [fd00:1::1]:8080", "fd00:1::2 same port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:53 r 10.0.1.1:5353", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4002 10.0.2.50:7000 r 10.0.1.1:7000", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.50:7000 r 10.0.1.1:7000", "10.0.1.2 same port"),
            ("ping c 10.0.2.50", "64 bytes from 10.0.2.50: icmp_seq=1 ttl=64"),
            ("tcp c 10.0.1.2:4003 10.0.2.51:81 r 10.0.2.1:8081", "10.0.1.2 same port"),
            ("ping c 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("ping c fd00:2::2", "64 bytes from fd00:2::2: icmp_seq=1 ttl=64"),
            ("tcp c 10.0.1.2:4004 10.0.1.1:9000 r 10.0.1.1:9000", "192.0.2.9 same port"),
            ("udp c 10.0.1.2:4004 10.0.1.1:9000 r 10.0.1.1:9000", "192.0.2.9 other port"),
            ("tcp c 10.0.1.2:4005 10.0.2.1:7005 r 10.0.2.1:7005", "10.0.1.2 same port"),
            (
                "error c 10.0.1.2:4009 10.0.2.50:9",
                "ConnectionRefused from 10.0.2.50 to 10.0.1.2 3/3 0 about 10.0.1.2:4009 > 10.0.2.50:9 hops 64 length 48 sum bf8f quoted 68",
            ),
        ],
    });
}

/// A client reaches a server in its own network by the outside address.
#[test]
fn hairpin() {
    run(&Case {
        name: "nh",
        rules: "
table ip n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.2.1 tcp dport 80 dnat to 10.0.1.3:8080
		ip daddr 10.0.2.1 udp dport 53 dnat to 10.0.1.3
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.0.1.0/24 ip daddr 10.0.1.0/24 masquerade
		oifname r1 masquerade
	}
}
",
        prepare: &["c ip addr add 10.0.1.3/24 dev c0"],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.1:80 c 10.0.1.3:8080", "10.0.1.1 same port"),
            ("udp c 10.0.1.2:4001 10.0.2.1:53 c 10.0.1.3:53", "10.0.1.1 same port"),
            ("tcp s 10.0.2.2:4001 10.0.2.1:80 c 10.0.1.3:8080", "10.0.2.2 same port"),
            ("udp s 10.0.2.2:4001 10.0.2.1:53 c 10.0.1.3:53", "10.0.2.2 same port"),
            ("tcp d 10.0.3.2:4001 10.0.2.1:80 c 10.0.1.3:8080", "10.0.3.2 same port"),
            // Without a rule: the router has no such port.
            ("tcp c 10.0.1.2:4002 10.0.2.1:81 c 10.0.1.3:8080", "ConnectionRefused"),
            // The client to itself.
            ("tcp c 10.0.1.3:4003 10.0.2.1:80 c 10.0.1.3:8080", "10.0.1.1 same port"),
        ],
    });
}

/// Two tables, maps, ranges, port maps, both translations at once.
#[test]
fn forwarded_by_tables_and_maps() {
    run(&Case {
        name: "nm",
        rules: "
table ip one {
	map places { type inet_service : ipv4_addr . inet_service; elements = { 81 : 10.0.2.2 . 8081, 82 : 10.0.3.2 . 8082 } }
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 198.51.100.1 dnat ip to tcp dport map @places
		ip daddr 198.51.100.2 tcp dport 7000-7010 dnat to 10.0.2.2:8000-8010
		ip daddr 198.51.100.3 tcp dport 80 dnat to 10.0.2.2
	}
}
table ip two {
	chain pre {
		type nat hook prerouting priority -90;
		ip daddr 198.51.100.3 dnat to 10.0.3.2
		ip daddr 198.51.100.4 dnat to 10.0.3.2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip daddr 10.0.2.2 tcp dport 8081 snat to 10.0.2.70
		ip daddr 10.0.3.2 tcp dport 81 masquerade to :6000
	}
}
table ip three {
	chain post {
		type nat hook postrouting priority 110;
		ip daddr 10.0.2.2 tcp dport 7777 snat to 10.0.2.71:6100-6101
	}
}
table ip6 six {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip6 daddr 2001:db8::1 tcp dport 80 dnat to [fd00:2::2]:8080
		ip6 daddr 2001:db8::2 dnat to fd00:3::2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
		oifname r2 snat to fd00:3::77
	}
}
",
        prepare: &[
            "r ip addr add 10.0.2.70/24 dev r1; ip addr add 10.0.2.71/24 dev r1; ip addr add fd00:3::77/64 dev r2 nodad",
        ],
        steps: &[
            ("tcp c 10.0.1.2:4001 198.51.100.1:81 s 10.0.2.2:8081", "10.0.2.70 same port"),
            ("tcp c 10.0.1.2:4001 198.51.100.1:82 d 10.0.3.2:8082", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4001 198.51.100.2:7003 s 10.0.2.2:8000", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4001 198.51.100.3:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4002 198.51.100.3:81 d 10.0.3.2:81", "10.0.3.1 other port"),
            ("udp c 10.0.1.2:4001 198.51.100.4:80 d 10.0.3.2:80", "10.0.1.2 same port"),
            ("ping c 198.51.100.4", "64 bytes from 198.51.100.4: icmp_seq=1 ttl=63"),
            ("tcp c 10.0.1.2:4003 10.0.2.2:7777 s 10.0.2.2:7777", "10.0.2.71 other port"),
            ("tcp c [fd00:1::2]:4001 [2001:db8::1]:80 s [fd00:2::2]:8080", "fd00:2::1 same port"),
            ("udp c [fd00:1::2]:4001 [2001:db8::2]:80 d [fd00:3::2]:80", "fd00:3::77 same port"),
            ("ping c 2001:db8::2", "64 bytes from 2001:db8::2: icmp_seq=1 ttl=63"),
            ("ping c fd00:2::2", "64 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
        ],
    });
}
