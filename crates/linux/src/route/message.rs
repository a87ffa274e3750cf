//! What rtnetlink's messages say of links, addresses, routes and neighbours.
//!
//! Each has a header of its own behind netlink's, whose first four octets a [`Message`] has read already. Kinds and attributes that are not named here are passed over.
use crate::netlink::message::{Body, Request, flag};
use crate::netlink::{Attributes, Malformed, Message};
use std::net::IpAddr;

/// Kinds of message, by the kernel's names.
pub mod kind {
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

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest datagram it takes, in octets.
    pub mtu: u32,
    /// Its address on an Ethernet; none on what is no Ethernet.
    pub mac: Option<[u8; 6]>,
    /// It is up.
    pub up: bool,
    /// The group it belongs to; 0 is the default.
    pub group: u32,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The index of its device.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub length: u8,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// To whom …
    pub prefix: IpAddr,
    /// … and how many bits of it count.
    pub length: u8,
    /// The index of the device it leaves by; none of a route that leads nowhere (`blackhole`, `unreachable`, `prohibit`).
    pub device: Option<u32>,
    /// The router it is handed to.
    pub gateway: Option<IpAddr>,
    /// Among routes to one prefix the smallest wins.
    pub metric: u32,
    /// The table: 254 is `main`, 255 `local`.
    pub table: u32,
}

/// Who stands at an address, on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The index of the device.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// Its address on the Ethernet; none while it is not known, or no longer.
    pub mac: Option<[u8; 6]>,
    /// It was not found.
    pub failed: bool,
}

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A device is there, or has changed.
    Link(Link),
    /// An address is there.
    Address(Address),
    /// A route is there.
    Route(Route),
    /// A neighbour is known, or no longer.
    Neighbour(Neighbour),
    /// A link, an address or a route is gone.
    Gone,
    /// Nothing that matters here.
    Other,
}

/// States of a neighbour in which its address on the Ethernet holds: reachable, stale, delay, probe, no ARP, permanent.
const VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// It was asked for and did not answer.
const FAILED: u16 = 0x20;
/// Flag of a link: it is up.
const UP: u32 = 1;
/// The kind of a route that leads to somebody.
const UNICAST: u8 = 1;
/// Kinds of a route that says: nowhere. Blackhole, unreachable, prohibit.
const NOWHERE: std::ops::RangeInclusive<u8> = 6..=8;

/// Of a header of rtnetlink's own, the octets behind the first four.
const LINK_REST: usize = 12;
const ADDRESS_REST: usize = 4;
const ROUTE_REST: usize = 8;
const NEIGHBOUR_REST: usize = 8;

/// What a message says.
///
/// # Errors
/// It is shorter than its kind has it.
pub fn read(message: &Message<'_>) -> Result<Told, Malformed> {
    let Body::Data { family, version, attributes, .. } = message.body else { return Ok(Told::Other) };
    match message.kind {
        kind::NEW_LINK => link(attributes),
        kind::NEW_ADDRESS => address(version, attributes),
        kind::NEW_ROUTE => route(family, version, attributes),
        kind::NEW_NEIGHBOUR => neighbour(attributes, false),
        kind::DEL_NEIGHBOUR => neighbour(attributes, true),
        kind::DEL_LINK | kind::DEL_ADDRESS | kind::DEL_ROUTE => Ok(Told::Gone),
        _ => Ok(Told::Other),
    }
}

fn link(octets: &[u8]) -> Result<Told, Malformed> {
    let (header, attributes) = split::<LINK_REST>(octets, "a link")?;
    let mut link = Link {
        index: word(header, 0),
        name: String::new(),
        mtu: 0,
        mac: None,
        up: word(header, 4) & UP != 0,
        group: 0,
    };
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => link.mac = attribute.payload.try_into().ok(),
            3 => link.name = attribute.text().into(),
            27 => link.group = attribute.octets("a group").map(u32::from_ne_bytes)?,
            4 => link.mtu = attribute.octets("an MTU").map(u32::from_ne_bytes)?,
            _ => (),
        }
    }
    Ok(Told::Link(link))
}

fn address(length: u8, octets: &[u8]) -> Result<Told, Malformed> {
    let (header, attributes) = split::<ADDRESS_REST>(octets, "an address")?;
    let device = word(header, 0);
    let (mut local, mut any) = (None, None);
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => any = ip(attribute.payload),
            // At one end of a link of two, the first is the other end's.
            2 => local = ip(attribute.payload),
            _ => (),
        }
    }
    Ok(local.or(any).map_or(Told::Other, |address| Told::Address(Address { device, address, length })))
}

fn route(family: u8, length: u8, octets: &[u8]) -> Result<Told, Malformed> {
    let (header, attributes) = split::<ROUTE_REST>(octets, "a route")?;
    let (table, kind) = (header.first().copied().unwrap_or(0), header.get(3).copied().unwrap_or(0));
    let prefix = match family {
        FOUR => IpAddr::from([0; 4]),
        SIX => IpAddr::from([0; 16]),
        _ => return Ok(Told::Other),
    };
    if kind != UNICAST && !NOWHERE.contains(&kind) {
        return Ok(Told::Other);
    }
    let mut route = Route { prefix, length, device: None, gateway: None, metric: 0, table: u32::from(table) };
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => route.prefix = ip(attribute.payload).unwrap_or(prefix),
            4 => route.device = Some(attribute.octets("a device").map(u32::from_ne_bytes)?),
            5 => route.gateway = ip(attribute.payload),
            6 => route.metric = attribute.octets("a metric").map(u32::from_ne_bytes)?,
            // Several ways at once: the first is taken.
            9 if route.device.is_none() => first_way(attribute.payload, &mut route)?,
            15 => route.table = attribute.octets("a table").map(u32::from_ne_bytes)?,
            // A gateway of the other family: its own family in front.
            18 => route.gateway = attribute.payload.get(2..).and_then(ip),
            _ => (),
        }
    }
    Ok(Told::Route(route))
}

/// The first of several ways: its length, flags, weight, device; then attributes.
fn first_way(octets: &[u8], route: &mut Route) -> Result<(), Malformed> {
    let length = octets.first_chunk().map_or(0, |octets| usize::from(u16::from_ne_bytes(*octets)));
    let (header, attributes) = split::<8>(octets.get(..length).unwrap_or_default(), "a way of a route")?;
    route.device = Some(word(header, 4));
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        if attribute.kind == 5 {
            route.gateway = ip(attribute.payload);
        }
    }
    Ok(())
}

fn neighbour(octets: &[u8], gone: bool) -> Result<Told, Malformed> {
    let (header, attributes) = split::<NEIGHBOUR_REST>(octets, "a neighbour")?;
    let device = word(header, 0);
    let state = header.get(4..6).and_then(|octets| octets.try_into().ok()).map_or(0, u16::from_ne_bytes);
    let (mut address, mut mac) = (None, None);
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => address = ip(attribute.payload),
            2 => mac = attribute.payload.try_into().ok(),
            _ => (),
        }
    }
    let mac = mac.filter(|_| state & VALID != 0 && !gone);
    let told = |address| Told::Neighbour(Neighbour { device, address, mac, failed: state & FAILED != 0 });
    Ok(address.map_or(Told::Other, told))
}

/// Asks for everything of a kind.
pub(super) fn dump(kind: u16, rest: usize) -> Request {
    let mut request = Request::new(kind, flag::DUMP, 0);
    request.append([0; 16].get(..rest).unwrap_or_default());
    request
}

/// Asks the kernel to find a neighbour, or to see whether it is still there.
pub(super) fn find(device: u32, address: IpAddr) -> Request {
    /// `NTF_USE`: somebody uses it now.
    const USED: u8 = 1;
    let family = if address.is_ipv4() { FOUR } else { SIX };
    let mut request = Request::new(kind::NEW_NEIGHBOUR, flag::CREATE | flag::ACK, family);
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
pub(super) const DUMPS: [(u16, usize); 4] = [
    (kind::GET_LINK, LINK_REST),
    (kind::GET_ADDRESS, ADDRESS_REST),
    (kind::GET_ROUTE, ROUTE_REST),
    (kind::GET_NEIGHBOUR, NEIGHBOUR_REST),
];

/// Families, as of sockets.
const FOUR: u8 = 2;
const SIX: u8 = 10;

fn split<'a, const N: usize>(octets: &'a [u8], what: &'static str) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    octets.split_at_checked(N).ok_or(Malformed { what, length: octets.len() })
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u32::from_ne_bytes(*octets))
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(octets).map(IpAddr::from).ok())
}
