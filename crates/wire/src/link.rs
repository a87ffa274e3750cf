//! Link layers: from a captured frame to the IP datagram in it.
//!
//! A frame is read once and nothing of it is kept but where the datagram begins. Padding behind the datagram stays: the
//! datagram's own length field says where it ends. Link types are the numbers that capture files carry (LINKTYPE).
use crate::{Family, ParseError};

/// A link type by its LINKTYPE number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback: the address family in the byte order of the capturing machine.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// Raw IP, the version nibble says which.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: the address family in network order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux cooked capture.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// Raw IPv4.
    pub const IPV4: LinkType = LinkType(228);
    /// Raw IPv6.
    pub const IPV6: LinkType = LinkType(229);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: LinkType = LinkType(276);
    /// Raw IP as some systems number it in captures of their own.
    const RAW_BSD: LinkType = LinkType(12);
    const RAW_OPENBSD: LinkType = LinkType(14);
}

/// The datagram a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPayload<'a> {
    /// IPv4 or IPv6, as the frame announces it.
    pub family: Family,
    /// From the first octet of the IP header to the end of the frame.
    pub packet: &'a [u8],
    /// Octets before the datagram: subtract them from the frame's original length for
    /// [`Packet::parse_snapped`](crate::Packet::parse_snapped).
    pub offset: usize,
}

/// Finds the IP datagram in `frame`.
pub fn strip_link_header(link: LinkType, frame: &[u8]) -> Result<LinkPayload<'_>, ParseError> {
    match link {
        LinkType::ETHERNET => {
            let Some((&[.., a, b], rest)) = frame.split_first_chunk::<14>() else {
                return Err(ParseError::LinkTruncated);
            };
            parse_ethertype(frame, u16::from_be_bytes([a, b]), rest)
        }
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => {
            let first = frame.first().ok_or(ParseError::Empty)?;
            let family = family_of_version(*first).ok_or(ParseError::Version)?;
            link_payload(frame, family, frame)
        }
        LinkType::IPV4 => link_payload(frame, Family::V4, frame),
        LinkType::IPV6 => link_payload(frame, Family::V6, frame),
        LinkType::NULL | LinkType::LOOP => {
            let (&word, rest) = frame.split_first_chunk::<4>().ok_or(ParseError::LinkTruncated)?;
            let big = family_of_af(u32::from_be_bytes(word));
            let little = family_of_af(u32::from_le_bytes(word));
            let family = if link == LinkType::LOOP { big } else { big.or(little) };
            link_payload(frame, family.ok_or(ParseError::NotIp)?, rest)
        }
        LinkType::LINUX_SLL => {
            let Some((&[.., a, b], rest)) = frame.split_first_chunk::<16>() else {
                return Err(ParseError::LinkTruncated);
            };
            parse_ethertype(frame, u16::from_be_bytes([a, b]), rest)
        }
        LinkType::LINUX_SLL2 => {
            let Some((&[a, b, ..], rest)) = frame.split_first_chunk::<20>() else {
                return Err(ParseError::LinkTruncated);
            };
            parse_ethertype(frame, u16::from_be_bytes([a, b]), rest)
        }
        _ => Err(ParseError::LinkUnknown),
    }
}

/// Steps over VLAN tags (IEEE 802.1Q and 802.1ad) to the EtherType of the payload.
fn parse_ethertype<'a>(frame: &'a [u8], mut ethertype: u16, mut rest: &'a [u8]) -> Result<LinkPayload<'a>, ParseError> {
    for _ in 0..=MAX_VLAN_TAGS {
        match ethertype {
            0x0800 => return link_payload(frame, Family::V4, rest),
            0x86dd => return link_payload(frame, Family::V6, rest),
            0x8100 | 0x88a8 | 0x9100 => {
                let Some((&[_, _, a, b], behind)) = rest.split_first_chunk::<4>() else {
                    return Err(ParseError::LinkTruncated);
                };
                ethertype = u16::from_be_bytes([a, b]);
                rest = behind;
            }
            _ => return Err(ParseError::NotIp),
        }
    }
    Err(ParseError::VlanTags)
}

fn link_payload<'a>(frame: &'a [u8], family: Family, datagram: &'a [u8]) -> Result<LinkPayload<'a>, ParseError> {
    let carried = datagram.first().and_then(|first| family_of_version(*first));
    if carried.is_some_and(|carried| carried != family) {
        return Err(ParseError::LinkFamily);
    }
    Ok(LinkPayload { family, packet: datagram, offset: frame.len() - datagram.len() })
}

fn family_of_version(first: u8) -> Option<Family> {
    match first >> 4 {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}

/// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on Darwin.
fn family_of_af(number: u32) -> Option<Family> {
    match number {
        2 => Some(Family::V4),
        10 | 24 | 28 | 30 => Some(Family::V6),
        _ => None,
    }
}

const MAX_VLAN_TAGS: usize = 4;

#[cfg(test)]
mod tests;
