//! `ct timeout set` beside the kernel: the timeout that a connection has after its first packet.
use crate::kernel::Kernel;
use crate::rule_counters::{address, in_own_thread};
use crate::traffic::{ACK, Message, SYN, echo, ip_packet, tcp, udp};
use crate::{now, router_of};
use std::process::Command;

const RULES: &str = "table inet t {
    ct timeout tcp-policy { protocol tcp; l3proto ip; policy = { established : 500, syn_sent : 400, syn_recv : 450 }; }
    ct timeout udp-policy { protocol udp; l3proto ip; policy = { unreplied : 300, replied : 350 }; }
    ct timeout other-policy { protocol udp; l3proto ip; policy = { unreplied : 600, replied : 350 }; }
    chain c {
        type filter hook prerouting priority mangle
        ct timeout set \"tcp-policy\"
        ct timeout set \"udp-policy\"
        udp dport 54 ct timeout set \"other-policy\"
        ct state new
    }
}";

fn compare() -> bool {
    let Some(mut kernel) = Kernel::new(RULES) else { return false };
    let mut router = router_of(RULES);
    let messages: [(&str, Message); 6] = [
        ("dport=80 ", tcp(4000, 80, 1000, 0, SYN, 0)),
        ("dport=81 ", tcp(4000, 81, 1000, 1, ACK, 0)),
        ("dport=53 ", udp(4000, 53, 4)),
        ("dport=54 ", udp(4000, 54, 4)),
        ("type=8", echo(false, true, 7)),
        ("unknown", Message { protocol: 89, bytes: vec![1; 20], check_at: None }),
    ];
    for (flow, message) in &messages {
        let packet = ip_packet(false, address("10.1.0.2"), address("198.51.100.9"), 64, message);
        let at = now();
        router.handle(&packet, 1, at).unwrap();
        router.poll_output().unwrap();
        kernel.handle(&packet, 0, 1);
        let ours = router
            .engine()
            .entries(at)
            .find(|entry| {
                entry.original.protocol == message.protocol
                    && (message.protocol == 89
                        || entry.original.destination_key == u16::from_be_bytes([packet[22], packet[23]])
                        || message.protocol == 1)
            })
            .unwrap()
            .timeout;
        let listing = Command::new("conntrack").arg("-L").output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout);
        let line = listing.lines().find(|line| line.contains(flow)).unwrap_or_else(|| panic!("{flow}: {listing}"));
        let theirs: u32 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert!(theirs <= ours && theirs + 5 >= ours, "{flow}: Linux {theirs} s, ours {ours} s: {line}");
    }
    true
}

#[test]
fn timeout_policy_applies_to_the_first_packet_as_in_linux() {
    in_own_thread(compare);
}
