//! What rules ask of the FIB and of the packet besides its headers, counted exactly, at each hook.
use crate::twin::{Case, run};

/// Of forwarded packets, of the machine's own, and of those to groups that nobody has joined.
#[test]
fn fib_and_meta_at_each_hook() {
    run(&Case {
        name: "mt",
        rules: "
table inet n {
	counter pre_local {}
	counter pre_iif_local {}
	counter pre_unicast {}
	counter pre_multicast {}
	counter pre_missing {}
	counter pre_exists {}
	counter pre_oifname {}
	counter pre_by_mark {}
	counter pre_no_oif {}
	counter pre_not_r1 {}
	counter pre_frame_host {}
	counter pre_frame_multicast {}
	counter pre_frame_broadcast {}
	counter in_local {}
	counter in_no_oif {}
	counter in_from_r0 {}
	counter in_frame_broadcast {}
	counter in_socket {}
	counter fw_missing {}
	counter fw_way {}
	counter fw_group {}
	counter fw_ether {}
	counter fw_60 {}
	counter fw_long {}
	counter fw_icmp {}
	counter fw_ip {}
	counter fw_socket {}
	counter fw_nexthop {}
	counter fw_bulk {}
	counter out_root {}
	counter out_nobody {}
	counter out_no_iif {}
	counter out_not_r1 {}
	counter out_marked {}
	counter out_local {}
	counter out_host {}
	counter post_own {}
	counter post_forwarded {}
	counter post_pair {}
	chain neighbours1 { type filter hook prerouting priority -1; icmpv6 type { 133-137 } accept; ip6 daddr ff02::/16 drop; }
	chain neighbours2 { type filter hook output priority -1; icmpv6 type { 133-137 } accept; ip6 daddr ff02::/16 drop; }
	chain pre {
		type filter hook prerouting priority filter;
		icmpv6 type { 133-137 } accept
		fib daddr type local counter name pre_local
		fib daddr . iif type local counter name pre_iif_local
		fib daddr type unicast counter name pre_unicast
		fib daddr type multicast counter name pre_multicast
		fib saddr . iif oif missing counter name pre_missing
		fib saddr . iif oif exists counter name pre_exists
		meta nfproto ipv4 fib daddr oifname \"r1\" counter name pre_oifname
		ip dscp 8 meta mark set 7
		fib saddr . mark . iif oif \"r0\" meta mark 7 counter name pre_by_mark
		oif 0 counter name pre_no_oif
		oifname != \"r1\" counter name pre_not_r1
		meta pkttype host counter name pre_frame_host
		meta pkttype multicast counter name pre_frame_multicast
		meta pkttype broadcast counter name pre_frame_broadcast
	}
	chain in {
		type filter hook input priority filter;
		icmpv6 type { 133-137 } accept
		ct state new fib daddr type local counter name in_local
		oif 0 counter name in_no_oif
		fib saddr . iif oif \"r0\" counter name in_from_r0
		meta pkttype broadcast counter name in_frame_broadcast
		meta skuid 0 counter name in_socket
	}
	chain fw {
		type filter hook forward priority filter;
		fib saddr . iif oif missing counter name fw_missing
		iif \"r0\" oif \"r1\" counter name fw_way
		meta iifgroup 5 counter name fw_group
		meta iiftype ether meta oiftype ether counter name fw_ether
		meta length 60 counter name fw_60
		meta length > 1000 counter name fw_long
		meta l4proto { icmp, ipv6-icmp } counter name fw_icmp
		meta protocol ip counter name fw_ip
		meta skuid 0 counter name fw_socket
		rt ip nexthop 10.0.2.2 counter name fw_nexthop
		rt ip6 nexthop fd00:2::2 counter name fw_nexthop
		meta priority 0:2 counter name fw_bulk
	}
	chain out {
		type filter hook output priority filter;
		icmpv6 type { 133-137 } accept
		meta l4proto udp meta skuid 0 counter name out_root
		icmp type echo-request meta skuid 65534 counter name out_nobody
		iif 0 counter name out_no_iif
		iifname != \"r1\" counter name out_not_r1
		meta mark 9 counter name out_marked
		fib saddr type local counter name out_local
		meta pkttype host counter name out_host
	}
	chain post {
		type filter hook postrouting priority filter;
		icmpv6 type { 133-137 } accept
		iif 0 counter name post_own
		iif != 0 counter name post_forwarded
		iifname . oifname != { \"r0\" . \"r1\" } counter name post_pair
	}
}
",
        prepare: &["r ip link set r0 group 5; ip route add 198.51.100.0/24 via 10.0.2.2", "c ip addr add 192.0.2.9/32 dev c0"],
        steps: &[
            ("ping c 10.0.2.2", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("counters inet n", "fw_ether 2/168, fw_group 1/84, fw_icmp 2/168, fw_ip 2/168, fw_nexthop 1/84, fw_way 1/84, post_forwarded 2/168, post_pair 1/84, pre_exists 2/168, pre_frame_host 2/168, pre_no_oif 2/168, pre_not_r1 2/168, pre_oifname 1/84, pre_unicast 2/168"),
            ("ping c 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("counters inet n", "in_from_r0 1/84, in_local 1/84, in_no_oif 1/84, out_host 1/84, out_local 1/84, out_no_iif 1/84, out_not_r1 1/84, post_own 1/84, post_pair 1/84, pre_exists 1/84, pre_frame_host 1/84, pre_iif_local 1/84, pre_local 1/84, pre_no_oif 1/84, pre_not_r1 1/84"),
            ("ping r 10.0.2.2 -m 9", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=64"),
            ("counters inet n", "in_no_oif 1/84, out_host 1/84, out_local 1/84, out_marked 1/84, out_no_iif 1/84, out_not_r1 1/84, post_own 1/84, post_pair 1/84, pre_exists 1/84, pre_frame_host 1/84, pre_iif_local 1/84, pre_local 1/84, pre_no_oif 1/84, pre_not_r1 1/84"),
            ("ping c fd00:2::2", "64 bytes from fd00:2::2: icmp_seq=1 ttl=63"),
            ("counters inet n", "fw_ether 2/208, fw_group 1/104, fw_icmp 2/208, fw_nexthop 1/104, fw_way 1/104, post_forwarded 2/208, post_pair 1/104, pre_exists 2/208, pre_frame_host 2/208, pre_no_oif 2/208, pre_not_r1 2/208, pre_unicast 2/208"),
            ("ping r fd00:2::2", "64 bytes from fd00:2::2: icmp_seq=1 ttl=64"),
            ("counters inet n", "in_no_oif 1/104, out_host 1/104, out_local 1/104, out_no_iif 1/104, out_not_r1 1/104, post_own 1/104, post_pair 1/104, pre_exists 1/104, pre_frame_host 1/104, pre_iif_local 1/104, pre_local 1/104, pre_no_oif 1/104, pre_not_r1 1/104"),
            ("ping c 10.0.2.2 -Q 0x28", "64 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("counters inet n", "fw_bulk 2/168, fw_ether 2/168, fw_group 1/84, fw_icmp 2/168, fw_ip 2/168, fw_nexthop 1/84, fw_way 1/84, post_forwarded 2/168, post_pair 1/84, pre_exists 2/168, pre_frame_host 2/168, pre_no_oif 2/168, pre_not_r1 2/168, pre_oifname 1/84, pre_unicast 2/168"),
            ("ping c 10.0.2.2 -Q 0x20 -s 1300", "1308 bytes from 10.0.2.2: icmp_seq=1 ttl=63"),
            ("counters inet n", "fw_ether 2/2656, fw_group 1/1328, fw_icmp 2/2656, fw_ip 2/2656, fw_long 2/2656, fw_nexthop 1/1328, fw_way 1/1328, post_forwarded 2/2656, post_pair 1/1328, pre_by_mark 1/1328, pre_exists 2/2656, pre_frame_host 2/2656, pre_no_oif 2/2656, pre_not_r1 2/2656, pre_oifname 1/1328, pre_unicast 2/2656"),
            ("who c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.1.2:4001"),
            ("counters inet n", "fw_ether 1/31, fw_group 1/31, fw_ip 1/31, fw_nexthop 1/31, fw_way 1/31, post_forwarded 1/31, pre_exists 1/31, pre_frame_host 1/31, pre_no_oif 1/31, pre_not_r1 1/31, pre_oifname 1/31, pre_unicast 1/31"),
            ("error c 10.0.1.2:4001 10.0.2.1:7000 open", "ConnectionRefused from 10.0.2.1 to 10.0.1.2 3/3 0 about 10.0.1.2:4001 > 10.0.2.1:7000 hops 64 length 48 quoted 68"),
            ("counters inet n", "in_from_r0 1/68, in_local 1/68, in_no_oif 1/68, out_host 1/96, out_local 1/96, out_no_iif 1/96, out_not_r1 1/96, post_own 1/96, post_pair 1/96, pre_exists 1/68, pre_frame_host 1/68, pre_local 1/68, pre_no_oif 1/68, pre_not_r1 1/68"),
            ("who r 10.0.2.1:4001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.2.1:4001"),
            ("counters inet n", "out_host 1/31, out_local 1/31, out_no_iif 1/31, out_not_r1 1/31, out_root 1/31, post_own 1/31, post_pair 1/31"),
            ("send c 10.0.1.2:4002 239.1.1.1:7000", ""),
            ("send c 10.0.1.2:4002 224.0.0.1:7000", ""),
            ("send c 10.0.1.2:4002 224.0.0.251:7000", ""),
            ("send c [fd00:1::2]:4002 [ff05::77]:7000", ""),
            ("ping c 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("counters inet n", "in_from_r0 2/116, in_local 1/84, in_no_oif 2/116, out_host 1/84, out_local 1/84, out_no_iif 1/84, out_not_r1 1/84, post_own 1/84, post_pair 1/84, pre_exists 5/232, pre_frame_host 1/84, pre_frame_multicast 4/148, pre_iif_local 1/84, pre_local 1/84, pre_multicast 4/148, pre_no_oif 5/232, pre_not_r1 5/232"),
            ("send c 192.0.2.9:4002 10.0.2.2:7001", ""),
            ("send c 192.0.2.9:4002 10.0.1.1:7001", ""),
            ("ping c 10.0.1.1", "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64"),
            ("counters inet n", "fw_ether 1/32, fw_group 1/32, fw_ip 1/32, fw_missing 1/32, fw_nexthop 1/32, fw_way 1/32, in_from_r0 1/84, in_local 2/116, in_no_oif 2/116, out_host 1/84, out_local 1/84, out_no_iif 1/84, out_not_r1 1/84, post_forwarded 1/32, post_own 1/84, post_pair 1/84, pre_exists 1/84, pre_frame_host 3/148, pre_iif_local 2/116, pre_local 2/116, pre_missing 2/64, pre_no_oif 3/148, pre_not_r1 3/148, pre_oifname 1/32, pre_unicast 1/32"),
            ("run c ping -n -c1 -W1 -b 10.0.1.255 2>/dev/null | grep -c 'bytes from'", "0"),
            ("counters inet n", "in_frame_broadcast 1/84, in_from_r0 1/84, in_no_oif 1/84, pre_exists 1/84, pre_frame_broadcast 1/84, pre_no_oif 1/84, pre_not_r1 1/84"),
            ("run r setpriv --reuid 65534 --regid 65534 --clear-groups ping -n -c1 10.0.2.2 | grep -c 'bytes from'", "1"),
            ("counters inet n", "in_no_oif 1/84, out_host 1/84, out_local 1/84, out_no_iif 1/84, out_nobody 1/84, out_not_r1 1/84, post_own 1/84, post_pair 1/84, pre_exists 1/84, pre_frame_host 1/84, pre_iif_local 1/84, pre_local 1/84, pre_no_oif 1/84, pre_not_r1 1/84"),
        ],
    });
}
