//! Connections that would take each other's tuple.
use crate::twin::{Case, run};

const SNAT: &str = "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.2.2 tcp dport { 81, 82 } dnat ip to 10.0.2.2:80
		ip daddr 10.0.2.2 udp dport { 81, 82 } dnat ip to 10.0.2.2:80
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

#[test]
fn same_source_port_of_many_clients() {
    run(&Case {
        name: "cs",
        rules: SNAT,
        prepare: &["c ip addr add 10.0.1.3/24 dev c0"],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.3:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp d 10.0.3.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp c 10.0.1.3:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp d 10.0.3.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            // The router's own come first, and keep their ports.
            ("tcp r 10.0.2.1:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("udp r 10.0.2.1:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("udp c 10.0.1.2:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            // Sockets with one address and port, before any of their packets is confirmed.
            ("burst c 10.0.1.2:4010 10.0.2.2:7010 s 10.0.2.2:7010", "4 of 4 from 1"),
            ("burst r 10.0.2.1:4011 10.0.2.2:7010 s 10.0.2.2:7010", "4 of 4 from 1"),
            ("burst c 10.0.1.2:4012 10.0.2.2:81 s 10.0.2.2:80", "4 of 4 from 1"),
            ("burst c 10.0.1.2:4013 10.0.1.1:7010 r 10.0.1.1:7010", "4 of 4 from 1"),
            // Several ports led to one.
            ("tcp c 10.0.1.2:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4003 10.0.2.2:82 s 10.0.2.2:80", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:82 s 10.0.2.2:80", "10.0.2.1 other port"),
            // Closed, and opened again with the same ports.
            ("close", ""),
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.3:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.2.1 other port"),
            ("tcp r 10.0.2.1:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
        ],
    });
}

/// Without masquerading: only destinations clash.
#[test]
fn destinations_that_clash() {
    run(&Case {
        name: "cd",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.2.2 tcp dport 81 dnat ip to 10.0.2.2:80
		ip daddr 10.0.2.2 udp dport 81 dnat ip to 10.0.2.2:80
		ip daddr 10.0.1.1 tcp dport 81 redirect to :80
		ip daddr 10.0.1.1 udp dport 81 redirect to :80
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 10.0.2.2 udp dport 81 dnat ip to 10.0.2.2:80
		ip daddr 10.0.2.2 tcp dport 81 dnat ip to 10.0.2.2:80
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp c 10.0.1.2:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.1.2 other port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.1.2 other port"),
            ("tcp c 10.0.1.2:4003 10.0.1.1:80 r 10.0.1.1:80", "10.0.1.2 same port"),
            ("tcp c 10.0.1.2:4003 10.0.1.1:81 r 10.0.1.1:80", "10.0.1.2 other port"),
            ("udp c 10.0.1.2:4003 10.0.1.1:81 r 10.0.1.1:80", "10.0.1.2 same port"),
            ("udp c 10.0.1.2:4003 10.0.1.1:80 r 10.0.1.1:80", "10.0.1.2 other port"),
            ("tcp r 10.0.2.1:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4003 10.0.2.2:81 s 10.0.2.2:80", "10.0.2.1 same port"),
            ("udp r 10.0.2.1:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.2.1 other port"),
        ],
    });
}
