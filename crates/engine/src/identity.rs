//! Whose packet is it? What can be said of a packet before any look at the table: its tuple, or why it has none.
use crate::table::key::{Addresses, Key};
use crate::tuple::protocol;
use crate::{Engine, Knob, Why};
use keepstate_wire::icmp::Message;
use keepstate_wire::{Family, Packet, Refusal, gre};

/// Whose packet is it? Said without a look at the table. A few octets, kept apart from the [`Key`] it goes with: an enum of both is written in
/// pieces and read whole, which stalls the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Of the connection with the probe's tuple, if there is one.
    Tuple,
    /// An ICMP error: of the connection that it is about.
    About,
    /// Of none: it is invalid.
    Invalid(Why),
    /// Of none: it is not tracked.
    Untracked(Why),
}

impl Identity {
    const fn refused(refusal: Refusal) -> Identity {
        Identity::Invalid(Why::Refused(refusal))
    }
}

impl Engine {
    /// The tuple of a packet, packed for the lookup; it means nothing but with [`Identity::Tuple`].
    #[inline(always)]
    pub(crate) fn identify(&self, packet: &Packet<'_>) -> (Identity, Key) {
        let keys = match packet.protocol() {
            _ if packet.fragment().is_some() => Err(Identity::Invalid(Why::Fragment)),
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE => {
                ports(packet.transport()).map_err(Identity::refused)
            }
            protocol::ICMP | protocol::ICMPV6 => self.classify_icmp(packet),
            protocol::GRE => gre_key(packet.transport()).map_err(Identity::refused),
            _ => Ok(0),
        };
        let key = |keys| Key { addresses: packet.addresses().into(), keys, protocol: packet.protocol() };
        match keys {
            Ok(keys) => (Identity::Tuple, key(keys)),
            Err(identity) => (identity, key(0)),
        }
    }

    /// Id, type and code of an ICMP query or answer; or what else the message is.
    fn classify_icmp(&self, packet: &Packet<'_>) -> Result<u32, Identity> {
        let message = Message::parse(packet.transport()).map_err(|refusal| Identity::Invalid(Why::Refused(refusal)))?;
        if is_own_icmp(packet) {
            if self.knobs.on(Knob::Checksum) && !packet.transport_checksum_ok() {
                return Err(Identity::Invalid(Why::Checksum));
            }
            match sort(packet.family(), message.kind) {
                Sort::Query => (),
                Sort::Error => return Err(Identity::About),
                Sort::Redirect => return Err(redirect(packet, &message)),
                Sort::Unknown => return Err(Identity::Invalid(Why::IcmpType)),
                Sort::Untracked => return Err(Identity::Untracked(Why::IcmpUntracked)),
            }
        }
        let keys = icmp_keys(&message);
        let key = Key { addresses: packet.addresses().into(), keys, protocol: packet.protocol() };
        if key.invert().is_some() { Ok(keys) } else { Err(Identity::Invalid(Why::IcmpUnpaired)) }
    }
}

/// ICMP in IPv4, or ICMPv6 in IPv6?
pub(crate) fn is_own_icmp(packet: &Packet<'_>) -> bool {
    matches!((packet.protocol(), packet.family()), (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6))
}

/// What kind of ICMP message a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
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
pub(crate) const fn sort(family: Family, kind: u8) -> Sort {
    match (family, kind) {
        // RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
        (Family::V4, 3 | 4 | 5 | 11 | 12) => Sort::Error,
        (Family::V4, 0..=18) => Sort::Query,
        (Family::V4, _) => Sort::Unknown,
        // RFC 4861, 2710, 3810: neighbour discovery and multicast listening have no connection.
        (Family::V6, 130..=136 | 143) => Sort::Untracked,
        (Family::V6, 137) => Sort::Redirect,
        // RFC 4443, 2.1: types below 128 are errors.
        (Family::V6, 0..=127) => Sort::Error,
        (Family::V6, _) => Sort::Query,
    }
}

/// What an ICMPv6 redirect is. Only a router on the link may send one, and its first option must be the quoted packet (RFC 4861, 8.1).
pub(crate) fn redirect(packet: &Packet<'_>, message: &Message<'_>) -> Identity {
    let link_local = match packet.addresses() {
        keepstate_wire::Addresses::V6 { source: [first, second, ..], .. } => first == 0xfe && second & 0xc0 == 0x80,
        keepstate_wire::Addresses::V4 { .. } => false,
    };
    // Linux takes one of an unknown code for a query, and only then looks where it came from.
    if message.code != 0 && message.body.len() >= 32 {
        return Identity::Invalid(Why::IcmpUnpaired);
    }
    if !link_local || packet.hop_limit() != 255 {
        return Identity::Invalid(Why::Icmpv6Redirect);
    }
    match message.redirected() {
        Ok(Some(_)) => Identity::About,
        Ok(None) => Identity::Invalid(Why::IcmpUnpaired),
        Err(refusal) => Identity::Invalid(Why::Refused(refusal)),
    }
}

/// The first four octets of the transport header.
#[inline(always)]
pub(crate) fn ports(transport: &[u8]) -> Result<u32, Refusal> {
    transport.first_chunk::<4>().map(|ports| u32::from_be_bytes(*ports)).ok_or(Refusal::Truncated)
}

/// The call id of enhanced GRE (RFC 2637) is its key; other GRE has none.
pub(crate) fn gre_key(transport: &[u8]) -> Result<u32, Refusal> {
    Ok(u32::from(gre::key(transport)?.unwrap_or(0)))
}

/// The id is the source's key, type and code the destination's.
pub(crate) fn icmp_keys(message: &Message<'_>) -> u32 {
    u32::from(message.id) << 16 | u32::from(message.kind) << 8 | u32::from(message.code)
}

impl From<keepstate_wire::Addresses> for Addresses {
    #[inline(always)]
    fn from(addresses: keepstate_wire::Addresses) -> Addresses {
        match addresses {
            keepstate_wire::Addresses::V4 { source, destination } => {
                Addresses::V4(u64::from(u32::from_be_bytes(source)) << 32 | u64::from(u32::from_be_bytes(destination)))
            }
            keepstate_wire::Addresses::V6 { source, destination } => {
                let halves = |address: [u8; 16]| {
                    let bits = u128::from_be_bytes(address);
                    [(bits >> 64) as u64, bits as u64]
                };
                Addresses::V6([halves(source), halves(destination)])
            }
        }
    }
}
