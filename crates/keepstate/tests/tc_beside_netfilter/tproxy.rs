//! Transparent proxies on the router (`tproxy`): whom they see, what they are told was asked for, and whose answers their clients get.
use crate::report_skipped;
use crate::sockets::exchange;
use crate::twin::{Case, Lab, PATIENCE, run};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is marked with 1 is led to the router itself.
const LED_BY_MARK: &str = "r ip rule add fwmark 1 lookup 100; ip route add local 0.0.0.0/0 dev lo table 100
     ip -6 rule add fwmark 1 lookup 100; ip -6 route add local ::/0 dev lo table 100";

/// As documentation of the kernel and of proxies has it: what has a socket, and what is new, at the first address of the interface.
#[test]
fn proxy_for_tcp_and_udp_of_both_families() {
    run(&Case {
        name: "tp",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		meta l4proto tcp socket transparent 1 meta mark set 1 accept
		meta l4proto { tcp, udp } th dport { 80, 53 } tproxy to :50080 meta mark set 1 ct mark set 7 accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("proxy listen 0.0.0.0:50080", ""),
            ("proxy listen [::]:50080", ""),
            ("proxy tcp c 10.0.1.2:4001 10.0.2.2:80 0.0.0.0:50080", "10.0.1.2:4001 asks for 10.0.2.2:80"),
            ("proxy udp c 10.0.1.2:4001 10.0.2.2:53 0.0.0.0:50080", "10.0.1.2:4001 asks for 10.0.2.2:53"),
            ("proxy udp-connected c 10.0.1.2:4002 10.0.2.2:53 0.0.0.0:50080", "10.0.1.2:4002 asks for 10.0.2.2:53"),
            ("proxy tcp c [fd00:1::2]:4001 [fd00:2::2]:80 [::]:50080", "[fd00:1::2]:4001 asks for [fd00:2::2]:80"),
            ("proxy udp c [fd00:1::2]:4001 [fd00:2::2]:53 [::]:50080", "[fd00:1::2]:4001 asks for [fd00:2::2]:53"),
            (
                "proxy udp-connected c [fd00:1::2]:4002 [fd00:2::2]:53 [::]:50080",
                "[fd00:1::2]:4002 asks for [fd00:2::2]:53",
            ),
            // An address that nobody has, from the other side, and one of the router itself.
            ("proxy tcp c 10.0.1.2:4003 198.51.100.1:80 0.0.0.0:50080", "10.0.1.2:4003 asks for 198.51.100.1:80"),
            ("proxy tcp s 10.0.2.2:4003 10.0.1.2:80 0.0.0.0:50080", "10.0.2.2:4003 asks for 10.0.1.2:80"),
            ("proxy tcp c 10.0.1.2:4004 10.0.2.1:80 0.0.0.0:50080", "10.0.1.2:4004 asks for 10.0.2.1:80"),
            ("proxy udp c 10.0.1.2:4004 10.0.1.1:53 0.0.0.0:50080", "10.0.1.2:4004 asks for 10.0.1.1:53"),
            // What is not proxied.
            ("tcp c 10.0.1.2:4005 10.0.2.2:8080 s 10.0.2.2:8080", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4005 10.0.2.2:5353 s 10.0.2.2:5353", "10.0.1.2 same port"),
            ("tcp c [fd00:1::2]:4005 [fd00:2::2]:8080 s [fd00:2::2]:8080", "fd00:1::2 same port"),
            ("tcp c 10.0.1.2:4006 10.0.1.1:22 r 10.0.1.1:22", "10.0.1.2 same port"),
            ("tcp r 10.0.2.1:4006 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("ping c 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("again", "9 of 9"),
            // One that ends first leaves its port in TIME_WAIT: it is taken by the next connection.
            ("close", ""),
            ("proxy tcp c 10.0.1.2:4001 10.0.2.2:80 0.0.0.0:50080", "10.0.1.2:4001 asks for 10.0.2.2:80"),
            ("proxy tcp c [fd00:1::2]:4001 [fd00:2::2]:80 [::]:50080", "[fd00:1::2]:4001 asks for [fd00:2::2]:80"),
        ],
    });
}

/// The first address of the interface is where a proxy is looked for if the rule names none.
#[test]
fn proxy_at_the_first_address_of_the_interface() {
    run(&Case {
        name: "ta",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		meta l4proto { tcp, udp } th dport { 80, 53 } tproxy to :50080 meta mark set 1 accept
	}
}
",
        prepare: &[
            LED_BY_MARK,
            "r ip addr add 10.0.1.7/24 dev r0; ip addr add fd00:1::7/64 dev r0 nodad preferred_lft 0; ip addr add fd00:7::7/64 dev r0 nodad",
        ],
        steps: &[
            ("proxy listen 10.0.1.1:50080", ""),
            ("proxy listen [fd00:7::7]:50080", ""),
            ("proxy tcp c 10.0.1.2:4001 10.0.2.2:80 10.0.1.1:50080", "10.0.1.2:4001 asks for 10.0.2.2:80"),
            ("proxy udp c 10.0.1.2:4001 10.0.2.2:53 10.0.1.1:50080", "10.0.1.2:4001 asks for 10.0.2.2:53"),
            (
                "proxy tcp c [fd00:1::2]:4001 [fd00:2::2]:80 [fd00:7::7]:50080",
                "[fd00:1::2]:4001 asks for [fd00:2::2]:80",
            ),
            ("proxy close 10.0.1.1:50080", ""),
            ("proxy listen 10.0.1.7:50080", ""),
            ("tcp c 10.0.1.2:4002 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.2:53 s 10.0.2.2:53", "10.0.1.2 same port"),
            ("again", "3 of 3"),
        ],
    });
}

/// Addresses and ports that rules name, without a rule for what has a socket already.
#[test]
fn proxy_at_an_address_that_the_rule_names() {
    run(&Case {
        name: "tn",
        rules: "
table inet mangle {
	map proxies { type inet_service : ipv4_addr; elements = { 81 : 127.0.0.2 } }
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		tcp dport 80 tproxy ip to 127.0.0.1:50080 meta mark set 1 accept
		udp dport 53 tproxy ip to 127.0.0.1:50053 meta mark set 1 accept
		tcp dport 80 tproxy ip6 to [::1]:50080 meta mark set 1 accept
		udp dport 53 tproxy ip6 to [::1]:50053 meta mark set 1 accept
		tcp dport 81 tproxy ip to tcp dport map @proxies meta mark set 1 accept
		meta l4proto { tcp, udp } th dport { 53, 80, 81 } drop
	}
}
table ip old {
	chain pre {
		type filter hook prerouting priority mangle;
		tcp dport 82 tproxy to 127.0.0.1:50080
		tcp dport 82 meta mark set 1 accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:80 s 10.0.2.2:80", "TimedOut"),
            ("proxy listen 127.0.0.1:50080", ""),
            ("proxy listen 127.0.0.1:50053", ""),
            ("proxy listen [::1]:50080", ""),
            ("proxy listen [::1]:50053", ""),
            ("proxy listen 127.0.0.2:81", ""),
            ("proxy tcp c 10.0.1.2:4002 10.0.2.2:80 127.0.0.1:50080", "10.0.1.2:4002 asks for 10.0.2.2:80"),
            ("proxy tcp d 10.0.3.2:4002 10.0.2.2:80 127.0.0.1:50080", "10.0.3.2:4002 asks for 10.0.2.2:80"),
            ("proxy udp c 10.0.1.2:4002 10.0.2.2:53 127.0.0.1:50053", "10.0.1.2:4002 asks for 10.0.2.2:53"),
            ("proxy tcp c [fd00:1::2]:4002 [fd00:2::2]:80 [::1]:50080", "[fd00:1::2]:4002 asks for [fd00:2::2]:80"),
            ("proxy udp c [fd00:1::2]:4002 [fd00:2::2]:53 [::1]:50053", "[fd00:1::2]:4002 asks for [fd00:2::2]:53"),
            ("proxy tcp c 10.0.1.2:4003 10.0.2.2:81 127.0.0.2:81", "10.0.1.2:4003 asks for 10.0.2.2:81"),
            ("proxy tcp c 10.0.1.2:4004 10.0.2.2:82 127.0.0.1:50080", "10.0.1.2:4004 asks for 10.0.2.2:82"),
            // A new connection passes the rules to the end; an old one stays with its socket.
            ("proxy close 127.0.0.1:50080", ""),
            ("tcp c 10.0.1.2:4005 10.0.2.2:80 s 10.0.2.2:80", "TimedOut"),
            ("again", "5 of 5"),
        ],
    });
}

/// Without a proxy the rule does not match: nobody listens, or who listens may not speak for others.
#[test]
fn rules_go_on_where_no_proxy_listens() {
    run(&Case {
        name: "tg",
        rules: "
table inet mangle {
	counter proxied { }
	counter gone_on { }
	chain pre {
		type filter hook prerouting priority mangle;
		tcp dport 85 tproxy to :50085 meta mark set 1 accept
		tcp flags & (syn | ack) != syn accept
		ct state invalid drop
		meta l4proto { tcp, udp } th dport { 80, 53 } tproxy to :50080 counter name proxied meta mark set 1 accept
		meta l4proto { tcp, udp } th dport { 80, 53 } counter name gone_on
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:53 s 10.0.2.2:53", "10.0.1.2 same port"),
            ("tcp c [fd00:1::2]:4001 [fd00:2::2]:80 s [fd00:2::2]:80", "fd00:1::2 same port"),
            ("counters inet mangle", "gone_on 14/2876"),
            ("proxy listen-opaque 0.0.0.0:50080", ""),
            ("tcp c 10.0.1.2:4002 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.2:53 s 10.0.2.2:53", "10.0.1.2 same port"),
            ("counters inet mangle", "gone_on 13/2796"),
            ("proxy close 0.0.0.0:50080", ""),
            ("proxy listen 0.0.0.0:50080", ""),
            ("proxy listen-both [::]:50085", ""),
            (
                "proxy tcp c 10.0.1.2:4003 10.0.2.2:85 [::]:50085",
                "[::ffff:10.0.1.2]:4003 asks for [::ffff:10.0.2.2]:85",
            ),
            ("proxy tcp c [fd00:1::2]:4003 [fd00:2::2]:85 [::]:50085", "[fd00:1::2]:4003 asks for [fd00:2::2]:85"),
            ("proxy udp c 10.0.1.2:4003 10.0.2.2:53 0.0.0.0:50080", "10.0.1.2:4003 asks for 10.0.2.2:53"),
            ("counters inet mangle", "proxied 12/1536"),
            ("again", "5 of 5"),
        ],
    });
}

/// A packet that has been given to a proxy, and is routed elsewhere, goes nowhere.
#[test]
fn what_is_given_to_a_proxy_is_not_forwarded() {
    run(&Case {
        name: "tf",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		meta l4proto { tcp, udp } th dport { 80, 53 } tproxy to :50080 accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("proxy listen 0.0.0.0:50080", ""),
            ("tcp c 10.0.1.2:4002 10.0.2.2:80 s 10.0.2.2:80", "TimedOut"),
            ("udp c 10.0.1.2:4002 10.0.2.2:53 s 10.0.2.2:53", "not heard"),
            ("proxy tcp c 10.0.1.2:4003 10.0.2.1:80 0.0.0.0:50080", "10.0.1.2:4003 asks for 10.0.2.1:80"),
            ("udp c 10.0.1.2:4003 10.0.2.2:5353 s 10.0.2.2:5353", "10.0.1.2 same port"),
        ],
    });
}

/// Connections by their mark, once their first packet has found the proxy: their further packets go on as those of known flows.
#[test]
fn proxied_connections_by_their_mark() {
    run(&Case {
        name: "xtm",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		ct mark 7 meta mark set 1 accept
		tcp dport 80 tproxy to :50080 meta mark set 1 ct mark set 7 accept
	}
	chain in {
		type filter hook input priority filter; policy drop;
		meta mark 1 accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("proxy listen 0.0.0.0:50080", ""),
            ("proxy listen [::]:50080", ""),
            ("proxy tcp c 10.0.1.2:4001 10.0.2.2:80 0.0.0.0:50080", "10.0.1.2:4001 asks for 10.0.2.2:80"),
            ("proxy tcp c 10.0.1.2:4002 10.0.2.2:80 0.0.0.0:50080", "10.0.1.2:4002 asks for 10.0.2.2:80"),
            ("proxy tcp c [fd00:1::2]:4001 [fd00:2::2]:80 [::]:50080", "[fd00:1::2]:4001 asks for [fd00:2::2]:80"),
            ("tcp c 10.0.1.2:4003 10.0.1.1:22 r 10.0.1.1:22", "TimedOut"),
            ("again", "3 of 3"),
            ("again", "3 of 3"),
        ],
    });
}

/// What rules ask of a packet's socket.
#[test]
fn sockets_of_packets() {
    run(&Case {
        name: "xts",
        rules: "
table inet t {
	counter any { }
	counter transparent { }
	counter opaque { }
	counter wildcard { }
	counter bound { }
	counter marked { }
	counter unmarked { }
	counter input { }
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		iifname != r0 accept
		meta l4proto != udp accept
		udp dport { 80, 81, 82, 83, 9009 } jump sockets
	}
	chain sockets {
		socket transparent { 0, 1 } counter name any
		socket transparent 1 counter name transparent
		socket transparent 0 counter name opaque
		socket wildcard 1 counter name wildcard
		socket wildcard 0 counter name bound
		socket mark 9 counter name marked
		socket mark 0 counter name unmarked
		udp dport 83 tproxy to :50080 meta mark set 1
		socket wildcard 1 socket transparent 1 udp dport 83 counter name wildcard
	}
	chain in {
		type filter hook input priority filter;
		iifname r0 udp dport { 80, 81, 82, 83 } socket transparent 1 counter name input
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[
            ("proxy listen 0.0.0.0:80", ""),
            ("proxy listen 10.0.1.1:81", ""),
            ("proxy listen-opaque 0.0.0.0:82", ""),
            ("proxy listen 0.0.0.0:50080", ""),
            ("udp c 10.0.1.2:4001 10.0.1.1:80 r 0.0.0.0:80", "10.0.1.2 same port"),
            ("counters inet t", "any 12/2736, input 12/2736, transparent 12/2736, unmarked 12/2736, wildcard 12/2736"),
            ("udp c 10.0.1.2:4001 10.0.1.1:81 r 10.0.1.1:81", "10.0.1.2 same port"),
            ("counters inet t", "any 12/2736, bound 12/2736, input 12/2736, transparent 12/2736, unmarked 12/2736"),
            ("udp c 10.0.1.2:4001 10.0.1.1:82 r 0.0.0.0:82", "10.0.1.2 same port"),
            ("counters inet t", "any 12/2736, opaque 12/2736, unmarked 12/2736, wildcard 12/2736"),
            ("udp c 10.0.1.2:4001 10.0.2.2:9009 s 10.0.2.2:9009", "10.0.1.2 same port"),
            ("counters inet t", ""),
            ("proxy udp c 10.0.1.2:4001 10.0.2.2:83 0.0.0.0:50080", "10.0.1.2:4001 asks for 10.0.2.2:83"),
            (
                "counters inet t",
                "any 11/1408, bound 11/1408, input 12/1536, transparent 11/1408, unmarked 11/1408, wildcard 12/1536",
            ),
        ],
    });
}

/// What rules ask of the socket that sends a packet of the router itself: before it is translated, of both families, and of what the kernel sends by itself.
#[test]
fn sockets_of_packets_that_the_router_sends() {
    run(&Case {
        name: "to",
        rules: "
table inet t {
	counter transparent { }
	counter opaque { }
	counter wildcard { }
	counter bound { }
	counter marked { }
	counter unmarked { }
	chain nat {
		type nat hook output priority -100;
		meta l4proto { tcp, udp } th dport 70 dnat ip to 10.0.2.2:7070
	}
	chain out {
		type filter hook output priority filter;
		oifname != { r0, r1 } accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		meta l4proto { tcp, udp, icmp } jump sockets
	}
	chain sockets {
		socket transparent 1 counter name transparent
		socket transparent 0 counter name opaque
		socket wildcard 1 counter name wildcard
		socket wildcard 0 counter name bound
		socket mark 7 counter name marked
		socket mark 0 counter name unmarked
	}
}
",
        prepare: &[],
        steps: &[
            ("udp r 10.0.2.1:4001 10.0.2.2:53 s 10.0.2.2:53", "10.0.2.1 same port"),
            ("counters inet t", "bound 12/2736, opaque 12/2736, unmarked 12/2736"),
            ("udp r 0.0.0.0:4002 10.0.2.2:54 s 10.0.2.2:54", "10.0.2.1 same port"),
            ("counters inet t", "bound 12/2736, opaque 12/2736, unmarked 12/2736"),
            ("udp r [fd00:2::1]:4001 [fd00:2::2]:53 s [fd00:2::2]:53", "fd00:2::1 same port"),
            ("counters inet t", "bound 12/2976, opaque 12/2976, unmarked 12/2976"),
            // Translated on its way out.
            ("udp r 10.0.2.1:4003 10.0.2.2:70 s 10.0.2.2:7070", "10.0.2.1 same port"),
            ("counters inet t", "bound 12/2736, opaque 12/2736, unmarked 12/2736"),
            // A server that is bound to no address, and one that may speak for others.
            ("udp c 10.0.1.2:4001 10.0.1.1:80 r 0.0.0.0:80", "10.0.1.2 same port"),
            ("counters inet t", "opaque 12/1536, unmarked 12/1536, wildcard 12/1536"),
            ("proxy listen 0.0.0.0:81", ""),
            ("udp c 10.0.1.2:4001 10.0.1.1:81 r 0.0.0.0:81", "10.0.1.2 same port"),
            ("counters inet t", "transparent 12/1536, unmarked 12/1536, wildcard 12/1536"),
            // What the kernel answers.
            ("ping c 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("counters inet t", "opaque 1/84, unmarked 1/84, wildcard 1/84"),
            ("tcp c 10.0.1.2:4009 10.0.1.1:9 s 10.0.2.2:9", "ConnectionRefused"),
            ("counters inet t", "opaque 1/40, unmarked 1/40, wildcard 1/40"),
            ("ping r 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("counters inet t", "opaque 1/84, unmarked 1/84, wildcard 1/84"),
            ("ping r -m 7 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("counters inet t", "marked 1/84, opaque 1/84, wildcard 1/84"),
            // Connections: each end of them.
            ("tcp r 10.0.2.1:4006 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("tcp r 10.0.2.1:4007 10.0.2.2:70 s 10.0.2.2:7070", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4006 10.0.1.1:22 r 10.0.1.1:22", "10.0.1.2 same port"),
            ("again", "3 of 3"),
        ],
    });
}

/// Connections of proxies become known flows once their socket is there, by whatever rules: their packets go on to the stack without user space.
#[test]
fn connections_of_proxies_become_known() {
    let case = Case {
        name: "tk",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		tcp dport 80 socket transparent 1 meta mark set 1 accept
		tcp dport { 80, 81 } tproxy to :50080 meta mark set 1 accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[],
    };
    let Some(mut lab) = Lab::new(&case, false) else {
        return report_skipped("connections of proxies: it needs root, network namespaces and iproute2");
    };
    for at in ["0.0.0.0:50080", "[::]:50080"] {
        lab.proxy(&["listen", at]);
    }
    for (from, to, at) in [
        ("10.0.1.2:4001", "10.0.2.2:80", "0.0.0.0:50080"),
        ("10.0.1.2:4002", "10.0.2.2:81", "0.0.0.0:50080"),
        ("[fd00:1::2]:4001", "[fd00:2::2]:80", "[::]:50080"),
        ("[fd00:1::2]:4002", "[fd00:2::2]:81", "[::]:50080"),
    ] {
        assert_eq!(lab.proxy(&["tcp", "c", from, to, at]), format!("{from} asks for {to}"));
    }
    wait_for_known(&lab, 4);
    // What goes on in the kernel is reported later; what comes to the gateway is counted at once.
    let before = stat(&lab, "received");
    let streams = lab.streams.iter().map(|(client, served)| exchange(client, served));
    assert_eq!(streams.filter(Result::is_ok).count(), 4);
    let came = stat(&lab, "received") - before;
    assert!(came < 40, "{came} packets of known flows came to the gateway");
    // A proxy ends a connection first, and takes the same one anew.
    lab.step("close");
    let again = ["tcp", "c", "10.0.1.2:4001", "10.0.2.2:80", "0.0.0.0:50080"];
    assert_eq!(lab.proxy(&again), "10.0.1.2:4001 asks for 10.0.2.2:80");
}

/// Rules may ask for the sockets of all packets: connections that the machine forwards become known nevertheless, until something else listens.
#[test]
fn forwarded_connections_follow_what_listens() {
    let case = Case {
        name: "xtl",
        rules: "
table inet mangle {
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		meta l4proto tcp socket transparent 1 meta mark set 1 accept
		tcp dport 80 tproxy to :50080 meta mark set 1 accept
	}
}
",
        prepare: &[LED_BY_MARK],
        steps: &[],
    };
    for is_kernel in [true, false] {
        let Some(mut lab) = Lab::new(&case, is_kernel) else {
            return report_skipped("connections beside a proxy: it needs root, network namespaces, iproute2 and nft");
        };
        let ends =
            ["10.0.1.2:4001", "10.0.2.2:8080", "[fd00:1::2]:4001", "[fd00:2::2]:8080", "10.0.1.2:4002", "10.0.2.2:80"];
        let streams: Vec<_> = ends
            .chunks(2)
            .map(|ends| lab.connect("c", ends[0], ends[1], ("s", ends[1])).unwrap())
            .inspect(|(client, served, _)| exchange(client, served).unwrap())
            .collect();
        if !is_kernel {
            wait_for_known(&lab, 3);
        }
        // As in the kernel: what listens there from now on takes the packets of the connection, and knows nothing of it.
        lab.proxy(&["listen", "0.0.0.0:8080"]);
        let until = Instant::now() + PATIENCE;
        while (&streams[0].0).write_all(&[1]).is_ok() {
            assert!(Instant::now() < until, "kernel: {is_kernel}: the connection goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (client, served, _) in &streams[1..] {
            exchange(client, served).unwrap();
        }
    }
}

fn wait_for_known(lab: &Lab, count: u64) {
    let until = Instant::now() + PATIENCE;
    while stat(lab, "offloaded_flows") < count {
        assert!(Instant::now() < until, "{} of {count} are known", stat(lab, "offloaded_flows"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stat(lab: &Lab, name: &str) -> u64 {
    let asked = ["control", "--socket", &lab.socket, "stats", "--json"];
    let ran = Command::new(env!("CARGO_BIN_EXE_keepstate")).args(asked).output().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    stats[name].as_u64().unwrap()
}
