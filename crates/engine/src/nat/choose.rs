//! Which tuple a translated connection gets: the source's own if that is free, then as its other connections, then what the range allows.
//!
//! The order is that of Linux (`nf_nat_core.c`, `get_unique_tuple`), learned by watching it choose: see docs/differences.md for the two places where we go another way.
use super::range::{Choice, Manip, Range, end, key, key_mut};
use super::sources::Source;
use crate::table::{Reference, key::Key};
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Direction, Engine, Instant, ProtocolInfo, Status, TcpState, Tuple, Zone};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// For whom a tuple is looked for.
pub(super) struct Wanted<'a> {
    /// How the first packet looks before this translation.
    pub(super) present: Tuple,
    pub(super) manip: Manip,
    pub(super) range: &'a Range,
    pub(super) cause: Cause,
    pub(super) zone: Zone,
    /// Behind the first segment's sequence number, if it is a SYN.
    pub(super) opening: Option<u32>,
    pub(super) now: Instant,
}

/// Why a tuple is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A rule wants it translated.
    Rule,
    /// None does.
    NoRule,
}

/// Tuples of others that are looked at for one that suits.
const MOST_SIBLINGS: usize = 128;
/// Ports tried in one go.
const MOST_TRIES: u32 = 128;
/// With so few tries left, the place of a connection that is over is taken.
const LAST_TRIES: u32 = 32;
/// With so few tries in a go, there is no further one.
const LEAST_TRIES: u32 = 16;

impl Engine {
    /// The translated tuple, and whether it is free.
    pub(super) fn choose(&mut self, wanted: &Wanted<'_>) -> (Tuple, bool) {
        let mapped = if self.nat.mappings.in_use() { self.choose_mapped(wanted) } else { None };
        mapped.unwrap_or_else(|| self.choose_plainly(wanted))
    }

    /// As Linux chooses.
    pub(super) fn choose_plainly(&mut self, wanted: &Wanted<'_>) -> (Tuple, bool) {
        let Wanted { present, manip, range, .. } = wanted;
        let random = range.choice == Choice::Random;
        if *manip == Manip::Source && !random {
            if range.has(present, Manip::Source) && !self.used(present, wanted) {
                return (*present, true);
            }
            if let Some(alike) = self.as_its_siblings(wanted)
                && !self.used(&alike, wanted)
            {
                return (alike, true);
            }
        }
        let mut tuple = *present;
        self.choose_address(&mut tuple, wanted);
        if !random {
            let keep = match &range.ports {
                None => !self.used(&tuple, wanted),
                Some(_) if matches!(range.choice, Choice::Offset(_)) => false,
                // The one port there is, is taken by whoever wants it: a clash is seen when the connection is entered.
                Some(ports) if ports.start() == ports.end() && range.has_port(&tuple, *manip) => true,
                Some(_) => range.has_port(&tuple, *manip) && !self.used(&tuple, wanted),
            };
            if keep {
                let free = !self.used(&tuple, wanted);
                return (tuple, free);
            }
        }
        let free = self.choose_port(&mut tuple, wanted);
        (tuple, free)
    }

    /// The translation of another connection of the same source, where the range allows it here.
    fn as_its_siblings(&self, wanted: &Wanted<'_>) -> Option<Tuple> {
        let source = Source::of(&wanted.present, wanted.zone.of(Direction::Original));
        self.nat.sources.of(&source).take(MOST_SIBLINGS).find_map(|slot| {
            let reply = self.table.records.key(Reference::new(slot, Direction::Reply))?.tuple();
            let translated = reply.invert()?;
            let alike = Tuple { source: translated.source, source_key: translated.source_key, ..wanted.present };
            wanted.range.has(&alike, Manip::Source).then_some(alike)
        })
    }

    /// One of the range's addresses, by the client (and, unless it is to be persistent, its peer).
    pub(super) fn choose_address(&self, tuple: &mut Tuple, wanted: &Wanted<'_>) {
        let Some(addresses) = &wanted.range.addresses else { return };
        let (first, last) = (*addresses.start(), *addresses.end());
        let present = end(tuple, wanted.manip);
        let chosen = if first == last {
            first
        } else if wanted.range.prefix {
            masked(present, first, last)
        } else {
            let seed = |peer: bool| {
                let other = if peer { tuple.destination } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
                let zone = wanted.zone.of(Direction::Original);
                Key::from(&Tuple {
                    source: tuple.source,
                    destination: other,
                    protocol: 0,
                    source_key: zone,
                    destination_key: 0,
                })
            };
            self.nat.spread(&seed(!wanted.range.persistent), first, last)
        };
        match wanted.manip {
            Manip::Source => tuple.source = chosen,
            Manip::Destination => tuple.destination = chosen,
        }
    }

    /// A free port of the range, or of the present one's class.
    fn choose_port(&mut self, tuple: &mut Tuple, wanted: &Wanted<'_>) -> bool {
        let Wanted { manip, range, .. } = wanted;
        let present = key(tuple, *manip);
        let (first, last) = match (tuple.protocol, &range.ports) {
            (protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP, None) => match (manip, present) {
                // Whom a destination is sent to is not ours to choose.
                (Manip::Destination, _) => return !self.used(tuple, wanted),
                (_, 0..=511) => (1, 511),
                (_, 512..=1023) => (600, 1023),
                _ => (1024, u16::MAX),
            },
            (protocol::ICMP | protocol::ICMPV6, None) => (0, u16::MAX),
            (
                protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::ICMP | protocol::ICMPV6,
                Some(ports),
            ) => (*ports.start().min(ports.end()), *ports.start().max(ports.end())),
            // What has no ports has nothing to choose.
            _ => return !self.used(tuple, wanted),
        };
        let size = u32::from(last - first) + 1;
        let mut offset = match range.choice {
            Choice::Offset(base) => u32::from(present.wrapping_sub(base)),
            Choice::Keep if *manip == Manip::Destination => 0,
            Choice::Keep | Choice::Random => u32::from(self.nat.draw()),
        };
        let mut tries = size.min(MOST_TRIES);
        loop {
            for left in (1..=tries).rev() {
                // Both are below 2^17.
                *key_mut(tuple, *manip) = first + (offset % size) as u16;
                if !self.used_even_so(tuple, wanted, left) {
                    return true;
                }
                offset += 1;
            }
            if tries >= size || tries < LEAST_TRIES {
                return false;
            }
            tries /= 2;
            offset = u32::from(self.nat.draw());
        }
    }

    /// Has somebody the tuple that this connection's answers would have?
    pub(super) fn used(&mut self, tuple: &Tuple, wanted: &Wanted<'_>) -> bool {
        self.holder_of_answer(tuple, wanted).is_some()
    }

    /// As [`Engine::used`]; with few tries left, a TCP connection that is over makes way for a SYN whose numbers lie behind it.
    fn used_even_so(&mut self, tuple: &Tuple, wanted: &Wanted<'_>, tries_left: u32) -> bool {
        let Some(holder) = self.holder_of_answer(tuple, wanted) else { return false };
        if tries_left > LAST_TRIES || tuple.protocol != protocol::TCP {
            return true;
        }
        let Some(entry) = self.show(holder.slot(), wanted.now) else { return true };
        let over = match entry.protocol {
            ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, sides: [client, _] } => {
                // Later by the numbers' own circle.
                wanted.opening.is_some_and(|opening| (opening.wrapping_sub(client.end) as i32) > 0)
            }
            _ => false,
        };
        let bound = Status::FIXED_TIMEOUT.0 | Status::OFFLOAD.0 | Status::HELPER.0 | Status::EXPECTED.0;
        if !over || entry.status.0 & bound != 0 {
            return true;
        }
        self.destroy(holder.slot(), wanted.now);
        false
    }

    /// Who has the tuple of the answer; one that has expired makes way.
    fn holder_of_answer(&mut self, tuple: &Tuple, wanted: &Wanted<'_>) -> Option<Reference> {
        let answer = Key::from(&tuple.invert()?);
        let holder = self.table.holder(&answer, wanted.zone, Direction::Reply)?;
        let hot = self.table.records.hot(holder.slot())?;
        if hot.expired(wanted.now.tick()) {
            self.destroy(holder.slot(), wanted.now);
            return None;
        }
        Some(holder)
    }
}

/// The bits in which all of `first` to `last` agree are theirs; the others stay.
fn masked(present: IpAddr, first: IpAddr, last: IpAddr) -> IpAddr {
    match (present, first, last) {
        (IpAddr::V4(present), IpAddr::V4(first), IpAddr::V4(last)) => {
            let free = first.to_bits() ^ last.to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(present.to_bits() & free | first.to_bits() & !free))
        }
        (IpAddr::V6(present), IpAddr::V6(first), IpAddr::V6(last)) => {
            let free = first.to_bits() ^ last.to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(present.to_bits() & free | first.to_bits() & !free))
        }
        _ => present,
    }
}
