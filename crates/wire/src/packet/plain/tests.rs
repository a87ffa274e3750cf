//! The views of ordinary packets say what the general views say.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use crate::checksum::Sum;
use crate::tcp::TcpSegment;
use crate::udp::UdpHeader;
use crate::{Packet, protocol};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// What makes a packet one that is not ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oddity {
    None,
    OtherProtocol,
    Fragment,
    /// IPv4 options, or an IPv6 extension header.
    Extended,
    Snapped,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    ipv6: bool,
    udp: bool,
    oddity: Oddity,
}

impl Kind {
    fn protocol(self) -> u8 {
        match (self.udp, self.oddity == Oddity::OtherProtocol) {
            (true, false) => protocol::UDP,
            (true, true) => protocol::UDPLITE,
            (false, false) => protocol::TCP,
            (false, true) => protocol::SCTP,
        }
    }

    fn header_len(self) -> usize {
        let fixed = if self.ipv6 { 40 } else { 20 };
        let fragment = if self.ipv6 && self.oddity == Oddity::Fragment { 8 } else { 0 };
        fixed + fragment + if self.oddity == Oddity::Extended { 8 } else { 0 }
    }

    /// A packet that carries `transport`, with the right IP header checksum.
    fn packet(self, transport: &[u8]) -> Vec<u8> {
        let protocol = self.protocol();
        let mut bytes =
            if self.ipv6 { self.ipv6_header(protocol, transport.len()) } else { vec![0; self.header_len()] };
        if !self.ipv6 {
            let total = u16::try_from(bytes.len() + transport.len()).unwrap().to_be_bytes();
            let first = 0x40 + u8::try_from(bytes.len() / 4).unwrap();
            let fragment = if self.oddity == Oddity::Fragment { 0x20 } else { 0 };
            let fixed =
                [first, 0, total[0], total[1], 0, 1, fragment, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 255, 255, 255, 254];
            bytes.fill(1);
            bytes[..20].copy_from_slice(&fixed);
            let check = crate::checksum::internet(&bytes).to_be_bytes();
            bytes[10..12].copy_from_slice(&check);
        }
        bytes.extend(transport);
        bytes
    }

    fn ipv6_header(self, protocol: u8, transport_len: usize) -> Vec<u8> {
        let payload = u16::try_from(self.header_len() - 40 + transport_len).unwrap().to_be_bytes();
        let next = match self.oddity {
            Oddity::Fragment => 44,
            Oddity::Extended => 60,
            _ => protocol,
        };
        let mut bytes = vec![0x60, 0, 0, 0, payload[0], payload[1], next, 64];
        bytes.extend((0..32).map(|at| if at % 3 == 0 { 0xff } else { at }));
        match self.oddity {
            Oddity::Fragment => bytes.extend([protocol, 0, 0, 1, 0, 0, 0, 1]),
            // Destination options: six bytes of padding.
            Oddity::Extended => bytes.extend([protocol, 0, 1, 4, 0, 0, 0, 0]),
            _ => (),
        }
        bytes
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let oddity = prop_oneof![
        6 => Just(Oddity::None),
        1 => Just(Oddity::OtherProtocol),
        1 => Just(Oddity::Fragment),
        1 => Just(Oddity::Extended),
        1 => Just(Oddity::Snapped),
    ];
    (any::<bool>(), any::<bool>(), oddity).prop_map(|(ipv6, udp, oddity)| Kind { ipv6, udp, oddity })
}

/// What a view of an ordinary packet says: whether there is one, the segment, whether the checksum is right, the addresses.
type Said<'a> = Option<(Option<TcpSegment<'a>>, bool, Option<[[u64; 2]; 2]>)>;

fn said<'a>(packet: &Packet<'a>) -> [Said<'a>; 4] {
    [
        packet.plain_tcp().map(|plain| (plain.segment(), plain.checksum_ok(), None)),
        packet.plain_tcp_v6().map(|plain| (plain.segment(), plain.checksum_ok(), Some(plain.addresses()))),
        packet.plain_udp().map(|plain| (None, plain.checksum_ok(), None)),
        packet.plain_udp_v6().map(|plain| (None, plain.checksum_ok(), Some(plain.addresses()))),
    ]
}

proptest! {
    /// They say what the general views say, of any bytes; and there is none where those find nothing to say.
    #[test]
    fn they_equal_the_general_views(
        kind in kinds(),
        transport in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..400),
        offset in 0u8..16,
        checksum in 0u8..3,
        length_off_by in prop_oneof![4 => Just(0), 1 => -500i32..3],
    ) {
        let mut transport = transport;
        let (at, header_len) = if kind.udp { (6, 8) } else { (16, 20) };
        if kind.udp && transport.len() >= 8 {
            let length = i32::try_from(transport.len()).unwrap() + length_off_by;
            transport[4..6].copy_from_slice(&u16::try_from(length.max(0)).unwrap().to_be_bytes());
        } else if let Some(byte) = transport.get_mut(12) {
            *byte = offset << 4;
        }
        if let (true, Some(field)) = (checksum > 0, transport.get_mut(at..at + 2)) {
            field.copy_from_slice(&[0, 0]);
        }
        let mut bytes = kind.packet(&transport);
        if checksum == 2 && transport.len() >= header_len {
            let addresses = if kind.ipv6 { &bytes[8..40] } else { &bytes[12..20] };
            let sum = Sum::new().add_bytes(addresses).add_u16(u16::from(kind.protocol()));
            let sum = sum.add_u32(u32::try_from(transport.len()).unwrap()).add_bytes(&transport).finish();
            let at = kind.header_len() + at;
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let captured = bytes.len() - usize::from(kind.oddity == Oddity::Snapped && !transport.is_empty());
        let packet = Packet::parse_snapped(&bytes[..captured], bytes.len()).unwrap();
        let header_fits = match kind.udp {
            true => UdpHeader::parse(packet.transport(), packet.transport_len()).is_ok(),
            false => transport.len() >= 20,
        };
        let ordinary = kind.oddity == Oddity::None && header_fits;
        let segment = if kind.udp { None } else { TcpSegment::parse(packet.transport(), packet.transport_len()).ok() };
        let addresses = if kind.ipv6 { packet.flow_key_v6().map(|(addresses, _)| addresses) } else { None };
        let mut expected = [None; 4];
        expected[usize::from(kind.udp) * 2 + usize::from(kind.ipv6)] =
            ordinary.then(|| (segment, packet.transport_checksum_ok(), addresses));
        prop_assert_eq!(said(&packet), expected);
        if ordinary && checksum == 2 {
            prop_assert!(packet.transport_checksum_ok());
        }
        let open = packet.checksum_unnecessary();
        prop_assert!(said(&open).iter().flatten().all(|(_, ok, _)| *ok));
    }
}
