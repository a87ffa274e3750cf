//! Rules about the packet inside of a tunnel's packet: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, RFC 2890).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod empty_fib;

use empty_fib::EmptyFib;
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_rules::ast::Hook;
use keepstate_rules::{EvalCtx, NoIncludes, PacketMeta, Verdict, compile, parse, parse_with};
use keepstate_wire::Packet;

fn ip4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0x08, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.iter().chain(&destination).chain(payload));
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

fn ip6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next_header, 64];
    packet.extend(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    packet.extend(payload);
    packet
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut message = vec![0x30, 0x39];
    message.extend(port.to_be_bytes());
    message.extend([length[0], length[1], 0, 0]);
    message.extend(payload);
    message
}

/// A SYN to port 443.
fn syn() -> Vec<u8> {
    let mut segment = vec![0x1f, 0x90, 0x01, 0xbb];
    segment.extend([0; 8]);
    segment.extend([0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn frame(tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 0xa0, 2, 0, 0, 0, 0, 0x0c];
    bytes.extend(tag.into_iter().flat_map(|tag| [0x81, 0, (tag >> 8) as u8, tag as u8]));
    bytes.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    bytes.extend(packet);
    bytes
}

const OUTER: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [192, 0, 2, 2]);
const INNER: ([u8; 4], [u8; 4]) = ([10, 0, 1, 2], [10, 0, 2, 2]);

fn vxlan(inside: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 0, 10, 0];
    message.extend(inside);
    ip4(17, OUTER.0, OUTER.1, &udp(4789, &message))
}

fn geneve(inside: &[u8]) -> Vec<u8> {
    // One word of options.
    let mut message = vec![1, 0, 0x65, 0x58, 0, 0, 77, 0, 1, 2, 3, 4];
    message.extend(inside);
    ip4(17, OUTER.0, OUTER.1, &udp(6081, &message))
}

fn gre(flags: u8, kind: [u8; 2], inside: &[u8]) -> Vec<u8> {
    let mut message = vec![flags, 0, kind[0], kind[1]];
    message.extend(vec![0; 4 * (flags & 0xb0).count_ones() as usize]);
    message.extend(inside);
    ip4(47, OUTER.0, OUTER.1, &message)
}

fn matches(rule: &str, bytes: &[u8]) -> bool {
    let text = format!(
        "table inet t {{\n\tchain c {{\n\t\ttype filter hook forward priority 0; policy drop;\n\t\t{rule} accept\n\t}}\n}}\n"
    );
    let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::new(Sysctls::default(), Secret([1; 16]));
    let verdict = program.eval_filter_chains(
        Hook::Forward,
        i32::MIN..=i32::MAX,
        &mut EvalCtx {
            engine: &mut engine,
            packet_ctx: None,
            packet: &Packet::parse(bytes).unwrap(),
            meta: &mut PacketMeta::default(),
            fib: &EmptyFib,
            sockets: None,
            now: Instant(1),
        },
    );
    verdict == Verdict::Accept
}

#[test]
fn vxlan_and_geneve_carry_frames() {
    let inner = ip4(6, INNER.0, INNER.1, &syn());
    for (name, plain, tagged, vni) in [
        ("udp dport 4789 vxlan", vxlan(&frame(None, &inner)), vxlan(&frame(Some(5), &inner)), 10),
        ("udp dport 6081 geneve", geneve(&frame(None, &inner)), geneve(&frame(Some(5), &inner)), 77),
    ] {
        for (rule, expected) in [
            (format!("vni {vni}"), true),
            (format!("vni {}", vni + 1), false),
            ("ip saddr 10.0.1.2".to_owned(), true),
            ("ip saddr 192.0.2.1".to_owned(), false),
            ("ip dscp 2".to_owned(), true),
            ("ip6 saddr ::1".to_owned(), false),
            ("tcp dport 443".to_owned(), true),
            ("tcp dport { 80, 443 }".to_owned(), true),
            ("tcp flags syn".to_owned(), true),
            ("udp dport 443".to_owned(), false),
            ("icmp type echo-request".to_owned(), false),
            ("ether saddr 02:00:00:00:00:0c".to_owned(), true),
            ("ether type ip6".to_owned(), false),
        ] {
            assert_eq!(matches(&format!("{name} {rule}"), &plain), expected, "{name} {rule}");
        }
        assert!(!matches(&format!("{name} vlan id 5"), &plain), "{name}");
        assert!(matches(&format!("{name} vlan id 5"), &tagged), "{name}");
        assert!(matches(&format!("{name} tcp dport 443"), &tagged), "{name}");
    }
    assert!(matches("udp dport 4789 vxlan flags 8", &vxlan(&[])));
    assert!(matches("udp dport 6081 geneve type 0x6558", &geneve(&[])));
    assert!(matches("udp dport 4789 vxlan ip6 saddr 2001:db8::1", &vxlan(&frame(None, &ip6(17, &udp(53, &[]))))));
    assert!(matches("udp dport 4789 vxlan udp dport 53", &vxlan(&frame(None, &ip6(17, &udp(53, &[]))))));
    let pair = "udp dport 4789 vxlan ip saddr . vxlan ip daddr { 10.0.1.2 . 10.0.2.2 }";
    assert!(matches(pair, &vxlan(&frame(None, &inner))));
    // What carries no tunnel, or half of one.
    assert!(!matches("udp dport 4789 vxlan vni 10", &ip4(17, OUTER.0, OUTER.1, &udp(4789, &[8, 0, 0]))));
    assert!(!matches("udp dport 4789 vxlan ip saddr 10.0.1.2", &vxlan(&frame(None, &inner)[..30])));
}

#[test]
fn gre_carries_packets_or_frames() {
    let inner = ip4(6, INNER.0, INNER.1, &syn());
    for flags in [0, 0x20, 0xb0] {
        let packet = gre(flags, [8, 0], &inner);
        for (rule, expected) in [
            ("gre protocol 0x0800", true),
            ("gre version 0", true),
            ("gre version 1", false),
            ("gre ip saddr 10.0.1.2", true),
            ("gre tcp dport 443", true),
            ("gre ip6 saddr ::1", false),
            ("gre udp dport 443", false),
        ] {
            assert_eq!(matches(rule, &packet), expected, "{rule}");
        }
        assert!(matches(&format!("gre flags {}", flags >> 3), &packet), "{flags}");
        let framed = gre(flags, [0x65, 0x58], &frame(Some(7), &inner));
        for rule in [
            "gretap ip daddr 10.0.2.2",
            "gretap tcp dport 443",
            "gretap vlan id 7",
            "gretap ether saddr 02:00:00:00:00:0c",
        ] {
            assert!(matches(rule, &framed), "{rule}");
        }
    }
    assert!(!matches("gre ip saddr 10.0.1.2", &ip4(6, OUTER.0, OUTER.1, &syn())));
}

#[test]
fn a_tunnel_in_udp_needs_its_port_before_it() {
    let text = |rule: &str| format!("table inet t {{ chain c {{ {rule} accept; }}; }}");
    let error = |rule: &str| {
        let tree = parse("t", &text(rule), &NoIncludes);
        let (tree, sources) = match tree {
            Ok(_) => parse_with("t", &text(rule), &NoIncludes, &[]).unwrap(),
            Err(error) => return error.to_string(),
        };
        compile(&tree, &sources).unwrap_err().to_string()
    };
    assert!(error("vxlan vni 10").contains("vxlan is carried by UDP"));
    assert!(error("tcp dport 4789 geneve vni 10").contains("geneve is carried by UDP"));
    assert!(error("udp dport 53 gre version 0").contains("already selected"));
    assert!(error("gre ether saddr 02:00:00:00:00:01").contains("nothing that can be read in gre"));
    assert!(error("udp dport 4789 vxlan ct state new").contains("nothing that can be read in vxlan"));
}
