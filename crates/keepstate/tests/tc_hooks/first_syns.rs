//! Which first SYNs of a class the kernel lets go on by itself: plain ones, whatever else is in their headers. All others are judged before they go on.
use crate::classes::{Ends, RULES, V4, V6, listen, opens_by_class};
use crate::offload::{stat, wait_for};
use crate::packet_socket::PacketSocket;
use crate::peers::{run_ip, spawn_in_netns};
use crate::{PATIENCE, TcTestbed};
use keepstate_wire::checksum;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// A segment to the server, as the client sends it.
#[derive(Clone)]
struct Syn {
    flags: u8,
    options: &'static [u8],
    data: &'static [u8],
    hops: u8,
    tos: u8,
    flow_label: u16,
    /// Of IPv4 options, of IPv6 the kind of an extension header and what follows its first byte.
    extra: &'static [u8],
    /// Is the frame to all stations?
    to_all: bool,
}

const PLAIN: Syn =
    Syn { flags: SYN, options: &[], data: &[], hops: 64, tos: 0, flow_label: 0, extra: &[], to_all: false };
/// Flags of TCP.
const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

impl Syn {
    /// From the IP header on, and where its TCP header begins.
    fn bytes(&self, [client, server]: [SocketAddr; 2]) -> (Vec<u8>, usize) {
        const TCP: u8 = 6;
        let header = u8::try_from(20 + self.options.len()).unwrap();
        let mut tcp = [client.port().to_be_bytes(), server.port().to_be_bytes()].concat();
        tcp.extend([1, 2, 3, 4, 0, 0, 0, 0, header << 2, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend([self.options, self.data].concat());
        let length = u16::try_from(tcp.len()).unwrap();
        let (mut ip, addresses) = match (client.ip(), server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = 20 + u16::try_from(self.extra.len()).unwrap();
                let [high, low] = (header + length).to_be_bytes();
                let first = 0x40 | u8::try_from(header / 4).unwrap();
                let addresses = [from.octets(), to.octets()].concat();
                let mut ip = vec![first, self.tos, high, low, 0, 1, 0x40, 0, self.hops, TCP, 0, 0];
                ip.extend([&addresses[..], self.extra].concat());
                let sum = checksum::internet(&ip).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                (ip, addresses)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [high, low] = (length + u16::try_from(self.extra.len()).unwrap()).to_be_bytes();
                let [label_high, label_low] = self.flow_label.to_be_bytes();
                let addresses = [from.octets(), to.octets()].concat();
                let mut ip = vec![0x60 | self.tos >> 4, self.tos << 4, label_high, label_low, high, low];
                ip.extend([self.extra.first().copied().unwrap_or(TCP), self.hops]);
                ip.extend(&addresses);
                ip.extend(self.extra.split_first().map(|(_, rest)| [&[TCP][..], rest].concat()).unwrap_or_default());
                (ip, addresses)
            }
            _ => panic!("of two families"),
        };
        let pseudo = [&addresses[..], &[0, TCP], &length.to_be_bytes(), &tcp].concat();
        let sum = checksum::internet(&pseudo).to_be_bytes();
        tcp[16..18].copy_from_slice(&sum);
        let at = ip.len();
        ip.extend(tcp);
        (ip, at)
    }
}

/// Client and server, and the frames between them.
struct Wire<'a> {
    lab: &'a TcTestbed,
    client: IpAddr,
    server: SocketAddr,
    /// Of the client's interface, of the server's.
    sockets: [PacketSocket; 2],
    port: u16,
}

impl<'a> Wire<'a> {
    fn new(lab: &'a TcTestbed, ends: &Ends) -> Wire<'a> {
        let open = |side: &str, device: &'static str| {
            spawn_in_netns(&lab.netns.name(side), move || PacketSocket::open(device)).join().unwrap()
        };
        let (client, server) = (ends.clients[0].parse().unwrap(), ends.server.parse().unwrap());
        let mut wire = Wire { lab, client, server, sockets: [open("c", "c0"), open("s", "s0")], port: 10_000 };
        // Once it is in the table, all that was opened before it is counted.
        wire.send(&PLAIN, true);
        let (its, until) = (format!("sport={} ", wire.port), Instant::now() + PATIENCE);
        while !lab.control(&["list"]).contains(&its) {
            assert!(Instant::now() < until, "{}", lab.control(&["list"]));
        }
        wire
    }

    /// Sends one from a port of its own; with `arrives` it is waited for at the server.
    fn send(&mut self, syn: &Syn, arrives: bool) {
        let [outside, inside] = &self.sockets;
        self.port += 1;
        let (bytes, at) = syn.bytes([SocketAddr::new(self.client, self.port), self.server]);
        let to = if syn.to_all { vec![0xff; 6] } else { self.lab.mac("r", "r0") };
        let kind = if self.server.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        outside.send(&[&to[..], &self.lab.mac("c", "c0"), &kind, &bytes].concat());
        let ports = &bytes[at..at + 4];
        let is_it = |frame: &[u8]| frame.len() >= 14 + bytes.len() && frame[14 + at..].starts_with(ports);
        assert!(!arrives || inside.receive(PATIENCE, is_it).is_some(), "it is lost: {bytes:02x?}");
    }

    /// Is it opened by class? `arrives` says whether the server gets it.
    fn expect(&mut self, what: &str, syn: &Syn, arrives: bool, opens: bool) {
        let before = stat(self.lab, "opened_by_class");
        self.send(syn, arrives);
        // What is told is told in order: of the first one before that of this one.
        self.send(&PLAIN, true);
        let expected = before + 1 + u64::from(opens);
        let opened = wait_for(self.lab, "opened_by_class", |opened| opened >= expected);
        assert_eq!(opened, expected, "{what}");
    }
}

/// The extension header of fragments.
const FRAGMENT: u8 = 44;
/// As many as there may be.
const ALL_OPTIONS: &[u8] = &[
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1,
];

#[test]
fn plain_first_syns_are_opened_and_no_others() {
    for ends in [V4, V6] {
        let name = format!("cw{}", ends.tag);
        let Some(lab) = TcTestbed::with_rules(&name, RULES, &["--interface", "r0,r1"]) else { return };
        let listener = listen(&lab, "s", ends.server);
        opens_by_class(&lab, &listener, &ends);
        let mut wire = Wire::new(&lab, &ends);
        for (what, syn) in [
            ("plain", PLAIN),
            ("options of TCP", Syn { options: ALL_OPTIONS, ..PLAIN }),
            ("it asks for ECN", Syn { flags: SYN | ECE | CWR, ..PLAIN }),
            ("pushed", Syn { flags: SYN | PSH, ..PLAIN }),
            ("two hops to go", Syn { hops: 2, ..PLAIN }),
            ("marked by ECN", Syn { tos: 3, ..PLAIN }),
            ("a type of service", Syn { tos: 0xb8, ..PLAIN }),
            ("a flow label", Syn { flow_label: 0xabcd, ..PLAIN }),
        ] {
            wire.expect(what, &syn, true, true);
        }
        for (what, syn, arrives) in [
            ("data", Syn { data: b"early", ..PLAIN }, true),
            ("urgent", Syn { flags: SYN | URG, ..PLAIN }, true),
            ("the end too", Syn { flags: SYN | FIN, ..PLAIN }, false),
            ("its last hop", Syn { hops: 1, ..PLAIN }, false),
            ("to all stations", Syn { to_all: true, ..PLAIN }, false),
        ] {
            wire.expect(what, &syn, arrives, false);
        }
        // Padding; an extension header of padding, and that of a fragment which is the whole.
        let extra: &[&'static [u8]] = if ends.tag == "4" {
            &[&[1, 1, 1, 0]]
        } else {
            &[&[60, 0, 1, 4, 0, 0, 0, 0], &[FRAGMENT, 0, 0, 0, 0, 0, 0, 9]]
        };
        for extra in extra.iter().copied() {
            // That of a fragment is taken off.
            wire.expect("more than the IP header", &Syn { extra, ..PLAIN }, extra[0] != FRAGMENT, false);
        }
        assert_eq!(stat(&lab, "opened_and_taken_back"), 0);
    }
}

/// Routes go by the type of service: only packets of the ordinary one are a class's.
#[test]
fn types_of_service_that_routes_go_by_are_judged() {
    for ends in [V4, V6] {
        let name = format!("ct{}", ends.tag);
        let Some(mut lab) = TcTestbed::without_gateway(&name, RULES) else { return };
        let (router, version) = (lab.netns.name("r"), format!("-{}", ends.tag));
        assert!(run_ip(&[&version, "-n", &router, "rule", "add", "tos", "0x10", "table", "main"]));
        lab.start(&["--interface", "r0,r1"]);
        let listener = listen(&lab, "s", ends.server);
        opens_by_class(&lab, &listener, &ends);
        let mut wire = Wire::new(&lab, &ends);
        wire.expect("plain", &PLAIN, true, true);
        wire.expect("marked by ECN", &Syn { tos: 3, ..PLAIN }, true, true);
        wire.expect("a type of service", &Syn { tos: 0x10, ..PLAIN }, true, false);
        assert_eq!(stat(&lab, "opened_and_taken_back"), 0);
    }
}
