//! Translations that maps and ranges choose, and packets rewritten without a connection.
use crate::twin::{Case, run};

#[test]
fn translations_by_maps() {
    run(&Case {
        name: "mm",
        rules: "
table inet n {
	counter from_c {}
	counter from_d {}
	map places { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 10.0.1.2 . 80 : 10.0.2.2 . 8080, 10.0.3.2 . 80 : 10.0.2.2 . 8081 } }
	map ranges { type ipv4_addr : interval ipv4_addr; flags interval; elements = { 10.0.1.0/24 : 10.0.2.70-10.0.2.70, 10.0.3.0/24 : 10.0.2.71-10.0.2.71 } }
	map hosts6 { type ipv6_addr : ipv6_addr; elements = { 2001:db8::3 : fd00:3::2, 2001:db8::2 : fd00:2::2 } }
	map ways { type ifname . inet_service : verdict; elements = { r0 . 81 : jump to_server, r2 . 81 : jump to_server, r0 . 82 : goto to_router } }
	chain to_server { ip daddr 198.51.100.1 meta l4proto tcp dnat ip to 10.0.2.2:8082; }
	chain to_router { meta l4proto tcp redirect to :8083; }
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 198.51.100.1 dnat ip to ip saddr . tcp dport map @places
		iifname . tcp dport vmap @ways
		ip daddr 198.51.100.2 meta l4proto tcp redirect to :tcp dport map { 22 : 8022, 25 : 8025 }
		ip daddr 198.51.100.3 udp dport 7000-7010 dnat ip to 10.0.2.2:7100-7110
		dnat ip6 to ip6 daddr map @hosts6
		ip daddr . meta l4proto { 198.51.100.4 . tcp, 198.51.100.4 . udp } meta l4proto { tcp, udp } dnat ip to 10.0.2.2:7200
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 tcp dport { 8080-8083 } snat ip to ip saddr map @ranges
		oifname r1 udp dport 7100 snat ip to 10.0.2.70-10.0.2.71 persistent
		oifname r1 tcp dport 7200 masquerade to :6200-6201 random
		oifname r1 udp dport 7200 masquerade fully-random,persistent
		oifname r1 ip6 daddr fd00:2::2 snat ip6 to fd00:2::77
	}
	chain forward {
		type filter hook forward priority filter;
		counter name ip saddr map { 10.0.1.2 : from_c, 10.0.3.2 : from_d }
	}
}
",
        prepare: &[
            "r ip addr add 10.0.2.70/24 dev r1; ip addr add 10.0.2.71/24 dev r1; ip addr add fd00:2::77/64 dev r1 nodad",
        ],
        steps: &[
            ("tcp c 10.0.1.2:4001 198.51.100.1:80 s 10.0.2.2:8080", "10.0.2.70 same port"),
            ("tcp d 10.0.3.2:4001 198.51.100.1:80 s 10.0.2.2:8081", "10.0.2.71 same port"),
            ("tcp c 10.0.1.2:4002 198.51.100.1:81 s 10.0.2.2:8082", "10.0.2.70 same port"),
            ("tcp d 10.0.3.2:4002 198.51.100.1:81 s 10.0.2.2:8082", "10.0.2.71 same port"),
            ("tcp c 10.0.1.2:4003 198.51.100.9:82 r 10.0.1.1:8083", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4004 198.51.100.2:22 r 10.0.1.1:8022", "10.0.1.2 same port"),
            ("tcp d 10.0.3.2:4004 198.51.100.2:25 r 10.0.3.1:8025", "10.0.3.2 same port"),
            ("udp c 10.0.1.2:4005 198.51.100.3:7003 s 10.0.2.2:7100", "10.0.2.71 same port"),
            ("tcp c 10.0.1.2:4006 198.51.100.4:1 s 10.0.2.2:7200", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4007 198.51.100.4:2 s 10.0.2.2:7200", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4008 198.51.100.4:3 s 10.0.2.2:7200", "TimedOut"),
            ("udp c 10.0.1.2:4006 198.51.100.4:1 s 10.0.2.2:7200", "10.0.2.1 other port"),
            ("tcp c [fd00:1::2]:4001 [2001:db8::2]:80 s [fd00:2::2]:80", "fd00:2::77 same port"),
            ("udp c [fd00:1::2]:4001 [2001:db8::3]:80 d [fd00:3::2]:80", "fd00:1::2 same port"),
            ("ping c 2001:db8::3", "64 bytes from 2001:db8::3: icmp_seq=1 ttl=63"),
            ("ping c 198.51.100.1", "From 10.0.1.1 icmp_seq=1 Destination Net Unreachable"),
        ],
    });
}

/// Addresses set by rules, both ways, before a connection is looked for: what is tracked is the packet as it was rewritten.
#[test]
fn addresses_set_by_rules() {
    run(&Case {
        name: "ms",
        rules: "
table ip raw {
	map there { type ipv4_addr : ipv4_addr; elements = { 198.51.100.1 : 10.0.2.2, 198.51.100.3 : 10.0.3.2 } }
	map back { type ipv4_addr . ipv4_addr : ipv4_addr; elements = { 10.0.2.2 . 10.0.1.2 : 198.51.100.1, 10.0.3.2 . 10.0.1.2 : 198.51.100.3 } }
	chain pre {
		type filter hook prerouting priority -400;
		iifname r0 ip daddr set ip daddr map @there
		iifname { r1, r2 } ip saddr set ip saddr . ip daddr map @back
		iifname r2 tcp sport 7001 notrack
		iifname r0 tcp dport 7001 notrack
		iifname { r1, r2 } udp sport 7100 udp sport set 7000
		iifname r0 udp dport 7000 udp dport set 7100
	}
	chain f {
		type filter hook forward priority 0;
		ct state invalid drop
	}
}
table ip6 raw {
	chain pre {
		type filter hook prerouting priority -400;
		iifname r0 ip6 daddr 2001:db8::1 ip6 daddr set fd00:2::2
		iifname r1 ip6 saddr fd00:2::2 ip6 daddr fd00:1::2 ip6 saddr set 2001:db8::1
		iifname r0 ip6 daddr fd00:2::2 tcp dport 7001 notrack
		iifname r1 ip6 daddr fd00:1::2 tcp sport 7001 notrack
	}
}
",
        prepare: &[],
        steps: &[
            ("ping c 198.51.100.1", "nothing"),
            ("ping c 198.51.100.3", "nothing"),
            ("tcp c 10.0.1.2:4001 198.51.100.1:7000 s 10.0.2.2:7000", "TimedOut"),
            ("tcp c 10.0.1.2:4001 198.51.100.3:7001 d 10.0.3.2:7001", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4001 198.51.100.1:7000 s 10.0.2.2:7100", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4001 198.51.100.3:7002 d 10.0.3.2:7002", "10.0.1.2 same port"),
            ("ping c 198.51.100.1 -s 4000", "nothing"),
            ("ping c 2001:db8::1", "64 bytes from 2001:db8::1: icmp_seq=1 ttl=63"),
            ("tcp c [fd00:1::2]:4001 [2001:db8::1]:7000 s [fd00:2::2]:7000", "fd00:1::2 same port"),
            ("tcp c [fd00:1::2]:4001 [2001:db8::1]:7001 s [fd00:2::2]:7001", "fd00:1::2 same port"),
            ("udp c [fd00:1::2]:4001 [2001:db8::1]:7000 s [fd00:2::2]:7000", "fd00:1::2 same port"),
        ],
    });
}

/// The same of what the router itself sends.
#[test]
fn addresses_set_by_rules_of_own_output() {
    run(&Case {
        name: "mo",
        rules: "
table inet raw {
	chain route {
		type route hook output priority -400;
		ip daddr 198.51.100.1 ip daddr set 10.0.3.2 notrack
		ip6 daddr 2001:db8::1 ip6 daddr set fd00:3::2 notrack
	}
	chain out {
		type filter hook output priority -300;
		ip daddr 198.51.100.2 ip daddr set 10.0.2.2
	}
	chain last {
		type filter hook output priority 0;
		ct state established accept
	}
	chain pre {
		type filter hook prerouting priority -400;
		ip saddr 10.0.3.2 ip daddr 10.0.2.1 ip saddr set 198.51.100.1 notrack
		ip saddr 10.0.2.2 ip daddr 10.0.2.1 ip saddr set 198.51.100.2
		ip6 saddr fd00:3::2 ip6 daddr fd00:2::1 ip6 saddr set 2001:db8::1 notrack
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2"],
        steps: &[
            ("ping r 198.51.100.1", "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64"),
            ("tcp r 10.0.2.1:4001 198.51.100.1:7000 d 10.0.3.2:7000", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4001 198.51.100.1:7000 d 10.0.3.2:7000", "10.0.2.1 same port"),
            ("ping r 198.51.100.2", "64 bytes from 198.51.100.2: icmp_seq=1 ttl=64"),
            ("tcp r 10.0.2.1:4001 198.51.100.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4001 198.51.100.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("ping r 2001:db8::1", "64 bytes from 2001:db8::1: icmp_seq=1 ttl=64"),
            ("tcp r [fd00:2::1]:4001 [2001:db8::1]:7000 d [fd00:3::2]:7000", "fd00:2::1 same port"),
        ],
    });
}
