//! Blocks of ports: each subscriber has so many in a row to himself, so that who had a port is known from two lines of a log (RFC 6888, REQ-13; RFC 7422, 2).
//!
//! A [`Holding`] is what one inside address has of one outside address: as long as it has connections there. With it comes a block, if blocks are asked for; it
//! is given back with the last connection. Taking and giving back is told, each once. A subscriber's connections all go by the addresses he holds already
//! (RFC 4787, REQ-2), where the rule allows them.
use super::ports::{Place, Ports, Wish};
use super::range::Range;
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use hashbrown::HashMap;

/// A block was taken, or given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockChange {
    /// Taken, or given back.
    pub taken: bool,
    /// Who has, or had, it.
    pub subscriber: IpAddr,
    /// The outside address …
    pub address: IpAddr,
    /// … and its ports, of every protocol.
    pub ports: RangeInclusive<u16>,
    /// When.
    pub at: Instant,
}

/// A subscriber: inside address, zone.
pub(super) type Subscriber = (IpAddr, u16);

/// What a subscriber has of one outside address.
#[derive(Clone, Copy, Debug)]
struct Holding {
    outside: IpAddr,
    /// The number of his block.
    block: Option<u16>,
    connections: u32,
}

#[derive(Default)]
pub(super) struct Blocks {
    /// Ports of a block.
    size: Option<u16>,
    holdings: HashMap<Subscriber, Vec<Holding>>,
    /// Numbers of blocks that are taken.
    taken: Ports,
    changes: VecDeque<BlockChange>,
    lost: u64,
}

/// The first port of the first block.
const FIRST: u16 = 1024;
/// Outside addresses looked at for a free block.
const MOST_ADDRESSES: usize = 256;
/// Changes that wait to be told.
const MOST_CHANGES: usize = 65_536;

impl Blocks {
    pub(super) fn new(size: Option<u16>) -> Blocks {
        Blocks { size: size.filter(|size| *size > 0), ..Blocks::default() }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.holdings.is_empty() && self.taken.is_empty()
    }

    pub(super) fn in_use(&self) -> bool {
        self.size.is_some()
    }

    /// The first outside address that he holds.
    pub(super) fn address(&self, subscriber: &Subscriber) -> Option<IpAddr> {
        Some(self.holdings.get(subscriber)?.first()?.outside)
    }

    /// The outside address that he holds in `range`, and his block there.
    pub(super) fn held(&self, subscriber: &Subscriber, range: &Range) -> Option<(IpAddr, Option<RangeInclusive<u16>>)> {
        let fits = |holding: &&Holding| {
            let ports = holding.block.map(|block| self.ports(block));
            range.addresses.as_ref().is_none_or(|addresses| addresses.contains(&holding.outside))
                && ports.is_none_or(|ports| covers(range.ports.as_ref(), &ports))
        };
        let holding = self.holdings.get(subscriber)?.iter().find(fits)?;
        Some((holding.outside, holding.block.map(|block| self.ports(block))))
    }

    /// A free block of `range`, first at the address `preferred`.
    pub(super) fn free(&self, preferred: IpAddr, zone: u16, range: &Range) -> Option<(IpAddr, RangeInclusive<u16>)> {
        let size = self.size?;
        let numbers = match &range.ports {
            None => 0..=(u16::MAX - FIRST) / size - u16::from((u16::MAX - FIRST) % size != size - 1),
            Some(ports) => {
                let first = ports.start().saturating_sub(FIRST).div_ceil(size);
                let behind = (u32::from(*ports.end()) + 1).saturating_sub(u32::from(FIRST)) / u32::from(size);
                first..=u16::try_from(behind.checked_sub(1)?).ok()?
            }
        };
        if numbers.is_empty() {
            return None;
        }
        let all = range.addresses.clone().unwrap_or(preferred..=preferred);
        let others = core::iter::successors(Some(*all.start()), |address| next(*address))
            .take_while(|address| address <= all.end())
            .filter(|address| *address != preferred);
        core::iter::once(preferred).chain(others).take(MOST_ADDRESSES).find_map(|address| {
            let place = place(address, zone);
            let number = self.taken.find(&place, &numbers, *numbers.start(), Wish::Any)?;
            self.taken.has_room(&place).then(|| (address, self.ports(number)))
        })
    }

    /// A connection of his was entered at `port` of `outside`.
    pub(super) fn enter(&mut self, subscriber: Subscriber, outside: IpAddr, port: u16, now: Instant) {
        let number = self.number(port);
        let held = self.holdings.entry(subscriber).or_default();
        if let Some(holding) = held.iter_mut().find(|holding| holding.is_at(outside, number)) {
            holding.connections += 1;
            return;
        }
        // Where another has the block, which a rule of its own may cause, he holds the address alone.
        let block = number.filter(|number| self.taken.take(place(outside, subscriber.1), *number));
        held.push(Holding { outside, block, connections: 1 });
        self.tell(true, subscriber, outside, block, now);
    }

    /// One of his connections has ended.
    pub(super) fn leave(&mut self, subscriber: Subscriber, outside: IpAddr, port: u16, now: Instant) {
        let number = self.number(port);
        let Some(held) = self.holdings.get_mut(&subscriber) else { return };
        let Some(at) = held.iter().position(|holding| holding.is_at(outside, number)) else { return };
        if let Some(holding) = held.get_mut(at).filter(|holding| holding.connections > 1) {
            holding.connections -= 1;
            return;
        }
        let Holding { block, .. } = held.swap_remove(at);
        if held.is_empty() {
            self.holdings.remove(&subscriber);
        }
        if let Some(block) = block {
            self.taken.give_back(&place(outside, subscriber.1), block);
        }
        self.tell(false, subscriber, outside, block, now);
    }

    pub(super) fn take_change(&mut self) -> Option<BlockChange> {
        self.changes.pop_front()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn tell(&mut self, taken: bool, subscriber: Subscriber, address: IpAddr, block: Option<u16>, at: Instant) {
        let Some(block) = block else { return };
        if self.changes.len() < MOST_CHANGES {
            let ports = self.ports(block);
            self.changes.push_back(BlockChange { taken, subscriber: subscriber.0, address, ports, at });
        } else {
            self.lost += 1;
        }
    }

    fn number(&self, port: u16) -> Option<u16> {
        Some(port.checked_sub(FIRST)? / self.size?)
    }

    fn ports(&self, number: u16) -> RangeInclusive<u16> {
        let size = self.size.unwrap_or(1);
        let first = FIRST.saturating_add(number.saturating_mul(size));
        first..=first.saturating_add(size - 1)
    }
}

impl Holding {
    fn is_at(&self, outside: IpAddr, number: Option<u16>) -> bool {
        self.outside == outside && (self.block.is_none() || self.block == number)
    }
}

/// Blocks are of all protocols together.
const fn place(outside: IpAddr, zone: u16) -> Place {
    (outside, 0, zone)
}

fn covers(allowed: Option<&RangeInclusive<u16>>, ports: &RangeInclusive<u16>) -> bool {
    allowed.is_none_or(|allowed| allowed.contains(ports.start()) && allowed.contains(ports.end()))
}

fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?)),
    })
}
