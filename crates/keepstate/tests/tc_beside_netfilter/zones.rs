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

/// Elements that rules have added, with their counters; chains that ask for zones; connections from outside to hosts with one address.
#[test]
fn zones_are_counted() {
    run(&Case {
        name: "zc",
        rules: "
table inet z {
	counter zone_1 {}
	counter zone_2 {}
	counter original_2 {}
	counter no_zone {}
	counter replies {}
	set seen { type ipv4_addr . ifname; flags dynamic; size 128; counter; }
	set peers { typeof ct original zone . ip daddr; flags dynamic; size 128; }
	chain raw {
		type filter hook prerouting priority raw;
		ct original zone set iifname map { r0 : 1, r2 : 2 }
		iifname r1 tcp dport 81 ct reply zone set 1
		iifname r1 tcp dport 82 ct reply zone set 2
	}
	chain pre {
		type filter hook prerouting priority mangle;
		ct direction original iifname r0 ct mark set 1
		ct direction original iifname r2 ct mark set 2
		iifname r1 tcp dport 81 ct mark set 1
		iifname r1 tcp dport 82 ct mark set 2
		iifname r1 meta mark set ct mark
	}
	chain nat {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport { 81, 82 } dnat ip to 10.0.1.2:80
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 snat ip to 10.0.2.1
	}
	chain forward {
		type filter hook forward priority filter;
		update @seen { ip saddr . iifname }
		iifname { r0, r2 } update @peers { ct original zone . ip daddr counter }
		ct original zone 1 counter name zone_1
		ct original zone 2 ct direction original counter name original_2
		ct zone 2 counter name zone_2
		ct zone 0 counter name no_zone
		ct direction reply meta l4proto icmp counter name replies
	}
}
",
        prepare: SAME_ADDRESSES,
        steps: &[
            ("ping c 10.0.2.2 -e 77", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping d 10.0.2.2 -e 77", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping d 10.0.2.2 -e 77 -c 3 -i 0.1", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("counters inet z", "original_2 4/336, replies 5/420, zone_1 2/168, zone_2 8/672"),
            (
                "elements inet z seen",
                "10.0.1.2 . \"r0\" counter packets 1 bytes 84, 10.0.1.2 . \"r2\" counter packets 4 bytes 336, 10.0.2.2 . \"r1\" counter packets 5 bytes 420",
            ),
            (
                "elements inet z peers",
                "1 . 10.0.2.2 counter packets 1 bytes 84, 2 . 10.0.2.2 counter packets 4 bytes 336",
            ),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp d 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp s 10.0.2.2:4005 10.0.2.1:81 c 10.0.1.2:80", "TimedOut"),
            ("tcp s 10.0.2.2:4005 10.0.2.1:82 d 10.0.1.2:80", "TimedOut"),
            ("table -w 1", ""),
            (
                "table --orig-zone 2",
                "icmp src=10.0.1.2 dst=10.0.2.2 type=8 code=0 id=any zone-orig=2 src=10.0.2.2 dst=10.0.2.1 type=0 code=0 id=other mark=2; tcp ESTABLISHED src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 zone-orig=2 src=10.0.2.2 dst=10.0.2.1 sport=7000 dport=other mark=2 assured; udp src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 zone-orig=2 src=10.0.2.2 dst=10.0.2.1 sport=7000 dport=other mark=2",
            ),
            (
                "table --reply-zone 2",
                "tcp SYN_SENT src=10.0.2.2 dst=10.0.2.1 sport=4005 dport=82 [UNREPLIED] src=10.0.1.2 dst=10.0.2.2 sport=80 dport=4005 zone-reply=2 mark=2",
            ),
        ],
    });
}

/// Each packet of one socket in another zone: as many connections.
#[test]
fn one_socket_in_many_zones() {
    run(&Case {
        name: "zn",
        rules: "
table inet z {
	chain raw {
		type filter hook prerouting priority raw;
		iifname r0 udp dport 7000 ct zone set numgen inc mod 200
	}
	chain out {
		type filter hook output priority raw;
		udp dport 7001 ct zone set numgen inc mod 500
		udp dport 7002 ct original zone set numgen inc mod 50
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 udp dport 7002 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("repeat c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 400", "400 of 400"),
            ("conntrack -C", "200"),
            ("repeat r 10.0.2.1:4001 10.0.2.2:7001 s 10.0.2.2:7001 1200", "1200 of 1200"),
            ("conntrack -C", "700"),
            ("repeat r 10.0.2.1:4002 10.0.2.2:7002 s 10.0.2.2:7002 100", "100 of 100"),
            ("conntrack -C", "750"),
            (
                "table -w 17",
                "udp src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7000 dport=4001 mark=0 zone=17; udp src=10.0.2.1 dst=10.0.2.2 sport=4001 dport=7001 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7001 dport=4001 mark=0 zone=17",
            ),
        ],
    });
}
