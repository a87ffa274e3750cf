//! Sets and maps of ranges, changed while packets run: what is found, and what elements count.
use crate::twin::{Case, run};

/// Counters of elements go on when others come and go.
#[test]
fn elements_come_and_go() {
    run(&Case {
        name: "sc",
        rules: "
table inet n {
	counter hit {}
	counter miss {}
	counter dyn {}
	counter within {}
	set ranges { type ipv4_addr . inet_service; flags interval; counter; elements = { 10.0.1.0/24 . 7000-7010 } }
	set ports { type inet_service; flags interval,timeout; }
	set plain { type ipv4_addr; counter; elements = { 10.0.1.2, 10.0.3.2 counter packets 5 bytes 50 } }
	set nets { type ipv4_addr; flags interval; counter; elements = { 10.0.1.0/25, 10.0.1.200-10.0.1.210 counter packets 7 bytes 70, 10.0.3.0/24 } }
	set few { type ipv4_addr; flags interval; quota 100 bytes; elements = { 10.0.1.0/25 } }
	set seen { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; counter; }
	map to { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; elements = { 10.0.1.0-10.0.1.127 . 7100-7110 : 10.0.3.2 . 7500 } }
	map acts { type ifname . inet_service : verdict; flags interval; counter; elements = { \"r0\" . 7200-7210 : drop } }
	map marks { type ipv4_addr : mark; flags interval; elements = { 10.0.1.0/25 : 0x11, 10.0.1.128/25 : 0x12 } }
	chain pre {
		type nat hook prerouting priority dstnat;
		dnat ip to ip saddr . udp dport map @to
	}
	chain fw {
		type filter hook forward priority filter;
		ip saddr . udp dport @ranges counter name hit
		ip saddr . udp dport != @ranges counter name miss
		udp dport @ports counter name dyn drop
		iifname . udp dport vmap @acts
		ct mark set ip saddr map @marks
		ct state new meta l4proto udp update @seen { ip saddr . udp dport }
		ip saddr != @plain accept
		ip saddr @plain ip saddr @nets
		udp dport 7400 ip saddr @few counter name within
	}
}
",
        prepare: &["c ip addr add 10.0.1.200/24 dev c0"],
        steps: &[
            ("who c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.1.2:4001"),
            ("who c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.1.2:4001"),
            ("who c 10.0.1.2:4001 10.0.2.2:7011 s 10.0.2.2:7011", "s from 10.0.1.2:4001"),
            ("counters inet n", "hit 2/62, miss 1/31"),
            ("nft list set inet n ranges", "table inet n { set ranges { type ipv4_addr . inet_service flags interval counter elements = { 10.0.1.0/24 . 7000-7010 counter packets 2 bytes 62 } } }"),
            ("nft add element inet n ports { 7050 timeout 1s }", ""),
            ("nft add element inet n ports { 7030-7040 timeout 1h }", ""),
            ("who c 10.0.1.2:4001 10.0.2.2:7035 s 10.0.2.2:7035", "nobody"),
            ("nft delete element inet n ports { 7030-7040 }", ""),
            ("who c 10.0.1.2:4001 10.0.2.2:7035 s 10.0.2.2:7035", "s from 10.0.1.2:4001"),
            ("who c 10.0.1.2:4001 10.0.2.2:7050 s 10.0.2.2:7050", "s from 10.0.1.2:4001"),
            ("counters inet n", "dyn 1/31, miss 3/93"),
            ("nft add element inet n ranges { 10.0.1.2-10.0.1.9 . 7011-7020 }", ""),
            ("who c 10.0.1.2:4001 10.0.2.2:7011 s 10.0.2.2:7011", "s from 10.0.1.2:4001"),
            ("nft delete element inet n ranges { 10.0.1.0/24 . 7000-7010 }", ""),
            ("who c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "s from 10.0.1.2:4001"),
            ("counters inet n", "hit 1/31, miss 1/31"),
            ("nft list set inet n ranges", "table inet n { set ranges { type ipv4_addr . inet_service flags interval counter elements = { 10.0.1.2-10.0.1.9 . 7011-7020 counter packets 1 bytes 31 } } }"),
            ("who c 10.0.1.2:4001 10.0.2.2:7100 d 10.0.3.2:7500", "d from 10.0.1.2:4001"),
            ("who c 10.0.1.200:4001 10.0.2.2:7100 s 10.0.2.2:7100", "s from 10.0.1.200:4001"),
            ("nft add element inet n to { 10.0.1.128-10.0.1.255 . 7100 : 10.0.3.2 . 7501 }", ""),
            ("who c 10.0.1.200:4001 10.0.2.2:7100 s 10.0.2.2:7100 d 10.0.3.2:7501", "s from 10.0.1.200:4001"),
            ("who c 10.0.1.200:4002 10.0.2.2:7100 s 10.0.2.2:7100 d 10.0.3.2:7501", "d from 10.0.1.200:4002"),
            ("who c 10.0.1.2:4001 10.0.2.2:7205 s 10.0.2.2:7205", "nobody"),
            ("nft delete element inet n acts { \"r0\" . 7200-7210 : drop }", ""),
            ("nft add element inet n acts { \"r2\" . 7205 : drop }", ""),
            ("who c 10.0.1.2:4001 10.0.2.2:7205 s 10.0.2.2:7205", "s from 10.0.1.2:4001"),
            ("who d 10.0.3.2:4001 10.0.2.2:7205 s 10.0.2.2:7205", "nobody"),
            ("nft list map inet n acts", "table inet n { map acts { type ifname . inet_service : verdict flags interval counter elements = { \"r2\" . 7205 counter packets 1 bytes 31 : drop } } }"),
            ("nft list set inet n plain", "table inet n { set plain { type ipv4_addr counter elements = { 10.0.1.2 counter packets 9 bytes 279, 10.0.3.2 counter packets 5 bytes 50 } } }"),
            ("nft list set inet n nets", "table inet n { set nets { type ipv4_addr flags interval counter elements = { 10.0.1.0/25 counter packets 9 bytes 279, 10.0.1.200-10.0.1.210 counter packets 7 bytes 70, 10.0.3.0/24 counter packets 0 bytes 0 } } }"),
            ("nft add element inet n plain { 10.0.1.77 }", ""),
            ("nft add element inet n nets { 10.0.9.0/24 }", ""),
            ("nft delete element inet n nets { 10.0.3.0/24 }", ""),
            ("nft list set inet n plain", "table inet n { set plain { type ipv4_addr counter elements = { 10.0.1.2 counter packets 9 bytes 279, 10.0.1.77 counter packets 0 bytes 0, 10.0.3.2 counter packets 5 bytes 50 } } }"),
            ("nft list set inet n nets", "table inet n { set nets { type ipv4_addr flags interval counter elements = { 10.0.1.0/25 counter packets 9 bytes 279, 10.0.1.200-10.0.1.210 counter packets 7 bytes 70, 10.0.9.0/24 counter packets 0 bytes 0 } } }"),
            ("repeat c 10.0.1.2:4400 10.0.2.2:7400 s 10.0.2.2:7400 5", "5 of 5"),
            ("counters inet n", "miss 12/382, within 3/99"),
            ("nft flush set inet n ranges", ""),
            ("nft list set inet n ranges", "table inet n { set ranges { type ipv4_addr . inet_service flags interval counter } }"),
        ],
    });
}
