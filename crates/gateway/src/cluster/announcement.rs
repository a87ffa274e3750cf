//! The frames by which a machine tells a network that it has an address now: a gratuitous ARP request (RFC 5227, 3), an unsolicited neighbour advertisement (RFC 4861, 7.2.6).
use keepstate_wire::checksum::Sum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
/// The group of all nodes of a link, ff02::1, and its address on Ethernet.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;

/// An Ethernet header, and what stands behind it.
pub(super) fn announcement(mac: [u8; 6], address: IpAddr) -> ([u8; 14], Vec<u8>) {
    match address {
        IpAddr::V4(address) => (ethernet(BROADCAST, mac, ETHERTYPE_ARP), gratuitous_arp(mac, address)),
        IpAddr::V6(address) => (ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6), neighbour_advertisement(mac, address)),
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> [u8; 14] {
    let mut header = [0; 14];
    header.iter_mut().zip(to.into_iter().chain(from).chain(kind)).for_each(|(place, byte)| *place = byte);
    header
}

/// A request for the own address: every host that knows the address takes the new MAC address.
fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, lengths of both, request.
    let head = [0, 1, 0x08, 0, 6, 4, 0, 1];
    let address = address.octets();
    [&head[..], &mac, &address, &[0; 6], &address].concat()
}

fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    /// It is a router, and what was known before is replaced.
    const ROUTER_OVERRIDE: u8 = 0xa0;
    const TARGET_MAC: [u8; 2] = [2, 1];
    let mut body = [&[136, 0, 0, 0, ROUTER_OVERRIDE, 0, 0, 0][..], &address.octets(), &TARGET_MAC, &mac].concat();
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let (source, destination) = (address.octets(), ALL_NODES.octets());
    let pseudo = Sum::new().add_bytes(&source).add_bytes(&destination).add_u32(length.into()).add_u32(ICMPV6.into());
    let checksum = pseudo.add_bytes(&body).finish().to_be_bytes();
    if let Some(place) = body.get_mut(2..4) {
        place.copy_from_slice(&checksum);
    }
    let [high, low] = length.to_be_bytes();
    [&[0x60, 0, 0, 0, high, low, ICMPV6, 255][..], &source, &destination, &body].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_wire::Packet;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn frames_are_as_the_rfcs_have_them() {
        let (header, arp) = announcement(MAC, [192, 0, 2, 77].into());
        assert_eq!(header, [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6]);
        assert_eq!(arp.len(), 28);
        assert_eq!((&arp[8..14], &arp[14..18], &arp[24..28]), (&MAC[..], &[192, 0, 2, 77][..], &[192, 0, 2, 77][..]));
        let (header, advertisement) = announcement(MAC, "2001:db8::77".parse().unwrap());
        assert_eq!(header[..6], ALL_NODES_MAC);
        // Parsed by the code that judges others' packets, its checksum too.
        let packet = Packet::parse(&advertisement).unwrap();
        assert_eq!(packet.bytes().len(), 72);
        assert_eq!((advertisement[40], advertisement[44], &advertisement[66..72]), (136, 0xa0, &MAC[..]));
    }
}
