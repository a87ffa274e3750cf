//! Translation of what the router itself sends: with source and destination at once, counted, and to addresses of its own.
use crate::twin::{Case, run};

#[test]
fn both_ends_of_own_output() {
    run(&Case {
        name: "lb",
        rules: "
table inet n {
	counter out_new {}
	counter post_r1 {}
	counter post_r2 {}
	counter pre_reply {}
	counter in_reply {}
	map servers { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.2.2 . 8080, 81 : 10.0.3.2 . 8081 } }
	chain out {
		type nat hook output priority -100;
		ip daddr 198.51.100.1 dnat ip to tcp dport map @servers
		ip daddr 198.51.100.2 dnat ip to 10.0.3.2
		ip daddr 10.0.2.2 tcp dport 2000-2010 dnat ip to 10.0.3.2:3000-3010
		ip daddr 10.0.2.2 icmp id 99 dnat ip to 10.0.3.2
		ip6 daddr 2001:db8::1 dnat ip6 to fd00:3::2
		ip6 daddr fd00:2::2 tcp dport 2000 dnat ip6 to [fd00:3::2]:3000
		ip daddr 198.51.100.4 udp dport 53 dnat ip to numgen inc mod 2 map { 0 : 10.0.2.2, 1 : 10.0.3.2 }
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r2 ip daddr 10.0.3.2 tcp dport 8081 snat ip to 10.0.3.77:6000-6100
		oifname r2 masquerade
		oifname r1 udp dport 7000 masquerade to :6000-6100
	}
	chain filter {
		type filter hook output priority filter;
		ct state new ct direction original counter name out_new
	}
	chain mangle {
		type filter hook postrouting priority mangle;
		oifname r1 tcp dport 8080 ct state new counter name post_r1
		oifname r2 ct state new counter name post_r2
	}
	chain pre {
		type filter hook prerouting priority mangle;
		iifname r2 ct direction reply ct status dnat meta l4proto icmp counter name pre_reply
	}
	chain in {
		type filter hook input priority filter; policy drop;
		iifname r2 ct direction reply ct status dnat meta l4proto icmp counter name in_reply
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2
             ip addr add 10.0.3.77/24 dev r2"],
        steps: &[
            ("tcp r 0.0.0.0:4001 198.51.100.1:80 s 10.0.2.2:8080", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4001 198.51.100.1:81 d 10.0.3.2:8081", "10.0.3.77 other port"),
            ("tcp r 0.0.0.0:4002 198.51.100.2:7000 d 10.0.3.2:7000", "10.0.3.1 same port"),
            ("udp r 0.0.0.0:4002 198.51.100.2:7000 d 10.0.3.2:7000", "10.0.3.1 same port"),
            ("ping r 198.51.100.2", "64 bytes from 198.51.100.2: icmp_seq=1 ttl=64"),
            ("ping r 10.0.2.2 -e 99", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("ping r 10.0.2.2 -e 98", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("tcp r 0.0.0.0:4003 10.0.2.2:2003 d 10.0.3.2:3000", "10.0.3.1 same port"),
            ("udp r 0.0.0.0:4003 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp r [::]:4001 [2001:db8::1]:7000 d [fd00:3::2]:7000", "fd00:3::1 same port"),
            ("udp r [::]:4001 [2001:db8::1]:7000 d [fd00:3::2]:7000", "fd00:3::1 same port"),
            ("tcp r [::]:4002 [fd00:2::2]:2000 d [fd00:3::2]:3000", "fd00:3::1 same port"),
            ("ping r 2001:db8::1", "64 bytes from 2001:db8::1: icmp_seq=1 ttl=64"),
            ("ping r 198.51.100.2 -s 4000", "4008 bytes from 198.51.100.2: icmp_seq=1 ttl=64"),
            (
                "big r 0.0.0.0:4005 198.51.100.2:7005 d 10.0.3.2:7005 5000",
                "10.0.3.1 whole true, answer from 198.51.100.2:7005 whole true",
            ),
            (
                "big r [::]:4005 [2001:db8::1]:7005 d [fd00:3::2]:7005 5000",
                "fd00:3::1 whole true, answer from [2001:db8::1]:7005 whole true",
            ),
            ("udp r 0.0.0.0:4006 198.51.100.4:53 d 10.0.3.2:53", "not heard"),
            ("udp r 0.0.0.0:4007 198.51.100.4:53 s 10.0.2.2:53", "not heard"),
            (
                "error r 0.0.0.0:4009 198.51.100.2:9 open",
                "ConnectionRefused from 198.51.100.2 to 10.0.2.1 3/3 0 about 10.0.2.1:4009 > 198.51.100.2:9 hops 64 length 48 quoted 68",
            ),
            (
                "error r [::]:4009 [2001:db8::1]:9 open",
                "ConnectionRefused 1/4 0 about fd00:2::1:4009 > 2001:db8::1:9 hops 64 length 48 quoted 88",
            ),
            ("counters inet n", "in_reply 4/4292, out_new 20/16176, post_r1 1/60, post_r2 16/15576, pre_reply 4/4292"),
        ],
    });
}

/// Two sockets with one source port, to two addresses that are led to one server: one gets another port, and each its own answers.
#[test]
fn own_sockets_with_one_port() {
    run(&Case {
        name: "lp",
        rules: "
table inet n {
	chain out {
		type nat hook output priority -100;
		ip daddr { 198.51.100.1, 198.51.100.2, 198.51.100.3 } dnat ip to 10.0.2.2
		ip6 daddr { 2001:db8::1, 2001:db8::2 } dnat ip6 to fd00:2::2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip daddr 10.0.2.2 udp dport 7100 snat ip to 10.0.2.1:5000-5010
		oifname r1 masquerade
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2"],
        steps: &[
            ("tcp r 10.0.2.1:4001 198.51.100.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp r 10.0.2.1:4001 198.51.100.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4001 198.51.100.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4001 198.51.100.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:5000 198.51.100.1:7100 s 10.0.2.2:7100", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:5000 198.51.100.2:7100 s 10.0.2.2:7100", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4999 198.51.100.3:7100 s 10.0.2.2:7100", "10.0.2.1 other port"),
            ("tcp r [fd00:2::1]:4001 [2001:db8::1]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("tcp r [fd00:2::1]:4001 [2001:db8::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 other port"),
            // Others that are led to it from outside.
            ("tcp s 10.0.2.2:4101 10.0.2.1:7001 r 10.0.2.1:7001", "10.0.2.2 same port"),
            ("udp s 10.0.2.2:4101 10.0.2.1:7001 r 10.0.2.1:7001", "10.0.2.2 same port"),
            ("ping r 198.51.100.1 -e 77", "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64"),
            ("ping r 198.51.100.2 -e 77", "64 bytes from 198.51.100.2: icmp_seq=1 ttl=64"),
            ("ping c 10.0.2.2 -e 77", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
        ],
    });
}

/// What the router sends to an address of its own, led elsewhere by rules.
#[test]
fn own_output_to_own_addresses() {
    run(&Case {
        name: "lo",
        rules: "
table inet n {
	chain out {
		type nat hook output priority -100;
		ip daddr 127.0.0.1 tcp dport 80 redirect to :8080
		ip daddr 127.0.0.1 udp dport 53 redirect to :5353
		ip daddr 10.0.2.1 tcp dport 81 redirect to :8081
		ip daddr 10.0.2.1 tcp dport 82 dnat ip to 10.0.1.2:8082
		ip daddr 10.0.2.1 udp dport 82 dnat ip to 10.0.1.2:8082
		ip daddr 10.0.1.1 tcp dport 83 dnat ip to 10.0.2.1:8083
		ip6 daddr ::1 tcp dport 80 redirect to :8080
		ip6 daddr fd00:2::1 tcp dport 82 dnat ip6 to [fd00:1::2]:8082
		ip6 daddr fd00:2::1 udp dport 82 dnat ip6 to [fd00:1::2]:8082
		fib daddr type local tcp dport 84 dnat ip to 10.0.1.2:8084
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname { r0, r1 } masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp r 0.0.0.0:4001 127.0.0.1:80 r 127.0.0.1:8080", "127.0.0.1 same port"),
            ("udp r 0.0.0.0:4001 127.0.0.1:53 r 127.0.0.1:5353", "127.0.0.1 same port"),
            ("tcp r 0.0.0.0:4002 10.0.2.1:81 r 0.0.0.0:8081", "10.0.2.1 same port"),
            ("tcp r 0.0.0.0:4003 10.0.2.1:82 c 10.0.1.2:8082", "10.0.1.1 same port"),
            ("udp r 0.0.0.0:4003 10.0.2.1:82 c 10.0.1.2:8082", "10.0.1.1 same port"),
            ("tcp r 0.0.0.0:4004 10.0.1.1:83 r 10.0.2.1:8083", "10.0.1.1 same port"),
            ("tcp r [::]:4001 [::1]:80 r [::1]:8080", "::1 same port"),
            ("tcp r [::]:4003 [fd00:2::1]:82 c [fd00:1::2]:8082", "fd00:1::1 same port"),
            ("udp r [::]:4003 [fd00:2::1]:82 c [fd00:1::2]:8082", "fd00:1::1 same port"),
            ("tcp r 0.0.0.0:4005 10.0.3.1:84 c 10.0.1.2:8084", "10.0.1.1 same port"),
            ("tcp r 0.0.0.0:4006 127.0.0.1:7006 r 127.0.0.1:7006", "127.0.0.1 same port"),
            ("tcp r 0.0.0.0:4006 10.0.2.1:7007 r 10.0.2.1:7007", "10.0.2.1 same port"),
            ("ping r 10.0.2.1", "64 bytes from 10.0.2.1: icmp_seq=1 ttl=64"),
            ("error r 10.0.2.1:4009 10.0.2.1:82 open", "WouldBlock"),
        ],
    });
}
