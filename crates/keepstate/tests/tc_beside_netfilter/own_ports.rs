//! Outside ports that sockets of the machine, services of it and clients want at once.
use crate::twin::{Case, run};

/// A bound socket, the machine's own sockets and clients share few outside ports; refused and closed connections give theirs back.
#[test]
fn ports_that_several_want() {
    run(&Case {
        name: "pw",
        rules: "
table inet n {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 tcp dport 7001 masquerade to :6000-6001
		oifname r1 udp dport 7001 masquerade to :6000-6001
		oifname r1 udp dport 7002 snat ip to 10.0.2.1:6100-6101
		oifname r1 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("stats insert_failed drop clash_resolve", "insert_failed 0, drop 0, clash_resolve 0"),
            ("tcp s 10.0.2.2:7001 10.0.2.1:6000 r 10.0.2.1:6000", "10.0.2.2 same port"),
            ("tcp r 10.0.2.1:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 other port"),
            ("udp s 10.0.2.2:7001 10.0.2.1:6000 r 10.0.2.1:6000", "10.0.2.2 same port"),
            ("udp r 10.0.2.1:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 other port"),
            ("send r 10.0.2.1:4002 10.0.2.2:7001", ""),
            ("send c 10.0.1.2:4002 10.0.2.2:7001", ""),
            ("udp r 10.0.2.1:4003 10.0.2.2:7002 s 10.0.2.2:7002", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:4003 10.0.2.2:7002 s 10.0.2.2:7002", "10.0.2.1 other port"),
            ("send d 10.0.3.2:4003 10.0.2.2:7002", ""),
            ("stats insert_failed drop clash_resolve", "insert_failed 3, drop 3, clash_resolve 0"),
            ("tcp r 10.0.2.1:4004 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            ("tcp r 10.0.2.1:4004 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4005 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            ("tcp c 10.0.1.2:4005 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            ("tcp d 10.0.3.2:4005 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            ("tcp r 10.0.2.1:4005 10.0.2.2:7998 s 10.0.2.2:7997", "ConnectionRefused"),
            // A port that was refused is free again.
            ("tcp r 10.0.2.1:4004 10.0.2.2:7999 s 10.0.2.2:7999", "10.0.2.1 same port"),
            ("close", ""),
        ],
    });
}
