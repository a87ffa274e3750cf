//! The router's own ICMP errors obey the machine's limits: six at once to a peer, then one an interval; none of types outside of the mask.
use crate::twin::{Case, run};

#[test]
fn errors_are_limited_by_sysctls() {
    run(&Case {
        name: "il",
        rules: "table inet n { chain c { type filter hook forward priority 0; }; }",
        prepare: &[
            // So long that no test takes it. A new peer has a minute's worth, six at most.
            "r echo 10000 > /proc/sys/net/ipv4/icmp_ratelimit; echo 40000 > /proc/sys/net/ipv6/icmp/ratelimit",
        ],
        steps: &[
            ("run c ping -n -c 20 -i 0.02 -W 1 -t 1 10.0.2.2 | grep -c exceeded", "6"),
            ("run d ping -n -c 20 -i 0.02 -W 1 -t 1 10.0.2.2 | grep -c exceeded", "6"),
            ("run c ping -n -c 20 -i 0.02 -W 1 -t 1 fd00:2::2 | grep -c exceeded", "1"),
            // Destination unreachable alone is limited now. A change has effect within a second.
            ("run r echo 8 > /proc/sys/net/ipv4/icmp_ratemask", ""),
            ("run c until ping -n -c 1 -W 1 -t 1 10.0.2.2 | grep -q exceeded; do :; done; echo again", "again"),
            ("run c ping -n -c 20 -i 0.02 -W 1 -t 1 10.0.2.2 | grep -c exceeded", "20"),
            ("run r echo 0 > /proc/sys/net/ipv6/icmp/ratelimit", ""),
            ("run c until ping -n -c 1 -W 1 -t 1 fd00:2::2 | grep -q exceeded; do :; done; echo again", "again"),
            ("run c ping -n -c 20 -i 0.02 -W 1 -t 1 fd00:2::2 | grep -c exceeded", "20"),
        ],
    });
}
