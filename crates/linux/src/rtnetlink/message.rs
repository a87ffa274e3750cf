//! rtnetlink messages: links, addresses, routes, neighbours.
//!
//! Each type has its own header after netlink's, whose first four bytes an [`NlMessage`] has decoded already. Unknown types and attributes are skipped.
use super::fields::{AF_INET, AF_INET6, AF_UNSPEC, parse_ip, read_u32, rtm, split_header};
use super::neighbour_message::{self, NDMSG_REST, RtNeighbour};
use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{MalformedNetlink, NlAttrs, NlMessage};
use std::net::IpAddr;

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
    /// Does its link carry frames?
    pub has_carrier: bool,
    /// The group it belongs to; 0 is the default.
    pub group: u32,
    /// The interface that it is a port of: a bridge, a bond.
    pub master: Option<u32>,
    /// Kind of its link layer, by the ARPHRD numbers: 1 is Ethernet.
    pub link_type: u16,
    /// Its kind (`wireguard`, `vlan`, …); empty for hardware.
    pub kind: String,
    /// Its queueing discipline (`fq_codel`, `tbf`, …).
    pub qdisc: String,
    /// Has it an XDP program?
    pub has_xdp: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtRoute {
    /// The destination prefix …
    pub prefix: IpAddr,
    /// … and its length.
    pub prefix_length: u8,
    /// Its ways; none for `blackhole`, `unreachable` and `prohibit` routes.
    pub nexthops: Vec<RtNextHop>,
    /// Whether it leads nowhere by intention: `blackhole`, `unreachable`, `prohibit`.
    pub rejects: bool,
    /// The metric: among routes to one prefix the smallest wins.
    pub metric: u32,
    /// The table: 254 is `main`, 255 `local`.
    pub table: u32,
    /// Whether it has several ways, also such as cannot be used now: which one a packet takes may depend on its ports or its flow label.
    pub has_several_ways: bool,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtNextHop {
    /// The index of the output interface.
    pub ifindex: u32,
    /// The gateway.
    pub gateway: Option<IpAddr>,
}

/// How a new route stands to those with its prefix and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtPlacement {
    /// After them.
    Append,
    /// In front of them.
    Prepend,
    /// Instead of them.
    Replace,
}

/// What the kernel chooses a way by, beside addresses, interface and mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteSelectors {
    /// The type of service.
    pub tos: bool,
    /// What tells flows between two addresses apart: protocol, ports, flow label.
    pub flow: bool,
}

/// One decoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RtMessage {
    /// A new or changed interface.
    Link(RtLink),
    /// A new address.
    Address(RtAddress),
    /// A new route.
    Route(RtRoute, RtPlacement),
    /// A new, changed or removed neighbour.
    Neighbour(RtNeighbour),
    /// An interface is gone: its index.
    LinkGone(u32),
    /// An address is gone.
    AddressGone(RtAddress),
    /// A route, or some of its ways, is gone.
    RouteGone(RtRoute),
    /// Policy rules, nexthop objects, or routes for some types of service or sources have changed; what they ask for.
    RoutingChanged(RouteSelectors),
    /// Whether the packets of an interface are forwarded, those of IPv4.
    Forwards(u32, bool),
    /// Whether any packets of IPv6 are forwarded.
    ForwardsV6(bool),
    /// Another message.
    Other,
}

/// Flag of a link: it is up.
const IFF_UP: u32 = 1;
/// Flag of a link: it has a carrier.
const IFF_LOWER_UP: u32 = 1 << 16;
/// The kind of a route that leads to somebody.
const RTN_UNICAST: u8 = 1;
/// Kinds of a route that says: nowhere. Blackhole, unreachable, prohibit.
const RTN_REJECTING: std::ops::RangeInclusive<u8> = 6..=8;
/// Flag of a route: it was made from another one, for one destination.
const RTM_F_CLONED: u32 = 0x200;
/// Attribute of a route: the nexthop object that it uses.
const RTA_NH_ID: u16 = 30;
/// Flag of a way: its interface is down.
const RTNH_F_DEAD: u32 = 1;

/// Of a header of rtnetlink's own, the bytes behind the first four.
const IFINFOMSG_REST: usize = 12;
const IFADDRMSG_REST: usize = 4;
pub(super) const RTMSG_REST: usize = 8;
const RULE_REST: usize = 8;
const NHMSG_REST: usize = 4;

/// Decodes a message.
///
/// # Errors
/// It is too short for its type.
pub fn decode(message: &NlMessage<'_>) -> Result<RtMessage, MalformedNetlink> {
    let NlBody::Data { family, version, resource, attributes } = message.body else { return Ok(RtMessage::Other) };
    let other = |found: Option<RtMessage>| found.unwrap_or(RtMessage::Other);
    match message.kind {
        // Of other families they are about a bridge's ports.
        rtm::NEW_LINK | rtm::DEL_LINK if family != AF_UNSPEC => Ok(RtMessage::Other),
        // The type stands where netfilter's messages have a number in network order.
        rtm::NEW_LINK => decode_link(u16::from_ne_bytes(resource.to_be_bytes()), attributes),
        rtm::DEL_LINK => split_header::<IFINFOMSG_REST>(attributes, "a link")
            .map(|(header, _)| RtMessage::LinkGone(read_u32(header, 0))),
        rtm::NEW_ADDRESS => Ok(other(decode_address(version, resource, attributes)?.map(RtMessage::Address))),
        rtm::DEL_ADDRESS => Ok(other(decode_address(version, resource, attributes)?.map(RtMessage::AddressGone))),
        rtm::NEW_ROUTE => {
            let placement = match message.flags {
                flags if flags & flag::REPLACE != 0 => RtPlacement::Replace,
                // In a dump they come in their order.
                flags if flags & (flag::APPEND | flag::MULTI) != 0 || family == AF_INET6 => RtPlacement::Append,
                _ => RtPlacement::Prepend,
            };
            let route = decode_route(family, version, resource, attributes)?;
            // With IPv6, routes to one prefix with one metric are ways of one route.
            let is_further_way = family == AF_INET6 && message.flags & flag::APPEND != 0;
            Ok(route.map_or_else(
                |other| other,
                |mut route| {
                    route.has_several_ways |= is_further_way;
                    RtMessage::Route(route, placement)
                },
            ))
        }
        rtm::DEL_ROUTE => {
            let route = decode_route(family, version, resource, attributes)?;
            Ok(route.map_or_else(|other| other, RtMessage::RouteGone))
        }
        rtm::NEW_RULE => decode_rule(resource, attributes),
        rtm::DEL_RULE | rtm::DEL_NEXTHOP => Ok(RtMessage::RoutingChanged(RouteSelectors::default())),
        rtm::NEW_NEXTHOP => decode_nexthop_object(attributes),
        rtm::NEW_NETCONF => decode_netconf(family, attributes),
        rtm::NEW_NEIGHBOUR => Ok(other(neighbour_message::decode(attributes, false)?.map(RtMessage::Neighbour))),
        rtm::DEL_NEIGHBOUR => Ok(other(neighbour_message::decode(attributes, true)?.map(RtMessage::Neighbour))),
        _ => Ok(RtMessage::Other),
    }
}

/// What is particular to the kind of a link, and its kind inside.
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Its queueing discipline.
const IFLA_QDISC: u16 = 6;
/// Its XDP program, and inside how it is attached.
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;

fn decode_link(link_type: u16, bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    let (header, attributes) = split_header::<IFINFOMSG_REST>(bytes, "a link")?;
    let mut link = RtLink {
        index: read_u32(header, 0),
        name: String::new(),
        mtu: 0,
        mac: None,
        is_up: read_u32(header, 4) & IFF_UP != 0,
        has_carrier: read_u32(header, 4) & IFF_LOWER_UP != 0,
        group: 0,
        master: None,
        link_type,
        kind: String::new(),
        qdisc: String::new(),
        has_xdp: false,
    };
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => link.mac = attribute.payload.try_into().ok(),
            3 => link.name = attribute.text().into(),
            10 => link.master = Some(attribute.bytes("a master").map(u32::from_ne_bytes)?),
            27 => link.group = attribute.bytes("a group").map(u32::from_ne_bytes)?,
            IFLA_QDISC => link.qdisc = attribute.text().into(),
            IFLA_XDP => {
                for nested in NlAttrs::new(attribute.payload) {
                    let nested = nested?;
                    link.has_xdp |= nested.kind == IFLA_XDP_ATTACHED && nested.payload != [0];
                }
            }
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
    // Without a name it is news of a wireless driver's own.
    Ok(if link.name.is_empty() { RtMessage::Other } else { RtMessage::Link(link) })
}

fn decode_address(length: u8, flags_and_scope: u16, bytes: &[u8]) -> Result<Option<RtAddress>, MalformedNetlink> {
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
    Ok(local.or(any).map(|address| {
        let network = any.unwrap_or(address);
        RtAddress { ifindex: device, address, network, prefix_length: length, scope, flags }
    }))
}

/// A policy rule, of which only matters what it asks for.
fn decode_rule(source_length_and_tos: u16, bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    const FRA_IP_PROTO: u16 = 22;
    const FRA_SPORT_RANGE: u16 = 23;
    const FRA_DPORT_RANGE: u16 = 24;
    const FRA_DSCP: u16 = 25;
    const FRA_FLOWLABEL: u16 = 26;
    let (_, attributes) = split_header::<RULE_REST>(bytes, "a policy rule")?;
    let mut by = RouteSelectors { tos: source_length_and_tos & 0xff != 0, flow: false };
    for attribute in NlAttrs::new(attributes) {
        match attribute?.kind {
            FRA_DSCP => by.tos = true,
            // Later kernels have masks of them behind them.
            FRA_IP_PROTO | FRA_SPORT_RANGE | FRA_DPORT_RANGE | FRA_FLOWLABEL.. => by.flow = true,
            _ => (),
        }
    }
    Ok(RtMessage::RoutingChanged(by))
}

/// A nexthop object, of which only matters whether it is a group.
fn decode_nexthop_object(bytes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    const NHA_GROUP: u16 = 2;
    let (_, attributes) = split_header::<NHMSG_REST>(bytes, "a nexthop object")?;
    let mut by = RouteSelectors::default();
    for attribute in NlAttrs::new(attributes) {
        by.flow |= attribute?.kind == NHA_GROUP;
    }
    Ok(RtMessage::RoutingChanged(by))
}

/// What is no route by which packets go by their destination alone is the message inside the second: routes for some types of service or sources, and of kinds that the local table has.
fn decode_route(
    family: u8,
    length: u8,
    source_length_and_tos: u16,
    bytes: &[u8],
) -> Result<Result<RtRoute, RtMessage>, MalformedNetlink> {
    let (header, attributes) = split_header::<RTMSG_REST>(bytes, "a route")?;
    let (table, kind) = (header.first().copied().unwrap_or(0), header.get(3).copied().unwrap_or(0));
    let flags = read_u32(header, 4);
    let prefix = match family {
        AF_INET => IpAddr::from([0; 4]),
        AF_INET6 => IpAddr::from([0; 16]),
        _ => return Ok(Err(RtMessage::Other)),
    };
    let rejects = RTN_REJECTING.contains(&kind);
    if flags & RTM_F_CLONED != 0 {
        return Ok(Err(RtMessage::Other));
    }
    if kind != RTN_UNICAST && is_of_link(attributes) {
        return Ok(Err(RtMessage::Other));
    }
    if kind != RTN_UNICAST && !rejects || source_length_and_tos != 0 {
        // One for some sources may have several ways.
        let by = RouteSelectors { tos: source_length_and_tos & 0xff != 0, flow: kind == RTN_UNICAST };
        return Ok(Err(RtMessage::RoutingChanged(by)));
    }
    let (table, nexthops) = (u32::from(table), Vec::new());
    let mut route =
        RtRoute { prefix, prefix_length: length, nexthops, rejects, metric: 0, table, has_several_ways: false };
    let (mut ifindex, mut gateway, mut has_nexthop_object) = (None, None, false);
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => route.prefix = parse_ip(attribute.payload).unwrap_or(prefix),
            4 => ifindex = Some(attribute.bytes("a device").map(u32::from_ne_bytes)?),
            5 => gateway = parse_ip(attribute.payload),
            6 => route.metric = attribute.bytes("a metric").map(u32::from_ne_bytes)?,
            9 => {
                route.nexthops = decode_nexthops(attribute.payload)?;
                route.has_several_ways = true;
            }
            15 => route.table = attribute.bytes("a table").map(u32::from_ne_bytes)?,
            // A gateway of the other family: its own family in front.
            18 => gateway = attribute.payload.get(2..).and_then(parse_ip),
            RTA_NH_ID => has_nexthop_object = true,
            _ => (),
        }
    }
    // Of an object alone (net.ipv4.nexthop_compat_mode 0) is not said what it is.
    route.has_several_ways |= has_nexthop_object && ifindex.is_none();
    match ifindex {
        // IPv6 has loopback as the device of those.
        _ if rejects => route.nexthops.clear(),
        Some(ifindex) if route.nexthops.is_empty() && flags & RTNH_F_DEAD == 0 => {
            route.nexthops.push(RtNextHop { ifindex, gateway });
        }
        _ => (),
    }
    Ok(Ok(route))
}

/// Is a route's prefix one that every IPv6 link has by itself: link-local, or of groups? The kernel makes their local routes up to two seconds after a link is up.
fn is_of_link(attributes: &[u8]) -> bool {
    let destination = NlAttrs::new(attributes).flatten().find(|attribute| attribute.kind == 1);
    match destination.and_then(|attribute| parse_ip(attribute.payload)) {
        Some(IpAddr::V6(prefix)) => prefix.is_unicast_link_local() || prefix.is_multicast(),
        _ => false,
    }
}

/// The rest of its header is padding, and the family stands in front of it.
fn decode_netconf(family: u8, attributes: &[u8]) -> Result<RtMessage, MalformedNetlink> {
    const IFINDEX: u16 = 1;
    const FORWARDING: u16 = 2;
    const IFINDEX_ALL: i32 = -1;
    let (mut ifindex, mut forwards) = (None, None);
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            IFINDEX => ifindex = Some(attribute.bytes("an interface").map(i32::from_ne_bytes)?),
            FORWARDING => forwards = Some(attribute.bytes("forwarding").map(u32::from_ne_bytes)? != 0),
            _ => (),
        }
    }
    Ok(match (ifindex, forwards) {
        // Of IPv4 each interface has its own; of IPv6 that of all counts.
        (Some(ifindex @ 0..), Some(forwards)) if family == AF_INET => {
            RtMessage::Forwards(ifindex.unsigned_abs(), forwards)
        }
        (Some(IFINDEX_ALL), Some(forwards)) if family == AF_INET6 => RtMessage::ForwardsV6(forwards),
        _ => RtMessage::Other,
    })
}

/// The ways of a route, each: its length, flags, weight, device; then attributes. Those by an interface that is down are left out.
fn decode_nexthops(mut bytes: &[u8]) -> Result<Vec<RtNextHop>, MalformedNetlink> {
    let mut found = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes))) {
        let way = bytes.get(..length).unwrap_or_default();
        let (header, attributes) = split_header::<8>(way, "a way of a route")?;
        let flags = u32::from(header.get(2).copied().unwrap_or(0));
        let mut nexthop = RtNextHop { ifindex: read_u32(header, 4), gateway: None };
        for attribute in NlAttrs::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                5 => nexthop.gateway = parse_ip(attribute.payload),
                18 => nexthop.gateway = attribute.payload.get(2..).and_then(parse_ip),
                _ => (),
            }
        }
        if flags & RTNH_F_DEAD == 0 {
            found.push(nexthop);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// The request that dumps all objects of a type and a family.
pub(super) fn dump_request(kind: u16, family: u8, rest: usize) -> NlRequest {
    let mut request = NlRequest::new(kind, flag::DUMP, family);
    request.append([0; 16].get(..rest).unwrap_or_default());
    request
}

/// Types, families, and the lengths of the headers' rest, for [`dump`].
pub(super) const DUMP_KINDS: [(u16, u8, usize); 7] = [
    (rtm::GET_RULE, AF_UNSPEC, RULE_REST),
    (rtm::GET_NETCONF, AF_INET, 0),
    (rtm::GET_NETCONF, AF_INET6, 0),
    (rtm::GET_LINK, AF_UNSPEC, IFINFOMSG_REST),
    (rtm::GET_ADDRESS, AF_UNSPEC, IFADDRMSG_REST),
    (rtm::GET_ROUTE, AF_UNSPEC, RTMSG_REST),
    (rtm::GET_NEIGHBOUR, AF_UNSPEC, NDMSG_REST),
];
