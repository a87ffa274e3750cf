//! ICMP errors: they belong to the connection of the packet they quote.
use crate::identity::{Sort, gre_key, icmp_keys, ports, sort};
use crate::table::key::Key;
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Engine, Info, Instant, Outcome, Why, Zone};
use keepstate_wire::{Family, Packet, Quote, Refusal, icmp::Message};

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
