//! Which address redirect and masquerade choose, and the source of an ICMP error: where an interface has several, where policy rules choose the way, and where there is none.
use crate::twin::{Case, run};

/// The interface's first address, not the one that is nearest to the client.
#[test]
fn redirect_to_the_first_address() {
    run(&Case {
        name: "na",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		tcp dport 80 redirect to :8080
		udp dport 53 redirect to :5353
	}
}
",
        prepare: &[
            "r ip addr add 10.9.1.1/24 dev r0; ip addr add fd00:9::1/64 dev r0 nodad",
            "c ip addr add 10.9.1.2/24 dev c0; ip addr add fd00:9::2/64 dev c0 nodad",
        ],
        steps: &[
            ("tcp c 10.9.1.2:4001 10.9.1.1:80 r 10.0.1.1:8080", "10.9.1.2 same port"),
            ("udp c 10.9.1.2:4001 10.9.1.1:53 r 10.0.1.1:5353", "10.9.1.2 same port"),
            ("tcp c 10.9.1.2:4002 10.0.2.2:80 r 10.0.1.1:8080", "10.9.1.2 same port"),
            // Of IPv6 the newest is first.
            ("tcp c [fd00:1::2]:4001 [fd00:1::1]:80 r [fd00:9::1]:8080", "fd00:1::2 same port"),
            ("udp c [fd00:1::2]:4001 [fd00:2::2]:53 r [fd00:9::1]:5353", "fd00:1::2 same port"),
        ],
    });
}

/// What comes in by an interface without an address is dropped, not let through to where it was sent.
#[test]
fn redirect_without_an_address() {
    run(&Case {
        name: "nb",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r2 udp dport 53 redirect to :5353
	}
}
",
        prepare: &[
            "r ip addr flush dev r2 scope global; ip addr add 10.0.3.1/32 dev lo; ip route add 10.0.3.0/24 dev r2",
        ],
        steps: &[
            ("udp d 10.0.3.2:4001 10.0.2.2:54 s 10.0.2.2:54", "10.0.3.2 same port"),
            ("udp d 10.0.3.2:4002 10.0.2.2:53 s 10.0.2.2:53", "not heard"),
            ("udp d 10.0.3.2:4003 10.0.3.1:53 r 10.0.3.1:53", "not heard"),
            ("udp d 10.0.3.2:4003 10.0.3.1:53 r 10.0.3.1:5353", "not heard"),
        ],
    });
}

/// No address of the machine is a source for other links: nothing leaves untranslated.
#[test]
fn masquerade_without_an_address() {
    run(&Case {
        name: "nc",
        rules: "
table inet n {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 udp dport 53 masquerade
	}
}
",
        prepare: &["r ip -4 addr flush scope global
             ip addr add 10.0.1.1/24 dev r0 scope link; ip addr add 10.0.2.1/24 dev r1 scope link; ip addr add 10.0.3.1/24 dev r2 scope link"],
        steps: &[
            ("udp c 10.0.1.2:4001 10.0.2.2:54 s 10.0.2.2:54", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.2:53 s 10.0.2.2:53", "not heard"),
        ],
    });
}

/// The next hop is that of the packet's own route: policy rules lead two clients to two routers on one link, in two networks.
#[test]
fn next_hop_by_policy() {
    run(&Case {
        name: "nd",
        rules: "
table ip n {
	counter near {}
	counter far {}
	counter own_near {}
	counter own_far {}
	chain forwarded {
		type filter hook forward priority filter;
		ip daddr 198.51.100.0/24 rt nexthop 10.0.2.2 counter name near
		ip daddr 198.51.100.0/24 rt nexthop 10.0.9.2 counter name far
	}
	chain out {
		type filter hook output priority filter;
		ip daddr 198.51.100.0/24 rt nexthop 10.0.2.2 counter name own_near
		ip daddr 198.51.100.0/24 rt nexthop 10.0.9.2 counter name own_far
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[
            "s ip addr add 10.0.9.2/24 dev s0; ip addr add 198.51.100.7/32 dev lo; ip addr add 198.51.100.8/32 dev lo",
            "d ip addr add 10.0.30.2/24 dev d0; ip addr add 10.77.0.2/32 dev lo",
            "r ip addr add 10.0.9.1/24 dev r1; ip addr add 10.0.30.1/24 dev r2
             ip route add 198.51.100.0/24 via 10.0.2.2; ip route add 198.51.100.0/24 via 10.0.9.2 table 100
             ip rule add from 10.0.3.0/24 lookup 100; ip rule add to 198.51.100.8 lookup 100
             ip route add 10.77.0.0/24 via 10.0.3.2; ip route add 10.77.0.0/24 via 10.0.30.2 table 101
             ip rule add to 10.77.0.0/24 lookup 101",
        ],
        steps: &[
            ("udp c 10.0.1.2:4001 198.51.100.7:7000 s 198.51.100.7:7000", "10.0.2.1 same port"),
            ("udp d 10.0.3.2:4001 198.51.100.7:7000 s 198.51.100.7:7000", "10.0.9.1 same port"),
            ("tcp d 10.0.3.2:4002 198.51.100.7:7001 s 198.51.100.7:7001", "10.0.9.1 same port"),
            ("udp r 0.0.0.0:4003 198.51.100.7:7000 s 198.51.100.7:7000", "10.0.2.1 same port"),
            ("udp r 0.0.0.0:4004 198.51.100.8:7000 s 198.51.100.8:7000", "10.0.9.1 same port"),
            ("udp r 10.0.2.1:4005 198.51.100.8:7000 s 198.51.100.8:7000", "10.0.9.1 same port"),
            ("counters ip n", "far 42/48904, near 12/2736, own_far 24/5472, own_near 12/2736"),
            (
                "error d 10.77.0.2:4001 10.0.2.2:7000 ttl=1 open",
                "HostUnreachable from 10.0.30.1 to 10.77.0.2 11/0 0 about 10.77.0.2:4001 > 10.0.2.2:7000 hops 1 length 48 quoted 68",
            ),
        ],
    });
}
