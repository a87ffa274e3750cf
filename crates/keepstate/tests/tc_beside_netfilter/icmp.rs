//! ICMP: echo and errors, translated there and back. The server is also a router in the middle of the way to 198.51.100.0/24.
use crate::twin::{Case, run};

/// Checksums that are still open when a packet is quoted would be quoted open.
const MIDDLE: &[&str] = &[
    "c ethtool -K c0 tx off >/dev/null",
    "r ethtool -K r0 tx off >/dev/null; ethtool -K r1 tx off >/dev/null",
    "s ethtool -K s0 tx off >/dev/null",
    "r ip route add 198.51.100.0/24 via 10.0.2.2; ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2",
    "s echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
     nft add table t; nft add chain t f '{ type filter hook forward priority 0; }'
     nft add rule t f ip daddr 198.51.100.13 reject with icmp admin-prohibited
     nft add rule t f ip daddr 198.51.100.14 reject with icmp host-unreachable
     ip -6 route add prohibit 2001:db8::13/128; ip -6 route add unreachable 2001:db8::14/128
     ip link add far0 type veth peer name far1; ip link set far0 mtu 1300 up; ip link set far1 up; ip addr add 192.0.2.1/24 dev far0
     ip addr add fd00:9::1/64 dev far0 nodad
     ip route add 198.51.100.0/24 dev far0; ip -6 route add 2001:db8::/64 dev far0",
];

const MASQUERADED: &str = "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 dnat ip to 10.0.2.2
		ip daddr 203.0.113.13 udp dport 1000 dnat ip to 198.51.100.13:2000
		ip6 daddr 2001:db8:1::1 dnat ip6 to fd00:2::2
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 203.0.113.13 udp dport 1000 dnat ip to 198.51.100.13:2000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 meta l4proto { tcp, udp, icmp, ipv6-icmp } masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname r0 accept
	}
	chain in {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}
";

#[test]
fn errors_of_others_are_translated_back() {
    run(&Case {
        name: "ie",
        rules: MASQUERADED,
        prepare: MIDDLE,
        steps: &[
            ("ping c 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("ping c fd00:2::2", "64 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
            ("ping c 203.0.113.1", "64 bytes from 203.0.113.1: icmp_seq=1 ttl=63"),
            ("ping c 2001:db8:1::1", "64 bytes from 2001:db8:1::1: icmp_seq=1 ttl=63"),
            ("ping c 198.51.100.13", "From 10.0.2.2 icmp_seq=1 Packet filtered"),
            (
                "error c 10.0.1.2:4001 10.0.2.2:9",
                "ConnectionRefused from 10.0.2.2 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 10.0.2.2:9 hops 63 length 48 sum bfc7 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 203.0.113.1:9",
                "ConnectionRefused from 203.0.113.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 203.0.113.1:9 hops 63 length 48 sum 8fc7 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 198.51.100.13:9",
                "HostUnreachable from 10.0.2.2 to 10.0.1.2 3/13 0 about 10.0.1.2:4001 > 198.51.100.13:9 hops 62 length 48 sum a188 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 198.51.100.14:9",
                "HostUnreachable from 10.0.2.2 to 10.0.1.2 3/1 0 about 10.0.1.2:4001 > 198.51.100.14:9 hops 62 length 48 sum a187 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 198.51.100.1:9 ttl=1",
                "HostUnreachable from 10.0.1.1 to 10.0.1.2 11/0 0 about 10.0.1.2:4001 > 198.51.100.1:9 hops 1 length 48 sum a194 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 198.51.100.1:9 ttl=2",
                "HostUnreachable from 10.0.2.2 to 10.0.1.2 11/0 0 about 10.0.1.2:4001 > 198.51.100.1:9 hops 1 length 48 sum a194 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 203.0.113.13:1000",
                "HostUnreachable from 203.0.113.13 to 10.0.1.2 3/13 0 about 10.0.1.2:4001 > 203.0.113.13:1000 hops 62 length 48 sum 8bdc quoted 68",
            ),
            (
                "error c 10.0.1.2:4002 198.51.100.1:9 size=1400",
                "Uncategorized from 10.0.2.2 to 10.0.1.2 3/4 1300 about 10.0.1.2:4002 > 198.51.100.1:9 hops 63 length 1408 sum 419e quoted 548",
            ),
            (
                "error c [fd00:1::2]:4001 [fd00:2::2]:9",
                "ConnectionRefused 1/4 0 about fd00:1::2:4001 > fd00:2::2:9 hops 63 length 48 sum dcc2 quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8:1::1]:9",
                "ConnectionRefused 1/4 0 about fd00:1::2:4001 > 2001:db8:1::1:9 hops 63 length 48 sum ac0c quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8::13]:9",
                "PermissionDenied 1/1 0 about fd00:1::2:4001 > 2001:db8::13:9 hops 63 length 48 sum abfb quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8::14]:9",
                "NetworkUnreachable 1/0 0 about fd00:1::2:4001 > 2001:db8::14:9 hops 63 length 48 sum abfa quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8::1]:9 ttl=1",
                "HostUnreachable 3/0 0 about fd00:1::2:4001 > 2001:db8::1:9 hops 1 length 48 sum ac0d quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8::1]:9 ttl=2",
                "HostUnreachable 3/0 0 about fd00:1::2:4001 > 2001:db8::1:9 hops 1 length 48 sum ac0d quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8::1]:9 size=1400",
                "Uncategorized 2/0 1300 about fd00:1::2:4001 > 2001:db8::1:9 hops 63 length 1408 sum 4c18 quoted 1232",
            ),
            (
                "error r 10.0.2.1:4001 198.51.100.13:9",
                "HostUnreachable from 10.0.2.2 to 10.0.2.1 3/13 0 about 10.0.2.1:4001 > 198.51.100.13:9 hops 63 length 48 sum a089 quoted 68",
            ),
            (
                "error r 10.0.2.1:4001 198.51.100.1:9 ttl=1",
                "HostUnreachable from 10.0.2.2 to 10.0.2.1 11/0 0 about 10.0.2.1:4001 > 198.51.100.1:9 hops 1 length 48 sum a095 quoted 68",
            ),
            (
                "error r 10.0.2.1:4001 203.0.113.13:1000",
                "HostUnreachable from 203.0.113.13 to 10.0.2.1 3/13 0 about 10.0.2.1:4001 > 203.0.113.13:1000 hops 63 length 48 sum 8add quoted 68",
            ),
            (
                "error r 10.0.2.1:4002 198.51.100.1:9 size=1400",
                "Uncategorized from 10.0.2.2 to 10.0.2.1 3/4 1300 about 10.0.2.1:4002 > 198.51.100.1:9 hops 64 length 1408 sum 409f quoted 548",
            ),
            (
                "error r [fd00:2::1]:4001 [2001:db8::13]:9",
                "PermissionDenied 1/1 0 about fd00:2::1:4001 > 2001:db8::13:9 hops 64 length 48 sum abfb quoted 88",
            ),
            (
                "error r [fd00:2::1]:4001 [2001:db8::1]:9 size=1400",
                "Uncategorized 2/0 1300 about fd00:2::1:4001 > 2001:db8::1:9 hops 64 length 1408 sum 4c18 quoted 1232",
            ),
            (
                "error r [fd00:2::1]:4001 [2001:db8::1]:9 ttl=1",
                "HostUnreachable 3/0 0 about fd00:2::1:4001 > 2001:db8::1:9 hops 1 length 48 sum ac0d quoted 88",
            ),
        ],
    });
}
