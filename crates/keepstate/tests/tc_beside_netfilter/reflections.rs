//! Connections that come back to where they began, and errors about the replies of translated connections.
use crate::twin::{Case, run};

const NAT: &str = "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.2.1 tcp dport 80 dnat ip to 10.0.3.2:8080
		ip daddr 10.0.2.1 udp dport 80 dnat ip to 10.0.3.2:8080
		ip daddr 10.0.2.1 tcp dport 81 dnat ip to 10.0.1.2:8081
		ip daddr 10.0.2.1 udp dport 81 dnat ip to 10.0.1.2:8081
		ip daddr 10.0.2.1 tcp dport 82 dnat ip to 10.0.2.2:8082
		ip daddr 192.168.9.0/24 dnat ip prefix to ip daddr map { 192.168.9.0/24 : 10.0.2.0/24 }
		ip6 daddr fd00:9::/64 dnat ip6 prefix to ip6 daddr map { fd00:9::/64 : fd00:2::/64 }
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 10.0.2.1 tcp dport 80 dnat ip to 10.0.3.2:8080
		ip daddr 10.0.2.1 udp dport 80 dnat ip to 10.0.3.2:8080
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.0.1.0/24 ip daddr 10.0.1.0/24 masquerade
		ip saddr 10.0.2.0/24 ip daddr 10.0.2.0/24 ct status dnat masquerade
		oifname r1 udp dport 7003 snat ip to 10.0.2.1:6000-6010
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
		iifname { r0, r2 } oifname r1 accept
	}
}
";

#[test]
fn connections_by_the_outside_address() {
    run(&Case {
        name: "hp",
        rules: NAT,
        prepare: &["r ip route add 192.168.9.0/24 via 10.0.2.2; ip -6 route add fd00:9::/64 via fd00:2::2"],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.1:80 d 10.0.3.2:8080", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4001 10.0.2.1:80 d 10.0.3.2:8080", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4002 10.0.2.1:81 c 10.0.1.2:8081", "10.0.1.1 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.1:81 c 10.0.1.2:8081", "10.0.1.1 same port"),
            ("tcp s 10.0.2.2:4003 10.0.2.1:82 s 10.0.2.2:8082", "10.0.2.1 same port"),
            ("tcp s 10.0.2.2:4003 10.0.2.1:80 d 10.0.3.2:8080", "10.0.2.2 same port"),
            ("tcp d 10.0.3.2:4004 10.0.2.1:80 d 10.0.3.2:8080", "TimedOut"),
            ("tcp c 10.0.1.2:4006 192.168.9.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp c 10.0.1.2:4006 192.168.9.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("ping c 192.168.9.2", "64 bytes from 192.168.9.2: icmp_seq=1 ttl=63"),
            ("ping c fd00:9::2", "64 bytes from fd00:9::2: icmp_seq=1 ttl=63"),
            ("tcp c [fd00:1::2]:4006 [fd00:9::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            (
                "error c 10.0.1.2:4007 192.168.9.2:9 open",
                "ConnectionRefused from 192.168.9.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4007 > 192.168.9.2:9 hops 63 length 48 quoted 68",
            ),
            (
                "error c [fd00:1::2]:4007 [fd00:9::2]:9 open",
                "ConnectionRefused 1/4 0 about fd00:1::2:4007 > fd00:9::2:9 hops 63 length 48 quoted 88",
            ),
            (
                "error c 10.0.1.2:4008 10.0.2.1:9 open",
                "ConnectionRefused from 10.0.2.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4008 > 10.0.2.1:9 hops 64 length 48 quoted 68",
            ),
        ],
    });
}

/// The client's socket is closed, and the server goes on to answer.
#[test]
fn errors_about_replies() {
    run(&Case {
        name: "er",
        rules: NAT,
        prepare: &[
            "c ethtool -K c0 tx off >/dev/null",
            "r ethtool -K r0 tx off >/dev/null; ethtool -K r1 tx off >/dev/null",
            "s ethtool -K s0 tx off >/dev/null; ip route add 192.168.7.0/24 via 10.0.2.1",
            "r ip link set r0 mtu 1300",
            "c ip link set c0 mtu 1300",
        ],
        steps: &[
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.2:7003 s 10.0.2.2:7003", "10.0.2.1 other port"),
            ("drop", ""),
            (
                "error s 10.0.2.2:7000 10.0.2.1:4001",
                "ConnectionRefused from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:7000 > 10.0.2.1:4001 hops 63 length 48 sum a379 quoted 68",
            ),
            (
                "error s 10.0.2.2:7000 10.0.2.1:4001 ttl=1",
                "HostUnreachable from 10.0.2.1 to 10.0.2.2 11/0 0 about 10.0.2.2:7000 > 10.0.2.1:4001 hops 1 length 48 sum a379 quoted 68",
            ),
            (
                "error s 10.0.2.2:7000 10.0.2.1:4001 size=1400",
                "Uncategorized from 10.0.2.1 to 10.0.2.2 3/4 1300 about 10.0.2.2:7000 > 10.0.2.1:4001 hops 64 length 1408 sum 4384 quoted 548",
            ),
            (
                "error s 10.0.2.2:7000 10.0.2.1:4999",
                "ConnectionRefused from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:7000 > 10.0.2.1:4999 hops 64 length 48 sum 9f93 quoted 68",
            ),
            ("udp s 10.0.2.2:4100 10.0.2.1:80 d 10.0.3.2:8080", "10.0.2.2 same port"),
            (
                "error s 10.0.2.2:4101 10.0.2.1:81",
                "ConnectionRefused from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:4101 > 10.0.2.1:81 hops 63 length 48 sum be1c quoted 68",
            ),
            (
                "error s 10.0.2.2:4102 10.0.2.1:81 ttl=1",
                "HostUnreachable from 10.0.2.1 to 10.0.2.2 11/0 0 about 10.0.2.2:4102 > 10.0.2.1:81 hops 1 length 48 sum be1b quoted 68",
            ),
            (
                "error s 10.0.2.2:4103 10.0.2.1:81 size=1400",
                "ConnectionRefused from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:4103 > 10.0.2.1:81 hops 63 length 1408 sum 5e25 quoted 548",
            ),
        ],
    });
}
