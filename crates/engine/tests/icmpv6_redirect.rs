//! ICMPv6 redirects as Linux 6.18 classifies them on the link they are sent on (the oracle's forwarding path never passes them).
#![allow(clippy::unwrap_used, reason = "a test that cannot build its packet must fail")]
use keepstate_engine::{CtInfo, Engine, Instant, Secret, Sysctls, Zone};
use keepstate_wire::{Packet, checksum::Sum};

const HOST: [u8; 16] = address(0xfd02, 2);
const PEER: [u8; 16] = address(0xfd01, 1);
const ROUTER: [u8; 16] = address(0xfe80, 1);

const fn address(first: u16, last: u8) -> [u8; 16] {
    let [a, b] = first.to_be_bytes();
    [a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    hops: u8,
    mut payload: Vec<u8>,
    check_at: usize,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let sum = Sum::new()
        .add_bytes(&source)
        .add_bytes(&destination)
        .add_u16(length)
        .add_u16(protocol.into())
        .add_bytes(&payload);
    payload[check_at..check_at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([protocol, hops]);
    packet.extend(source.iter().chain(&destination));
    packet.extend(payload);
    packet
}

fn udp(source: [u8; 16], destination: [u8; 16], ports: (u16, u16)) -> Vec<u8> {
    let mut payload = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), [0, 8], [0, 0]].concat();
    payload.truncate(8);
    ipv6(source, destination, 17, 64, payload, 6)
}

struct Redirect {
    code: u8,
    hops: u8,
    source: [u8; 16],
    to: [u8; 16],
    options: Vec<u8>,
}

impl Redirect {
    fn packet(&self) -> Vec<u8> {
        let mut payload = vec![137, self.code, 0, 0, 0, 0, 0, 0];
        payload.extend(ROUTER.iter().chain(&PEER));
        payload.extend(&self.options);
        ipv6(self.source, self.to, 58, self.hops, payload, 2)
    }
}

fn quote_option(packet: &[u8]) -> Vec<u8> {
    let mut option = vec![4, u8::try_from(packet.len() / 8 + 1).unwrap(), 0, 0, 0, 0, 0, 0];
    option.extend(packet);
    option
}

#[test]
fn redirect_is_related_to_the_connection_of_its_redirected_header_option() {
    let quote = udp(HOST, PEER, (5000, 53));
    let good = || Redirect { code: 0, hops: 255, source: ROUTER, to: HOST, options: quote_option(&quote) };
    let link_address = [2, 1, 2, 0, 0, 0, 0, 1];
    let behind = [&link_address[..], &quote_option(&quote)].concat();
    let before = [&quote_option(&quote), &link_address[..]].concat();
    // The expected class, whether it is related, and the `conntrack -S` counters: invalid, error.
    let seen = [
        ("good", good(), true, (0, 0)),
        ("another option after it", Redirect { options: before, ..good() }, true, (0, 0)),
        ("from far away", Redirect { hops: 64, ..good() }, false, (0, 1)),
        ("not from a link-local address", Redirect { source: address(0xfd02, 77), ..good() }, false, (0, 1)),
        ("to somebody else", Redirect { to: address(0xfd02, 7), ..good() }, false, (0, 1)),
        ("of another code", Redirect { code: 1, ..good() }, false, (1, 0)),
        ("another option before it", Redirect { options: behind, ..good() }, false, (1, 0)),
        ("without options", Redirect { options: vec![], ..good() }, false, (0, 1)),
        ("an option of no length", Redirect { options: vec![4, 0, 0, 0, 0, 0, 0, 0], ..good() }, false, (0, 1)),
        (
            "about an unknown packet",
            Redirect { options: quote_option(&udp(HOST, PEER, (5001, 53))), ..good() },
            false,
            (0, 1),
        ),
        (
            "about a packet of the other direction",
            Redirect { options: quote_option(&udp(PEER, HOST, (53, 5000))), ..good() },
            false,
            (0, 1),
        ),
        ("cut after the ports", Redirect { options: quote_option(&quote[..44]), ..good() }, true, (0, 0)),
        ("cut before the ports", Redirect { options: quote_option(&quote[..40]), ..good() }, false, (0, 1)),
    ];
    for (what, redirect, related, (invalid, error)) in seen {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let first = udp(PEER, HOST, (53, 5000));
        engine.handle(&Packet::parse(&first).unwrap(), Zone::default(), Instant(0));
        let packet = redirect.packet();
        let outcome = engine.handle(&Packet::parse(&packet).unwrap(), Zone::default(), Instant(0));
        let expected = if related { CtInfo::Related } else { CtInfo::Invalid };
        assert_eq!(
            (outcome.info, engine.counters().invalid, engine.counters().error),
            (expected, invalid, error),
            "{what}"
        );
    }
}
