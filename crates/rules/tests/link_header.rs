//! Rules about the Ethernet header and the interface's kind. The expected values are what counters of the same rules say in Linux 6.18, between two veth
//! pairs, at prerouting, forward and postrouting.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod empty_fib;

use empty_fib::EmptyFib;
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_rules::ast::Hook;
use keepstate_rules::datatype::encode_name;
use keepstate_rules::{EvalCtx, InterfaceInfo, NoIncludes, PacketMeta, Verdict, compile, parse_with};
use keepstate_wire::Packet;

/// From 02:00:00:00:00:0c to 02:00:00:00:00:a0, an IPv4 packet.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 0xa0, 2, 0, 0, 0, 0, 0x0c, 8, 0];
/// 10.0.1.2 to 10.0.2.2, UDP.
const PACKET: [u8; 28] =
    [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x63, 0xcd, 10, 0, 1, 2, 10, 0, 2, 2, 0x04, 0, 0, 53, 0, 8, 0, 0];

fn matches(rule: &str, link_header: Option<[u8; 14]>) -> bool {
    let text = format!(
        "table inet t {{\n\tset s {{ type ether_addr; elements = {{ 02:00:00:00:00:0c }}; }}\n\tchain c {{\n\t\ttype filter hook forward priority 0; policy drop;\n\t\t{rule} accept\n\t}}\n}}\n"
    );
    let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
    let device = |index, name| InterfaceInfo {
        index,
        name: encode_name(name).unwrap(),
        group: 0,
        link_type: 1,
        kind: encode_name("veth").unwrap(),
    };
    let mut meta = PacketMeta {
        link_header,
        iif: Some(device(1, "r0")),
        oif: Some(InterfaceInfo { kind: 0, ..device(2, "r1") }),
        ..PacketMeta::default()
    };
    let mut engine = Engine::new(Sysctls::default(), Secret([1; 16]));
    let verdict = program.eval_filter_chains(
        Hook::Forward,
        i32::MIN..=i32::MAX,
        &mut EvalCtx {
            engine: &mut engine,
            packet_ctx: None,
            packet: &Packet::parse(&PACKET).unwrap(),
            meta: &mut meta,
            fib: &EmptyFib,
            sockets: None,
            now: Instant(1),
        },
    );
    verdict == Verdict::Accept
}

#[test]
fn ethernet_header_is_matched_as_in_the_kernel() {
    for (rule, with_header) in [
        ("ether saddr 02:00:00:00:00:0c", true),
        ("ether saddr != 02:00:00:00:00:0c", false),
        ("ether saddr { 02:00:00:00:00:0c, 02:00:00:00:00:0d }", true),
        ("ether saddr 02:00:00:00:00:00-02:00:00:00:00:0f", true),
        ("ether saddr @s", true),
        ("ether saddr . ip saddr { 02:00:00:00:00:0c . 10.0.1.2 }", true),
        ("ether saddr . ip saddr { 02:00:00:00:00:0c . 10.0.1.3 }", false),
        ("ether daddr 02:00:00:00:00:a0", true),
        ("ether daddr 02:00:00:00:00:0c", false),
        ("ether type ip", true),
        ("ether type ip6", false),
        ("vlan id 5", false),
        ("vlan id != 5", false),
        ("@ll,48,48 0x2000000000c", true),
        ("@ll,96,16 0x0800", true),
    ] {
        assert_eq!(matches(rule, Some(HEADER)), with_header, "{rule}");
        // A packet of the machine itself, or of a TUN interface, has none.
        assert!(!matches(rule, None), "{rule}, without a header");
    }
}

#[test]
fn kinds_of_interfaces_are_matched_as_in_the_kernel() {
    for (rule, expected) in [
        ("meta iifkind \"veth\"", true),
        ("meta iifkind { \"veth\", \"vrf\" }", true),
        ("meta iifkind != \"vrf\"", true),
        // A network card has no kind: neither a match nor its negation holds.
        ("meta oifkind \"veth\"", false),
        ("meta oifkind != \"veth\"", false),
        ("meta sdif 0", true),
        ("meta sdif != 0", false),
        ("meta sdifname != \"x\"", true),
        ("meta sdifname \"x\"", false),
    ] {
        assert_eq!(matches(rule, None), expected, "{rule}");
    }
}

#[test]
fn a_program_tells_whether_it_reads_the_header() {
    let reads = |rule: &str| {
        let text = format!("table inet t {{ chain c {{ {rule} accept; }}; }}");
        let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap();
        compile(&tree, &sources).unwrap().reads_link_header()
    };
    assert!(reads("ether saddr 02:00:00:00:00:0c") && reads("ether saddr . ip saddr { 02:00:00:00:00:0c . 10.0.0.1 }"));
    assert!(!reads("ip saddr 10.0.0.1") && !reads("meta iiftype ether"));
}
