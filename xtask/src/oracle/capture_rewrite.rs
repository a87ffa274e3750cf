//! A packet of a capture changed so that it crosses a router: other addresses where its own would not be forwarded, another hop limit and traffic class.
//!
//! Checksums stay as right or as wrong as they were: a change is subtracted from a checksum, never summed anew. Only a sum that was left to the
//! network card (the field holds the pseudo-header's sum) is filled in, as the card would have.
use super::packet_builder::{self, ICMP, ICMPV6, PacketEndpoints, TCP, UDP, UDPLITE};
use super::step::RawPacketView;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Stand-ins for addresses that a router does not forward, the same one each time.
#[derive(Default)]
pub struct AddressMap(HashMap<IpAddr, IpAddr>);

impl AddressMap {
    /// The address itself if it is forwarded, else its stand-in: of 198.18.0.0/15 or fd77::/32, which are for such uses.
    fn map(&mut self, address: IpAddr) -> IpAddr {
        if is_forwardable(address) {
            return address;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX) % 0xfffe + 1;
        *self.0.entry(address).or_insert_with(|| match address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(0xc612_0000 | number).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(0xfd77 << 112 | u128::from(number)).into(),
        })
    }
}

fn is_forwardable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    };
    !local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

/// The packet, changed; `None` if it is not an IP packet.
pub fn rewrite(packet: &[u8], map: &mut AddressMap) -> Option<Vec<u8>> {
    let mut bytes = packet.to_vec();
    rewrite_headers(&mut bytes, map, true)?;
    let before = RawPacketView::parse(packet)?;
    let transport = packet.len() - before.transport.len();
    let quoted = before.inner_packet().map(|quoted| packet.len() - quoted.len());
    if let Some(inner) = quoted.and_then(|at| bytes.get_mut(at..)) {
        // A quotation may be cut anywhere; what is there of it is changed.
        let _ = rewrite_headers(inner, map, false);
    }
    if fragment_offset(packet) == 0 {
        keep_transport_checksum(packet, &mut bytes, transport, before.protocol);
    }
    Some(bytes)
}

/// Maps the addresses; of the packet itself, sets hop limit and traffic class too. An IPv4 header's checksum stays as right as it was.
fn rewrite_headers(bytes: &mut [u8], map: &mut AddressMap, outer: bool) -> Option<()> {
    let v4 = bytes.first()? >> 4 == 4;
    let (at, length) = if v4 { (12, 4) } else { (8, 16) };
    let view = RawPacketView::parse(bytes)?;
    let ends = [view.source, view.destination];
    let before = bytes.to_vec();
    for (number, address) in ends.into_iter().enumerate() {
        let at = at + number * length;
        bytes.get_mut(at..at + length)?.copy_from_slice(&packet_builder::address_bytes(map.map(address)));
    }
    if outer && v4 {
        (bytes[1], bytes[8]) = (0, 64);
    } else if outer {
        (bytes[0], bytes[1], bytes[7]) = (0x60, bytes[1] & 15, 64);
    }
    if v4 {
        let header = usize::from(bytes[0] & 15) * 4;
        keep_checksum(before.get(..header)?, bytes.get_mut(..header)?, 10, 0, 0);
    }
    Some(())
}

/// The fragment offset; 0 of a packet that is none.
fn fragment_offset(packet: &[u8]) -> u16 {
    match packet {
        [first, _, _, _, _, _, high, low, ..] if first >> 4 == 4 => u16::from_be_bytes([*high, *low]) & 0x1fff,
        [_, _, _, _, _, _, packet_builder::FRAGMENT, ..] => {
            packet.get(42..44).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]) >> 3)
        }
        _ => 0,
    }
}

/// The checksum of TCP, UDP, UDP-Lite, ICMP: over what it covers, the difference is subtracted. SCTP's covers no addresses.
fn keep_transport_checksum(before: &[u8], after: &mut [u8], transport: usize, protocol: u8) {
    let at = match protocol {
        TCP => 16,
        UDP | UDPLITE => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    let Some(there) = before.get(transport + at..transport + at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    else {
        return;
    };
    if protocol == UDP && there == 0 {
        return;
    }
    let sum_of_addresses = |packet: &[u8]| if protocol == ICMP { 0 } else { address_sum(packet) };
    if matches!(protocol, TCP | UDP) && is_left_to_card(before, transport, protocol, there) {
        let Some(view) = RawPacketView::parse(after) else { return };
        let ends = PacketEndpoints { source: view.source, destination: view.destination };
        packet_builder::write_checksum(&mut after[transport..], at, ends, protocol, false);
        return;
    }
    let (old, new) = (sum_of_addresses(before), sum_of_addresses(after));
    keep_checksum(&before[transport..], &mut after[transport..], at, old, new);
}

/// Does the field hold the pseudo-header's sum and nothing else?
fn is_left_to_card(packet: &[u8], transport: usize, protocol: u8, there: u16) -> bool {
    let length = packet.len() - transport;
    let pseudo = address_sum(packet) + u64::from(protocol) + length as u64;
    there == !packet_builder::fold_checksum(pseudo)
}

fn address_sum(packet: &[u8]) -> u64 {
    let addresses = if packet[0] >> 4 == 4 { packet.get(12..20) } else { packet.get(8..40) };
    packet_builder::sum_words(addresses.unwrap_or_default())
}

/// Changes the checksum at `at` by the difference of what it covers (RFC 1624): `old` and `new` are sums of what lies elsewhere.
fn keep_checksum(before: &[u8], after: &mut [u8], at: usize, old: u64, new: u64) {
    let word = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    if before.len() < at + 2 || after.len() < at + 2 {
        return;
    }
    let there = word(before);
    let folded = |sum: u64| !packet_builder::fold_checksum(sum);
    let covered = |bytes: &[u8], more: u64| folded(packet_builder::sum_words(bytes) - u64::from(word(bytes)) + more);
    let (old, new) = (covered(before, old), covered(after, new));
    if old != new {
        let changed = packet_builder::fold_checksum(u64::from(!there) + u64::from(!old) + u64::from(new));
        after[at..at + 2].copy_from_slice(&changed.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_is_right(packet: &[u8]) -> bool {
        packet_builder::fold_checksum(packet_builder::sum_words(&packet[..20])) == 0
    }

    fn transport_is_right(packet: &[u8], protocol: u8) -> bool {
        let view = RawPacketView::parse(packet).unwrap();
        let ends = PacketEndpoints { source: view.source, destination: view.destination };
        packet_builder::checksum(ends, protocol, view.transport) == 0
    }

    fn udp(ends: [&str; 2]) -> Vec<u8> {
        let [source, destination] = ends.map(|end| end.parse().unwrap());
        let ends = PacketEndpoints { source, destination };
        let mut transport = vec![0, 53, 0, 53, 0, 11, 0, 0, 1, 2, 3];
        packet_builder::write_checksum(&mut transport, 6, ends, UDP, false);
        packet_builder::ip_packet(ends, UDP, &transport, &packet_builder::IpHeaderSpec::default())
    }

    #[test]
    fn checksums_stay_as_right_or_wrong_as_they_were() {
        let mut map = AddressMap::default();
        for ends in [
            ["127.0.0.1", "224.0.0.251"],
            ["fe80::1", "ff02::fb"],
            ["10.0.0.1", "169.254.1.1"],
            ["10.0.0.1", "10.0.0.2"],
        ] {
            let packet = udp(ends);
            let changed = rewrite(&packet, &mut map).unwrap();
            let view = RawPacketView::parse(&changed).unwrap();
            assert!(is_forwardable(view.source) && is_forwardable(view.destination));
            assert!(transport_is_right(&changed, UDP), "{ends:?}");
            let v4 = packet[0] >> 4 == 4;
            assert!(!v4 || header_is_right(&changed));
            // One bit wrong before is wrong afterwards.
            let mut wrong = packet.clone();
            *wrong.last_mut().unwrap() ^= 1;
            assert!(!transport_is_right(&rewrite(&wrong, &mut map).unwrap(), UDP));
            if v4 {
                let mut wrong = packet;
                wrong[10] ^= 1;
                assert!(!header_is_right(&rewrite(&wrong, &mut map).unwrap()));
            }
        }
    }

    #[test]
    fn sum_left_to_the_card_is_filled_in() {
        let mut packet = udp(["127.0.0.1", "127.0.0.1"]);
        let pseudo = address_sum(&packet) + u64::from(UDP) + 11;
        packet[26..28].copy_from_slice(&(!packet_builder::fold_checksum(pseudo)).to_be_bytes());
        let changed = rewrite(&packet, &mut AddressMap::default()).unwrap();
        assert!(transport_is_right(&changed, UDP));
    }

    /// One address has one stand-in, in a quotation too.
    #[test]
    fn quoted_addresses_are_mapped() {
        let mut map = AddressMap::default();
        let quoted = udp(["127.0.0.1", "127.0.0.2"]);
        let ends = PacketEndpoints { source: "127.0.0.2".parse().unwrap(), destination: "127.0.0.1".parse().unwrap() };
        let mut transport = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        packet_builder::write_checksum(&mut transport, 2, ends, ICMP, false);
        let error = packet_builder::ip_packet(ends, ICMP, &transport, &packet_builder::IpHeaderSpec::default());
        let changed = rewrite(&error, &mut map).unwrap();
        let view = RawPacketView::parse(&changed).unwrap();
        let inner = RawPacketView::parse(view.inner_packet().unwrap()).unwrap();
        assert_eq!((inner.source, inner.destination), (view.destination, view.source));
        assert!(transport_is_right(&changed, ICMP) && header_is_right(view.inner_packet().unwrap()));
    }
}
