//! Selects the tuple of a translated connection: the packet's own source if it is free, then that of the source's other connections, then what the range allows.
//!
//! The order is that of Linux (`nf_nat_core.c`, `get_unique_tuple`), found by observing the kernel. Two deliberate differences are described in docs/differences.md.
use super::best_ip::best_address;
use super::bysource::BysourceKey;
use super::port_part::PortPart;
use super::range::{Manip, NatRange, PortSelection, end_key, end_key_mut};
use crate::table::TupleRef;
use crate::table::key::{PackedAddrs, TupleKey};
use crate::time::Ticks;
use crate::{Direction, Engine, Instant, ProtocolInfo, Status, TcpState, Tuple, Unconfirmed, Zone};
use core::net::IpAddr;
use keepstate_types::ipproto;

/// A search for a free tuple.
pub(super) struct NatRequest<'a> {
    /// The tuple of the first packet before this translation.
    pub(super) current: Tuple,
    pub(super) manip: Manip,
    pub(super) range: &'a NatRange,
    pub(super) binding: NatBinding,
    pub(super) zone: Zone,
    /// The sequence number after the first segment, if that is a SYN.
    pub(super) syn_end_seq: Option<u32>,
    pub(super) now: Instant,
}

/// Why a tuple is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NatBinding {
    /// A NAT rule matched.
    Rule,
    /// No NAT rule matched.
    Null,
}

pub(super) const fn has_ports(number: u8) -> bool {
    use ipproto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
    matches!(number, TCP | UDP | UDPLITE | SCTP | ICMP | ICMPV6)
}

/// Maximum number of other connections of the source that are tried.
const MAX_BYSOURCE_LOOKUPS: usize = 128;
/// Maximum number of ports tried in one round.
const MAX_ATTEMPTS: u32 = 128;
/// With this few tries left, a closed TCP connection may be replaced.
const HARDER_THRESHOLD: u32 = 32;
/// A round with fewer tries than this is the last.
const MIN_ATTEMPTS: u32 = 16;

impl Engine {
    /// From now on source NAT selects ports of this part, where a rule leaves it a choice: not of a range of one port or one that shifts ports, and not the port that another connection of the
    /// source has. `None`: Linux's selection.
    pub fn set_port_part(&mut self, part: Option<PortPart>) {
        self.nat.port_part = part;
    }

    /// The part that applies to this search at this address.
    pub(super) fn port_part(&self, wanted: &NatRequest<'_>, address: IpAddr) -> Option<PortPart> {
        let chooses = wanted.manip == Manip::Source && wanted.binding == NatBinding::Rule;
        let shifts = matches!(wanted.range.port_selection, PortSelection::Offset(_));
        let one = wanted.range.ports.as_ref().is_some_and(|ports| ports.start() == ports.end());
        if chooses && !shifts && !one { self.part_of_address(address) } else { None }
    }

    /// Adds an imported connection to the by-source table, if its source NAT is initialized.
    pub(crate) fn restore_bysource(&mut self, slot: u32) {
        let decided = self.table.records.hot(slot).is_some_and(|hot| hot.status().contains(Status::SRC_NAT_DONE));
        if decided {
            self.nat.bysource.insert_slot(slot, &self.table.records);
        }
    }
}

impl Engine {
    /// The reply tuple that [`Engine::unique_tuple`] would lead to in the most common case, with its hash: a rule gives the connection of a new source one address, and its port is free there.
    /// `None`: search.
    #[inline(always)]
    pub(super) fn unique_reply_plain(
        &mut self,
        fresh: &Unconfirmed,
        manip: Manip,
        range: &NatRange,
    ) -> Option<(TupleKey, u64)> {
        let is_plain = manip == Manip::Source
            && range.ports.is_none()
            && range.port_selection == PortSelection::PreferOriginal
            && !range.prefix
            && matches!(fresh.original.protocol, ipproto::TCP | ipproto::UDP);
        if !is_plain || self.nat.eim.in_use() || self.nat.chooses_ports() || self.shard.is_one_of_many() {
            return None;
        }
        let allowed = range.addresses.as_ref()?;
        let reply = fresh.reply;
        // The destination of the reply is the source of the connection.
        let addresses = match (reply.addresses, allowed.start(), allowed.end()) {
            (PackedAddrs::V4(word), IpAddr::V4(first), IpAddr::V4(last)) => {
                let address = first.to_bits();
                let is_other = first == last && word as u32 != address;
                is_other.then_some(PackedAddrs::V4(word & !u64::from(u32::MAX) | u64::from(address)))
            }
            (PackedAddrs::V6([from, to]), IpAddr::V6(first), IpAddr::V6(last)) => {
                let bits = first.to_bits();
                let address = [(bits >> 64) as u64, bits as u64];
                (first == last && to != address).then_some(PackedAddrs::V6([from, address]))
            }
            _ => None,
        }?;
        let source = BysourceKey::from_key(&reply.invert()?, fresh.zone.id_for(Direction::Original));
        if self.nat.bysource.may_have(&source) {
            return None;
        }
        let chosen = TupleKey { addresses, ..reply };
        Some((chosen, self.table.free_reply_hash(&chosen, fresh.zone)?))
    }

    /// Is the reply tuple surely free as it is? Then an end that no rule translates stays as it is.
    #[inline(always)]
    pub(super) fn keeps_reply(&self, fresh: &mut Unconfirmed) -> bool {
        if self.nat.eim.in_use() || self.shard.is_one_of_many() {
            return false;
        }
        // The other end was asked for just before.
        if fresh.reply_free_epoch == self.table.epoch() {
            return true;
        }
        let hash = match fresh.hashes[1] {
            0 => self.table.free_reply_hash(&fresh.reply, fresh.zone),
            known => (!self.table.may_have(known)).then_some(known),
        };
        fresh.hashes[1] = hash.unwrap_or(fresh.hashes[1]);
        hash.is_some()
    }

    /// The translated tuple, and whether it is free.
    pub(super) fn unique_tuple(&mut self, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let mapped = if self.nat.eim.in_use() { self.unique_tuple_by_policy(wanted) } else { None };
        mapped.unwrap_or_else(|| self.unique_tuple_linux(wanted))
    }

    /// Selects a tuple as Linux does.
    pub(super) fn unique_tuple_linux(&mut self, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let NatRequest { current: present, manip, range, .. } = wanted;
        let random = range.port_selection == PortSelection::Random;
        if *manip == Manip::Source && !random {
            let is_own = self.may_choose_address(present.source, wanted)
                && self.port_part(wanted, present.source).is_none_or(|part| part.contains(present.source_key));
            if range.contains(present, Manip::Source) && is_own && !self.used_tuple(present, wanted) {
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
        let part = self.port_part(wanted, tuple.source);
        let is_own = |port: u16| part.is_none_or(|part| part.contains(port));
        if !random {
            // May it keep its port if that is free, and also if it is not?
            let (keeps, keeps_used) = match &range.ports {
                _ if !is_own(tuple.source_key) && has_ports(tuple.protocol) => (false, false),
                None => (true, false),
                Some(_) if matches!(range.port_selection, PortSelection::Offset(_)) => (false, false),
                Some(ports) => {
                    let is_within = range.contains_port(&tuple, *manip);
                    // A range of one port takes it unconditionally: a clash is found when the connection is confirmed.
                    (is_within, is_within && ports.start() == ports.end())
                }
            };
            if keeps {
                let free = !self.used_tuple(&tuple, wanted);
                if free || keeps_used {
                    return (tuple, free);
                }
            }
        }
        let free = match part {
            None => self.unique_port(&mut tuple, wanted, None),
            Some(part) => {
                self.unique_port(&mut tuple, wanted, Some(part))
                    || !part.is_exclusive() && self.unique_port(&mut tuple, wanted, None)
            }
        };
        (tuple, free)
    }

    /// The translation of another connection of the same source, if this range allows it.
    fn find_appropriate_src(&mut self, wanted: &NatRequest<'_>) -> Option<Tuple> {
        let source = BysourceKey::from_key(&TupleKey::from(&wanted.current), wanted.zone.id_for(Direction::Original));
        self.nat.bysource.hash_ahead(&source);
        self.nat.bysource.connections(&source, &self.table.records).take(MAX_BYSOURCE_LOOKUPS).find_map(|slot| {
            let reply = self.table.records.key(TupleRef::new(slot, Direction::Reply))?.tuple();
            let translated = reply.invert()?;
            let alike = Tuple { source: translated.source, source_key: translated.source_key, ..wanted.current };
            let allowed = wanted.range.contains(&alike, Manip::Source) && self.may_choose_address(alike.source, wanted);
            allowed.then_some(alike)
        })
    }

    /// Selects one of the range's addresses by a hash of the client (and of its peer, unless the range is persistent).
    pub(super) fn find_best_ip(&self, tuple: &mut Tuple, wanted: &NatRequest<'_>) {
        let own = self.own_address(wanted);
        let chosen = own.or_else(|| best_address(tuple, wanted.manip, wanted.range, wanted.zone.id));
        let Some(chosen) = chosen else { return };
        match wanted.manip {
            Manip::Source => tuple.source = chosen,
            Manip::Destination => tuple.destination = chosen,
        }
    }

    /// A free port of the range, or of the same class as the current one.
    fn unique_port(&mut self, tuple: &mut Tuple, wanted: &NatRequest<'_>, part: Option<PortPart>) -> bool {
        let NatRequest { manip, range, .. } = wanted;
        let present = end_key(tuple, *manip);
        let (first, last) = match (tuple.protocol, &range.ports) {
            (ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP, None) => match (manip, present) {
                // Without a port range, the port of a translated destination is not changed.
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
            // A protocol without ports has nothing to select.
            _ => return !self.used_tuple(tuple, wanted),
        };
        if part.is_some_and(|part| !part.has_any(first, last)) {
            return false;
        }
        let narrows = part.is_some() || *manip == Manip::Source && self.shard.is_one_of_many();
        let size = u32::from(last - first) + 1;
        // The sum is at most 65535: the remainder is below `size`.
        let port_at = |offset: u32| first + (offset % size) as u16;
        let mut offset = match range.port_selection {
            PortSelection::Offset(base) => u32::from(present.wrapping_sub(base)),
            PortSelection::PreferOriginal if *manip == Manip::Destination => 0,
            PortSelection::PreferOriginal | PortSelection::Random => u32::from(self.nat.random_u16()),
        };
        let mut tries = size.min(MAX_ATTEMPTS);
        loop {
            let end = offset + size;
            for left in (1..=tries).rev() {
                *end_key_mut(tuple, *manip) = port_at(offset);
                while narrows && offset < end && !self.may_choose(tuple, part) {
                    offset += 1;
                    *end_key_mut(tuple, *manip) = port_at(offset);
                }
                if offset >= end {
                    // Every port of the range was seen.
                    return false;
                }
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

    /// Is this source port in the part, and the reply tuple in this shard?
    fn may_choose(&self, tuple: &Tuple, part: Option<PortPart>) -> bool {
        part.is_none_or(|part| part.contains(tuple.source_key)) && self.shard.owns(&tuple.into())
    }

    /// Does the reply tuple belong to another shard? Asked for the source alone: it is translated last, and may still get another port.
    #[inline(always)]
    fn falls_elsewhere(&self, tuple: &Tuple, wanted: &NatRequest<'_>) -> bool {
        self.shard.is_one_of_many() && wanted.manip == Manip::Source && !self.shard.owns(&tuple.into())
    }

    /// Does another connection use the reply tuple that `tuple` would have, or does it belong to another shard?
    pub(super) fn used_tuple(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>) -> bool {
        self.falls_elsewhere(tuple, wanted) || self.reply_tuple_owner(tuple, wanted).is_some()
    }

    /// Like [`Engine::used_tuple`]; with few tries left, a closed TCP connection is replaced by a SYN with a later sequence number.
    fn used_tuple_harder(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>, tries_left: u32) -> bool {
        if self.falls_elsewhere(tuple, wanted) {
            return true;
        }
        let Some(holder) = self.reply_tuple_owner(tuple, wanted) else { return false };
        let held = self.held.remaining(holder.slot()).is_some();
        if tries_left > HARDER_THRESHOLD || tuple.protocol != ipproto::TCP || held {
            return true;
        }
        let Some(entry) = self.dump_entry(holder.slot(), wanted.now) else { return true };
        let over = match entry.protocol {
            ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, sides: [client, _] } => {
                // Later, in sequence number arithmetic.
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

    /// The owner of the reply tuple of `tuple`; an expired connection is removed first.
    fn reply_tuple_owner(&mut self, tuple: &Tuple, wanted: &NatRequest<'_>) -> Option<TupleRef> {
        let answer = TupleKey::from(&tuple.invert()?);
        let (holder, hash) = self.table.reply_owner(&answer, wanted.zone);
        self.nat.looked_for = Some((answer, hash));
        let holder = holder?;
        let hot = self.table.records.hot(holder.slot())?;
        if hot.is_expired(wanted.now.tick()) {
            self.destroy(holder.slot(), wanted.now);
            return None;
        }
        Some(holder)
    }
}
