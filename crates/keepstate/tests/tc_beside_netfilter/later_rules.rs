//! Connections that began before a rule was there: retransmitted first segments and datagrams keep their way until their entry is gone.
use crate::twin::{Case, run};

/// Nobody answers the segments. The null binding of an entry is as lasting as a translation.
#[test]
fn what_began_before_a_rule_keeps_its_way() {
    run(&Case {
        name: "lr",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		tcp dport 9999 redirect
	}
	chain out {
		type nat hook output priority -100;
		tcp dport 9999 redirect
	}
	chain post {
		type nat hook postrouting priority srcnat;
		tcp dport 9999 masquerade
	}
}
",
        prepare: &[
            "s nft add table inet q; nft add chain inet q i '{ type filter hook input priority 0; }'; nft add rule inet q i tcp dport 7000-7100 drop",
        ],
        steps: &[
            ("syn c 10.0.1.2:4001 10.0.2.2:7000", ""),
            ("syn c 10.0.1.2:4002 10.0.2.2:7001", ""),
            ("syn c [fd00:1::2]:4003 [fd00:2::2]:7002", ""),
            ("syn r 10.0.2.1:4004 10.0.2.2:7003", ""),
            ("syn r 10.0.2.1:4005 10.0.2.2:7004", ""),
            ("who c 10.0.1.2:5001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.1.2:5001"),
            ("who c 10.0.1.2:5002 10.0.2.2:7001 s 10.0.2.2:7001", "s from 10.0.1.2:5002"),
            ("who r 10.0.2.1:5003 10.0.2.2:7003 s 10.0.2.2:7003", "s from 10.0.2.1:5003"),
            ("who c 10.0.1.2:5005 10.0.2.2:7101 s 10.0.2.2:7101", "s from 10.0.1.2:5005"),
            ("who s 10.0.2.2:7101 10.0.1.2:5005 c 10.0.1.2:5005", "c from 10.0.2.2:7101"),
            (
                "table -p tcp",
                "tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7000 dport=4001 mark=0; tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4002 dport=7001 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7001 dport=4002 mark=0; tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4004 dport=7003 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7003 dport=4004 mark=0; tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4005 dport=7004 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7004 dport=4005 mark=0; tcp SYN_SENT src=fd00:1::2 dst=fd00:2::2 sport=4003 dport=7002 [UNREPLIED] src=fd00:2::2 dst=fd00:1::2 sport=7002 dport=4003 mark=0",
            ),
            ("nft add rule inet n pre tcp dport 7000-7002 dnat ip to 10.0.3.2", ""),
            ("nft add rule inet n pre ip6 daddr fd00:2::2 tcp dport 7002 dnat ip6 to fd00:3::2", ""),
            ("nft add rule inet n pre udp dport 7000-7101 dnat ip to 10.0.3.2", ""),
            ("nft add rule inet n out tcp dport 7003-7004 dnat ip to 10.0.3.2", ""),
            ("nft add rule inet n out udp dport 7003-7004 dnat ip to 10.0.3.2", ""),
            ("nft add rule inet n post meta l4proto { tcp, udp } masquerade", ""),
            ("who c 10.0.1.2:5001 10.0.2.2:7000 s 10.0.2.2:7000 d 10.0.3.2:7000", "s from 10.0.1.2:5001"),
            ("who c 10.0.1.2:5005 10.0.2.2:7101 s 10.0.2.2:7101 d 10.0.3.2:7101", "s from 10.0.1.2:5005"),
            ("who r 10.0.2.1:5003 10.0.2.2:7003 s 10.0.2.2:7003 d 10.0.3.2:7003", "s from 10.0.2.1:5003"),
            ("begun", "waits, waits, waits, waits, waits"),
            (
                "table -p tcp",
                "tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7000 dport=4001 mark=0; tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4002 dport=7001 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7001 dport=4002 mark=0; tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4004 dport=7003 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7003 dport=4004 mark=0; tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4005 dport=7004 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7004 dport=4005 mark=0; tcp SYN_SENT src=fd00:1::2 dst=fd00:2::2 sport=4003 dport=7002 [UNREPLIED] src=fd00:2::2 dst=fd00:1::2 sport=7002 dport=4003 mark=0",
            ),
            (
                "deleted -p tcp --orig-port-dst 7001",
                "tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4002 dport=7001 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7001 dport=4002 mark=0",
            ),
            (
                "deleted -p tcp --orig-port-dst 7004",
                "tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4005 dport=7004 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7004 dport=4005 mark=0",
            ),
            (
                "deleted -p udp --orig-port-dst 7001",
                "udp src=10.0.1.2 dst=10.0.2.2 sport=5002 dport=7001 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7001 dport=5002 mark=0",
            ),
            (
                "deleted -p udp --orig-port-dst 7003",
                "udp src=10.0.2.1 dst=10.0.2.2 sport=5003 dport=7003 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7003 dport=5003 mark=0",
            ),
            ("who c 10.0.1.2:5002 10.0.2.2:7001 s 10.0.2.2:7001 d 10.0.3.2:7001", "d from 10.0.3.1:5002"),
            ("who r 10.0.2.1:5003 10.0.2.2:7003 s 10.0.2.2:7003 d 10.0.3.2:7003", "d from 10.0.3.1:5003"),
            ("who c 10.0.1.2:5006 10.0.2.2:7000 s 10.0.2.2:7000 d 10.0.3.2:7000", "d from 10.0.3.1:5006"),
            ("begun", "waits, ConnectionRefused, waits, waits, ConnectionRefused"),
            (
                "table -p tcp",
                "tcp SYN_SENT src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 [UNREPLIED] src=10.0.2.2 dst=10.0.1.2 sport=7000 dport=4001 mark=0; tcp SYN_SENT src=10.0.2.1 dst=10.0.2.2 sport=4004 dport=7003 [UNREPLIED] src=10.0.2.2 dst=10.0.2.1 sport=7003 dport=4004 mark=0; tcp SYN_SENT src=fd00:1::2 dst=fd00:2::2 sport=4003 dport=7002 [UNREPLIED] src=fd00:2::2 dst=fd00:1::2 sport=7002 dport=4003 mark=0",
            ),
        ],
    });
}
