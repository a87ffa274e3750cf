//! Datagrams longer than the links, in pieces there and back, translated.
use crate::twin::{Case, run};

const NAT: &str = "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 udp dport 53 dnat ip to 10.0.2.2:5353
		ip6 daddr 2001:db8:1::1 udp dport 53 dnat ip6 to [fd00:2::2]:5353
		ip daddr 10.0.1.1 udp dport 53 redirect to :5353
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 udp dport { 5353, 7000 } accept
		iifname r0 meta l4proto { icmp, ipv6-icmp } accept
	}
}
";
const ROUTES: &str = "r ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/32 via fd00:2::2";

#[test]
fn long_datagrams_are_translated_in_pieces() {
    run(&Case {
        name: "fr",
        rules: NAT,
        prepare: &[ROUTES],
        steps: &[
            ("ping c 10.0.2.2 -s 4000", "4008 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping c fd00:2::2 -s 4000", "4008 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
            ("ping c 10.0.1.1 -s 4000", "4008 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("ping c fd00:1::1 -s 9000", "9008 bytes from fd00:1::1: icmp_seq=1 ttl=64"),
            ("ping r 10.0.2.2 -s 4000", "4008 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("ping r fd00:2::2 -s 4000", "4008 bytes from fd00:2::2: icmp_seq=1 ttl=64"),
            (
                "big c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 3000",
                "10.0.2.1 whole true, answer from 10.0.2.2:7000 whole true",
            ),
            (
                "big c 10.0.1.2:4002 203.0.113.1:53 s 10.0.2.2:5353 3000",
                "10.0.2.1 whole true, answer from 203.0.113.1:53 whole true",
            ),
            (
                "big c 10.0.1.2:4002 203.0.113.1:53 s 10.0.2.2:5353 60000",
                "10.0.2.1 whole true, answer from 203.0.113.1:53 whole true",
            ),
            (
                "big c [fd00:1::2]:4002 [2001:db8:1::1]:53 s [fd00:2::2]:5353 3000",
                "fd00:2::1 whole true, answer from [2001:db8:1::1]:53 whole true",
            ),
            (
                "big c [fd00:1::2]:4002 [2001:db8:1::1]:53 s [fd00:2::2]:5353 60000",
                "fd00:2::1 whole true, answer from [2001:db8:1::1]:53 whole true",
            ),
            (
                "big c 10.0.1.2:4003 10.0.1.1:53 r 10.0.1.1:5353 3000",
                "10.0.1.2 whole true, answer from 10.0.1.1:53 whole true",
            ),
            (
                "big r 10.0.2.1:4003 10.0.2.2:7000 s 10.0.2.2:7000 3000",
                "10.0.2.1 whole true, answer from 10.0.2.2:7000 whole true",
            ),
            ("big c 10.0.1.2:4004 10.0.2.2:7001 s 10.0.2.2:7001 3000", "not heard"),
        ],
    });
}

/// The way to the server has a smaller MTU than the others.
#[test]
fn links_with_a_smaller_mtu() {
    run(&Case {
        name: "fm",
        rules: NAT,
        prepare: &[ROUTES, "r ip link set r1 mtu 1300", "s ip link set s0 mtu 1300"],
        steps: &[
            ("ping c 10.0.2.2 -s 1400", "From 10.0.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1300)"),
            ("ping c 10.0.2.2 -s 1400 -M do", "nothing"),
            ("ping c 10.0.2.2 -s 4000", "4008 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping c fd00:2::2 -s 1400", "From fd00:1::1 icmp_seq=1 Packet too big: mtu=1300"),
            ("ping c fd00:2::2 -s 1400", "1408 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
            (
                "big c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000 3000",
                "10.0.2.1 whole true, answer from 10.0.2.2:7000 whole true",
            ),
            (
                "big c 10.0.1.2:4002 203.0.113.1:53 s 10.0.2.2:5353 3000",
                "10.0.2.1 whole true, answer from 203.0.113.1:53 whole true",
            ),
            ("error c 10.0.1.2:4005 10.0.2.2:7000 size=1400 open", "WouldBlock"),
            (
                "error c 10.0.1.2:4006 203.0.113.1:53 size=1400 open",
                "Uncategorized from 203.0.113.1 to 10.0.1.2 3/4 1300 about 10.0.1.2:4006 > 203.0.113.1:53 hops 64 length 1408 quoted 548",
            ),
            (
                "error c [fd00:1::2]:4006 [2001:db8:1::1]:53 size=1400 open",
                "Uncategorized 2/0 1300 about fd00:1::2:4006 > 2001:db8:1::1:53 hops 64 length 1408 quoted 1232",
            ),
            ("tcp r 10.0.2.1:4007 10.0.2.2:7007 s 10.0.2.2:7007", "10.0.2.1 same port"),
        ],
    });
}
