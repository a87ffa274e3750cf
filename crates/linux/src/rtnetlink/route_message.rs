//! The messages that ask for a packet's way, and answer it.
use super::fields::{family_of, parse_ip, push_ip, rtm, split_header};
use super::message::RTMSG_REST;
use crate::netlink::message::{NlBody, NlRequest};
use crate::netlink::{MalformedNetlink, NlAttrs, NlMessage};
use std::net::IpAddr;

/// What the kernel is asked: a packet, as far as its way depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RtRouteQuery {
    /// Its source; `None` if the kernel may choose it.
    pub source: Option<IpAddr>,
    /// Its destination.
    pub destination: IpAddr,
    /// The index of the interface that it came in by; `None` if the machine itself sends it.
    pub iif: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// Its TOS byte or traffic class.
    pub tos: u8,
    /// Its flow label, for IPv6.
    pub flow_label: u32,
    /// Its protocol; only TCP, UDP and ICMP are told to the kernel.
    pub protocol: u8,
    /// Source and destination port, of TCP and UDP.
    pub ports: (u16, u16),
}

impl RtRouteQuery {
    /// A packet of the machine itself to this address.
    pub fn to(destination: IpAddr) -> RtRouteQuery {
        let (source, iif) = (None, None);
        RtRouteQuery { source, destination, iif, mark: 0, tos: 0, flow_label: 0, protocol: 0, ports: (0, 0) }
    }
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtRouteAnswer {
    /// Out by an interface.
    Unicast {
        /// Its index.
        oif: u32,
        /// The next router; `None` if the destination is on the link.
        gateway: Option<IpAddr>,
        /// The MTU that the route itself has.
        mtu: Option<u32>,
        /// Of IPv4: whoever has sent such a packet to this machine gets an ICMP redirect.
        redirects: bool,
    },
    /// To the machine itself.
    Local,
    /// To a group, or to all.
    Group,
    /// The errno: no route, or one that leads nowhere by intention, or a source that may not come that way.
    Refused(i32),
}

/// Attributes of a route.
mod rta {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const SOURCE: u16 = 2;
    pub(super) const IIF: u16 = 3;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const METRICS: u16 = 8;
    pub(super) const CACHE_INFO: u16 = 12;
    pub(super) const MARK: u16 = 16;
    pub(super) const VIA: u16 = 18;
    pub(super) const IP_PROTO: u16 = 27;
    pub(super) const SPORT: u16 = 28;
    pub(super) const DPORT: u16 = 29;
    pub(super) const FLOW_LABEL: u16 = 31;
}
const RTAX_MTU: u16 = 2;
/// Kinds of a route.
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_ANYCAST: u8 = 4;
const RTN_GROUPS: [u8; 2] = [3, 5];
/// Flag of an answer: an ICMP redirect would be sent.
const RTCF_DOREDIRECT: u32 = 0x0100_0000;

/// The request for a packet's way.
pub(super) fn route_request(query: &RtRouteQuery) -> NlRequest {
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    // Not the ECN bits.
    let tos = query.tos & 0xfc;
    let mut request = NlRequest::new(rtm::GET_ROUTE, 0, family_of(query.destination))
        .version(bits(query.destination))
        .res_id(u16::from_be_bytes([query.source.map_or(0, bits), tos]));
    request.append(&[0; RTMSG_REST]);
    push_ip(&mut request, rta::DESTINATION, query.destination);
    query.source.into_iter().for_each(|source| push_ip(&mut request, rta::SOURCE, source));
    query.iif.into_iter().for_each(|iif| _ = request.push(rta::IIF, &iif.to_ne_bytes()));
    if query.mark != 0 {
        request.push(rta::MARK, &query.mark.to_ne_bytes());
    }
    if query.flow_label != 0 {
        request.push(rta::FLOW_LABEL, &query.flow_label.to_be_bytes());
    }
    let has_ports = matches!(i32::from(query.protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
    if has_ports || matches!(i32::from(query.protocol), libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) {
        request.push(rta::IP_PROTO, &[query.protocol]);
    }
    if has_ports && query.ports.0 != 0 && query.ports.1 != 0 {
        request.push(rta::SPORT, &query.ports.0.to_be_bytes());
        request.push(rta::DPORT, &query.ports.1.to_be_bytes());
    }
    request
}

/// The answer in a message; `None` if it is another one.
pub(super) fn decode_route_answer(message: &NlMessage<'_>) -> Result<Option<RtRouteAnswer>, MalformedNetlink> {
    let (family, attributes) = match message.body {
        NlBody::Error(errno) => return Ok((errno != 0).then_some(RtRouteAnswer::Refused(errno))),
        NlBody::Data { family, attributes, .. } if message.kind == rtm::NEW_ROUTE => (family, attributes),
        _ => return Ok(None),
    };
    let (header, attributes) = split_header::<RTMSG_REST>(attributes, "a route")?;
    let kind = header.get(3).copied().unwrap_or(0);
    let flags = header.get(4..).and_then(|flags| flags.first_chunk()).map_or(0, |flags| u32::from_ne_bytes(*flags));
    let (mut oif, mut gateway, mut mtu, mut expires) = (None, None, None, false);
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            rta::OIF => oif = Some(attribute.bytes("a device").map(u32::from_ne_bytes)?),
            rta::GATEWAY => gateway = parse_ip(attribute.payload),
            // A gateway of the other family: its own family in front.
            rta::VIA => gateway = attribute.payload.get(2..).and_then(parse_ip),
            rta::METRICS => {
                for metric in attribute.nested() {
                    let metric = metric?;
                    if metric.kind == RTAX_MTU {
                        mtu = Some(metric.bytes("an MTU").map(u32::from_ne_bytes)?);
                    }
                }
            }
            rta::CACHE_INFO => expires = attribute.payload.get(8..12).is_some_and(|bytes| bytes != [0; 4]),
            _ => (),
        }
    }
    // What this machine has learnt of a path's MTU for its own packets is no matter of those that it forwards.
    let learnt = expires && i32::from(family) == libc::AF_INET;
    Ok(match (kind, oif) {
        (RTN_UNICAST, Some(oif)) => Some(RtRouteAnswer::Unicast {
            oif,
            gateway,
            mtu: mtu.filter(|_| !learnt),
            redirects: flags & RTCF_DOREDIRECT != 0,
        }),
        (RTN_LOCAL | RTN_ANYCAST, _) => Some(RtRouteAnswer::Local),
        (kind, _) if RTN_GROUPS.contains(&kind) => Some(RtRouteAnswer::Group),
        _ => None,
    })
}
