//! Which of a machine's addresses a packet gets as its source when only the interface is known: masquerade, and what the router itself sends.
//!
//! IPv4 as Linux's `inet_select_addr`: primary addresses of global scope, first one whose prefix has the next hop. IPv6 by the rules of RFC 6724, section 5, over the addresses of all
//! interfaces, as `ipv6_dev_get_saddr` does.
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of an interface, and what decides whether it is a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAddress {
    /// The index of its interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// The prefix that its link has: the address itself, or the other end of a point-to-point link …
    pub network: IpAddr,
    /// … and its length.
    pub prefix_length: u8,
    /// Its scope as rtnetlink says it: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// IPv4: another address of the same prefix comes first. IPv6: it is temporary (RFC 8981).
    pub secondary: bool,
    /// New connections should use another (RFC 4862, 5.5.4).
    pub deprecated: bool,
    /// It may be another host's: duplicate address detection has not ended, or has failed.
    pub tentative: bool,
}

impl SourceAddress {
    /// A permanent address of the scope that its value has.
    pub fn new(ifindex: u32, address: IpAddr, prefix_length: u8) -> SourceAddress {
        let scope = match address {
            IpAddr::V4(address) if address.is_loopback() => HOST_SCOPE,
            IpAddr::V6(address) if address.is_loopback() => HOST_SCOPE,
            IpAddr::V6(address) if address.is_unicast_link_local() => LINK_SCOPE,
            _ => 0,
        };
        SourceAddress {
            ifindex,
            address,
            network: address,
            prefix_length,
            scope,
            secondary: false,
            deprecated: false,
            tentative: false,
        }
    }
}

/// The scope numbers of rtnetlink.
const LINK_SCOPE: u8 = 253;
const HOST_SCOPE: u8 = 254;

/// The source of a packet that leaves by an interface, for this next hop.
pub(crate) fn select_v4<'a>(
    all: impl Iterator<Item = &'a SourceAddress> + Clone,
    oif: u32,
    next_hop: Ipv4Addr,
) -> Option<IpAddr> {
    let usable =
        |candidate: &&SourceAddress| candidate.address.is_ipv4() && !candidate.secondary && candidate.scope == 0;
    let mut own = all.clone().filter(usable).filter(|candidate| candidate.ifindex == oif);
    let near = own.clone().find(|candidate| match candidate.network {
        IpAddr::V4(network) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(candidate.prefix_length.min(32))).unwrap_or(0);
            (network.to_bits() ^ next_hop.to_bits()) & mask == 0
        }
        IpAddr::V6(_) => false,
    });
    // An interface without a usable address borrows one.
    near.or_else(|| own.next()).or_else(|| all.clone().find(usable)).map(|found| found.address)
}

/// The source of a packet to `destination` that leaves by an interface.
pub(crate) fn select_v6<'a>(
    all: impl Iterator<Item = &'a SourceAddress>,
    oif: u32,
    destination: Ipv6Addr,
) -> Option<IpAddr> {
    let link_only = destination.is_multicast() || scope_of(destination) == LINK_LOCAL;
    let candidates = all.filter_map(|candidate| match candidate.address {
        IpAddr::V6(address) if !candidate.tentative && (!link_only || candidate.ifindex == oif) => {
            Some((address, candidate))
        }
        _ => None,
    });
    // The first of equals: Linux's list begins with the newest.
    let best = candidates.reduce(|best, other| match compare(other, best, oif, destination) {
        Ordering::Greater => other,
        _ => best,
    });
    best.map(|(address, _)| IpAddr::V6(address))
}

/// RFC 6724, section 5: greater is better.
fn compare(
    (a, first): (Ipv6Addr, &SourceAddress),
    (b, second): (Ipv6Addr, &SourceAddress),
    oif: u32,
    destination: Ipv6Addr,
) -> Ordering {
    let scope_rank = |address: Ipv6Addr| {
        let (own, wanted) = (i32::from(scope_of(address)), i32::from(scope_of(destination)));
        // Rule 2: the smallest scope that is enough; if none is, the largest.
        if own >= wanted { -own } else { own - 128 }
    };
    let same_label = |address: Ipv6Addr| label_of(address) == label_of(destination);
    let common = |address: Ipv6Addr, candidate: &SourceAddress| {
        (address.to_bits() ^ destination.to_bits()).leading_zeros().min(u32::from(candidate.prefix_length))
    };
    (a == destination)
        .cmp(&(b == destination))
        .then_with(|| scope_rank(a).cmp(&scope_rank(b)))
        .then_with(|| second.deprecated.cmp(&first.deprecated))
        .then_with(|| (first.ifindex == oif).cmp(&(second.ifindex == oif)))
        .then_with(|| same_label(a).cmp(&same_label(b)))
        // Rule 7, as Linux has it unless use_tempaddr says otherwise: public addresses come first.
        .then_with(|| second.secondary.cmp(&first.secondary))
        .then_with(|| common(a, first).cmp(&common(b, second)))
}

/// Scopes as multicast addresses number them (RFC 4291, 2.7); loopback counts as link-local (RFC 6724, 3.1).
fn scope_of(address: Ipv6Addr) -> u8 {
    let [first, second, ..] = address.octets();
    if address.is_multicast() {
        second & 0x0f
    } else if address.is_unicast_link_local() || address.is_loopback() {
        LINK_LOCAL
    } else if first == 0xfe && second & 0xc0 == 0xc0 {
        SITE_LOCAL
    } else {
        GLOBAL
    }
}

const LINK_LOCAL: u8 = 2;
const SITE_LOCAL: u8 = 5;
const GLOBAL: u8 = 14;

/// The label of an address by Linux's default policy table (`ip addrlabel`).
fn label_of(address: Ipv6Addr) -> u8 {
    let bits = address.to_bits();
    let found = LABELS.iter().find(|(prefix, length, _)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
        (bits ^ prefix.to_bits()) & mask == 0
    });
    found.map_or(1, |(.., label)| *label)
}

/// The longest prefixes first.
const LABELS: [(Ipv6Addr, u8, u8); 7] = [
    (Ipv6Addr::LOCALHOST, 128, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 6),
    (Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28, 7),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 5),
];
