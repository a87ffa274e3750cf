//! What is rejected, at each hook, plain and translated: who answers, and what is quoted.
use crate::twin::{Case, run};

#[test]
fn rejected_at_each_hook() {
    run(&Case {
        name: "rj",
        rules: "
table inet n {
	chain nat {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.5 dnat ip to 10.0.2.2
		ip6 daddr 2001:db8:1::5 dnat ip6 to fd00:2::2
		ip daddr 203.0.113.6 dnat ip to 10.0.1.1
	}
	chain first {
		type filter hook prerouting priority filter;
		udp dport 74 reject
		tcp dport 74 reject with tcp reset
	}
	chain forward {
		type filter hook forward priority filter;
		tcp dport 70 reject with tcp reset
		tcp dport 71 reject
		udp dport 71 reject
		udp dport 72 reject with icmp host-prohibited
		udp dport 73 reject with icmpx no-route
		udp dport 77 reject with icmpx admin-prohibited
	}
	chain in {
		type filter hook input priority filter;
		udp dport 75 reject with icmpx host-unreachable
		tcp dport 75 reject with tcp reset
		tcp dport 78 reject with icmpx admin-prohibited
	}
	chain out {
		type filter hook output priority filter;
		udp dport 76 reject with icmpx admin-prohibited
		tcp dport 76 reject with tcp reset
		tcp dport 79 reject
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[
            "c ethtool -K c0 tx off >/dev/null",
            "r ethtool -K r0 tx off >/dev/null; ethtool -K r1 tx off >/dev/null",
            "d ethtool -K d0 tx off >/dev/null",
            "r ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8:1::/64 via fd00:2::2",
        ],
        steps: &[
            (
                "error c 10.0.1.2:4001 203.0.113.5:74",
                "ConnectionRefused from 203.0.113.5 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 203.0.113.5:74 hops 64 length 48 sum 8f82 quoted 68",
            ),
            (
                "error d 10.0.3.2:4001 203.0.113.6:75 open",
                "HostUnreachable from 203.0.113.6 to 10.0.3.2 3/1 0 about 10.0.3.2:4001 > 203.0.113.6:75 hops 64 length 48 quoted 68",
            ),
            (
                "error d 10.0.3.2:4001 10.0.3.1:75 open",
                "HostUnreachable from 10.0.3.1 to 10.0.3.2 3/1 0 about 10.0.3.2:4001 > 10.0.3.1:75 hops 64 length 48 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 10.0.2.2:71",
                "ConnectionRefused from 10.0.1.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 10.0.2.2:71 hops 63 length 48 sum bf89 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 10.0.2.2:72",
                "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/10 0 about 10.0.1.2:4001 > 10.0.2.2:72 hops 63 length 48 sum bf88 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 203.0.113.5:72",
                "HostUnreachable from 203.0.113.5 to 10.0.1.2 3/10 0 about 10.0.1.2:4001 > 203.0.113.5:72 hops 63 length 48 sum 8f84 quoted 68",
            ),
            (
                "error c 10.0.1.2:4001 203.0.113.5:73",
                "NetworkUnreachable from 203.0.113.5 to 10.0.1.2 3/0 0 about 10.0.1.2:4001 > 203.0.113.5:73 hops 63 length 48 sum 8f83 quoted 68",
            ),
            (
                "error c [fd00:1::2]:4001 [fd00:2::2]:71",
                "ConnectionRefused 1/4 0 about fd00:1::2:4001 > fd00:2::2:71 hops 63 length 48 sum dc84 quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8:1::5]:73",
                "NetworkUnreachable 1/0 0 about fd00:1::2:4001 > 2001:db8:1::5:73 hops 63 length 48 sum abc8 quoted 88",
            ),
            (
                "error c [fd00:1::2]:4001 [2001:db8:1::5]:77",
                "PermissionDenied 1/1 0 about fd00:1::2:4001 > 2001:db8:1::5:77 hops 63 length 48 sum abc4 quoted 88",
            ),
            (
                "error c 10.0.1.2:4001 10.0.2.2:74",
                "ConnectionRefused from 10.0.1.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 10.0.2.2:74 hops 64 length 48 sum bf86 quoted 68",
            ),
            (
                "error c [fd00:1::2]:4001 [fd00:1::1]:75",
                "HostUnreachable 1/3 0 about fd00:1::2:4001 > fd00:1::1:75 hops 64 length 48 sum dc82 quoted 88",
            ),
            (
                "error r [fd00:2::1]:4001 [fd00:2::2]:76 open",
                "PermissionDenied 1/1 0 about fd00:2::1:4001 > fd00:2::2:76 hops 64 length 48 quoted 88",
            ),
            ("tcp c 10.0.1.2:4002 10.0.2.2:70 s 10.0.2.2:70", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4002 203.0.113.5:70 s 10.0.2.2:70", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4002 203.0.113.5:71 s 10.0.2.2:71", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4002 203.0.113.5:74 s 10.0.2.2:74", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4002 203.0.113.6:75 r 10.0.1.1:75", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4002 10.0.1.1:78 r 10.0.1.1:78", "HostUnreachable"),
            ("tcp c [fd00:1::2]:4002 [2001:db8:1::5]:70 s [fd00:2::2]:70", "ConnectionRefused"),
            ("tcp c [fd00:1::2]:4002 [fd00:1::1]:78 r [fd00:1::1]:78", "PermissionDenied"),
            ("tcp r 10.0.2.1:4003 10.0.2.2:76 s 10.0.2.2:76", "ConnectionRefused"),
            ("tcp r 10.0.2.1:4003 10.0.2.2:79 s 10.0.2.2:79", "ConnectionRefused"),
        ],
    });
}
