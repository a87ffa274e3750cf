//! Tunnels: what is in them, and what they are in.
use crate::peers::run_ip;
use crate::report_skipped;
use crate::twin::{Case, run};

/// A tunnel that the machine itself ends, governed as any interface, one between two hosts that is translated, and packets without ports in packets.
#[test]
fn packets_in_packets() {
    let probe = format!("kstv{}", std::process::id());
    if !run_ip(&["link", "add", &probe, "type", "vxlan", "id", "1", "dstport", "4787"]) {
        report_skipped("tunnels beside netfilter: they need root and a kernel with vxlan");
        return;
    }
    assert!(run_ip(&["link", "del", &probe]));
    run(&Case {
        name: "tu",
        rules: "
table inet n {
	counter invalid {}
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r0 udp dport 4790 dnat ip to 10.0.2.2
		iifname r1 udp dport 4790 dnat ip to 10.0.1.2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname rx0 masquerade
		oifname r1 udp dport 4788 masquerade to :5000-5010
		oifname { r0, r1 } ct status dnat masquerade
	}
	chain out {
		type filter hook output priority filter;
		ct state invalid counter name invalid drop
	}
	chain in {
		type filter hook input priority filter; policy drop;
		ct state invalid counter name invalid drop
		ct state established,related accept
		udp dport 4788 accept
		icmp type echo-request accept
		icmpv6 type { 133-137 } accept
	}
	chain forward {
		type filter hook forward priority filter;
		ct state invalid counter name invalid drop
	}
}
",
        prepare: &[
            "r ip link add rx0 type vxlan id 7 local 10.0.2.1 remote 10.0.2.2 dstport 4788 udpcsum; ip link set rx0 mtu 1400; ip addr add 10.0.8.1/24 dev rx0; ip link set rx0 up",
            "s ip link add sx0 type vxlan id 7 local 10.0.2.2 remote 10.0.2.1 dstport 4788 udpcsum; ip link set sx0 mtu 1400; ip addr add 10.0.8.2/24 dev sx0; ip link set sx0 up; ip link add sx1 type vxlan id 8 local 10.0.2.2 remote 10.0.2.1 dstport 4790 udpcsum; ip addr add 10.0.7.2/24 dev sx1; ip link set sx1 up",
            "c ip link add cx0 type vxlan id 8 local 10.0.1.2 remote 10.0.1.1 dstport 4790 udpcsum; ip addr add 10.0.7.1/24 dev cx0; ip link set cx0 up",
        ],
        steps: &[
            ("ping c 10.0.8.2", "64 bytes from 10.0.8.2: icmp_seq=1 ttl=63"),
            ("tcp c 10.0.1.2:4001 10.0.8.2:7000 s 10.0.8.2:7000", "10.0.8.1 same port"),
            ("bulk c 10.0.1.2:4002 10.0.8.2:7001 s 10.0.8.2:7001 300000", "both ways"),
            (
                "error c 10.0.1.2:4003 10.0.8.2:9 size=1380 open",
                "Uncategorized from 10.0.1.1 to 10.0.1.2 3/4 1400 about 10.0.1.2:4003 > 10.0.8.2:9 hops 64 length 1388 quoted 548",
            ),
            ("ping r 10.0.8.2", "64 bytes from 10.0.8.2: icmp_seq=1 ttl=64"),
            ("tcp r 10.0.8.1:4004 10.0.8.2:7000 s 10.0.8.2:7000", "10.0.8.1 same port"),
            ("bulk r 10.0.8.1:4005 10.0.8.2:7001 s 10.0.8.2:7001 300000", "both ways"),
            ("counters inet n", ""),
            ("ping c 10.0.7.2", "64 bytes from 10.0.7.2: icmp_seq=1 ttl=64"),
            ("bulk c 10.0.7.1:4006 10.0.7.2:7002 s 10.0.7.2:7002 300000", "both ways"),
            (
                "raw c 10.0.1.2 10.0.2.2 s 10.0.2.2 4 4500001c000000004011000001010101020202020fa01b5800080000",
                "10.0.1.2, answer from 10.0.2.2",
            ),
            (
                "quote s 10.0.2.2 10.0.1.2 c 10.0.1.2 3/4 1300 4 10.0.1.2:0 10.0.2.2:0",
                "from 10.0.2.2 to 10.0.1.2 3/4 1300 about 10.0.1.2:2048 > 10.0.2.2:4660 hops 63 length 0 sum 0001 quoted 48",
            ),
            ("quote s 10.0.2.2 10.0.1.2 c 10.0.1.2 3/4 1300 47 10.0.1.2:0 10.0.2.2:0", "nothing"),
            ("counters inet n", "invalid 1/76"),
            ("conntrack -F", ""),
        ],
    });
}
