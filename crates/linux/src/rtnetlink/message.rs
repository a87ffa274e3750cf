//! rtnetlink messages: links, addresses, routes, neighbours.
//!
//! Each type has its own header after netlink's, whose first four bytes an [`NlMessage`] has decoded already. Unknown types and attributes are skipped.
use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{MalformedNetlink, NlAttrs, NlMessage};
use std::net::IpAddr;

/// Message types, by the kernel's names.
pub mod rtm {
    #![allow(missing_docs, reason = "the names are the kernel's")]
    pub const NEW_LINK: u16 = 16;
    pub const DEL_LINK: u16 = 17;
    pub const GET_LINK: u16 = 18;
    pub const NEW_ADDRESS: u16 = 20;
    pub const DEL_ADDRESS: u16 = 21;
    pub const GET_ADDRESS: u16 = 22;
    pub const NEW_ROUTE: u16 = 24;
    pub const DEL_ROUTE: u16 = 25;
    pub const GET_ROUTE: u16 = 26;
    pub const NEW_NEIGHBOUR: u16 = 28;
    pub const DEL_NEIGHBOUR: u16 = 29;
    pub const GET_NEIGHBOUR: u16 = 30;
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtLink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its MAC address; `None` if it is not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Is it up?
    pub is_up: bool,
    /// The group it belongs to; 0 is the default.
    pub group: u32,
    /// The interface that it is a port of: a bridge, a bond.
    pub master: Option<u32>,
    /// Kind of its link layer, by the ARPHRD numbers: 1 is Ethernet.
    pub link_type: u16,
    /// Its kind (`wireguard`, `vlan`, …); empty for hardware.
    pub kind: String,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtAddress {
    /// The index of its interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// The prefix that its link has: its own, or the other end's of a link of two …
    pub network: IpAddr,
    /// … and the length.
    pub prefix_length: u8,
    /// Its scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Its flags, `IFA_F_*`.
    pub flags: u32,
}

/// Flags of an address, by the kernel's names.
pub mod ifa_flag {
    #![allow(missing_docs, reason = "the names are the kernel's")]
    /// For IPv6 it means: temporary.
    pub const SECONDARY: u32 = 0x01;
    pub const OPTIMISTIC: u32 = 0x04;
    pub const DADFAILED: u32 = 0x08;
    pub const DEPRECATED: u32 = 0x20;
    pub const TENTATIVE: u32 = 0x40;
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtRoute {
    /// The destination prefix …
    pub prefix: IpAddr,
    /// … and its length.
    pub prefix_length: u8,
    /// The index of the output interface; `None` for `blackhole`, `unreachable` and `prohibit` routes.
    pub ifindex: Option<u32>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// The metric: among routes to one prefix the smallest wins.
    pub metric: u32,
    /// The table: 254 is `main`, 255 `local`.
    pub table: u32,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtNeighbour {
    /// The index of the interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Its MAC address; `None` while it is not known.
    pub mac: Option<[u8; 6]>,
    /// Resolution failed.
    pub failed: bool,
}

/// One decoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RtMessage {
    /// A new or changed interface.
    Link(RtLink),
    /// A new address.
    Address(RtAddress),
    /// A new route.
    Route(RtRoute),
    /// A new, changed or removed neighbour.
    Neighbour(RtNeighbour),
    /// A removed interface, address or route.
    Deleted,
    /// Another message.
    Other,
}

/// States of a neighbour in which its address on the Ethernet holds: reachable, stale, delay, probe, no ARP, permanent.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// It was asked for and did not answer.
const NUD_FAILED: u16 = 0x20;
/// Flag of a link: it is up.
const IFF_UP: u32 = 1;
/// The kind of a route that leads to somebody.
const RTN_UNICAST: u8 = 1;
/// Kinds of a route that says: nowhere. Blackhole, unreachable, prohibit.
const RTN_REJECTING: std::ops::RangeInclusive<u8> = 6..=8;

/// Of a header of rtnetlink's own, the bytes behind the first four.
const IFINFOMSG_REST: usize = 12;
const IFADDRMSG_REST: usize = 4;
const RTMSG_REST: usize = 8;
const NDMSG_REST: usize = 8;

/// Decodes a message.
///
/// # Errors
/// It is too short for its type.
pub fn decode(message: &NlMessage<'_>) -> Result<RtMessage, MalformedNetlink> {
    let NlBody::Data { family, version, resource, attributes } = message.body else { return Ok(RtMessage::Other) };
    match message.kind {
        // The type stands where netfilter's messages have a number in network order.
        rtm::NEW_LINK => decode_link(u16::from_ne_bytes(resource.to_be_bytes()), attributes),
        rtm::NEW_ADDRESS => decode_address(version, resource, attributes),
        rtm::NEW_ROUTE => decode_route(family, version, attributes),
        rtm::NEW_NEIGHBOUR => decode_neighbour(attributes, false),
        rtm::DEL_NEIGHBOUR => decode_neighbour(attributes, true),
        rtm::DEL_LINK | rtm::DEL_ADDRESS | rtm::DEL_ROUTE => Ok(RtMessage::Deleted),
        _ => Ok(RtMessage::Other),
    }
}

/// What is particular to the kind of a link, and its kind inside.
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

fn decode_link(link_type: u16, bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    let (header, attributes) = split_header::<IFINFOMSG_REST>(bytes, "a link")?;
    let mut link = RtLink {
        index: read_u32(header, 0),
        name: String::new(),
        mtu: 0,
        mac: None,
        is_up: read_u32(header, 4) & IFF_UP != 0,
        group: 0,
        master: None,
        link_type,
        kind: String::new(),
    };
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => link.mac = attribute.payload.try_into().ok(),
            3 => link.name = attribute.text().into(),
            10 => link.master = Some(attribute.bytes("a master").map(u32::from_ne_bytes)?),
            27 => link.group = attribute.bytes("a group").map(u32::from_ne_bytes)?,
            IFLA_LINKINFO => {
                for nested in NlAttrs::new(attribute.payload) {
                    let nested = nested?;
                    if nested.kind == IFLA_INFO_KIND {
                        link.kind = nested.text().into();
                    }
                }
            }
            4 => link.mtu = attribute.bytes("an MTU").map(u32::from_ne_bytes)?,
            _ => (),
        }
    }
    Ok(RtMessage::Link(link))
}

fn decode_address(length: u8, flags_and_scope: u16, bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    let (header, attributes) = split_header::<IFADDRMSG_REST>(bytes, "an address")?;
    let device = read_u32(header, 0);
    let [flags, scope] = flags_and_scope.to_be_bytes();
    let (mut local, mut any, mut flags) = (None, None, u32::from(flags));
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => any = parse_ip(attribute.payload),
            // At one end of a link of two, the first is the other end's.
            2 => local = parse_ip(attribute.payload),
            // All of them; the header has room for eight.
            8 => flags = attribute.bytes("flags").map(u32::from_ne_bytes)?,
            _ => (),
        }
    }
    Ok(local.or(any).map_or(RtMessage::Other, |address| {
        let network = any.unwrap_or(address);
        RtMessage::Address(RtAddress { ifindex: device, address, network, prefix_length: length, scope, flags })
    }))
}

fn decode_route(family: u8, length: u8, bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    let (header, attributes) = split_header::<RTMSG_REST>(bytes, "a route")?;
    let (table, kind) = (header.first().copied().unwrap_or(0), header.get(3).copied().unwrap_or(0));
    let prefix = match family {
        AF_INET => IpAddr::from([0; 4]),
        AF_INET6 => IpAddr::from([0; 16]),
        _ => return Ok(RtMessage::Other),
    };
    if kind != RTN_UNICAST && !RTN_REJECTING.contains(&kind) {
        return Ok(RtMessage::Other);
    }
    let mut route =
        RtRoute { prefix, prefix_length: length, ifindex: None, gateway: None, metric: 0, table: u32::from(table) };
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => route.prefix = parse_ip(attribute.payload).unwrap_or(prefix),
            4 => route.ifindex = Some(attribute.bytes("a device").map(u32::from_ne_bytes)?),
            5 => route.gateway = parse_ip(attribute.payload),
            6 => route.metric = attribute.bytes("a metric").map(u32::from_ne_bytes)?,
            // Several ways at once: the first is taken.
            9 if route.ifindex.is_none() => decode_first_nexthop(attribute.payload, &mut route)?,
            15 => route.table = attribute.bytes("a table").map(u32::from_ne_bytes)?,
            // A gateway of the other family: its own family in front.
            18 => route.gateway = attribute.payload.get(2..).and_then(parse_ip),
            _ => (),
        }
    }
    Ok(RtMessage::Route(route))
}

/// The first of several ways: its length, flags, weight, device; then attributes.
fn decode_first_nexthop(bytes: &[u8], route: &mut RtRoute) -> Result<(), MalformedNetlink> {
    let length = bytes.first_chunk().map_or(0, |bytes| usize::from(u16::from_ne_bytes(*bytes)));
    let (header, attributes) = split_header::<8>(bytes.get(..length).unwrap_or_default(), "a way of a route")?;
    route.ifindex = Some(read_u32(header, 4));
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        if attribute.kind == 5 {
            route.gateway = parse_ip(attribute.payload);
        }
    }
    Ok(())
}

fn decode_neighbour(bytes: &[u8], gone: bool) -> Result<RtMessage, MalformedNetlink> {
    let (header, attributes) = split_header::<NDMSG_REST>(bytes, "a neighbour")?;
    let device = read_u32(header, 0);
    let state = header.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
    let (mut address, mut mac) = (None, None);
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => address = parse_ip(attribute.payload),
            2 => mac = attribute.payload.try_into().ok(),
            _ => (),
        }
    }
    let mac = mac.filter(|_| state & NUD_VALID != 0 && !gone);
    let decoded =
        |address| RtMessage::Neighbour(RtNeighbour { ifindex: device, address, mac, failed: state & NUD_FAILED != 0 });
    Ok(address.map_or(RtMessage::Other, decoded))
}

/// The request that dumps all objects of a type.
pub(super) fn dump_request(kind: u16, rest: usize) -> NlRequest {
    let mut request = NlRequest::new(kind, flag::DUMP, 0);
    request.append([0; 16].get(..rest).unwrap_or_default());
    request
}

/// The request to resolve or probe a neighbour.
pub(super) fn resolve_neighbour_request(device: u32, address: IpAddr) -> NlRequest {
    /// `NTF_USE`: somebody uses it now.
    const USED: u8 = 1;
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut request = NlRequest::new(rtm::NEW_NEIGHBOUR, flag::CREATE | flag::ACK, family);
    let mut header = device.to_ne_bytes().to_vec();
    header.extend([0, 0, USED, 0]);
    request.append(&header);
    match address {
        IpAddr::V4(address) => request.push(1, &address.octets()),
        IpAddr::V6(address) => request.push(1, &address.octets()),
    };
    request
}

/// The lengths of the headers' rest, for [`dump`].
pub(super) const DUMP_KINDS: [(u16, usize); 4] = [
    (rtm::GET_LINK, IFINFOMSG_REST),
    (rtm::GET_ADDRESS, IFADDRMSG_REST),
    (rtm::GET_ROUTE, RTMSG_REST),
    (rtm::GET_NEIGHBOUR, NDMSG_REST),
];

/// Families, as of sockets.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

fn split_header<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(&'a [u8], &'a [u8]), MalformedNetlink> {
    bytes.split_at_checked(N).ok_or(MalformedNetlink { what, length: bytes.len() })
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}
