//! ICMP errors: they are RELATED to the connection of the packet they quote.
use crate::classify::{IcmpClass, icmp_class, icmp_keys, parse_gre_key, parse_ports};
use crate::table::key::TupleKey;
use crate::time::Ticks;
use crate::{CtInfo, Engine, Instant, Outcome, Reason, Zone};
use keepstate_types::ipproto;
use keepstate_wire::{Family, InnerPacket, Packet, ParseError, icmp::IcmpMessage};

/// The quoted packet of an ICMP error or redirect.
fn inner_packet<'a>(message: &IcmpMessage<'a>, family: Family) -> Result<&'a [u8], ParseError> {
    match icmp_class(family, message.kind) {
        IcmpClass::Redirect => message.redirected_packet().map(Option::unwrap_or_default),
        _ => Ok(message.body),
    }
}

impl Engine {
    /// Finds the connection an ICMP error is about, by the inverted tuple of the quoted packet. The error is invalid unless it is sent to the
    /// source of the quoted packet (`nf_conntrack_inet_error`).
    pub(crate) fn track_icmp_error(&self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Outcome {
        let key = match read_quoted_key(packet) {
            Ok(key) => key,
            Err(error) => return Outcome::invalid(Reason::parse_error(packet, error)),
        };
        let found = key.invert().and_then(|answer| self.table.find(&self.table.lookup_key(answer, zone)));
        let living = found.filter(|reference| {
            self.table.records.hot(reference.slot()).is_some_and(|hot| !hot.is_expired(now.tick()))
        });
        let Some(reference) = living else {
            return Outcome::invalid(Reason::IcmpNoConnection);
        };
        let outer = TupleKey { addresses: packet.addresses().into(), keys: 0, protocol: 0 }.tuple();
        let end = self.table.records.key(reference).map(|key| key.tuple().destination);
        if end != Some(outer.destination) {
            return Outcome::invalid(Reason::IcmpAddress);
        }
        Outcome::tracked(CtInfo::Related, reference.direction(), self.conn_id(reference.slot()))
    }
}

fn read_quoted_key(packet: &Packet<'_>) -> Result<TupleKey, ParseError> {
    IcmpMessage::parse(packet.transport())
        .and_then(|message| inner_packet(&message, packet.family()))
        .and_then(|quote| InnerPacket::parse(quote, packet.family()))
        .and_then(|quote| inner_tuple_key(&quote))
}

/// The tuple of the packet that an ICMP error quotes; `None` for any other ICMP message.
pub(crate) fn quoted_key(packet: &Packet<'_>) -> Option<TupleKey> {
    let kind = IcmpMessage::parse(packet.transport()).ok()?.kind;
    let quotes = matches!(icmp_class(packet.family(), kind), IcmpClass::Error | IcmpClass::Redirect);
    if quotes { read_quoted_key(packet).ok() } else { None }
}

/// The tuple of a quoted packet. Its lengths and checksums are not checked: a quoted packet is usually truncated.
fn inner_tuple_key(quote: &InnerPacket<'_>) -> Result<TupleKey, ParseError> {
    let keys = match quote.protocol {
        ipproto::TCP | ipproto::UDP | ipproto::SCTP | ipproto::UDPLITE => parse_ports(quote.transport)?,
        ipproto::ICMP | ipproto::ICMPV6 => icmp_keys(&IcmpMessage::parse(quote.transport)?),
        ipproto::GRE => parse_gre_key(quote.transport)?,
        _ => 0,
    };
    Ok(TupleKey { addresses: quote.addresses.into(), keys, protocol: quote.protocol })
}
