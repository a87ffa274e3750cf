//! Packets that rules lead back to the machine, or let go no further: which of them leave an entry.
use crate::twin::{Case, run};

/// What has left is in the table, also if the machine's own prerouting or input chain then drops it; what has not left, or comes from outside and is not let in, is not.
#[test]
fn entries_of_what_is_dropped() {
    run(&Case {
        name: "lk",
        rules: "
table inet n {
	counter in_drop {}
	counter fw_drop {}
	counter post_drop {}
	counter in_state {}
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r0 meta l4proto { tcp, udp } th dport 81 redirect to :8081
		iifname r0 ip daddr 10.0.1.1 udp dport 82 dnat ip to 10.0.2.2:8082
		iifname r0 ip daddr 10.0.1.1 udp dport 83 dnat ip to 10.0.2.2:8083
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 198.51.100.1 meta l4proto { tcp, udp } th dport 81 redirect to :8081
		ip daddr 198.51.100.1 udp dport 84 redirect to :8084
		ip daddr 198.51.100.1 udp dport 85 redirect to :8085
		ip daddr 198.51.100.1 udp dport 86 redirect to :8086
		ip daddr 198.51.100.2 udp dport 87 dnat ip to 10.0.2.2:8087
		ip daddr 198.51.100.9 icmp type echo-request dnat ip to 10.0.1.1
		ip daddr 10.0.1.1 udp dport 88 dnat ip to 10.0.2.1:8081
		ip6 daddr 2001:db8::1 udp dport 81 redirect to :8081
		ip6 daddr 2001:db8::1 udp dport 84 redirect to :8084
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 udp dport 7090 masquerade
	}
	chain first {
		type filter hook prerouting priority mangle;
		iifname lo udp dport 8085 drop
	}
	chain in {
		type filter hook input priority filter;
		th dport { 8081, 7001 } ct state new ct status dnat counter name in_state
		th dport { 8081, 7001 } counter name in_drop drop
		udp dport { 8084, 7002 } reject
		tcp dport { 8084, 7002 } reject with tcp reset
		icmp type echo-request ip daddr 10.0.1.1 drop
	}
	chain fw {
		type filter hook forward priority filter;
		udp dport 8082 counter name fw_drop drop
		udp dport 7003 drop
		udp dport 7004 reject
		tcp dport 7004 reject with tcp reset
	}
	chain fo {
		type filter hook output priority filter;
		udp dport 7005 drop
		udp dport 7006 reject
	}
	chain mangle {
		type filter hook postrouting priority mangle;
		udp dport { 8083, 8087, 7007, 8086 } counter name post_drop drop
	}
	chain last {
		type filter hook postrouting priority 200;
		udp dport { 7008, 7090 } counter name post_drop drop
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2"],
        steps: &[
            ("stats insert_failed drop clash_resolve", "insert_failed 0, drop 0, clash_resolve 0"),
            ("watch", "watched"),
            ("send c 10.0.1.2:4001 10.0.1.1:81", ""),
            ("send c 10.0.1.2:4002 10.0.1.1:82", ""),
            ("send c 10.0.1.2:4003 10.0.1.1:83", ""),
            ("send c 10.0.1.2:4004 10.0.1.1:7001", ""),
            ("send c 10.0.1.2:4005 10.0.1.1:7002", ""),
            ("send c 10.0.1.2:4006 10.0.2.2:7003", ""),
            ("send c 10.0.1.2:4007 10.0.2.2:7004", ""),
            ("send c 10.0.1.2:4008 10.0.2.2:7007", ""),
            ("send c 10.0.1.2:4009 10.0.2.2:7008", ""),
            ("send c 10.0.1.2:4010 10.0.2.2:7090", ""),
            ("told", ""),
            ("send r 10.0.2.1:4020 10.0.2.2:7090", ""),
            ("send r 10.0.2.1:4021 198.51.100.1:81", ""),
            ("send r 10.0.2.1:4021 198.51.100.1:81", ""),
            ("send r 10.0.2.1:4022 198.51.100.1:84", ""),
            ("send r 10.0.2.1:4023 198.51.100.1:85", ""),
            ("send r 10.0.2.1:4024 198.51.100.1:86", ""),
            ("send r 10.0.2.1:4025 198.51.100.2:87", ""),
            ("send r 10.0.1.1:4026 10.0.1.1:88", ""),
            ("send r 10.0.2.1:4027 10.0.2.2:7005", ""),
            ("send r 10.0.2.1:4028 10.0.2.2:7006", ""),
            ("send r [fd00:2::1]:4029 [2001:db8::1]:81", ""),
            ("send r [fd00:2::1]:4030 [2001:db8::1]:84", ""),
            ("told", "NEW 81, NEW 84, NEW 85, NEW 88, NEW 81, NEW 84"),
            ("ping r 198.51.100.9 -e 77 -W 1", "nothing"),
            ("counters inet n", "fw_drop 1/32, in_drop 6/212, in_state 5/180, post_drop 7/224"),
            ("syn r 10.0.2.1:4043 198.51.100.1:81", ""),
            ("syn c 10.0.1.2:4044 10.0.1.1:81", ""),
            ("stats insert_failed drop clash_resolve", "insert_failed 0, drop 0, clash_resolve 0"),
        ],
    });
}
