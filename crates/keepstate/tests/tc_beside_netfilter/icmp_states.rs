//! The states of ICMP errors: related to a connection or invalid, at each hook, whoever sends them.
use crate::twin::{Case, run};

const COUNTED: &str = "
table inet n {
	counter fwd_related {}
	counter fwd_redirect {}
	counter fwd_invalid {}
	counter in_related {}
	counter in_invalid {}
	counter out_related {}
	counter out_redirect {}
	counter out_invalid {}
	counter out_new {}
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 dnat ip to 10.0.2.2
		ip6 daddr 2001:db8:1::1 dnat ip6 to fd00:2::2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 ip daddr != 198.51.100.0/24 masquerade
		oifname r1 meta nfproto ipv6 masquerade
	}
	chain forward {
		type filter hook forward priority filter;
		ct state related icmp type redirect counter name fwd_redirect
		ct state related icmp type != redirect counter name fwd_related
		ct state related meta l4proto ipv6-icmp counter name fwd_related
		ct state invalid counter name fwd_invalid
	}
	chain in {
		type filter hook input priority filter;
		meta l4proto { icmp, ipv6-icmp } ct state related counter name in_related
		ct state invalid counter name in_invalid
	}
	chain out {
		type filter hook output priority filter;
		icmpv6 type nd-redirect accept
		icmp type redirect ct state related counter name out_redirect accept
		meta l4proto { icmp, ipv6-icmp } ct state related counter name out_related
		ct state invalid counter name out_invalid
		meta l4proto { icmp, ipv6-icmp } ct state new counter name out_new
	}
}
";
const CHECKSUMS: &[&str] = &[
    "c ethtool -K c0 tx off >/dev/null",
    "r ethtool -K r0 tx off >/dev/null; ethtool -K r1 tx off >/dev/null; ethtool -K r2 tx off >/dev/null
     ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8:1::/64 via fd00:2::2
     ip route add 198.51.100.0/24 via 10.0.2.2",
    "s ethtool -K s0 tx off >/dev/null; ip addr add 198.51.100.2/32 dev s0
     ip route add prohibit 198.51.100.7/32; ip route add unreachable 198.51.100.8/32
     ip addr add 10.0.2.3/24 dev s0; ip addr add fd00:2::3/64 dev s0 nodad
     echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    "d ethtool -K d0 tx off >/dev/null",
];

/// The router's own errors, about first packets and about later ones.
#[test]
fn errors_that_the_router_sends() {
    run(&Case {
        name: "is",
        rules: COUNTED,
        prepare: const {
            &[
                CHECKSUMS[0],
                CHECKSUMS[1],
                CHECKSUMS[2],
                CHECKSUMS[3],
                "r ip link set r1 mtu 1400; ip -6 route add unreachable 2001:db8:9::/64",
            ]
        },
        steps: &[
            (
                "error c 10.0.1.2:4001 10.0.2.2:9 ttl=1",
                "HostUnreachable from 10.0.1.1 to 10.0.1.2 11/0 0 about 10.0.1.2:4001 > 10.0.2.2:9 hops 1 length 48 sum bfc7 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            (
                "error c 10.0.1.2:4001 203.0.113.1:9 ttl=1",
                "HostUnreachable from 203.0.113.1 to 10.0.1.2 11/0 0 about 10.0.1.2:4001 > 203.0.113.1:9 hops 1 length 48 sum 8fc7 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            (
                "error c 10.0.1.2:4003 10.0.1.1:9",
                "ConnectionRefused from 10.0.1.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4003 > 10.0.1.1:9 hops 64 length 48 sum c0c6 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            (
                "error c 10.0.1.2:4004 203.0.113.1:9 size=1450",
                "Uncategorized from 203.0.113.1 to 10.0.1.2 3/4 1400 about 10.0.1.2:4004 > 203.0.113.1:9 hops 64 length 1458 sum d00b quoted 548",
            ),
            ("counters inet n", "out_related 1/576"),
            (
                "error c 10.0.1.2:4004 10.0.2.99:9",
                "HostUnreachable from 10.0.2.1 to 10.0.1.2 3/1 0 about 10.0.1.2:4004 > 10.0.2.99:9 hops 63 length 48 sum bf63 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            ("ping c 10.0.2.2 -t 1", "From 10.0.1.1 icmp_seq=1 Time to live exceeded"),
            ("counters inet n", "out_related 1/112"),
            // About a connection that is known.
            ("udp c 10.0.1.2:4100 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("drop", ""),
            (
                "error c 10.0.1.2:4100 10.0.2.2:7000 ttl=1",
                "HostUnreachable from 10.0.1.1 to 10.0.1.2 11/0 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 1 length 48 sum a415 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            ("udp c 10.0.1.2:4101 203.0.113.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("drop", ""),
            (
                "error c 10.0.1.2:4101 203.0.113.1:7000 ttl=1",
                "HostUnreachable from 203.0.113.1 to 10.0.1.2 11/0 0 about 10.0.1.2:4101 > 203.0.113.1:7000 hops 1 length 48 sum 7414 quoted 68",
            ),
            ("counters inet n", "out_related 1/96"),
            ("error c 10.0.1.2:4101 203.0.113.1:7000 size=1450", "WouldBlock"),
            ("counters inet n", ""),
            (
                "error c [fd00:1::2]:4001 [fd00:2::2]:9 ttl=1",
                "HostUnreachable 3/0 0 about fd00:1::2:4001 > fd00:2::2:9 hops 1 length 48 sum dcc2 quoted 88",
            ),
            ("counters inet n", "out_related 1/136"),
            (
                "error c [fd00:1::2]:4001 [2001:db8:1::1]:9 ttl=1",
                "HostUnreachable 3/0 0 about fd00:1::2:4001 > 2001:db8:1::1:9 hops 1 length 48 sum ac0c quoted 88",
            ),
            ("counters inet n", "out_related 1/136"),
            (
                "error c [fd00:1::2]:4002 [2001:db8:9::1]:9",
                "NetworkUnreachable 1/0 0 about fd00:1::2:4002 > 2001:db8:9::1:9 hops 64 length 48 sum ac03 quoted 88",
            ),
            ("counters inet n", "out_related 1/136"),
            (
                "error c [fd00:1::2]:4003 [fd00:1::1]:9",
                "ConnectionRefused 1/4 0 about fd00:1::2:4003 > fd00:1::1:9 hops 64 length 48 sum dcc2 quoted 88",
            ),
            ("counters inet n", "out_related 1/136"),
            (
                "error c [fd00:1::2]:4004 [2001:db8:1::1]:9 size=1450",
                "Uncategorized 2/0 1400 about fd00:1::2:4004 > 2001:db8:1::1:9 hops 64 length 1458 sum ec50 quoted 1232",
            ),
            ("counters inet n", "out_related 1/1280"),
            ("udp c [fd00:1::2]:4101 [2001:db8:1::1]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("drop", ""),
            (
                "error c [fd00:1::2]:4101 [2001:db8:1::1]:7000 ttl=1",
                "HostUnreachable 3/0 0 about fd00:1::2:4101 > 2001:db8:1::1:7000 hops 1 length 48 sum 9059 quoted 88",
            ),
            ("counters inet n", "out_related 1/136"),
            ("error c [fd00:1::2]:4101 [2001:db8:1::1]:7000 size=1450", "WouldBlock"),
            ("counters inet n", ""),
            // It has taken longer than their timeouts.
            ("conntrack -F", ""),
        ],
    });
}

/// Errors of others, about connections through the router, of the router itself, and about none; of types that no host answers with, from whoever is asked and from a third host.
#[test]
fn errors_that_others_send() {
    run(&Case {
        name: "it",
        rules: COUNTED,
        prepare: CHECKSUMS,
        steps: &[
            ("udp c 10.0.1.2:4100 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp c 10.0.1.2:4101 198.51.100.2:7000 s 198.51.100.2:7000", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4102 203.0.113.1:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4103 10.0.2.2:7003 s 10.0.2.2:7003", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4104 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("ping c 10.0.2.2 -e 88", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            // Masqueraded; from its peer, from another address of the network, from a third host.
            (
                "quote s 10.0.2.2 10.0.2.1 c 10.0.1.2 3/3 0 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 3/1 0 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.2.3 to 10.0.1.2 3/1 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote d 10.0.3.2 10.0.2.1 c 10.0.1.2 3/13 0 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.3.2 to 10.0.1.2 3/13 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 12/0 335544320 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.2.3 to 10.0.1.2 12/0 335544320 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 4/0 0 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.2.3 to 10.0.1.2 4/0 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 11/1 0 17 10.0.2.1:4100 10.0.2.2:7000",
                "from 10.0.2.3 to 10.0.1.2 11/1 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1333 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 3/4 1300 6 10.0.2.1:4103 10.0.2.2:7003",
                "from 10.0.2.3 to 10.0.1.2 3/4 1300 about 10.0.1.2:4103 > 10.0.2.2:7003 hops 63 length 0 sum 0001 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 3/1 0 1 10.0.2.1:88 10.0.2.2:0",
                "from 10.0.2.3 to 10.0.1.2 3/1 0 about 10.0.1.2:2048 > 10.0.2.2:4660 hops 63 length 88 sum 0001 quoted 48",
            ),
            ("quote s 10.0.2.2 10.0.2.1 c 10.0.1.2 5/1 167772675 17 10.0.2.1:4100 10.0.2.2:7000", "nothing"),
            ("counters inet n", "fwd_related 8/608"),
            // Not translated.
            (
                "quote s 10.0.2.2 10.0.1.2 c 10.0.1.2 3/3 0 17 10.0.1.2:4101 198.51.100.2:7000",
                "from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4101 > 198.51.100.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote s 10.0.2.2 10.0.1.2 c 10.0.1.2 5/1 167772675 17 10.0.1.2:4101 198.51.100.2:7000",
                "from 10.0.2.2 to 10.0.1.2 5/1 167772675 about 10.0.1.2:4101 > 198.51.100.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote d 10.0.3.2 10.0.1.2 c 10.0.1.2 3/13 0 17 10.0.1.2:4101 198.51.100.2:7000",
                "from 10.0.3.2 to 10.0.1.2 3/13 0 about 10.0.1.2:4101 > 198.51.100.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            ("counters inet n", "fwd_redirect 1/76, fwd_related 2/152"),
            // Destination translated.
            (
                "quote s 10.0.2.2 10.0.2.1 c 10.0.1.2 3/3 0 17 10.0.2.1:4102 10.0.2.2:7000",
                "from 203.0.113.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4102 > 203.0.113.1:7000 hops 63 length 28 sum e332 quoted 48",
            ),
            (
                "quote s 10.0.2.3 10.0.2.1 c 10.0.1.2 3/1 0 17 10.0.2.1:4102 10.0.2.2:7000",
                "from 203.0.113.1 to 10.0.1.2 3/1 0 about 10.0.1.2:4102 > 203.0.113.1:7000 hops 63 length 28 sum e332 quoted 48",
            ),
            ("counters inet n", "fwd_related 2/152"),
            // About replies.
            (
                "quote c 10.0.1.2 10.0.2.2 s 10.0.2.2 3/3 0 17 10.0.2.2:7000 10.0.1.2:4100",
                "from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:7000 > 10.0.2.1:4100 hops 63 length 28 sum 1135 quoted 48",
            ),
            (
                "quote c 10.0.1.2 203.0.113.1 s 10.0.2.2 3/3 0 17 203.0.113.1:7000 10.0.1.2:4102",
                "from 10.0.2.1 to 10.0.2.2 3/3 0 about 10.0.2.2:7000 > 10.0.2.1:4102 hops 63 length 28 sum 4135 quoted 48",
            ),
            (
                "quote d 10.0.3.2 10.0.2.2 s 10.0.2.2 3/1 0 17 10.0.2.2:7000 10.0.1.2:4100",
                "from 10.0.2.1 to 10.0.2.2 3/1 0 about 10.0.2.2:7000 > 10.0.2.1:4100 hops 63 length 28 sum 1135 quoted 48",
            ),
            ("counters inet n", "fwd_related 3/228"),
            // To a connection of the router itself.
            (
                "quote s 10.0.2.2 10.0.2.1 r 10.0.2.1 3/3 0 17 10.0.2.1:4104 10.0.2.2:7000",
                "from 10.0.2.2 to 10.0.2.1 3/3 0 about 10.0.2.1:4104 > 10.0.2.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote d 10.0.3.2 10.0.2.1 r 10.0.2.1 3/1 0 17 10.0.2.1:4104 10.0.2.2:7000",
                "from 10.0.3.2 to 10.0.2.1 3/1 0 about 10.0.2.1:4104 > 10.0.2.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            ("counters inet n", "in_related 2/152"),
            // About no connection.
            (
                "quote s 10.0.2.2 10.0.1.2 c 10.0.1.2 3/3 0 17 10.0.1.2:4999 10.0.2.2:7999",
                "from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4999 > 10.0.2.2:7999 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote s 10.0.2.2 10.0.2.1 r 10.0.2.1 3/3 0 17 10.0.2.1:4999 10.0.2.2:7999",
                "from 10.0.2.2 to 10.0.2.1 3/3 0 about 10.0.2.1:4999 > 10.0.2.2:7999 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote s 10.0.2.2 10.0.2.1 r 10.0.2.1 3/3 0 17 10.0.1.2:4100 10.0.2.2:7000",
                "from 10.0.2.2 to 10.0.2.1 3/3 0 about 10.0.1.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            (
                "quote d 10.0.3.2 10.0.1.2 c 10.0.1.2 3/3 0 17 10.0.3.2:4100 10.0.2.2:7000",
                "from 10.0.3.2 to 10.0.1.2 3/3 0 about 10.0.3.2:4100 > 10.0.2.2:7000 hops 63 length 28 sum 1234 quoted 48",
            ),
            ("counters inet n", "fwd_invalid 2/152, in_invalid 2/152"),
            ("conntrack -C", "6"),
        ],
    });
}

#[test]
fn errors_that_others_send_over_ipv6() {
    run(&Case {
        name: "iu",
        rules: COUNTED,
        prepare: CHECKSUMS,
        steps: &[
            ("udp c [fd00:1::2]:4100 [fd00:2::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("udp c [fd00:1::2]:4102 [2001:db8:1::1]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("tcp c [fd00:1::2]:4103 [fd00:2::2]:7003 s [fd00:2::2]:7003", "fd00:2::1 same port"),
            ("udp r [fd00:2::1]:4104 [fd00:2::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("ping c fd00:2::2 -e 88", "64 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
            (
                "quote s fd00:2::2 fd00:2::1 c fd00:1::2 1/4 0 17 [fd00:2::1]:4100 [fd00:2::2]:7000",
                "1/4 0 about fd00:1::2:4100 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote s fd00:2::3 fd00:2::1 c fd00:1::2 1/3 0 17 [fd00:2::1]:4100 [fd00:2::2]:7000",
                "1/3 0 about fd00:1::2:4100 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote d fd00:3::2 fd00:2::1 c fd00:1::2 1/1 0 17 [fd00:2::1]:4100 [fd00:2::2]:7000",
                "1/1 0 about fd00:1::2:4100 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote s fd00:2::3 fd00:2::1 c fd00:1::2 4/1 40 17 [fd00:2::1]:4100 [fd00:2::2]:7000",
                "4/1 40 about fd00:1::2:4100 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote s fd00:2::3 fd00:2::1 c fd00:1::2 3/1 0 17 [fd00:2::1]:4100 [fd00:2::2]:7000",
                "3/1 0 about fd00:1::2:4100 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote s fd00:2::3 fd00:2::1 c fd00:1::2 2/0 1300 6 [fd00:2::1]:4103 [fd00:2::2]:7003",
                "2/0 1300 about fd00:1::2:4103 > fd00:2::2:7003 hops 63 length 0 sum 0001 quoted 68",
            ),
            (
                "quote s fd00:2::3 fd00:2::1 c fd00:1::2 1/3 0 58 [fd00:2::1]:88 [fd00:2::2]:0",
                "1/3 0 about fd00:1::2:32768 > fd00:2::2:4660 hops 63 length 88 sum 0001 quoted 68",
            ),
            ("counters inet n", "fwd_related 7/812"),
            (
                "quote s fd00:2::2 fd00:2::1 c fd00:1::2 1/4 0 17 [fd00:2::1]:4102 [fd00:2::2]:7000",
                "1/4 0 about fd00:1::2:4102 > 2001:db8:1::1:7000 hops 63 length 28 sum e17d quoted 68",
            ),
            (
                "quote c fd00:1::2 fd00:2::2 s fd00:2::2 1/4 0 17 [fd00:2::2]:7000 [fd00:1::2]:4100",
                "1/4 0 about fd00:2::2:7000 > fd00:2::1:4100 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote c fd00:1::2 2001:db8:1::1 s fd00:2::2 1/4 0 17 [2001:db8:1::1]:7000 [fd00:1::2]:4102",
                "1/4 0 about fd00:2::2:7000 > fd00:2::1:4102 hops 63 length 28 sum 42ea quoted 68",
            ),
            ("counters inet n", "fwd_related 3/348"),
            (
                "quote s fd00:2::2 fd00:2::1 r fd00:2::1 1/4 0 17 [fd00:2::1]:4104 [fd00:2::2]:7000",
                "1/4 0 about fd00:2::1:4104 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote d fd00:3::2 fd00:2::1 r fd00:2::1 1/3 0 17 [fd00:2::1]:4104 [fd00:2::2]:7000",
                "1/3 0 about fd00:2::1:4104 > fd00:2::2:7000 hops 63 length 28 sum 1234 quoted 68",
            ),
            ("counters inet n", "in_related 2/232"),
            (
                "quote s fd00:2::2 fd00:1::2 c fd00:1::2 1/4 0 17 [fd00:1::2]:4999 [fd00:2::2]:7999",
                "1/4 0 about fd00:1::2:4999 > fd00:2::2:7999 hops 63 length 28 sum 1234 quoted 68",
            ),
            (
                "quote s fd00:2::2 fd00:2::1 r fd00:2::1 1/4 0 17 [fd00:2::1]:4999 [fd00:2::2]:7999",
                "1/4 0 about fd00:2::1:4999 > fd00:2::2:7999 hops 63 length 28 sum 1234 quoted 68",
            ),
            ("counters inet n", "fwd_invalid 1/116, in_invalid 1/116"),
        ],
    });
}

/// Pings until a redirect of IPv6 has come.
const REDIRECT_V6: &str = "run c timeout 9 tcpdump -nt -i c0 -c 1 'icmp6 && ip6[40] == 137' 2>/dev/null | sed 's/fe80[^ ]* >/router >/; s/, length.*//' & \
    while kill -0 $! 2>/dev/null; do ping -n -c 1 -W 1 fd00:9::1 >/dev/null; done";

/// Who sends by the router what another router of the same network would take is told so (RFC 792), and the redirect is related to the connection.
#[test]
fn redirects_are_sent() {
    run(&Case {
        name: "ir",
        rules: COUNTED,
        prepare: const {
            &[
                CHECKSUMS[0],
                CHECKSUMS[1],
                CHECKSUMS[2],
                CHECKSUMS[3],
                "c ip addr add 10.0.1.3/24 dev c0; echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects; echo 0 > /proc/sys/net/ipv4/conf/c0/accept_redirects",
                // A second router in the client's network. Here it is the client itself, which forwards nothing.
                "r ip route add 192.0.2.0/24 via 10.0.1.3; ip -6 route add fd00:9::/64 via fe80::3 dev r0",
                "c ip addr add fe80::3/64 dev c0 nodad; echo 0 > /proc/sys/net/ipv6/conf/c0/accept_redirects",
            ]
        },
        steps: &[
            ("run c ping -n -c 1 -W 1 192.0.2.77 | grep -o 'From.*'", ""),
            ("counters inet n", ""),
            // The second and third are about a connection that is known.
            (
                "run c ping -n -c 3 -i 0.2 -W 1 192.0.2.78 | grep -o 'From.*'",
                "From 10.0.1.1: icmp_seq=2 Redirect Host(New nexthop: 10.0.1.3), From 10.0.1.1: icmp_seq=3 Redirect Host(New nexthop: 10.0.1.3)",
            ),
            ("counters inet n", "out_redirect 2/224"),
            (REDIRECT_V6, "IP6 router > fd00:1::2: ICMP6, redirect, fd00:9::1 to fe80::3"),
            (
                "run r echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; echo 0 > /proc/sys/net/ipv4/conf/r0/send_redirects",
                "",
            ),
            ("run c sleep 1.5; ping -n -c 1 -W 1 192.0.2.77 | grep -o 'From.*'", ""),
            ("counters inet n", ""),
            // It has taken longer than their timeouts.
            ("conntrack -F", ""),
        ],
    });
}

/// Without chains of type nat a redirect about a first packet passes.
#[test]
fn redirects_without_translation() {
    run(&Case {
        name: "iq",
        rules: "
table inet n {
	counter out_redirect {}
	counter fwd_new {}
	chain forward {
		type filter hook forward priority filter;
		ct state new counter name fwd_new
	}
	chain out {
		type filter hook output priority filter;
		icmp type redirect ct state related counter name out_redirect
	}
}
",
        prepare: &[
            "c ip addr add 10.0.1.3/24 dev c0; echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects; echo 0 > /proc/sys/net/ipv4/conf/c0/accept_redirects",
            "r ip route add 192.0.2.0/24 via 10.0.1.3",
        ],
        steps: &[
            (
                "run c ping -n -c 1 -W 1 192.0.2.77 | grep -o 'From.*'",
                "From 10.0.1.1: icmp_seq=1 Redirect Host(New nexthop: 10.0.1.3)",
            ),
            ("counters inet n", "fwd_new 1/84, out_redirect 1/112"),
        ],
    });
}
