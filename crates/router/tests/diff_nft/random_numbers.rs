//! Random numbers and hashes with a seed of the machine's own: no two routers give the same, but both keep their range, are even, and give a flow what they gave it before. Tags of VLANs that
//! packets do not have.
use crate::kernel::Kernel;
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::selectors::{from_lan, from_wan};
use crate::traffic::{ip_packet, udp};
use crate::{now, router_of};
use std::fmt::Write;

const PACKETS: u64 = 2000;

/// Packets that each rule's counter has counted, in Linux and here.
fn counts(rules: &str, packets: impl Iterator<Item = Vec<u8>>) -> Option<[Vec<u64>; 2]> {
    let mut kernel = Kernel::new(rules)?;
    let mut router = router_of(rules);
    for packet in packets {
        router.handle(&packet, 1, now()).unwrap();
        while router.poll_output().is_some() {}
        kernel.handle(&packet, 0, 1);
    }
    let theirs = kernel.rule_counters().into_iter().map(|(packets, _)| packets).collect();
    Some([theirs, router.program().rule_counters().map(|(_, packets, _)| packets).collect()])
}

/// Packets of so many flows.
fn flows(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|number| from_lan("", false, &udp(4000 + (number % 20_000) as u16, 53, 1)).packet)
}

/// `number` of `all` is about one in `share`: a chance of less than one in a million that it is not.
fn is_about(number: u64, all: u64, share: f64) -> bool {
    let (all, part) = (all as f64, 1.0 / share);
    (number as f64 - all * part).abs() < 5.0 * (all * part * (1.0 - part)).sqrt()
}

#[test]
fn random_numbers_are_even_and_in_their_range_as_in_linux() {
    let mut rules = "table inet t { chain c { type filter hook forward priority filter;\n".to_owned();
    (0..4).for_each(|number| writeln!(rules, "numgen random mod 4 {number} counter").unwrap());
    (7..10).for_each(|number| writeln!(rules, "numgen random mod 3 offset 7 {number} counter").unwrap());
    rules += "numgen random mod 10 < 3 counter
        numgen random mod 4294967295 < 2147483648 counter
        meta random < 2147483648 counter
        numgen random mod 4 0-3 counter
        numgen random mod 3 offset 7 != 7-9 counter
        numgen random mod 1 0 counter
        numgen random mod 6 vmap { 0-2 : jump half, 3-5 : continue }
        }
        chain half { counter; }
        }";
    in_own_thread(move || {
        let Some(sides) = counts(&rules, flows(PACKETS)) else { return false };
        for (who, counts) in ["Linux", "we"].iter().zip(sides) {
            let shares = [4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 10.0 / 3.0, 2.0, 2.0];
            for (at, share) in shares.into_iter().enumerate() {
                assert!(is_about(counts[at], PACKETS, share), "{who}: rule {at} of {counts:?}");
            }
            assert_eq!(counts[10..13], [PACKETS, 0, PACKETS], "{who}");
            assert!(is_about(counts[13], PACKETS, 2.0), "{who}: {counts:?}");
        }
        true
    });
}

#[test]
fn symmetric_hashes_are_those_of_the_flow_as_in_linux() {
    // Four packets a flow: twice each way. What a flow gets is remembered by its mark, and compared.
    let rules = "table inet t { chain c { type filter hook forward priority filter;
        ct mark 0 ct mark set symhash mod 8 offset 1 counter
        meta mark set symhash mod 8 offset 1
        ct mark . meta mark { 1 . 1, 2 . 2, 3 . 3, 4 . 4, 5 . 5, 6 . 6, 7 . 7, 8 . 8 } counter
        symhash mod 8 offset 1 != 1-8 counter
        ct direction original symhash mod 2 0 counter
        symhash mod 1 0 counter
        }; }";
    in_own_thread(move || {
        const FLOWS: u64 = 400;
        let Some(mut kernel) = Kernel::new(rules) else { return false };
        let mut router = router_of(rules);
        for number in 0..FLOWS {
            let port = 4000 + number as u16;
            let (there, back) = (from_lan("", false, &udp(port, 53, 1)), from_wan("", false, &udp(53, port, 1)));
            for Arrival { device, packet, .. } in [&there, &back, &there, &back] {
                router.handle(packet, *device as u32 + 1, now()).unwrap();
                while router.poll_output().is_some() {}
                kernel.handle(packet, *device, 1);
            }
        }
        let theirs: Vec<u64> = kernel.rule_counters().into_iter().map(|(packets, _)| packets).collect();
        let ours: Vec<u64> = router.program().rule_counters().map(|(_, packets, _)| packets).collect();
        for (who, counts) in [("Linux", theirs), ("we", ours)] {
            assert_eq!((counts[0], counts[1], counts[2], counts[4]), (FLOWS, 4 * FLOWS, 0, 4 * FLOWS), "{who}");
            assert!(counts[3] % 2 == 0 && is_about(counts[3] / 2, FLOWS, 2.0), "{who}: {counts:?}");
        }
        true
    });
}

/// Packets that come without a tag match none, whatever is asked for behind it.
#[test]
fn tags_of_vlans_never_match_as_in_linux() {
    let mut rules = String::from("table inet t {\n");
    for hook in ["prerouting", "forward", "postrouting"] {
        writeln!(rules, "chain {hook} {{\ntype filter hook {hook} priority filter;").unwrap();
        for rule in [
            "vlan id 10",
            "vlan id != 10",
            "vlan id 0",
            "vlan id 1-4095",
            "vlan pcp 0",
            "vlan type ip",
            "vlan id 10 ip saddr 10.1.0.2",
            "vlan id != 10 ip saddr 10.1.0.2",
            "vlan type ip ip saddr 10.1.0.2",
            "vlan type ip6 ip6 saddr fd00:1::2",
            "vlan id { 1, 2 } udp dport 53",
            "vlan id . ip saddr { 10 . 10.1.0.2 }",
            "vlan id 10 vlan pcp 3 tcp dport 80",
            "meta l4proto udp",
        ] {
            writeln!(rules, "{rule} counter").unwrap();
        }
        rules += "}\n";
    }
    rules += "}\n";
    let mut arrivals: Vec<Arrival> =
        [false, true].into_iter().map(|v6| from_lan("a packet", v6, &udp(4000, 53, 1))).collect();
    let packet = ip_packet(false, address("10.1.0.2"), address("198.51.100.9"), 64, &udp(4001, 80, 9));
    arrivals.push(Arrival { what: "another".into(), device: 0, packet });
    in_own_thread(move || compare_rule_counters(&rules, &Additions::default(), &arrivals));
}
