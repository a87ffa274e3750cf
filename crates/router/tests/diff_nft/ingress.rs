//! Chains at hook ingress beside the kernel: whole packets and fragments as they come in, by the device of the chain.
use crate::rule_counters::{Additions, compare_rule_counters, in_own_thread};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ACK, SYN, TrafficRng, echo, fragment, tcp, udp};

const MATCHES: &[&str] = &[
    "tcp dport 80",
    "udp dport 80",
    "udp dport 84",
    "th dport 80",
    "ip frag-off & 0x3fff != 0",
    "ip saddr 10.1.0.2",
    "ip daddr 198.51.100.9",
    "ip ttl 64",
    "ip ttl 63",
    "ip ttl 9",
    "ip6 saddr fd00:1::2",
    "ip6 hoplimit 64",
    "exthdr frag exists",
    "icmp type echo-request",
    "icmpv6 type echo-request",
    "iifname lan0",
    "iifname wan0",
    "meta mark 5",
    "ct state invalid",
    "ct state new",
];

fn ruleset() -> String {
    let chains = [
        ("first", "ingress device \"lan0\"", "-10", "udp dport 83 drop\nudp dport 84 meta mark set 5 ip ttl set 9\n"),
        ("second", "ingress device \"lan0\"", "0", ""),
        ("both", "ingress devices = { lan0, wan0 }", "10", ""),
        ("other", "ingress device \"wan0\"", "0", "tcp dport 4001 drop\n"),
        ("prerouting", "prerouting", "-350", ""),
        ("forward", "forward", "0", ""),
    ];
    let mut text = "table inet t {\n".to_owned();
    for (name, hook, priority, rules) in chains {
        text += &format!(
            "chain {name} {{\ntype filter hook {hook} priority {priority};\nip6 saddr fe80::/10 accept\nip6 daddr ff00::/8 accept\n{rules}"
        );
        MATCHES.iter().for_each(|one| text += &format!("{one} counter\n"));
        text += "}\n";
    }
    text + "}\n"
}

#[test]
fn ingress_sees_what_it_sees_in_linux() {
    let mut arrivals = Vec::new();
    let mut dice = TrafficRng::new(7);
    for v6 in [false, true] {
        arrivals.push(from_lan("SYN", v6, &tcp(4000, 80, 1000, 0, SYN, 0)));
        arrivals.push(from_wan("SYN-ACK", v6, &tcp(80, 4000, 5000, 1001, SYN | ACK, 0)));
        arrivals.push(from_wan("dropped SYN", v6, &tcp(80, 4001, 5000, 1001, SYN, 0)));
        arrivals.push(from_lan("udp", v6, &udp(4000, 80, 9)));
        arrivals.push(from_lan("dropped udp", v6, &udp(4000, 83, 9)));
        arrivals.push(from_lan("changed udp", v6, &udp(4000, 84, 9)));
        arrivals.push(from_lan("echo", v6, &echo(v6, true, 9)));
        let whole = from_lan("fragment", v6, &udp(4000, 84, 300));
        for packet in fragment(&whole.packet, &mut dice) {
            arrivals.push(crate::rule_counters::Arrival { packet, what: whole.what.clone(), device: whole.device });
        }
    }
    in_own_thread(move || compare_rule_counters(&ruleset(), &Additions::default(), &arrivals));
}
