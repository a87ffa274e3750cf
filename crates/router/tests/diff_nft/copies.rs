//! `dup to` beside the kernel: what leaves, by which interface, with which TTL and flags; and values of the packet's route.
use crate::kernel::Kernel;
use crate::rule_counters::{Additions, Arrival, compare_rule_counters, in_own_thread};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ACK, SYN, echo, tcp, udp};
use crate::{now, router_of};
use keepstate_router::{Egress, Route};

/// A hook, the families of what is sent there, and a rule.
const COPIES: &[(&str, &str, &str)] = &[
    ("ip", "prerouting", "dup to 192.0.2.9 device \"wan0\""),
    ("ip", "prerouting", "dup to 10.1.0.9"),
    ("ip", "forward", "dup to 192.0.2.9"),
    ("ip", "forward", "dup to 10.1.0.9 device \"lan0\" drop"),
    ("ip", "forward", "ip ttl set 9 dup to 10.1.0.9 ip dscp set ef"),
    ("ip", "forward", "dup to ip saddr map { 10.1.0.2 : 10.1.0.8, 198.51.100.9 : 10.1.0.7 }"),
    ("ip", "forward", "dup to 192.0.2.9 dup to 10.1.0.9"),
    ("ip", "postrouting", "dup to 198.51.100.77"),
    ("ip", "postrouting", "tcp dport 80 dup to 10.1.0.9"),
    ("ip6", "prerouting", "ip6 nexthdr { tcp, udp } dup to 2001:db8::9"),
    ("ip6", "forward", "dup to fd00:1::9 device \"lan0\""),
    ("ip6", "forward", "udp dport 80 dup to 2001:db8::9 drop"),
];

fn arrivals() -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for v6 in [false, true] {
        arrivals.push(from_lan("SYN", v6, &tcp(4000, 80, 1000, 0, SYN, 0)));
        arrivals.push(from_wan("SYN-ACK", v6, &tcp(80, 4000, 5000, 1001, SYN | ACK, 0)));
        arrivals.push(from_lan("udp", v6, &udp(4000, 80, 9)));
        arrivals.push(from_lan("echo", v6, &echo(v6, true, 9)));
    }
    arrivals
}

fn compare(family: &str, hook: &str, rule: &str) -> bool {
    // Copies pass output and postrouting, where they are untracked; they are not copied again.
    let rules = format!(
        "table {family} t {{\n chain c {{\n type filter hook {hook} priority mangle;\n {rule}\n }}\n \
         chain out {{\n type filter hook output priority 0;\n ct state untracked meta mark set 7\n }}\n \
         chain last {{\n type filter hook postrouting priority 10;\n meta mark 7 udp dport 80 udp dport set 81\n }}\n}}\n"
    );
    let Some(mut kernel) = Kernel::new(&rules) else { return false };
    let mut router = router_of(&rules);
    for Arrival { what, device, packet } in arrivals() {
        let _ = router.handle(&packet, device as u32 + 1, now());
        let leaves = |out: Egress| match out {
            Egress::Forward { oif, packet, .. } => Some((oif as usize - 1, packet)),
            _ => None,
        };
        let mut ours: Vec<_> = std::iter::from_fn(|| router.poll_output()).filter_map(leaves).collect();
        let mut theirs = kernel.handle(&packet, device, ours.len());
        ours.sort();
        theirs.sort();
        assert!(
            ours == theirs,
            "{family} {hook}: {rule}: {what}\n Linux:{}\n ours:{}",
            crate::format_output(&theirs),
            crate::format_output(&ours)
        );
    }
    true
}

#[test]
fn copies_are_those_of_linux() {
    for (family, hook, rule) in COPIES {
        in_own_thread(move || compare(family, hook, rule));
    }
}

#[test]
fn route_and_packet_type_are_those_of_linux() {
    let mut text = "table inet t {\n".to_owned();
    for (hook, with_mtu) in [("prerouting", false), ("forward", true), ("postrouting", true), ("input", false)] {
        text += &format!(
            "chain {hook} {{\ntype filter hook {hook} priority mangle;\nip6 saddr fe80::/10 accept\nip6 daddr ff00::/8 accept\n"
        );
        if hook == "prerouting" {
            text += "udp dport 81 meta pkttype set other counter\nudp dport 82 meta pkttype set broadcast counter\nudp dport 83 meta pkttype set host counter\n";
        }
        for one in [
            "rt ip nexthop 192.0.2.9",
            "rt ip nexthop 198.51.100.9",
            "rt ip nexthop != 192.0.2.9",
            "rt ip nexthop 10.1.0.2",
            "rt ip nexthop 10.1.0.1",
            "rt ip6 nexthop 2001:db8:f::9",
            "rt ip6 nexthop 2001:db8::5",
            "rt ip6 nexthop != ::1",
            "rt ipsec missing",
            "meta pkttype host",
            "meta pkttype other",
            "meta pkttype broadcast",
            "srh tag 1",
        ] {
            text += &format!("{one} counter\n");
        }
        if with_mtu {
            text += "rt mtu 1460 counter\nrt mtu 1440 counter\nrt mtu > 1000 counter\nipsec out reqid 1 counter\n";
        }
        text += "}\n";
    }
    text += "}\n";
    let gateway = |prefix: &str, length, gateway: &str| Route {
        gateway: Some(gateway.parse().unwrap()),
        ..Route::new(prefix.parse().unwrap(), length, 2)
    };
    let mut arrivals = arrivals();
    for port in 81..=83 {
        arrivals.push(from_lan("typed", false, &udp(4000, port, 9)));
        arrivals.push(from_lan("typed", true, &udp(4000, port, 9)));
    }
    arrivals.push(from_lan("other", false, &udp(4000, 84, 9)));
    in_own_thread(move || {
        let additions = Additions {
            commands:
                "route add 198.51.100.0/25 via 192.0.2.9 dev wan0\nroute add 2001:db8:f::/48 via 2001:db8::5 dev wan0\n"
                    .to_owned(),
            routes: vec![gateway("198.51.100.0", 25, "192.0.2.9"), gateway("2001:db8:f::", 48, "2001:db8::5")],
            ..Additions::default()
        };
        compare_rule_counters(&text, &additions, &arrivals)
    });
}
