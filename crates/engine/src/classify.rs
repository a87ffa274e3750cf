//! Classifies a packet before any table lookup: its tuple, or why it has none.
//!
//! A [`Classification`] and its [`TupleKey`] are computed once per packet and dropped after the lookup. This module reads nothing but
//! the packet and the sysctls; it must never depend on the table.
use crate::table::key::{PackedAddrs, TupleKey};
use crate::{Engine, Reason, Sysctl, Tuple};
use keepstate_types::ipproto;
use keepstate_wire::icmp::IcmpMessage;
use keepstate_wire::{Family, Packet, ParseError, gre};

/// What a packet is, before any table lookup. It is a few bytes, separate from its [`TupleKey`]: an enum holding both would be
/// written in pieces and read as a whole, which causes a store-forwarding stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
    /// It has a tuple: look it up.
    Tuple,
    /// An ICMP error: it belongs to the connection of the packet it quotes.
    IcmpError,
    /// It is invalid and has no connection.
    Invalid(Reason),
    /// It is not tracked and has no connection.
    Untracked(Reason),
}

impl Classification {
    fn parse_error(packet: &Packet<'_>, error: ParseError) -> Classification {
        Classification::Invalid(Reason::parse_error(packet, error))
    }
}

impl Engine {
    /// Classifies a packet and builds its packed tuple. The key is only meaningful with [`Classification::Tuple`].
    #[inline(always)]
    pub(crate) fn classify(&self, packet: &Packet<'_>) -> (Classification, TupleKey) {
        let keys = match packet.protocol() {
            _ if packet.fragment().is_some() => Err(Classification::Invalid(Reason::Fragment)),
            ipproto::TCP | ipproto::UDP | ipproto::SCTP | ipproto::UDPLITE => {
                parse_ports(packet.transport()).map_err(|error| Classification::parse_error(packet, error))
            }
            ipproto::ICMP | ipproto::ICMPV6 => self.classify_icmp(packet),
            // Linux finds nothing to track, but routes it (RFC 8200, 4.7).
            ipproto::NO_NEXT_HEADER if packet.family() == Family::V6 => {
                Err(Classification::Invalid(Reason::ParseError(ParseError::NoNextHeader)))
            }
            ipproto::GRE => {
                parse_gre_key(packet.transport()).map_err(|error| Classification::parse_error(packet, error))
            }
            _ => Ok(0),
        };
        let key = |keys| TupleKey { addresses: packet.addresses().into(), keys, protocol: packet.protocol() };
        match keys {
            Ok(keys) => (Classification::Tuple, key(keys)),
            Err(identity) => (identity, key(0)),
        }
    }

    /// The keys (id, type, code) of an ICMP query or reply, or the classification of any other ICMP message.
    fn classify_icmp(&self, packet: &Packet<'_>) -> Result<u32, Classification> {
        let message =
            IcmpMessage::parse(packet.transport()).map_err(|error| Classification::parse_error(packet, error))?;
        if is_icmp_of_family(packet) {
            if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
                return Err(Classification::Invalid(Reason::Checksum));
            }
            match icmp_class(packet.family(), message.kind) {
                IcmpClass::Query => (),
                IcmpClass::Error => return Err(Classification::IcmpError),
                IcmpClass::Redirect => return Err(classify_redirect(packet, &message)),
                IcmpClass::Unknown => return Err(Classification::Invalid(Reason::IcmpType)),
                IcmpClass::Untracked => return Err(Classification::Untracked(Reason::IcmpUntracked)),
            }
        }
        let keys = icmp_keys(&message);
        let key = TupleKey { addresses: packet.addresses().into(), keys, protocol: packet.protocol() };
        if key.invert().is_some() { Ok(keys) } else { Err(Classification::Invalid(Reason::IcmpUnpaired)) }
    }
}

/// The tuple of a packet as it stands, whether or not a connection may have it, as Linux reads it (`nf_ct_get_tuplepr`): for rules that count packets without a connection. `None` if
/// the transport header is too short.
pub fn packet_tuple(packet: &Packet<'_>) -> Option<Tuple> {
    let keys = match packet.protocol() {
        ipproto::TCP | ipproto::UDP | ipproto::SCTP | ipproto::UDPLITE => parse_ports(packet.transport()).ok()?,
        ipproto::ICMP | ipproto::ICMPV6 => icmp_keys(&IcmpMessage::parse(packet.transport()).ok()?),
        ipproto::GRE => parse_gre_key(packet.transport()).ok()?,
        _ => 0,
    };
    Some(TupleKey { addresses: packet.addresses().into(), keys, protocol: packet.protocol() }.tuple())
}

/// True for ICMP in IPv4 and for ICMPv6 in IPv6.
pub(crate) fn is_icmp_of_family(packet: &Packet<'_>) -> bool {
    matches!((packet.protocol(), packet.family()), (ipproto::ICMP, Family::V4) | (ipproto::ICMPV6, Family::V6))
}

/// The class of an ICMP type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpClass {
    /// A query or a reply; not every such type can be inverted.
    Query,
    /// An error about another packet.
    Error,
    /// Deliberately not tracked.
    Untracked,
    /// An ICMPv6 redirect (RFC 4861, 4.5).
    Redirect,
    /// An unknown type.
    Unknown,
}

/// The class of ICMP type `kind` in `family`.
pub(crate) const fn icmp_class(family: Family, kind: u8) -> IcmpClass {
    match (family, kind) {
        // RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
        (Family::V4, 3 | 4 | 5 | 11 | 12) => IcmpClass::Error,
        (Family::V4, 0..=18) => IcmpClass::Query,
        (Family::V4, _) => IcmpClass::Unknown,
        // RFC 4861, 2710, 3810: neighbour discovery and multicast listener messages have no connection.
        (Family::V6, 130..=136 | 143) => IcmpClass::Untracked,
        (Family::V6, 137) => IcmpClass::Redirect,
        // RFC 4443, 2.1: types below 128 are errors.
        (Family::V6, 0..=127) => IcmpClass::Error,
        (Family::V6, _) => IcmpClass::Query,
    }
}

/// Classifies an ICMPv6 redirect. Only a router on the link may send one, and its first option must be the quoted packet
/// (RFC 4861, section 8.1).
pub(crate) fn classify_redirect(packet: &Packet<'_>, message: &IcmpMessage<'_>) -> Classification {
    let link_local = match packet.addresses() {
        keepstate_wire::Addresses::V6 { source: [first, second, ..], .. } => first == 0xfe && second & 0xc0 == 0x80,
        keepstate_wire::Addresses::V4 { .. } => false,
    };
    // Linux treats a redirect with an unknown code as a query, before it checks the source.
    if message.code != 0 && message.body.len() >= 32 {
        return Classification::Invalid(Reason::IcmpUnpaired);
    }
    if !link_local || packet.hop_limit() != 255 {
        return Classification::Invalid(Reason::Icmpv6Redirect);
    }
    match message.redirected_packet() {
        Ok(Some(_)) => Classification::IcmpError,
        Ok(None) => Classification::Invalid(Reason::IcmpUnpaired),
        Err(error) => Classification::parse_error(packet, error),
    }
}

/// The first four bytes of the transport header.
#[inline(always)]
pub(crate) fn parse_ports(transport: &[u8]) -> Result<u32, ParseError> {
    transport.first_chunk::<4>().map(|ports| u32::from_be_bytes(*ports)).ok_or(ParseError::Truncated)
}

/// The call id of enhanced GRE (RFC 2637), 0 for other GRE.
pub(crate) fn parse_gre_key(transport: &[u8]) -> Result<u32, ParseError> {
    Ok(u32::from(gre::key(transport)?.unwrap_or(0)))
}

/// The id is the source key; type and code are the destination key.
pub(crate) fn icmp_keys(message: &IcmpMessage<'_>) -> u32 {
    u32::from(message.id) << 16 | u32::from(message.kind) << 8 | u32::from(message.code)
}

impl From<keepstate_wire::Addresses> for PackedAddrs {
    #[inline(always)]
    fn from(addresses: keepstate_wire::Addresses) -> PackedAddrs {
        match addresses {
            keepstate_wire::Addresses::V4 { source, destination } => PackedAddrs::V4(
                u64::from(u32::from_be_bytes(source)) << 32 | u64::from(u32::from_be_bytes(destination)),
            ),
            keepstate_wire::Addresses::V6 { source, destination } => {
                let halves = |address: [u8; 16]| {
                    let bits = u128::from_be_bytes(address);
                    [(bits >> 64) as u64, bits as u64]
                };
                PackedAddrs::V6([halves(source), halves(destination)])
            }
        }
    }
}
