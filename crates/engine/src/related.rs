//! ICMP errors: they belong to the connection of the packet they quote.
use crate::table::key::Key;
use crate::time::Clock;
use crate::track::{Identity, gre_key, icmp_keys, ports};
use crate::tuple::protocol;
use crate::{Engine, Info, Instant, Outcome, Why, Zone};
use keepstate_wire::{Addresses, Family, Packet, Quote, Refusal, icmp::Message};

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
        Addresses::V6 { source: [first, second, ..], .. } => first == 0xfe && second & 0xc0 == 0x80,
        Addresses::V4 { .. } => false,
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

/// The packet that a message quotes.
fn quoted<'a>(message: &Message<'a>, family: Family) -> Result<&'a [u8], Refusal> {
    match sort(family, message.kind) {
        Sort::Redirect => message.redirected().map(Option::unwrap_or_default),
        _ => Ok(message.body),
    }
}

impl Engine {
    /// The connection that an error is about: found by the quoted packet turned round, and only if the error goes to one of its ends.
    pub(crate) fn relate(&self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Outcome {
        let quoted = Message::parse(packet.transport())
            .and_then(|message| quoted(&message, packet.family()))
            .and_then(|quote| Quote::parse(quote, packet.family()))
            .and_then(|quote| quoted_key(&quote));
        let key = match quoted {
            Ok(key) => key,
            Err(refusal) => return Outcome::invalid(Why::Refused(refusal)),
        };
        let found = key.invert().and_then(|answer| self.table.find(&self.table.probe(answer, zone)));
        let living = found
            .filter(|reference| self.table.records.hot(reference.slot()).is_some_and(|hot| !hot.expired(now.tick())));
        let Some(reference) = living else {
            return Outcome::invalid(Why::IcmpNoConnection);
        };
        let outer = Key { addresses: packet.addresses().into(), keys: 0, protocol: 0 }.tuple();
        let end = self.table.records.key(reference).map(|key| key.tuple().destination);
        if end != Some(outer.destination) {
            return Outcome::invalid(Why::IcmpAddress);
        }
        Outcome::of(Info::Related, reference.direction(), self.handle_of(reference.slot()))
    }
}

/// The tuple of a quoted packet; its lengths and checksums are not believed and not looked at.
fn quoted_key(quote: &Quote<'_>) -> Result<Key, Refusal> {
    let keys = match quote.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE => ports(quote.transport)?,
        protocol::ICMP | protocol::ICMPV6 => icmp_keys(&Message::parse(quote.transport)?),
        protocol::GRE => gre_key(quote.transport)?,
        _ => 0,
    };
    Ok(Key { addresses: quote.addresses.into(), keys, protocol: quote.protocol })
}
