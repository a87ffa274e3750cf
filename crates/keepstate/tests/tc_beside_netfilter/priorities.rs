//! Chains at both sides of every border in the order of hooks, and of the first and the last priority of all: which of them see a packet's connection, its destination as it was sent and its source as it
//! leaves. At the borders themselves the kernel's order is that of registration (docs/differences.md).
use crate::twin::{Case, run};

/// Connection tracking is at -200, translation of destinations at -100 and of sources at 100.
const PRIORITIES: [i32; 8] = [i32::MIN, -201, -199, -101, -99, 99, 101, i32::MAX];

#[test]
fn both_sides_of_every_border() {
    let mut rules = "
table ip n {
	chain pre { type nat hook prerouting priority -100; udp dport 7000 dnat to :7070; }
	chain out { type nat hook output priority -100; udp dport 7000 dnat to :7070; }
	chain in { type nat hook input priority 100; udp dport 7070 snat to 192.0.2.9; }
	chain post { type nat hook postrouting priority 100; udp dport 7070 snat to 10.0.2.77; }
	chain first { type filter hook prerouting priority -2147483648; udp dport 7001 drop; }
	chain last { type filter hook forward priority 2147483647; policy drop; ct direction reply udp length > 0 accept; udp dport { 7070, 7003 } accept; }
	chain last_in { type filter hook input priority 2147483647; policy drop; ct direction reply udp length > 0 accept; udp dport 7070 udp length > 0 accept; }
	chain last_out { type filter hook postrouting priority 2147483647; udp dport 7003 drop; }
}
table ip f {
"
    .to_owned();
    for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
        for (at, priority) in PRIORITIES.iter().enumerate() {
            rules += &format!(
                "
	counter {hook}{at}new {{}}
	counter {hook}{at}sent {{}}
	counter {hook}{at}left {{}}
	chain {hook}{at} {{
		type filter hook {hook} priority {priority};
		udp dport {{ 7000, 7070 }} ct state new ct direction original counter name {hook}{at}new
		udp dport 7000 counter name {hook}{at}sent
		ip saddr {{ 192.0.2.9, 10.0.2.77 }} udp dport 7070 counter name {hook}{at}left
	}}"
            );
        }
    }
    run(&Case {
        name: "pr",
        rules: (rules + "\n}\n").leak(),
        prepare: &["r ip addr add 10.0.2.77/24 dev r1; ip route add 192.0.2.9/32 via 10.0.1.2"],
        steps: &[
            ("udp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7070", "10.0.2.77 same port"),
            (
                "counters ip f",
                "forward0new 1/228, forward1new 1/228, forward2new 1/228, forward3new 1/228, forward4new 1/228, forward5new 1/228, forward6new 1/228, \
                 forward7new 1/228, postrouting0new 1/228, postrouting1new 1/228, postrouting2new 1/228, postrouting3new 1/228, postrouting4new 1/228, \
                 postrouting5new 1/228, postrouting6left 12/2736, postrouting6new 1/228, postrouting7left 12/2736, postrouting7new 1/228, \
                 prerouting0sent 12/2736, prerouting1sent 12/2736, prerouting2new 1/228, prerouting2sent 12/2736, prerouting3new 1/228, \
                 prerouting3sent 12/2736, prerouting4new 1/228, prerouting5new 1/228, prerouting6new 1/228, prerouting7new 1/228",
            ),
            ("udp r 0.0.0.0:4002 10.0.2.2:7000 s 10.0.2.2:7070", "10.0.2.77 same port"),
            (
                "counters ip f",
                "output0sent 12/2736, output1sent 12/2736, output2new 1/228, output2sent 12/2736, output3new 1/228, output3sent 12/2736, output4new 1/228, \
                 output5new 1/228, output6new 1/228, output7new 1/228, postrouting0new 1/228, postrouting1new 1/228, postrouting2new 1/228, \
                 postrouting3new 1/228, postrouting4new 1/228, postrouting5new 1/228, postrouting6left 12/2736, postrouting6new 1/228, \
                 postrouting7left 12/2736, postrouting7new 1/228",
            ),
            ("udp c 10.0.1.2:4003 10.0.1.1:7000 r 10.0.1.1:7070", "192.0.2.9 same port"),
            (
                "counters ip f",
                "input0new 1/228, input1new 1/228, input2new 1/228, input3new 1/228, input4new 1/228, input5new 1/228, input6left 12/2736, input6new 1/228, \
                 input7left 12/2736, input7new 1/228, prerouting0sent 12/2736, prerouting1sent 12/2736, prerouting2new 1/228, prerouting2sent 12/2736, \
                 prerouting3new 1/228, prerouting3sent 12/2736, prerouting4new 1/228, prerouting5new 1/228, prerouting6new 1/228, prerouting7new 1/228",
            ),
            ("udp c 10.0.1.2:4004 10.0.2.2:7001 s 10.0.2.2:7001", "not heard"),
            ("udp c 10.0.1.2:4004 10.0.2.2:7002 s 10.0.2.2:7002", "not heard"),
            ("udp c 10.0.1.2:4004 10.0.2.2:7003 s 10.0.2.2:7003", "not heard"),
            ("udp c 10.0.1.2:4004 10.0.1.1:7004 r 10.0.1.1:7004", "not heard"),
            // Whether the last chain drops a packet before or behind the entry of its connection is registration's too.
            ("conntrack -F", ""),
        ],
    });
}
