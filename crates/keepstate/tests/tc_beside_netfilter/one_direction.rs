//! Rules that see one direction of a connection only: notrack, redirects of both hooks, original and reply in zones.
use crate::twin::{Case, run};

/// What is not tracked on its way there is new on its way back.
#[test]
fn notrack_of_one_direction() {
    run(&Case {
        name: "ot",
        rules: "
table ip t {
	counter new_back { }
	counter known_back { }
	counter untracked { }
	counter invalid { }
	chain raw {
		type filter hook prerouting priority raw;
		iifname r0 udp dport 53 notrack
		iifname r1 tcp sport 80 notrack
	}
	chain forward {
		type filter hook forward priority filter;
		# So that no connection is known to the kernel, whose packets are counted later.
		limit rate 10000/second
		ct state untracked counter name untracked
		ct state invalid counter name invalid
		iifname r1 ct state new counter name new_back
		iifname r1 ct state established counter name known_back
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 ip saddr 10.0.1.2 udp dport { 53, 54 } snat to 10.0.2.1
	}
}
",
        prepare: &[],
        steps: &[
            // Not translated either.
            ("udp c 10.0.1.2:4001 10.0.2.2:53 s 10.0.2.2:53", "10.0.1.2 same port"),
            ("counters ip t", "new_back 12/1536, untracked 12/2736"),
            ("udp c 10.0.1.2:4001 10.0.2.2:54 s 10.0.2.2:54", "10.0.2.1 same port"),
            ("counters ip t", "known_back 12/1536"),
            ("tcp c 10.0.1.2:4002 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
        ],
    });
}

/// The same redirect for those who come in and for the machine itself, at once.
#[test]
fn redirects_of_both_hooks() {
    run(&Case {
        name: "ork",
        rules: "
table inet t {
	chain pre {
		type nat hook prerouting priority dstnat;
		tcp dport 80 redirect to :8080
		tcp dport 86 redirect to :8086
		udp dport 53 redirect to :5353
	}
	chain out {
		type nat hook output priority -100;
		tcp dport 80 redirect to :8080
		tcp dport 86 redirect to :8086
		udp dport 53 redirect to :5353
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:80 r 0.0.0.0:8080", "10.0.1.2 same port"),
            ("tcp r 10.0.2.1:4001 10.0.2.2:80 r 0.0.0.0:8080", "10.0.2.1 same port"),
            ("tcp s 10.0.2.2:4001 10.0.1.2:80 r 0.0.0.0:8080", "10.0.2.2 same port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:53 r 0.0.0.0:5353", "10.0.1.2 same port"),
            // It is asked at 127.0.0.1 and answers from 10.0.2.1: that belongs to no connection.
            ("udp r 10.0.2.1:4001 10.0.2.2:53 r 0.0.0.0:5353", "no answer: WouldBlock"),
            ("tcp c [fd00:1::2]:4001 [fd00:2::2]:86 r [::]:8086", "fd00:1::2 same port"),
            ("tcp r [fd00:2::1]:4001 [fd00:2::2]:86 r [::]:8086", "fd00:2::1 same port"),
            ("again", "5 of 5"),
        ],
    });
}

/// Addresses and ports of both directions, where connections of two zones are translated.
#[test]
fn original_and_reply_in_zones() {
    run(&Case {
        name: "oz",
        rules: "
table ip t {
	counter there { }
	counter back { }
	counter wrong { }
	chain raw {
		type filter hook prerouting priority raw;
		ct zone set iifname map { r0 : 3, r2 : 4 }
		iifname r1 ip daddr 10.0.2.1 udp dport 4001 ct zone set 3
		iifname r1 ip daddr 10.0.2.1 udp dport 4002 ct zone set 4
	}
	chain forward {
		type filter hook forward priority filter;
		meta l4proto udp ct original ip daddr 10.0.2.2 ct original proto-dst 53 ct reply ip daddr 10.0.2.1 ct direction original counter name there
		meta l4proto udp ct original ip saddr { 10.0.1.2, 10.0.3.2 } ct reply ip saddr 10.0.2.2 ct reply proto-src 53 ct direction reply counter name back
		ct zone 0 counter name wrong
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 ct zone { 3, 4 } snat to 10.0.2.1
	}
}
",
        prepare: &[],
        steps: &[
            ("udp c 10.0.1.2:4001 10.0.2.2:53 s 10.0.2.2:53", "10.0.2.1 same port"),
            ("counters ip t", "back 12/1536, there 11/2508"),
            ("udp d 10.0.3.2:4002 10.0.2.2:53 s 10.0.2.2:53", "10.0.2.1 same port"),
            ("counters ip t", "back 12/1536, there 11/2508"),
        ],
    });
}
