//! State of programs: rates, quotas, connection limits, dynamic elements. Time is passed in, never waited for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_engine::{Engine, Instant, Secret, Sysctls, Zone};
use keepstate_rules::ast::Hook;
use keepstate_rules::{EvalCtx, NoIncludes, PacketMeta, Program, Verdict, compile, parse_with};
use keepstate_wire::Packet;

mod empty_fib;
use empty_fib::EmptyFib;

struct Harness {
    engine: Engine,
    program: Program,
}

impl Harness {
    /// A forward chain with policy drop and these rules; `sets` precede it.
    fn new(sets: &str, rules: &str) -> Harness {
        let text = format!(
            "table ip t {{\n{sets}\nchain c {{\ntype filter hook forward priority 0; policy drop;\n{rules}\n}}\n}}\n"
        );
        let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        Harness { engine: Engine::new(Sysctls::default(), Secret([1; 16])), program }
    }

    /// Is a UDP packet of `length` bytes from 10.0.0.`host`, port `port`, accepted at this millisecond?
    fn udp_passes(&mut self, host: u8, port: u16, length: u16, at: u64) -> bool {
        self.packet_passes(&udp_packet(host, port, length), at)
    }

    fn packet_passes(&mut self, bytes: &[u8], at: u64) -> bool {
        let packet = Packet::parse(bytes).unwrap();
        let now = Instant::from_millis(at);
        let mut packet_ctx = self.engine.track(&packet, Zone::default(), now);
        let mut meta = PacketMeta::default();
        let verdict = self.program.eval_filter_chains(
            Hook::Forward,
            i32::MIN..=i32::MAX,
            &mut EvalCtx {
                engine: &mut self.engine,
                packet_ctx: Some(&mut packet_ctx),
                packet: &packet,
                meta: &mut meta,
                fib: &EmptyFib,
                sockets: None,
                now,
            },
        );
        if verdict == Verdict::Accept {
            self.engine.confirm(packet_ctx, now);
        }
        verdict == Verdict::Accept
    }
}

fn udp_packet(host: u8, port: u16, length: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 198, 51, 100, 9]);
    let sum = keepstate_wire::checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 53]);
    bytes.extend((length - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(usize::from(length), b'x');
    bytes
}

/// A TCP segment between 10.0.0.1, port `port`, and 198.51.100.9, port 80; from the server if `back`. Its TCP checksum is not set.
fn tcp_segment(port: u16, back: bool, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    let (client, server) = ([10, 0, 0, 1], [198, 51, 100, 9]);
    let ends = if back { [server, client] } else { [client, server] };
    bytes.extend(ends.concat());
    let sum = keepstate_wire::checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    let ports = if back { [80, port] } else { [port, 80] };
    bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledged.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

#[test]
fn ct_count_ignores_closed_tcp_connections() {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let mut harness = Harness::new("", "ct count over 2 drop\naccept");
    harness.engine.set_sysctl(keepstate_engine::Sysctl::Checksum, 0).unwrap();
    for port in 1..=2 {
        assert!(
            harness.packet_passes(&tcp_segment(port, false, SYN, 100, 0), 0)
                && harness.packet_passes(&tcp_segment(port, true, SYN | ACK, 500, 101), 0)
        );
        assert!(harness.packet_passes(&tcp_segment(port, false, ACK, 101, 501), 0));
    }
    assert!(!harness.packet_passes(&tcp_segment(3, false, SYN, 100, 0), 10));
    assert!(
        harness.packet_passes(&tcp_segment(1, false, FIN | ACK, 101, 501), 20)
            && harness.packet_passes(&tcp_segment(1, true, FIN | ACK, 501, 102), 20)
    );
    assert!(harness.packet_passes(&tcp_segment(1, false, ACK, 102, 502), 20));
    assert_eq!(harness.engine.count(), 2, "the closed connection is still in the table");
    assert!(
        harness.packet_passes(&tcp_segment(3, false, SYN, 100, 0), 30)
            && !harness.packet_passes(&tcp_segment(4, false, SYN, 100, 0), 40)
    );
}

#[test]
fn limit_rate_allows_burst_then_refills() {
    let mut harness = Harness::new("", "limit rate 10/second burst 5 packets accept");
    let at_once = (0..20).filter(|_| harness.udp_passes(1, 1, 100, 1000)).count();
    assert_eq!(at_once, 5);
    assert!(!harness.udp_passes(1, 1, 100, 1099) && harness.udp_passes(1, 1, 100, 1101));
    let later = (0..20).filter(|_| harness.udp_passes(1, 1, 100, 60_000)).count();
    assert_eq!(later, 5, "tokens are capped at the burst");
    let mut over = Harness::new("", "limit rate over 10/second burst 5 packets drop\naccept");
    assert_eq!((0..20).filter(|_| over.udp_passes(1, 1, 100, 1000)).count(), 5, "`over` inverts the match");
}

#[test]
fn limit_and_quota_in_bytes() {
    let mut rate = Harness::new("", "limit rate 1000 bytes/second accept");
    assert_eq!((0..20).filter(|_| rate.udp_passes(1, 1, 100, 1000)).count(), 10);
    let mut quota = Harness::new("", "quota 1000 bytes accept");
    let passed = (0..20).filter(|_| quota.udp_passes(1, 1, 100, 1000)).count();
    assert_eq!(passed, 10, "the packet that fills the quota is within");
    let mut named = Harness::new("quota q { over 500 bytes; }", "quota name \"q\" drop\naccept");
    assert_eq!((0..20).filter(|_| named.udp_passes(1, 1, 100, 1000)).count(), 5);
}

#[test]
fn ct_count_blocks_until_a_connection_expires() {
    let mut harness = Harness::new("", "ct count over 3 drop\naccept");
    for port in 1..=3 {
        assert!(harness.udp_passes(1, port, 100, 1000));
    }
    assert!(!harness.udp_passes(1, 4, 100, 1000));
    // As in Linux 6.18: a packet of a counted connection does not search the list, and the refused one is still in it.
    assert!(!harness.udp_passes(1, 2, 100, 2000), "a known connection above the limit");
    // The first and third connection have expired by now; the second, refreshed later, has not.
    harness.engine.poll(Instant::from_millis(31_500));
    assert!(
        harness.udp_passes(1, 4, 100, 31_500)
            && harness.udp_passes(1, 5, 100, 31_500)
            && !harness.udp_passes(1, 6, 100, 31_500)
    );
}

#[test]
fn ct_count_per_source_in_dynamic_set() {
    let sets = "set heavy { type ipv4_addr; flags dynamic; size 100; }";
    let mut harness = Harness::new(sets, "ct state new add @heavy { ip saddr ct count over 2 } drop\naccept");
    for host in 1..=3 {
        let passed: Vec<bool> = (1..=4).map(|port| harness.udp_passes(host, port, 100, 1000)).collect();
        assert_eq!(passed, [true, true, false, false]);
    }
}

#[test]
fn dynamic_set_elements_expire_refresh_and_delete() {
    let sets = "set knocked { type ipv4_addr; flags dynamic; timeout 10s; size 2; }";
    let rules = "udp sport 7 add @knocked { ip saddr } accept\nudp sport 8 update @knocked { ip saddr timeout 10s } accept\nudp sport 9 delete @knocked { ip saddr } accept\nip saddr @knocked accept";
    let mut harness = Harness::new(sets, rules);
    assert!(!harness.udp_passes(1, 80, 100, 0));
    assert!(harness.udp_passes(1, 7, 100, 1000) && harness.udp_passes(1, 80, 100, 10_900));
    assert!(!harness.udp_passes(1, 80, 100, 11_001), "expired after ten seconds");
    assert!(
        harness.udp_passes(1, 7, 100, 20_000)
            && harness.udp_passes(1, 8, 100, 25_000)
            && harness.udp_passes(1, 80, 100, 34_000),
        "refreshed"
    );
    assert!(harness.udp_passes(1, 9, 100, 34_500) && !harness.udp_passes(1, 80, 100, 34_500), "deleted");
    // The set has room for two; the third is refused until one expires.
    assert!(
        harness.udp_passes(1, 7, 100, 40_000)
            && harness.udp_passes(2, 7, 100, 41_000)
            && !harness.udp_passes(3, 7, 100, 42_000)
    );
    assert!(harness.udp_passes(3, 7, 100, 50_500), "the first element has expired");
}

#[test]
fn rule_counters_report_position_and_counts() {
    let mut harness = Harness::new(
        "counter total { packets 5 bytes 500; }",
        "counter name \"total\"\nudp sport 1 counter packets 2 bytes 10 accept",
    );
    harness.udp_passes(1, 1, 100, 0);
    harness.udp_passes(1, 2, 200, 0);
    let counts: Vec<(String, u64, u64)> = harness.program.rule_counters().collect();
    assert_eq!(counts, [("t:5:1".to_owned(), 7, 800), ("t:6:1".to_owned(), 3, 110)]);
}

#[test]
fn interval_set_with_5000_ranges() {
    let elements: Vec<String> = (0..5000_u32)
        .map(|at| format!("10.{}.{}.0-10.{}.{}.{}", at >> 8, at & 255, at >> 8, at & 255, at % 200))
        .collect();
    let sets = format!("set s {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}", elements.join(", "));
    let mut harness = Harness::new(&sets, "ip saddr @s accept");
    // 10.0.0.x is in the first range, which has one address.
    assert!(!harness.udp_passes(1, 1, 100, 0) && harness.udp_passes(0, 1, 100, 0));
}

#[test]
fn raw_payload_bit_offsets() {
    // From 10.0.0.5, port 1000, 60 bytes of UDP with a payload of the letter x.
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
        // As in Linux, a packet that is not TCP has no TCP options.
        ("tcp option timestamp missing accept", true),
        ("udp checksum 0 accept", true),
    ] {
        assert_eq!(Harness::new("", rule).udp_passes(5, 1000, 60, 0), holds, "{rule}");
    }
}

/// Seconds since 1970.
const NEW_YEAR_2026: i64 = 1_767_225_600;

#[test]
fn meta_hour_day_time_use_wall_clock() {
    const HOUR: u64 = 3_600_000;
    // The clock starts at 0:00 UTC on a Thursday; local time is two hours ahead.
    for (rule, hours) in [
        ("meta hour \"08:00\"-\"09:59:59\" accept", 6..8),
        ("meta hour >= \"22:00\" accept", 20..22),
        ("meta hour 03:30-04:30 accept", 2..3),
        ("meta hour \"22:00\"-\"01:59:59\" accept", 20..24),
        ("meta hour != \"00:00\"-\"03:59:59\" accept", 2..22),
        ("meta hour { \"02:00\"-\"02:59:59\", \"03:00\"-\"03:30\" } accept", 0..2),
        ("meta day \"Thursday\" accept", 0..22),
        ("meta day \"Friday\"-\"Monday\" accept", 22..30),
        ("meta day { \"Saturday\", 5 } accept", 22..30),
        ("meta time \"2026-01-01 03:00:00\"-\"2026-01-01 04:59:59\" accept", 1..3),
        ("meta time < \"2026-01-01 12:00\" accept", 0..10),
        ("meta time >= \"2026-01-02\" accept", 22..30),
    ] {
        let mut harness = Harness::new("", rule);
        harness.program.set_wall_clock_offset((NEW_YEAR_2026 + 2 * 3600) * 1_000_000_000);
        let there: Vec<u64> = (0..30).filter(|hour| harness.udp_passes(1, 1, 100, hour * HOUR)).collect();
        let wanted: Vec<u64> = hours.filter(|hour| *hour < 24 || !rule.contains("hour")).collect();
        let within: Vec<u64> = there.into_iter().filter(|hour| *hour < 24 || !rule.contains("hour")).collect();
        assert_eq!(within, wanted, "{rule}");
    }
}

#[test]
fn meter_creates_its_own_dynamic_set() {
    let mut harness = Harness::new("", "meter each { ip saddr limit rate 1/minute burst 2 packets } accept");
    for host in 1..=3 {
        let passed: Vec<bool> = (1..=3).map(|port| harness.udp_passes(host, port, 100, 1000)).collect();
        assert_eq!(passed, [true, true, false]);
    }
    let mut small = Harness::new("", "meter each size 2 { ip saddr timeout 10s counter } accept");
    assert!(small.udp_passes(1, 1, 100, 0) && small.udp_passes(2, 1, 100, 0) && !small.udp_passes(3, 1, 100, 5000));
    // The first element is refreshed and stays; the second expires.
    assert!(
        small.udp_passes(1, 1, 100, 6000)
            && small.udp_passes(3, 1, 100, 11_000)
            && !small.udp_passes(2, 1, 100, 12_000)
    );
}

#[test]
fn dynamic_map_add_and_update() {
    let sets = "map last { type ipv4_addr : mark; flags dynamic; timeout 10s; }";
    let rules = "udp sport 7 add @last { ip saddr : 0x5 } accept\nudp sport 8 update @last { ip saddr : 0x6 } accept\nmeta mark set ip saddr map @last meta mark 0x5 accept";
    let mut harness = Harness::new(sets, rules);
    assert!(!harness.udp_passes(1, 80, 100, 0));
    assert!(
        harness.udp_passes(1, 7, 100, 1000)
            && harness.udp_passes(1, 80, 100, 2000)
            && !harness.udp_passes(2, 80, 100, 2000)
    );
    assert!(
        harness.udp_passes(1, 8, 100, 9000) && harness.udp_passes(1, 80, 100, 18_000),
        "refreshed, and its value is kept"
    );
    assert!(
        harness.udp_passes(2, 8, 100, 1000)
            && !harness.udp_passes(2, 80, 100, 2000)
            && !harness.udp_passes(1, 80, 100, 30_000)
    );
}

#[test]
fn static_elements_with_timeout_expire() {
    let sets = "set one { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 10s, 10.0.0.2, 10.0.0.3 timeout 1h expires 5s }; }\n\
                set net { type ipv4_addr; flags interval,timeout; timeout 20s; elements = { 10.0.0.16/28, 10.0.0.64/28 timeout 5s }; }\n\
                map to { type ipv4_addr . inet_service : verdict; flags interval,timeout; elements = { 10.0.0.128/28 . 53 timeout 5s : accept }; }";
    let rules = "udp sport 9 delete @one { ip saddr } accept\nip saddr @one accept\nip saddr @net accept\nip saddr . udp dport vmap @to";
    let mut harness = Harness::new(sets, rules);
    // Timeouts start with the first packet.
    let start = 1_000_000;
    assert!(!harness.udp_passes(9, 1, 100, start));
    for (host, timeout) in [(1, Some(10)), (2, None), (3, Some(5)), (17, Some(20)), (65, Some(5)), (130, Some(5))] {
        for after in [0, 4, 6, 9, 11, 19, 21, 3000] {
            let wanted = timeout.is_none_or(|timeout| after < timeout);
            assert_eq!(harness.udp_passes(host, 1, 100, start + after * 1000), wanted, "{host} after {after} s");
        }
    }
    assert!(
        harness.udp_passes(2, 9, 100, start) && !harness.udp_passes(2, 1, 100, start),
        "packets can delete elements of the ruleset"
    );
}

#[test]
fn set_elements_with_limit_and_counter() {
    let sets = "set s { type ipv4_addr; flags dynamic; elements = { 10.0.0.1 limit rate 1/minute burst 2 packets, 10.0.0.2 counter packets 1 bytes 2, 10.0.0.3 }; }";
    let mut harness = Harness::new(sets, "ip saddr @s accept");
    let passed = |harness: &mut Harness, host| (0..4).filter(|_| harness.udp_passes(host, 1, 100, 1000)).count();
    assert_eq!([1, 2, 3, 4].map(|host| passed(&mut harness, host)), [2, 4, 4, 0]);
}

#[test]
fn object_maps_for_counter_quota_limit() {
    let sets = "counter a { }\ncounter b { packets 5 bytes 5; }\nquota q { 150 bytes }\nlimit l { rate 1/minute burst 1 packets; }\n\
                map who { type ipv4_addr : counter; elements = { 10.0.0.1 : \"a\", 10.0.0.2 : \"b\" }; }\n\
                map most { type ipv4_addr : quota; elements = { 10.0.0.1 : \"q\" }; }";
    let rules = "counter name ip saddr map @who\nquota name ip saddr map @most accept\nlimit name udp sport map { 7 : \"l\" } accept\nudp sport 8 counter name \"a\" accept";
    let mut harness = Harness::new(sets, rules);
    let passed =
        |harness: &mut Harness, host, port| (0..3).filter(|_| harness.udp_passes(host, port, 100, 1000)).count();
    assert_eq!((passed(&mut harness, 1, 1), passed(&mut harness, 2, 1), passed(&mut harness, 3, 7)), (1, 0, 1));
    assert_eq!(passed(&mut harness, 4, 8), 3);
    let counts: Vec<(String, u64, u64)> = harness.program.rule_counters().collect();
    assert_eq!(counts.last().map(|(_, packets, bytes)| (*packets, *bytes)), Some((6, 600)), "{counts:?}");
}

/// All hosts of a range share what it has; a change of other ranges leaves it, and what a script adds begins anew.
#[test]
fn ranges_have_state_of_their_own() {
    let sets = "set s { type ipv4_addr; flags interval; limit rate 1/minute burst 2 packets; elements = { 10.0.0.0/30, 10.0.0.8/29 }; }\n\
                set n { type ipv4_addr . inet_service; flags interval; counter; elements = { 10.0.0.0/24 . 1-99 }; }\n\
                map v { type ipv4_addr : verdict; flags interval; quota 250 bytes; elements = { 10.0.0.64/26 : accept }; }";
    let rules = "ip saddr . udp dport != @n drop\nip saddr . udp dport @n ip saddr @s accept\nip saddr vmap @v";
    let mut harness = Harness::new(sets, rules);
    let passed = |harness: &mut Harness, host| (0..4).filter(|_| harness.udp_passes(host, 53, 100, 1000)).count();
    assert_eq!([1, 2, 9, 5, 70, 71].map(|host| passed(&mut harness, host)), [2, 0, 2, 0, 2, 0]);
    let script = "add element ip t s { 10.0.0.16/29 }\ndelete element ip t s { 10.0.0.8/29 }\nadd element ip t n { 10.1.0.0/24 . 1-99 }";
    let now = Instant::from_millis(2000);
    let update = harness.program.ruleset().prepare_script(("s", script), &NoIncludes, now).unwrap();
    harness.program.apply(update, now).unwrap();
    assert_eq!([1, 9, 17, 18, 70].map(|host| passed(&mut harness, host)), [0, 0, 2, 0, 0]);
    let listing = harness.program.list().to_string();
    for element in [
        "10.0.0.0/24 . 1-99 counter packets 44 bytes 4400",
        "10.1.0.0/24 . 1-99 counter packets 0 bytes 0",
        "10.0.0.16/29 limit rate 1/minute burst 2 packets",
        "10.0.0.64/26 quota 250 bytes used 200 bytes : accept",
    ] {
        assert!(listing.contains(element), "{element} in\n{listing}");
    }
}
