//! What rtnetlink's messages are made of: types, families, headers, addresses.
use crate::netlink::MalformedNetlink;
use crate::netlink::message::NlRequest;
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
    pub const NEW_RULE: u16 = 32;
    pub const DEL_RULE: u16 = 33;
    pub const GET_RULE: u16 = 34;
    pub const NEW_NETCONF: u16 = 80;
    pub const GET_NETCONF: u16 = 82;
    pub const NEW_NEXTHOP: u16 = 104;
    pub const DEL_NEXTHOP: u16 = 105;
}

/// Appends an attribute with an address.
pub(super) fn push_ip(request: &mut NlRequest, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => request.push(kind, &address.octets()),
        IpAddr::V6(address) => request.push(kind, &address.octets()),
    };
}

/// Families, as of sockets.
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// The family of an address.
pub(super) fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

pub(super) fn split_header<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(&'a [u8], &'a [u8]), MalformedNetlink> {
    bytes.split_at_checked(N).ok_or(MalformedNetlink { what, length: bytes.len() })
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}
