//! Which address of a range a connection gets: the same as in the kernel, so a client keeps it when the gateway takes over from the kernel, or starts again.
use crate::replies::compare_output;
use crate::rule_counters::{Arrival, address, in_own_thread};
use crate::traffic::{ip_packet, udp};

/// Each rule by the port that it is for.
const RULES: &str = "table inet t {
    chain raw {
        type filter hook prerouting priority raw;
        udp dport 1007 ct zone set 7
    }
    chain pre {
        type nat hook prerouting priority dstnat;
        udp dport 1010 dnat ip to 10.1.0.20-10.1.0.77
        udp dport 1011 dnat ip to 10.1.0.20-10.1.0.77 persistent
        udp dport 1012 dnat ip6 to fd00:1::20-fd00:1::77
    }
    chain post {
        type nat hook postrouting priority srcnat;
        udp dport 1000 snat ip to 203.0.113.0-203.0.113.255 persistent
        udp dport 1001 snat ip to 203.0.113.1-203.0.113.7 persistent
        udp dport 1002 snat ip to 203.0.113.0-203.0.113.255
        udp dport 1003 snat ip to 203.0.112.9-203.0.115.3
        udp dport 1004 snat ip6 to 2001:db8:77::10-2001:db8:77::ffff persistent
        udp dport 1005 snat ip6 to 2001:db8:77::10-2001:db8:79::ffff
        udp dport 1006 snat ip6 to 2001:db8:77::-2001:db8:77:ffff:ffff:ffff:ffff:ffff persistent
        udp dport 1007 snat ip to 203.0.113.0-203.0.113.255
        udp dport 1008 snat ip to 1.0.0.0-223.255.255.255 persistent
        udp dport 1009 snat ip to 203.0.113.2-203.0.113.3:2000-3000 persistent
    }
}";

#[test]
fn addresses_of_a_range_are_those_that_linux_picks() {
    let mut arrivals = Vec::new();
    for port in 1000..=1012 {
        let v6 = matches!(port, 1004..=1006 | 1012);
        for host in 2..102_u16 {
            let (near, far) = match v6 {
                false => (format!("10.1.0.{host}"), format!("198.51.100.{}", host % 5 + 1)),
                true => (format!("fd00:1::{host:x}"), format!("2001:db8:f::{}", host % 5 + 1)),
            };
            // Translated destinations are behind lan0.
            let (device, from, to) = if port < 1010 { (0, near, far) } else { (1, far, near) };
            // Behind its own address no port is taken, so only the address is chosen.
            let message = udp(2000 + host, port, 4);
            let packet = ip_packet(v6, address(&from), address(&to), 64, &message);
            arrivals.push(Arrival { what: format!("{from} to {to} port {port}"), device, packet });
        }
    }
    in_own_thread(move || compare_output(RULES, &arrivals));
}
