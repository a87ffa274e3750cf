//! Link layer headers: from a captured frame to the IP packet in it.
//!
//! Padding after the packet stays: the packet's own length field says where it ends. Link types are the LINKTYPE numbers of
//! capture files.
use crate::{Family, ParseError};

/// A link type by its LINKTYPE number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback: the address family in the byte order of the capturing machine.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// Raw IP, version by its first four bits.
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
    /// PPP, also with HDLC framing.
    pub const PPP: LinkType = LinkType(9);
    /// PPP in HDLC-like framing.
    pub const PPP_HDLC: LinkType = LinkType(50);
    /// PPP as pppd sees it: a byte for the direction in the place of the address.
    pub const PPP_PPPD: LinkType = LinkType(166);
    /// Cisco's HDLC.
    pub const C_HDLC: LinkType = LinkType(104);
    /// PPP behind a byte for the direction.
    pub const PPP_WITH_DIR: LinkType = LinkType(204);
    /// Linux's netfilter log (nfnetlink_log).
    pub const NFLOG: LinkType = LinkType(239);
    /// Raw IP, by the numbers that the BSDs and OpenBSD have for it.
    const RAW_BSD: LinkType = LinkType(12);
    const RAW_OPENBSD: LinkType = LinkType(14);
}

impl core::fmt::Display for LinkType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match *self {
            LinkType::NULL => "NULL",
            LinkType::ETHERNET => "ETHERNET",
            LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => "RAW",
            LinkType::LOOP => "LOOP",
            LinkType::LINUX_SLL => "LINUX_SLL",
            LinkType::IPV4 => "IPV4",
            LinkType::IPV6 => "IPV6",
            LinkType::LINUX_SLL2 => "LINUX_SLL2",
            LinkType::PPP => "PPP",
            LinkType::PPP_HDLC => "PPP_HDLC",
            LinkType::C_HDLC => "C_HDLC",
            LinkType::PPP_PPPD => "PPP_PPPD",
            LinkType::PPP_WITH_DIR => "PPP_WITH_DIR",
            LinkType::NFLOG => "NFLOG",
            // Some that are met in captures and carry no IP that is tracked here.
            LinkType(6) => "IEEE802_5",
            LinkType(7) => "ARCNET_BSD",
            LinkType(8) => "SLIP",
            LinkType(10) => "FDDI",
            LinkType(11) => "ATM_RFC1483",
            LinkType(51) => "PPP_ETHER",
            LinkType(100) => "ATM_RFC1483",
            LinkType(105) => "IEEE802_11",
            LinkType(107) => "FRELAY",
            LinkType(109) => "ENC",
            LinkType(117) => "PFLOG",
            LinkType(119) => "IEEE802_11_PRISM",
            LinkType(122) => "IP_OVER_FC",
            LinkType(127) => "IEEE802_11_RADIOTAP",
            LinkType(143) => "DOCSIS",
            LinkType(147) => "USER0",
            LinkType(187) => "BLUETOOTH_HCI_H4",
            LinkType(189) => "USB_LINUX",
            LinkType(192) => "PPI",
            LinkType(195) => "IEEE802_15_4_WITHFCS",
            LinkType(197) => "ERF",
            LinkType(201) => "BLUETOOTH_HCI_H4_WITH_PHDR",
            LinkType(220) => "USB_LINUX_MMAPPED",
            LinkType(227) => "CAN_SOCKETCAN",
            LinkType(205) => "C_HDLC_WITH_DIR",
            LinkType(206) => "FRELAY_WITH_DIR",
            LinkType(226) => "IPNET",
            LinkType(230) => "IEEE802_15_4_NOFCS",
            LinkType(242) => "IPOIB",
            LinkType(249) => "USBPCAP",
            LinkType(252) => "WIRESHARK_UPPER_PDU",
            LinkType(253) => "NETLINK",
            LinkType(number) => return write!(f, "LINKTYPE {number}"),
        };
        f.pad(name)
    }
}

/// The IP packet in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkPayload<'a> {
    /// IPv4 or IPv6, as the link header says.
    pub family: Family,
    /// From the first byte of the IP header to the end of the frame.
    pub packet: &'a [u8],
    /// Length of the link header: subtract it from the frame's original length for
    /// [`Packet::parse_snapped`](crate::Packet::parse_snapped).
    pub offset: usize,
}

/// Finds the IP packet in `frame`.
///
/// # Errors
/// The frame is truncated, carries no IP, or its link type is not supported.
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
        LinkType::PPP | LinkType::PPP_HDLC => {
            // Address and control (RFC 1662) may be missing.
            parse_ppp(frame, frame.strip_prefix(&[0xff, 3]).unwrap_or(frame))
        }
        LinkType::PPP_WITH_DIR => {
            let rest = frame.get(1..).ok_or(ParseError::LinkTruncated)?;
            parse_ppp(frame, rest.strip_prefix(&[0xff, 3]).unwrap_or(rest))
        }
        LinkType::C_HDLC => {
            let Some((&[_, _, a, b], rest)) = frame.split_first_chunk::<4>() else {
                return Err(ParseError::LinkTruncated);
            };
            parse_ethertype(frame, u16::from_be_bytes([a, b]), rest)
        }
        LinkType::PPP_PPPD => parse_ppp(frame, frame.get(2..).ok_or(ParseError::LinkTruncated)?),
        LinkType::NFLOG => parse_nflog(frame),
        _ => Err(ParseError::LinkUnknown),
    }
}

/// The PPP protocol field (RFC 1661, section 2), which may be compressed to one byte, and the packet after it.
fn parse_ppp<'a>(frame: &'a [u8], rest: &'a [u8]) -> Result<LinkPayload<'a>, ParseError> {
    match rest {
        [0, 0x21, packet @ ..] | [0x21, packet @ ..] => link_payload(frame, Family::V4, packet),
        [0, 0x57, packet @ ..] | [0x57, packet @ ..] => link_payload(frame, Family::V6, packet),
        [] | [0] => Err(ParseError::LinkTruncated),
        _ => Err(ParseError::NotIp),
    }
}

/// The payload of an nfnetlink_log message: family, version, resource, then attributes, whose numbers are in the byte order of the
/// machine that captured.
fn parse_nflog(frame: &[u8]) -> Result<LinkPayload<'_>, ParseError> {
    let Some((&[family, ..], attributes)) = frame.split_first_chunk::<4>() else {
        return Err(ParseError::LinkTruncated);
    };
    let family = family_of_af(u32::from(family)).ok_or(ParseError::NotIp)?;
    let little = find_nflog_payload(attributes, u16::from_le_bytes);
    let found = little.or_else(|| find_nflog_payload(attributes, u16::from_be_bytes));
    let packet = found.ok_or(ParseError::LinkTruncated)?;
    link_payload(frame, family, packet)
}

/// The attribute with the packet; one that was captured in part is the last.
fn find_nflog_payload(mut attributes: &[u8], number: fn([u8; 2]) -> u16) -> Option<&[u8]> {
    const NFULA_PAYLOAD: u16 = 9;
    const KNOWN_ATTRIBUTES: u16 = 64;
    loop {
        let (&[a, b, c, d], value) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(number([a, b])).checked_sub(4)?;
        match number([c, d]) {
            NFULA_PAYLOAD => return Some(value.get(..length).unwrap_or(value)),
            KNOWN_ATTRIBUTES.. => return None,
            _ => attributes = value.get(length.next_multiple_of(4)..)?,
        }
    }
}

/// Skips VLAN tags (IEEE 802.1Q and 802.1ad) to the EtherType of the payload.
fn parse_ethertype<'a>(frame: &'a [u8], mut ethertype: u16, mut rest: &'a [u8]) -> Result<LinkPayload<'a>, ParseError> {
    for _ in 0..=MAX_VLAN_TAGS {
        match ethertype {
            0x0800 => return link_payload(frame, Family::V4, rest),
            0x86dd => return link_payload(frame, Family::V6, rest),
            0x8100 | 0x88a8 | 0x9100 => {
                let Some((&[_, _, a, b], after)) = rest.split_first_chunk::<4>() else {
                    return Err(ParseError::LinkTruncated);
                };
                ethertype = u16::from_be_bytes([a, b]);
                rest = after;
            }
            _ => return Err(ParseError::NotIp),
        }
    }
    Err(ParseError::VlanTags)
}

fn link_payload<'a>(frame: &'a [u8], family: Family, packet: &'a [u8]) -> Result<LinkPayload<'a>, ParseError> {
    let carried = packet.first().and_then(|first| family_of_version(*first));
    if carried.is_some_and(|carried| carried != family) {
        return Err(ParseError::LinkFamily);
    }
    Ok(LinkPayload { family, packet, offset: frame.len() - packet.len() })
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
