//! Translation of what the router itself sends.
use crate::twin::{Case, run};

#[test]
fn destinations_of_the_routers_own_output() {
    run(&Case {
        name: "od",
        rules: "
table ip n {
	map hosts { type ipv4_addr : ipv4_addr; elements = { 198.51.100.3 : 10.0.2.2, 198.51.100.4 : 10.0.1.2 } }
	chain out {
		type nat hook output priority -100;
		ip daddr 198.51.100.1 dnat to 10.0.2.2
		ip daddr 198.51.100.2 tcp dport 80 dnat to 10.0.1.2:8080
		ip daddr 10.0.2.2 tcp dport 2001 dnat to :2000
		ip daddr 10.0.2.2 udp dport 2001 dnat to :2000
		dnat to ip daddr map @hosts
	}
}
table ip6 n {
	chain out {
		type nat hook output priority -100;
		ip6 daddr 2001:db8::1 dnat to fd00:2::2
		ip6 daddr 2001:db8::2 tcp dport 80 dnat to [fd00:1::2]:8080
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2
             ethtool -K r0 tx off >/dev/null; ethtool -K r1 tx off >/dev/null"],
        steps: &[
            ("tcp r 0.0.0.0:4001 198.51.100.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp r 0.0.0.0:4001 198.51.100.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("ping r 198.51.100.1", "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64"),
            ("tcp r 0.0.0.0:4002 198.51.100.2:80 c 10.0.1.2:8080", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4003 10.0.2.2:2001 s 10.0.2.2:2000", "10.0.2.1 same port"),
            ("udp r 0.0.0.0:4003 10.0.2.2:2001 s 10.0.2.2:2000", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4004 198.51.100.3:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp r 0.0.0.0:4004 198.51.100.4:7000 c 10.0.1.2:7000", "10.0.2.1 same port"),
            ("ping r 198.51.100.4", "64 bytes from 198.51.100.4: icmp_seq=1 ttl=64"),
            ("tcp r [::]:4001 [2001:db8::1]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("udp r [::]:4001 [2001:db8::1]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("ping r 2001:db8::1", "64 bytes from 2001:db8::1: icmp_seq=1 ttl=64"),
            ("tcp r [::]:4002 [2001:db8::2]:80 c [fd00:1::2]:8080", "fd00:2::1 same port"),
            (
                "error r 10.0.2.1:4009 198.51.100.1:9",
                "ConnectionRefused from 198.51.100.1 to 10.0.2.1 3/3 0 about 10.0.2.1:4009 > 198.51.100.1:9 hops 64 length 48 sum a08d quoted 68",
            ),
            (
                "error r 10.0.2.1:4010 198.51.100.4:9",
                "ConnectionRefused from 198.51.100.4 to 10.0.2.1 3/3 0 about 10.0.2.1:4010 > 198.51.100.4:9 hops 64 length 48 sum a089 quoted 68",
            ),
            (
                "error r [fd00:2::1]:4009 [2001:db8::1]:9",
                "ConnectionRefused 1/4 0 about fd00:2::1:4009 > 2001:db8::1:9 hops 64 length 48 sum ac05 quoted 88",
            ),
        ],
    });
}

#[test]
fn own_output_redirected_to_the_router_itself() {
    run(&Case {
        name: "or",
        rules: "
table inet n {
	chain out {
		type nat hook output priority -100;
		meta nfproto ipv4 tcp dport 80 redirect to :8080
		meta nfproto ipv6 tcp dport 80 redirect to :8080
		udp dport 53 redirect to :5353
		ip daddr 198.51.100.1 tcp dport 81 dnat ip to 10.0.1.1:8081
		ip daddr 198.51.100.9 icmp type echo-request dnat ip to 10.0.1.1
		ip daddr 198.51.100.1 udp dport 9 redirect
		ip6 daddr 2001:db8::1 udp dport 9 redirect
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2"],
        steps: &[
            ("tcp r 0.0.0.0:4001 198.51.100.1:80 r 0.0.0.0:8080", "10.0.2.1 same port"),
            ("tcp r [::]:4001 [2001:db8::1]:80 r [::1]:8080", "fd00:2::1 same port"),
            ("udp r 0.0.0.0:4001 198.51.100.1:53 r 127.0.0.1:5353", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4002 198.51.100.1:81 r 10.0.1.1:8081", "10.0.2.1 same port"),
            ("ping r 198.51.100.9", "64 bytes from 198.51.100.9: icmp_seq=1 ttl=64"),
            // Nobody listens. The kernel quotes a checksum that is still open.
            (
                "error r 10.0.2.1:4009 198.51.100.1:9 open",
                "ConnectionRefused from 198.51.100.1 to 10.0.2.1 3/3 0 about 10.0.2.1:4009 > 198.51.100.1:9 hops 64 length 48 quoted 68",
            ),
            (
                "error r [fd00:2::1]:4009 [2001:db8::1]:9 open",
                "ConnectionRefused 1/4 0 about fd00:2::1:4009 > 2001:db8::1:9 hops 64 length 48 quoted 88",
            ),
            ("tcp r 0.0.0.0:4003 198.51.100.1:82 r 0.0.0.0:82", "TimedOut"),
            // The machine to itself, without a translation.
            ("tcp r 10.0.2.1:4005 127.0.0.1:7005 r 127.0.0.1:7005", "10.0.2.1 same port"),
            ("tcp r 10.0.2.1:4005 10.0.1.1:7005 r 10.0.1.1:7005", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4006 10.0.1.1:8080 r 0.0.0.0:8080", "10.0.1.2 same port"),
        ],
    });
}

/// What is led to the router itself passes the chains of the loopback interface, whatever filters the paths back.
#[test]
fn redirected_output_passes_the_input_chain() {
    run(&Case {
        name: "oi",
        rules: "
table ip n {
	chain out {
		type nat hook output priority -100;
		tcp dport 80 redirect to :8080
		tcp dport 81 redirect to :8081
		tcp dport 82 redirect to :8082
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain first {
		type filter hook prerouting priority mangle;
		iifname lo tcp dport 8082 drop
	}
	chain in {
		type filter hook input priority filter; policy drop;
		iifname lo tcp dport { 8080, 8082 } accept
		iifname lo tcp sport 80 ct state established accept
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter"],
        steps: &[
            ("tcp r 0.0.0.0:4001 198.51.100.1:80 r 127.0.0.1:8080", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4001 198.51.100.1:81 r 127.0.0.1:8081", "TimedOut"),
            ("tcp r 0.0.0.0:4001 198.51.100.1:82 r 127.0.0.1:8082", "TimedOut"),
            // Linux keeps the entries of what was dropped on its way in.
            ("conntrack -F", ""),
        ],
    });
}

#[test]
fn sources_of_the_routers_own_output() {
    run(&Case {
        name: "os",
        rules: "
table ip n {
	chain post {
		type nat hook postrouting priority srcnat;
		tcp dport 7001 snat to 10.0.2.77
		tcp dport 7002 snat to 10.0.2.77:6000
		tcp dport 7003 masquerade to :6001-6003
		tcp dport 7004 masquerade fully-random
		tcp dport 7005 masquerade random
		udp dport 7001 snat to 10.0.2.77
		udp dport 7003 masquerade to :6001-6003
		ip daddr 10.0.2.2 icmp type echo-request snat to 10.0.2.77
		ip saddr 10.0.1.1 masquerade
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 198.51.100.1 tcp dport 7001 dnat to 10.0.2.2
	}
}
table ip6 n {
	chain post {
		type nat hook postrouting priority srcnat;
		tcp dport 7001 snat to fd00:2::77
		udp dport 7001 masquerade to :6001
	}
}
",
        prepare: &[
            "r ip addr add 10.0.2.77/24 dev r1; ip addr add fd00:2::77/64 dev r1 nodad preferred_lft 0",
            "r ip route add 198.51.100.0/24 via 10.0.2.2",
        ],
        steps: &[
            ("tcp r 10.0.2.1:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.77 same port"),
            ("tcp r 10.0.2.1:4001 198.51.100.1:7001 s 10.0.2.2:7001", "10.0.2.77 other port"),
            ("tcp r 10.0.2.1:4002 10.0.2.2:7002 s 10.0.2.2:7002", "10.0.2.77 other port"),
            ("tcp r 10.0.2.1:4003 10.0.2.2:7003 s 10.0.2.2:7003", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4004 10.0.2.2:7004 s 10.0.2.2:7004", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4005 10.0.2.2:7005 s 10.0.2.2:7005", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.77 same port"),
            ("udp r 10.0.2.1:4003 10.0.2.2:7003 s 10.0.2.2:7003", "10.0.2.1 other port"),
            ("ping r 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("tcp r 10.0.1.1:4006 10.0.2.2:7006 s 10.0.2.2:7006", "10.0.2.1 same port"),
            ("tcp r [fd00:2::1]:4001 [fd00:2::2]:7001 s [fd00:2::2]:7001", "fd00:2::77 same port"),
            ("udp r [fd00:2::1]:4001 [fd00:2::2]:7001 s [fd00:2::2]:7001", "fd00:2::1 other port"),
        ],
    });
}
