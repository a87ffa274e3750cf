//! What programs remember: rates, quotas, numbers of connections, elements that packets add. Time is told, never waited for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_engine::{Engine, Instant, Knobs, Secret, Zone};
use keepstate_rules::tree::Hook;
use keepstate_rules::{AddressType, Device, Fate, Ground, NoLibrary, Program, Scene, Way, compile, parse_with};
use keepstate_wire::Packet;
use std::net::IpAddr;

struct Nowhere;

impl Ground for Nowhere {
    fn address_type(&self, _: IpAddr, _: Option<u32>) -> AddressType {
        AddressType::Unicast
    }
    fn route(&self, _: IpAddr, _: Option<u32>) -> Option<Device> {
        None
    }
    fn address(&self, _: u32, _: IpAddr) -> Option<IpAddr> {
        None
    }
    fn mtu(&self, _: u32) -> u32 {
        1500
    }
}

struct Bench {
    engine: Engine,
    program: Program,
}

impl Bench {
    /// Rules of a forward chain that drops what comes to its end; `sets` stand before it.
    fn new(sets: &str, rules: &str) -> Bench {
        let text = format!(
            "table ip t {{\n{sets}\nchain c {{\ntype filter hook forward priority 0; policy drop;\n{rules}\n}}\n}}\n"
        );
        let (tree, sources) = parse_with("t", &text, &NoLibrary, &[]).unwrap_or_else(|refused| panic!("{refused}"));
        let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
        Bench { engine: Engine::new(Knobs::default(), Secret([1; 16]), Instant(0)), program }
    }

    /// Is a datagram of so many octets from 10.0.0.`host`, port `port`, let through at this millisecond?
    fn passes(&mut self, host: u8, port: u16, octets: u16, at: u64) -> bool {
        let bytes = datagram(host, port, octets);
        let packet = Packet::parse(&bytes).unwrap();
        let now = Instant::from_millis(at);
        let mut passage = self.engine.track(&packet, Zone::default(), now);
        let mut way = Way::default();
        let fate = self.program.filter(
            Hook::Forward,
            i32::MIN..i32::MAX,
            &mut Scene {
                engine: &mut self.engine,
                passage: Some(&mut passage),
                packet: &packet,
                way: &mut way,
                ground: &Nowhere,
                now,
            },
        );
        if fate == Fate::Accept {
            self.engine.confirm(passage, now);
        }
        fate == Fate::Accept
    }
}

fn datagram(host: u8, port: u16, octets: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(octets.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 198, 51, 100, 9]);
    let sum = keepstate_wire::checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 53]);
    bytes.extend((octets - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(usize::from(octets), b'x');
    bytes
}

#[test]
fn a_rate_lets_its_burst_through_and_then_what_has_been_saved_up() {
    let mut bench = Bench::new("", "limit rate 10/second burst 5 packets accept");
    let at_once = (0..20).filter(|_| bench.passes(1, 1, 100, 1000)).count();
    assert_eq!(at_once, 5);
    assert!(!bench.passes(1, 1, 100, 1099) && bench.passes(1, 1, 100, 1101));
    let later = (0..20).filter(|_| bench.passes(1, 1, 100, 60_000)).count();
    assert_eq!(later, 5, "no more than the burst is saved up");
    let mut over = Bench::new("", "limit rate over 10/second burst 5 packets drop\naccept");
    assert_eq!((0..20).filter(|_| over.passes(1, 1, 100, 1000)).count(), 5, "the other way round it is the same");
}

#[test]
fn octets_have_rates_and_quotas_too() {
    let mut rate = Bench::new("", "limit rate 1000 bytes/second accept");
    assert_eq!((0..20).filter(|_| rate.passes(1, 1, 100, 1000)).count(), 10);
    let mut quota = Bench::new("", "quota 1000 bytes accept");
    let passed = (0..20).filter(|_| quota.passes(1, 1, 100, 1000)).count();
    assert_eq!(passed, 10, "the packet that fills it is within");
    let mut named = Bench::new("quota q { over 500 bytes; }", "quota name \"q\" drop\naccept");
    assert_eq!((0..20).filter(|_| named.passes(1, 1, 100, 1000)).count(), 5);
}

#[test]
fn so_many_connections_and_no_more_until_one_ends() {
    let mut bench = Bench::new("", "ct count over 3 drop\naccept");
    for port in 1..=3 {
        assert!(bench.passes(1, port, 100, 1000));
    }
    assert!(!bench.passes(1, 4, 100, 1000));
    assert!(bench.passes(1, 2, 100, 2000), "one that is known goes on");
    // The first and the third have ended by now; the second and its late packet not.
    bench.engine.poll(Instant::from_millis(31_500));
    assert!(bench.passes(1, 4, 100, 31_500) && bench.passes(1, 5, 100, 31_500) && !bench.passes(1, 6, 100, 31_500));
}

#[test]
fn each_source_has_its_own_number_of_connections() {
    let sets = "set heavy { type ipv4_addr; flags dynamic; size 100; }";
    let mut bench = Bench::new(sets, "ct state new add @heavy { ip saddr ct count over 2 } drop\naccept");
    for host in 1..=3 {
        let passed: Vec<bool> = (1..=4).map(|port| bench.passes(host, port, 100, 1000)).collect();
        assert_eq!(passed, [true, true, false, false]);
    }
}

#[test]
fn elements_that_packets_add_are_found_until_their_time_is_over() {
    let sets = "set knocked { type ipv4_addr; flags dynamic; timeout 10s; size 2; }";
    let rules = "udp sport 7 add @knocked { ip saddr } accept\nudp sport 8 update @knocked { ip saddr timeout 10s } accept\nudp sport 9 delete @knocked { ip saddr } accept\nip saddr @knocked accept";
    let mut bench = Bench::new(sets, rules);
    assert!(!bench.passes(1, 80, 100, 0));
    assert!(bench.passes(1, 7, 100, 1000) && bench.passes(1, 80, 100, 10_900));
    assert!(!bench.passes(1, 80, 100, 11_001), "ten seconds are over");
    assert!(
        bench.passes(1, 7, 100, 20_000) && bench.passes(1, 8, 100, 25_000) && bench.passes(1, 80, 100, 34_000),
        "refreshed"
    );
    assert!(bench.passes(1, 9, 100, 34_500) && !bench.passes(1, 80, 100, 34_500), "deleted");
    // Two have room; the third is refused, until one's time is over.
    assert!(bench.passes(1, 7, 100, 40_000) && bench.passes(2, 7, 100, 41_000) && !bench.passes(3, 7, 100, 42_000));
    assert!(bench.passes(3, 7, 100, 50_500), "the first one's place is free");
}

#[test]
fn counters_count_and_are_told_with_their_places() {
    let mut bench = Bench::new(
        "counter all { packets 5 bytes 500; }",
        "counter name \"all\"\nudp sport 1 counter packets 2 bytes 10 accept",
    );
    bench.passes(1, 1, 100, 0);
    bench.passes(1, 2, 200, 0);
    let counted: Vec<(String, u64, u64)> = bench.program.counters().collect();
    assert_eq!(counted, [("t:5:1".to_owned(), 7, 800), ("t:6:1".to_owned(), 3, 110)]);
}

#[test]
fn large_sets_are_looked_up_as_fast_as_small_ones_and_find_the_same() {
    let elements: Vec<String> = (0..5000_u32)
        .map(|at| format!("10.{}.{}.0-10.{}.{}.{}", at >> 8, at & 255, at >> 8, at & 255, at % 200))
        .collect();
    let sets = format!("set s {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}", elements.join(", "));
    let mut bench = Bench::new(&sets, "ip saddr @s accept");
    // 10.0.0.x lies in the first range, which has one address.
    assert!(!bench.passes(1, 1, 100, 0) && bench.passes(0, 1, 100, 0));
}

#[test]
fn bits_of_headers_are_counted_from_their_beginning() {
    // From 10.0.0.5, port 1000, 60 octets of UDP, whose data are the letter x.
    for (rule, holds) in [
        ("@th,0,16 1000 accept", true),
        ("@th,0,16 1001 accept", false),
        ("@nh,96,32 0x0a000005 accept", true),
        ("@nh,120,8 5 accept", true),
        ("@nh,0,4 4 accept", true),
        ("@nh,4,4 5 accept", true),
        ("@nh,4,12 0x500 accept", true),
        ("@nh,96,64 0x0a000005c6336409 accept", true),
        ("@nh,102,3 0x4 accept", true),
        ("@ih,0,32 0x78787878 accept", true),
        ("@ih,4,12 0x878 accept", true),
        ("@ih,9999,8 0 accept", false),
        ("ip checksum != 0 accept", true),
        ("tcp doff 5 accept", false),
        ("tcp option timestamp missing accept", false),
        ("udp checksum 0 accept", true),
    ] {
        assert_eq!(Bench::new("", rule).passes(5, 1000, 60, 0), holds, "{rule}");
    }
}
