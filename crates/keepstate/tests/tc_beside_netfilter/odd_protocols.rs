//! Protocols without ports, and those whose ports are seldom translated.
use crate::twin::{Case, run};

const NAT: &str = "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 dnat ip to 10.0.2.2
		ip6 daddr 2001:db8:1::1 dnat ip6 to fd00:2::2
		sctp dport 2000 dnat ip to 10.0.2.2:3000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname { r0, r2 } ct state new accept
	}
}
";

#[test]
fn protocols_without_ports_are_masqueraded() {
    run(&Case {
        name: "pm",
        rules: NAT,
        prepare: &["r ip route add 203.0.113.0/24 via 10.0.2.2"],
        steps: &[
            // GRE: version 0, with a key, version 1 (PPTP's).
            ("raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 47 2000080000000001", "10.0.2.1, answer from 10.0.2.2"),
            ("raw c 10.0.1.2 203.0.113.1 s 10.0.2.2 47 0000080045000000", "not heard"),
            ("raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 47 0000080045000000", "not heard"),
            ("raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 50 00000001000000010000", "10.0.2.1, answer from 10.0.2.2"),
            ("raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 50 00000001000000010000", "not heard"),
            ("raw c 10.0.1.2 203.0.113.1 s 10.0.2.2 4 45", "10.0.2.1, answer from 203.0.113.1"),
            ("raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 253 0102030405060708", "10.0.2.1, answer from 10.0.2.2"),
            ("raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 253 0102030405060708", "not heard"),
            ("raw s 10.0.2.2 10.0.1.2 c 10.0.1.2 254 0102030405060708", "not heard"),
            ("raw c fd00:1::2 fd00:2::2 s fd00:2::2 253 0102030405060708", "fd00:2::1, answer from fd00:2::2"),
        ],
    });
}

/// SCTP's first chunk (RFC 9260), made by hand with its checksum: what arrives has other ports, and the checksum of that.
#[test]
fn ports_of_sctp_are_translated() {
    run(&Case {
        name: "pp",
        rules: NAT,
        prepare: &["r ip route add 203.0.113.0/24 via 10.0.2.2"],
        steps: &[
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 132 100107d00000000012a2eeea0100001401020304000100000001000100000001",
                "10.0.2.1 10010bb800000000525fb3080100001401020304000100000001000100000001, no answer",
            ),
            (
                "raw c 10.0.1.2 203.0.113.1 s 10.0.2.2 132 10020bb800000000c5fe5a810100001401020304000100000001000100000001",
                "10.0.2.1, no answer",
            ),
            (
                "raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 132 100307d0000000000863a01b0100001401020304000100000001000100000001",
                "10.0.2.1 10030bb800000000489efdf90100001401020304000100000001000100000001, no answer",
            ),
            // DCCP, which Linux no longer tracks.
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 33 100107d00500000000000000000000000000000000000000",
                "10.0.2.1, answer from 10.0.2.2",
            ),
            ("raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 33 100107d00500000000000000000000000000000000000000", "not heard"),
        ],
    });
}

/// UDP-Lite, and chunks of SCTP in an order that no association has.
#[test]
fn ports_of_udplite_and_sctp() {
    run(&Case {
        name: "ul",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 dnat ip to 10.0.2.2
		udplite dport 2000 dnat ip to 10.0.2.2:3000
		sctp dport 2000 dnat ip to 10.0.2.2:3000
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.0.1.2 meta l4proto udplite masquerade to :6000
		ip saddr 10.0.3.2 meta l4proto udplite masquerade to :6001
		oifname r1 masquerade
	}
}
",
        prepare: &["r ip route add 203.0.113.0/24 via 10.0.2.2"],
        steps: &[
            ("sysctl nf_conntrack_checksum 0", ""),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 136 0fa107d0000800000102030405060708",
                "10.0.1.2, answer from 10.0.2.2",
            ),
            (
                "raw c 10.0.1.2 203.0.113.1 s 10.0.2.2 136 0fa20bb8000812340102030405060708",
                "10.0.2.1 17700bb8000839670102030405060708, no answer",
            ),
            (
                "raw d 10.0.3.2 10.0.2.2 s 10.0.2.2 136 0fa20bb8001012340102030405060708",
                "10.0.2.1 17710bb800100b660102030405060708, no answer",
            ),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 132 100107d00000000012a2eeea0300000400000000",
                "10.0.1.2, answer from 10.0.2.2",
            ),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 132 100107d00000000012a2eeea0100001401020304000100000001000100000001",
                "10.0.2.1 10010bb800000000525fb3080100001401020304000100000001000100000001, no answer",
            ),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 132 100107d00102030412a2eeea0400000800010004",
                "10.0.2.1 10010bb8010203045b4ed32d0400000800010004, no answer",
            ),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 132 100107d0010203040000000006000004",
                "10.0.2.1 10010bb8010203044b7fb76506000004, no answer",
            ),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 33 100107d00500000000000000000000000000000000000000",
                "10.0.2.1, answer from 10.0.2.2",
            ),
            ("stats insert_failed drop invalid", "insert_failed 0, drop 0, invalid 4"),
        ],
    });
}
