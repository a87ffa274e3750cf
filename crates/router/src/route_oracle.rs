//! Whoever knows the routes better than the router's own table: the kernel, with its policy rules, tables, several ways and VRFs.
use crate::router::DropReason;
use keepstate_wire::{Addresses, Packet, protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet, as far as its way depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteQuery {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// The index of the interface that it came in by; `None` if the machine itself sends it.
    pub iif: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// Its TOS byte or traffic class.
    pub tos: u8,
    /// Its flow label, if it is IPv6.
    pub flow_label: u32,
    /// Its protocol.
    pub protocol: u8,
    /// Source and destination port, of TCP and UDP.
    pub ports: (u16, u16),
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAnswer {
    /// Out by an interface.
    Out {
        /// Its index.
        oif: u32,
        /// The neighbour: the next router, or the destination itself.
        next_hop: IpAddr,
        /// The MTU of the route, if it has one of its own.
        mtu: Option<u32>,
        /// Of IPv4: its sender gets an ICMP redirect, since the neighbour is one of its own.
        redirects: bool,
    },
    /// To the machine itself.
    Host,
    /// Nowhere; the sender gets the ICMP error of this type and code, if any.
    Nowhere(Option<(u8, u8)>),
    /// It is dropped for this reason, and its sender hears nothing.
    Dropped(DropReason),
}

/// Answers a router's questions. It is asked for each packet, so it must not wait.
pub trait RouteOracle: Send {
    /// Where a packet goes; `None` if it cannot say, and the router's own table decides.
    fn ask(&mut self, query: &RouteQuery) -> Option<RouteAnswer>;

    /// Does the machine forward what comes in by this interface to such an address?
    fn forwards(&mut self, iif: u32, to: IpAddr) -> bool {
        let _ = (iif, to);
        true
    }

    /// Does the machine take a packet to this multicast group?
    fn is_joined(&mut self, query: &RouteQuery) -> bool {
        let _ = query;
        true
    }

    /// May its answers depend on the type of service?
    fn goes_by_tos(&self) -> bool {
        false
    }

    /// May they differ for flows between the same two addresses?
    fn goes_by_flow(&self) -> bool {
        true
    }
}

impl RouteQuery {
    /// The question about an ICMP error of the machine itself, which has no source yet.
    pub(crate) fn from_machine(destination: IpAddr) -> RouteQuery {
        let (source, protocol) = match destination {
            IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), protocol::ICMP),
            IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), protocol::ICMPV6),
        };
        RouteQuery { source, destination, iif: None, mark: 0, tos: 0, flow_label: 0, protocol, ports: (0, 0) }
    }

    /// The question about a packet.
    pub(crate) fn of(packet: &Packet<'_>, iif: Option<u32>, mark: u32) -> RouteQuery {
        let (source, destination) = match packet.addresses() {
            Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
            Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        };
        let [first, second, third, fourth] = packet.bytes().first_chunk().copied().unwrap_or_default();
        let (tos, flow_label) = match destination {
            IpAddr::V4(_) => (second, 0),
            IpAddr::V6(_) => (first << 4 | second >> 4, u32::from_be_bytes([0, second & 15, third, fourth])),
        };
        let protocol = packet.protocol();
        let ports = match (protocol, packet.transport()) {
            (6 | 17, [s0, s1, d0, d1, ..]) => (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])),
            _ => (0, 0),
        };
        RouteQuery { source, destination, iif, mark, tos, flow_label, protocol, ports }
    }
}
