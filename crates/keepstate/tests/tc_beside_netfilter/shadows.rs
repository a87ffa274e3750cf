//! Ports that two want: a client behind the router takes the port of a service, and what a ruleset can do about it.
use crate::twin::{Case, run};

/// A service of the router's own, and a client that sends from its port: whom the client's peer reaches by that port.
fn shadow(name: &'static str, more: &'static str, steps: &'static [(&'static str, &'static str)]) {
    let rules = format!(
        "
table inet n {{
	chain post {{
		type nat hook postrouting priority srcnat;
{more}
		oifname r1 masquerade
	}}
}}
"
    );
    let rules: &'static str = Box::leak(rules.into_boxed_str());
    run(&Case { name, rules, prepare: &[], steps });
}

#[test]
fn a_client_takes_the_port_of_a_service() {
    shadow(
        "sd",
        "",
        &[
            // The service has spoken with nobody.
            ("who s 10.0.2.2:5000 10.0.2.1:1405 r 10.0.2.1:1405", "r from 10.0.2.2:5000"),
            ("udp c 10.0.1.2:1405 10.0.2.2:4040 s 10.0.2.2:4040", "10.0.2.1 same port"),
            ("who s 10.0.2.2:4040 10.0.2.1:1405 c 10.0.1.2:1405 r 10.0.2.1:1405", "c from 10.0.2.2:4040"),
            ("who s 10.0.2.2:5001 10.0.2.1:1405 c 10.0.1.2:1405 r 10.0.2.1:1405", "r from 10.0.2.2:5001"),
            // Spoken with before the client came.
            ("who s 10.0.2.2:4041 10.0.2.1:1405 r 10.0.2.1:1405", "r from 10.0.2.2:4041"),
            ("udp c 10.0.1.2:1405 10.0.2.2:4041 s 10.0.2.2:4041", "10.0.2.1 other port"),
            ("who s 10.0.2.2:4041 10.0.2.1:1405 c 10.0.1.2:1405 r 10.0.2.1:1405", "r from 10.0.2.2:4041"),
            ("udp c [fd00:1::2]:1405 [fd00:2::2]:4040 s [fd00:2::2]:4040", "fd00:2::1 same port"),
            (
                "who s [fd00:2::2]:4040 [fd00:2::1]:1405 c [fd00:1::2]:1405 r [fd00:2::1]:1405",
                "c from [fd00:2::2]:4040",
            ),
            ("tcp s 10.0.2.2:4050 10.0.2.1:1500 r 10.0.2.1:1500", "10.0.2.2 same port"),
            ("tcp c 10.0.1.2:1500 10.0.2.2:4050 s 10.0.2.2:4050", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:1500 10.0.2.2:4051 s 10.0.2.2:4051", "10.0.2.1 other port"),
        ],
    );
}

#[test]
fn clients_get_ports_that_no_service_has() {
    shadow(
        "sp",
        "		oifname r1 meta l4proto { tcp, udp } th sport 1-1999 masquerade to :61000-62000",
        &[
            ("udp c 10.0.1.2:1405 10.0.2.2:4040 s 10.0.2.2:4040", "10.0.2.1 other port"),
            ("who s 10.0.2.2:4040 10.0.2.1:1405 c 10.0.1.2:1405 r 10.0.2.1:1405", "r from 10.0.2.2:4040"),
            ("udp c [fd00:1::2]:1405 [fd00:2::2]:4040 s [fd00:2::2]:4040", "fd00:2::1 other port"),
            (
                "who s [fd00:2::2]:4040 [fd00:2::1]:1405 c [fd00:1::2]:1405 r [fd00:2::1]:1405",
                "r from [fd00:2::2]:4040",
            ),
            ("tcp c 10.0.1.2:1500 10.0.2.2:4051 s 10.0.2.2:4051", "10.0.2.1 other port"),
        ],
    );
}

#[test]
fn a_service_that_is_not_tracked_is_not_taken_from() {
    run(&Case {
        name: "sn",
        rules: "
table inet n {
	chain raw {
		type filter hook prerouting priority raw;
		iifname r1 udp dport 1405 notrack
		iifname r1 tcp dport 1500 notrack
	}
	chain rawout {
		type filter hook output priority raw;
		oifname r1 udp sport 1405 notrack
		oifname r1 tcp sport 1500 notrack
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp s 10.0.2.2:4051 10.0.2.1:1500 r 10.0.2.1:1500", "10.0.2.2 same port"),
            ("tcp s [fd00:2::2]:4051 [fd00:2::1]:1500 r [fd00:2::1]:1500", "fd00:2::2 same port"),
            ("udp s 10.0.2.2:4045 10.0.2.1:1405 r 10.0.2.1:1405", "10.0.2.2 same port"),
            ("who c 10.0.1.2:1405 10.0.2.2:4040 s 10.0.2.2:4040", "s from 10.0.2.1:1405"),
            ("who s 10.0.2.2:4040 10.0.2.1:1405 c 10.0.1.2:1405 r 10.0.2.1:1405", "r from 10.0.2.2:4040"),
            ("who c [fd00:1::2]:1405 [fd00:2::2]:4040 s [fd00:2::2]:4040", "s from [fd00:2::1]:1405"),
            (
                "who s [fd00:2::2]:4040 [fd00:2::1]:1405 c [fd00:1::2]:1405 r [fd00:2::1]:1405",
                "r from [fd00:2::2]:4040",
            ),
        ],
    });
}

/// A published port and a client's own flow want one outside end.
#[test]
fn a_client_takes_a_published_port() {
    run(&Case {
        name: "sq",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 udp dport 1405 dnat ip to 10.0.3.2:1405
		iifname r1 tcp dport 1500 dnat ip to 10.0.3.2:1500
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("udp s 10.0.2.2:4040 10.0.2.1:1405 d 10.0.3.2:1405", "10.0.2.2 same port"),
            // That peer and port are taken; another port is not.
            ("udp c 10.0.1.2:1405 10.0.2.2:4040 s 10.0.2.2:4040", "10.0.2.1 other port"),
            ("udp c 10.0.1.2:1405 10.0.2.2:4041 s 10.0.2.2:4041", "10.0.2.1 other port"),
            ("who s 10.0.2.2:4041 10.0.2.1:1405 c 10.0.1.2:1405 d 10.0.3.2:1405", "d from 10.0.2.2:4041"),
            ("who s 10.0.2.2:4042 10.0.2.1:1405 c 10.0.1.2:1405 d 10.0.3.2:1405", "d from 10.0.2.2:4042"),
            ("tcp s 10.0.2.2:4050 10.0.2.1:1500 d 10.0.3.2:1500", "10.0.2.2 same port"),
            ("tcp c 10.0.1.2:1500 10.0.2.2:4050 s 10.0.2.2:4050", "10.0.2.1 other port"),
            ("tcp c 10.0.1.2:1500 10.0.2.2:4051 s 10.0.2.2:4051", "10.0.2.1 other port"),
        ],
    });
}
