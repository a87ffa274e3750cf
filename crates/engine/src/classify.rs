//! Whose packet is it? What can be said of a packet before any look at the table: its tuple, or why it has none.
use crate::table::key::{PackedAddrs, TupleKey};
use crate::{Engine, Reason, Sysctl};
use keepstate_types::ipproto;
use keepstate_wire::icmp::IcmpMessage;
use keepstate_wire::{Family, Packet, ParseError, gre};

/// Whose packet is it? Said without a look at the table. A few bytes, kept apart from the [`TupleKey`] it goes with: an enum of both is written in
/// pieces and read whole, which stalls the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
    /// Of the connection with the probe's tuple, if there is one.
    Tuple,
    /// An ICMP error: of the connection that it is about.
    IcmpError,
    /// Of none: it is invalid.
    Invalid(Reason),
    /// Of none: it is not tracked.
    Untracked(Reason),
}

impl Classification {
    const fn parse_error(error: ParseError) -> Classification {
        Classification::Invalid(Reason::ParseError(error))
    }
}

impl Engine {
    /// The tuple of a packet, packed for the lookup; it means nothing but with [`Classification::Tuple`].
    #[inline(always)]
    pub(crate) fn classify(&self, packet: &Packet<'_>) -> (Classification, TupleKey) {
        let keys = match packet.protocol() {
            _ if packet.fragment().is_some() => Err(Classification::Invalid(Reason::Fragment)),
            ipproto::TCP | ipproto::UDP | ipproto::SCTP | ipproto::UDPLITE => {
                parse_ports(packet.transport()).map_err(Classification::parse_error)
            }
            ipproto::ICMP | ipproto::ICMPV6 => self.classify_icmp(packet),
            ipproto::GRE => parse_gre_key(packet.transport()).map_err(Classification::parse_error),
            _ => Ok(0),
        };
        let key = |keys| TupleKey { addresses: packet.addresses().into(), keys, protocol: packet.protocol() };
        match keys {
            Ok(keys) => (Classification::Tuple, key(keys)),
            Err(identity) => (identity, key(0)),
        }
    }

    /// Id, type and code of an ICMP query or answer; or what else the message is.
    fn classify_icmp(&self, packet: &Packet<'_>) -> Result<u32, Classification> {
        let message = IcmpMessage::parse(packet.transport())
            .map_err(|error| Classification::Invalid(Reason::ParseError(error)))?;
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

/// ICMP in IPv4, or ICMPv6 in IPv6?
pub(crate) fn is_icmp_of_family(packet: &Packet<'_>) -> bool {
    matches!((packet.protocol(), packet.family()), (ipproto::ICMP, Family::V4) | (ipproto::ICMPV6, Family::V6))
}

/// What kind of ICMP message a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpClass {
    /// A query or an answer, perhaps of a kind not tracked.
    Query,
    /// About another packet.
    Error,
    /// Not tracked, on purpose.
    Untracked,
    /// An ICMPv6 redirect (RFC 4861, 4.5).
    Redirect,
    /// Of no known type.
    Unknown,
}

/// The sort of a type, in its own family.
pub(crate) const fn icmp_class(family: Family, kind: u8) -> IcmpClass {
    match (family, kind) {
        // RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
        (Family::V4, 3 | 4 | 5 | 11 | 12) => IcmpClass::Error,
        (Family::V4, 0..=18) => IcmpClass::Query,
        (Family::V4, _) => IcmpClass::Unknown,
        // RFC 4861, 2710, 3810: neighbour discovery and multicast listening have no connection.
        (Family::V6, 130..=136 | 143) => IcmpClass::Untracked,
        (Family::V6, 137) => IcmpClass::Redirect,
        // RFC 4443, 2.1: types below 128 are errors.
        (Family::V6, 0..=127) => IcmpClass::Error,
        (Family::V6, _) => IcmpClass::Query,
    }
}

/// What an ICMPv6 redirect is. Only a router on the link may send one, and its first option must be the quoted packet (RFC 4861, 8.1).
pub(crate) fn classify_redirect(packet: &Packet<'_>, message: &IcmpMessage<'_>) -> Classification {
    let link_local = match packet.addresses() {
        keepstate_wire::Addresses::V6 { source: [first, second, ..], .. } => first == 0xfe && second & 0xc0 == 0x80,
        keepstate_wire::Addresses::V4 { .. } => false,
    };
    // Linux takes one of an unknown code for a query, and only then looks where it came from.
    if message.code != 0 && message.body.len() >= 32 {
        return Classification::Invalid(Reason::IcmpUnpaired);
    }
    if !link_local || packet.hop_limit() != 255 {
        return Classification::Invalid(Reason::Icmpv6Redirect);
    }
    match message.redirected_packet() {
        Ok(Some(_)) => Classification::IcmpError,
        Ok(None) => Classification::Invalid(Reason::IcmpUnpaired),
        Err(error) => Classification::Invalid(Reason::ParseError(error)),
    }
}

/// The first four bytes of the transport header.
#[inline(always)]
pub(crate) fn parse_ports(transport: &[u8]) -> Result<u32, ParseError> {
    transport.first_chunk::<4>().map(|ports| u32::from_be_bytes(*ports)).ok_or(ParseError::Truncated)
}

/// The call id of enhanced GRE (RFC 2637) is its key; other GRE has none.
pub(crate) fn parse_gre_key(transport: &[u8]) -> Result<u32, ParseError> {
    Ok(u32::from(gre::key(transport)?.unwrap_or(0)))
}

/// The id is the source's key, type and code the destination's.
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
