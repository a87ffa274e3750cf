//! Which tuple a translated connection gets: the source's own if that is free, then as its other connections, then what the range allows.
//!
//! The order is that of Linux (`nf_nat_core.c`, `get_unique_tuple`), learned by watching it choose: see docs/differences.md for the two places where we go another way.
use super::bysource::BysourceKey;
use super::range::{Manip, NatRange, PortSelection, end_address, end_key, end_key_mut};
use crate::table::{TupleRef, key::TupleKey};
use crate::time::Ticks;
use crate::{Direction, Engine, Instant, ProtocolInfo, Status, TcpState, Tuple, Zone};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_types::ipproto;

/// For whom a tuple is looked for.
pub(super) struct NatRequest<'a> {
    /// How the first packet looks before this translation.
    pub(super) current: Tuple,
    pub(super) manip: Manip,
    pub(super) range: &'a NatRange,
    pub(super) binding: NatBinding,
    pub(super) zone: Zone,
    /// Behind the first segment's sequence number, if it is a SYN.
    pub(super) syn_end_seq: Option<u32>,
    pub(super) now: Instant,
}

/// Why a tuple is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NatBinding {
    /// A rule wants it translated.
    Rule,
    /// None does.
    Null,
}

/// Tuples of others that are looked at for one that suits.
const MAX_BYSOURCE_LOOKUPS: usize = 128;
/// Ports tried in one go.
const MAX_ATTEMPTS: u32 = 128;
/// With so few tries left, the place of a connection that is over is taken.
const HARDER_THRESHOLD: u32 = 32;
/// With so few tries in a go, there is no further one.
const MIN_ATTEMPTS: u32 = 16;

impl Engine {
    /// A connection that was decided elsewhere is entered under its source.
    pub(crate) fn restore_bysource(&mut self, slot: u32) {
        let decided = self.table.records.hot(slot).is_some_and(|hot| hot.status().contains(Status::SRC_NAT_DONE));
        let zone = self.table.records.zone(slot).id_for(Direction::Original);
        if let (true, Some(original)) = (decided, self.table.records.key(TupleRef::new(slot, Direction::Original))) {
            self.nat.bysource.insert(BysourceKey::from_tuple(&original.tuple(), zone), slot);
        }
    }
}

impl Engine {
    /// The translated tuple, and whether it is free.
    pub(super) fn unique_tuple(&mut self, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let mapped = if self.nat.eim.in_use() { self.unique_tuple_by_policy(wanted) } else { None };
        mapped.unwrap_or_else(|| self.unique_tuple_linux(wanted))
    }

    /// As Linux chooses.
    pub(super) fn unique_tuple_linux(&mut self, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let NatRequest { current: present, manip, range, .. } = wanted;
        let random = range.port_selection == PortSelection::Random;
        if *manip == Manip::Source && !random {
            if range.contains(present, Manip::Source) && !self.used_tuple(present, wanted) {
                return (*present, true);
            }
            if let Some(alike) = self.find_appropriate_src(wanted)
                && !self.used_tuple(&alike, wanted)
            {
                return (alike, true);
            }
        }
        let mut tuple = *present;
        self.find_best_ip(&mut tuple, wanted);
        if !random {
            let keep = match &range.ports {
                None => !self.used_tuple(&tuple, wanted),
                Some(_) if matches!(range.port_selection, PortSelection::Offset(_)) => false,
                // The one port there is, is taken by whoever wants it: a clash is seen when the connection is entered.
                Some(ports) if ports.start() == ports.end() && range.contains_port(&tuple, *manip) => true,
                Some(_) => range.contains_port(&tuple, *manip) && !self.used_tuple(&tuple, wanted),
            };
            if keep {
                let free = !self.used_tuple(&tuple, wanted);
                return (tuple, free);
            }
        }
        let free = self.unique_port(&mut tuple, wanted);
        (tuple, free)
    }

    /// The translation of another connection of the same source, where the range allows it here.
    fn find_appropriate_src(&self, wanted: &NatRequest<'_>) -> Option<Tuple> {
        let source = BysourceKey::from_tuple(&wanted.current, wanted.zone.id_for(Direction::Original));
        self.nat.bysource.connections(&source).take(MAX_BYSOURCE_LOOKUPS).find_map(|slot| {
            let reply = self.table.records.key(TupleRef::new(slot, Direction::Reply))?.tuple();
            let translated = reply.invert()?;
            let alike = Tuple { source: translated.source, source_key: translated.source_key, ..wanted.current };
            wanted.range.contains(&alike, Manip::Source).then_some(alike)
        })
    }

    /// One of the range's addresses, by the client (and, unless it is to be persistent, its peer).
    pub(super) fn find_best_ip(&self, tuple: &mut Tuple, wanted: &NatRequest<'_>) {
        let Some(addresses) = &wanted.range.addresses else { return };
        let (first, last) = (*addresses.start(), *addresses.end());
        let present = end_address(tuple, wanted.manip);
        let chosen = if first == last {
            first
        } else if wanted.range.prefix {
            netmap_address(present, first, last)
        } else {
            let seed = |peer: bool| {
                let other = if peer { tuple.destination } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
                let zone = wanted.zone.id_for(Direction::Original);
                TupleKey::from(&Tuple {
                    source: tuple.source,
                    destination: other,
                    protocol: 0,
                    source_key: zone,
                    destination_key: 0,
                })
            };
            self.nat.hash_to_address(&seed(!wanted.range.persistent), first, last)
        };
        match wanted.manip {
            Manip::Source => tuple.source = chosen,
            Manip::Destination => tuple.destination = chosen,
        }
    }

    /// A free port of the range, or of the present one's class.
    fn unique_port(&mut self, tuple: &mut Tuple, wanted: &NatRequest<'_>) -> bool {
        let NatRequest { manip, range, .. } = wanted;
        let present = end_key(tuple, *manip);
        let (first, last) = match (tuple.protocol, &range.ports) {
            (ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP, None) => match (manip, present) {
                // Whom a destination is sent to is not ours to choose.
                (Manip::Destination, _) => return !self.used_tuple(tuple, wanted),
                (_, 0..=511) => (1, 511),
                (_, 512..=1023) => (600, 1023),
                _ => (1024, u16::MAX),
            },
            (ipproto::ICMP | ipproto::ICMPV6, None) => (0, u16::MAX),
            (
                ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP | ipproto::ICMP | ipproto::ICMPV6,
                Some(ports),
            ) => (*ports.start().min(ports.end()), *ports.start().max(ports.end())),
            // What has no ports has nothing to choose.
            _ => return !self.used_tuple(tuple, wanted),
        };
        let size = u32::from(last - first) + 1;
        let mut offset = match range.port_selection {
            PortSelection::Offset(base) => u32::from(present.wrapping_sub(base)),
            PortSelection::PreferOriginal if *manip == Manip::Destination => 0,
            PortSelection::PreferOriginal | PortSelection::Random => u32::from(self.nat.random_u16()),
        };
        let mut tries = size.min(MAX_ATTEMPTS);
        loop {
            for left in (1..=tries).rev() {
                // Both are below 2^17.
                *end_key_mut(tuple, *manip) = first + (offset % size) as u16;
                if !self.used_tuple_harder(tuple, wanted, left) {
                    return true;
                }
                offset += 1;
            }
            if tries >= size || tries < MIN_ATTEMPTS {
                return false;
            }
            tries /= 2;
            offset = u32::from(self.nat.random_u16());
        }
    }

    /// Has somebody the tuple that this connection's answers would have?
    pub(super) fn used_tuple(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>) -> bool {
        self.reply_tuple_owner(tuple, wanted).is_some()
    }

    /// As [`Engine::used_tuple`]; with few tries left, a TCP connection that is over makes way for a SYN whose numbers lie behind it.
    fn used_tuple_harder(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>, tries_left: u32) -> bool {
        let Some(holder) = self.reply_tuple_owner(tuple, wanted) else { return false };
        if tries_left > HARDER_THRESHOLD || tuple.protocol != ipproto::TCP {
            return true;
        }
        let Some(entry) = self.dump_entry(holder.slot(), wanted.now) else { return true };
        let over = match entry.protocol {
            ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, sides: [client, _] } => {
                // Later by the numbers' own circle.
                wanted.syn_end_seq.is_some_and(|opening| (opening.wrapping_sub(client.end) as i32) > 0)
            }
            _ => false,
        };
        let bound = Status::FIXED_TIMEOUT | Status::OFFLOAD | Status::HELPER | Status::EXPECTED;
        if !over || entry.status.intersects(bound) {
            return true;
        }
        self.destroy(holder.slot(), wanted.now);
        false
    }

    /// Who has the tuple of the answer; one that has expired makes way.
    fn reply_tuple_owner(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>) -> Option<TupleRef> {
        let answer = TupleKey::from(&tuple.invert()?);
        let holder = self.table.tuple_owner(&answer, wanted.zone, Direction::Reply)?;
        let hot = self.table.records.hot(holder.slot())?;
        if hot.is_expired(wanted.now.tick()) {
            self.destroy(holder.slot(), wanted.now);
            return None;
        }
        Some(holder)
    }
}

/// The bits in which all of `first` to `last` agree are theirs; the others stay.
fn netmap_address(present: IpAddr, first: IpAddr, last: IpAddr) -> IpAddr {
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
