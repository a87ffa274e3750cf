//! The Ethernet header of the frame that a packet came in, at every hook that the packet passes; what the machine itself sends has none.
use crate::twin::{Case, run};

#[test]
fn frames_are_matched_at_each_hook() {
    run(&Case {
        name: "fh",
        rules: "
table inet n {
	set macs { type ether_addr; elements = { 02:00:00:00:00:0c } }
	set pairs { typeof ether saddr . ip saddr; elements = { 02:00:00:00:00:0c . 10.0.1.2 } }
	map ways { type ether_addr : verdict; elements = { 02:00:00:00:00:0c : jump no } }
	chain no { reject with icmpx admin-prohibited; }
	chain pre {
		type nat hook prerouting priority dstnat;
		ether saddr 02:00:00:00:00:0c udp dport 70 dnat ip to 10.0.2.2:1070
		ether saddr 02:00:00:00:00:0d udp dport 71 dnat ip to 10.0.2.2:1070
	}
	chain forward {
		type filter hook forward priority filter;
		udp dport 80 ether saddr 02:00:00:00:00:0c reject with icmpx admin-prohibited
		udp dport 81 ether saddr 02:00:00:00:00:0d reject with icmpx admin-prohibited
		udp dport 82 ether saddr != 02:00:00:00:00:0d reject with icmpx admin-prohibited
		udp dport 83 ether daddr 02:00:00:00:00:a0 reject with icmpx admin-prohibited
		udp dport 84 ether saddr . ip saddr @pairs reject with icmpx admin-prohibited
		udp dport 85 ether saddr vmap @ways
		udp dport 86 @ll,48,48 0x02000000000c reject with icmpx admin-prohibited
		udp dport 87 vlan id 5 reject with icmpx admin-prohibited
		udp dport 88 ether type ip reject with icmpx admin-prohibited
		udp dport 89 ether type ip6 reject with icmpx admin-prohibited
		udp dport 90 meta iiftype ether meta iifkind \"veth\" reject with icmpx admin-prohibited
		udp dport 91 ether saddr @macs meta mark set 5
		udp dport 92 meta pkttype host reject with icmpx admin-prohibited
	}
	chain in {
		type filter hook input priority filter;
		udp dport 75 ether saddr @macs reject with icmpx host-unreachable
		udp dport 76 ether saddr != @macs reject with icmpx host-unreachable
	}
	chain out {
		type filter hook output priority filter;
		udp dport 77 ether type ip reject with icmpx admin-prohibited
		udp dport 77 ether saddr != 02:00:00:00:00:0d reject with icmpx admin-prohibited
	}
	chain post {
		type nat hook postrouting priority srcnat;
		udp dport { 1070, 70, 71 } ether saddr 02:00:00:00:00:0c masquerade
		udp dport 91 meta mark 5 masquerade
	}
}
",
        prepare: &[
            "c ip link set c0 address 02:00:00:00:00:0c; ip route replace default via 10.0.1.1; ip -6 route replace default via fd00:1::1",
            "r ip link set r0 address 02:00:00:00:00:a0",
        ],
        steps: STEPS,
    });
}

const STEPS: &[(&str, &str)] = &[
    ("udp c 10.0.1.2:4001 10.0.2.2:70 s 10.0.2.2:1070", "10.0.2.1 same port"),
    ("udp d 10.0.3.2:4001 10.0.2.2:70 s 10.0.2.2:70", "10.0.3.2 same port"),
    ("udp c 10.0.1.2:4002 10.0.2.2:71 s 10.0.2.2:71", "10.0.2.1 same port"),
    (
        "error c 10.0.1.2:4003 10.0.2.2:80 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4003 > 10.0.2.2:80 hops 63 length 48 quoted 68",
    ),
    ("udp d 10.0.3.2:4003 10.0.2.2:80 s 10.0.2.2:80", "10.0.3.2 same port"),
    ("udp c 10.0.1.2:4004 10.0.2.2:81 s 10.0.2.2:81", "10.0.1.2 same port"),
    (
        "error c 10.0.1.2:4005 10.0.2.2:82 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4005 > 10.0.2.2:82 hops 63 length 48 quoted 68",
    ),
    (
        "error c [fd00:1::2]:4005 [fd00:2::2]:82 open",
        "PermissionDenied 1/1 0 about fd00:1::2:4005 > fd00:2::2:82 hops 63 length 48 quoted 88",
    ),
    (
        "error c 10.0.1.2:4006 10.0.2.2:83 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4006 > 10.0.2.2:83 hops 63 length 48 quoted 68",
    ),
    ("udp d 10.0.3.2:4006 10.0.2.2:83 s 10.0.2.2:83", "10.0.3.2 same port"),
    (
        "error c 10.0.1.2:4007 10.0.2.2:84 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4007 > 10.0.2.2:84 hops 63 length 48 quoted 68",
    ),
    ("udp d 10.0.3.2:4007 10.0.2.2:84 s 10.0.2.2:84", "10.0.3.2 same port"),
    (
        "error c 10.0.1.2:4008 10.0.2.2:85 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4008 > 10.0.2.2:85 hops 63 length 48 quoted 68",
    ),
    ("udp d 10.0.3.2:4008 10.0.2.2:85 s 10.0.2.2:85", "10.0.3.2 same port"),
    (
        "error c 10.0.1.2:4009 10.0.2.2:86 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4009 > 10.0.2.2:86 hops 63 length 48 quoted 68",
    ),
    ("udp c 10.0.1.2:4010 10.0.2.2:87 s 10.0.2.2:87", "10.0.1.2 same port"),
    (
        "error c 10.0.1.2:4011 10.0.2.2:88 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4011 > 10.0.2.2:88 hops 63 length 48 quoted 68",
    ),
    ("udp c [fd00:1::2]:4011 [fd00:2::2]:88 s [fd00:2::2]:88", "fd00:1::2 same port"),
    (
        "error c [fd00:1::2]:4012 [fd00:2::2]:89 open",
        "PermissionDenied 1/1 0 about fd00:1::2:4012 > fd00:2::2:89 hops 63 length 48 quoted 88",
    ),
    (
        "error c 10.0.1.2:4013 10.0.2.2:90 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4013 > 10.0.2.2:90 hops 63 length 48 quoted 68",
    ),
    ("udp c 10.0.1.2:4014 10.0.2.2:91 s 10.0.2.2:91", "10.0.2.1 same port"),
    ("udp d 10.0.3.2:4014 10.0.2.2:91 s 10.0.2.2:91", "10.0.3.2 same port"),
    (
        "error c 10.0.1.2:4015 10.0.2.2:92 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/13 0 about 10.0.1.2:4015 > 10.0.2.2:92 hops 63 length 48 quoted 68",
    ),
    (
        "error c 10.0.1.2:4016 10.0.1.1:75 open",
        "HostUnreachable from 10.0.1.1 to 10.0.1.2 3/1 0 about 10.0.1.2:4016 > 10.0.1.1:75 hops 64 length 48 quoted 68",
    ),
    ("udp d 10.0.3.2:4016 10.0.3.1:75 r 10.0.3.1:75", "10.0.3.2 same port"),
    (
        "error d 10.0.3.2:4017 10.0.3.1:76 open",
        "HostUnreachable from 10.0.3.1 to 10.0.3.2 3/1 0 about 10.0.3.2:4017 > 10.0.3.1:76 hops 64 length 48 quoted 68",
    ),
    ("udp c 10.0.1.2:4017 10.0.1.1:76 r 10.0.1.1:76", "10.0.1.2 same port"),
    ("udp r 10.0.2.1:4018 10.0.2.2:77 s 10.0.2.2:77", "10.0.2.1 same port"),
    ("udp r 10.0.2.1:4019 10.0.2.2:79 s 10.0.2.2:79", "10.0.2.1 same port"),
];
