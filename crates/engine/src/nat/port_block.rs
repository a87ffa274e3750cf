//! Port blocks: each subscriber has a range of consecutive ports to itself, so that two log lines tell who used a port (RFC 6888, REQ-13; RFC 7422, 2).
//!
//! A [`PortBlockAllocation`] is an inside address's share of one outside address; it lives as long as the inside address has connections there. If port blocks are enabled
//! it includes a block, released with the last connection. Each allocation and each release is reported exactly once. All connections of a subscriber use the addresses it has
//! already (RFC 4787, REQ-2), where the rule allows them.
use super::own_sources::OwnSources;
use super::port_bitmap::{BitmapKey, PortBitmap, PortConstraint};
use super::range::NatRange;
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// A block was allocated or released.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortBlockEvent {
    /// True if allocated, false if released.
    pub allocated: bool,
    /// The subscriber's inside address.
    pub subscriber: IpAddr,
    /// The outside address …
    pub address: IpAddr,
    /// … and its ports, for all protocols.
    pub ports: RangeInclusive<u16>,
    /// Time of the event.
    pub at: Instant,
}

/// A subscriber: inside address, zone.
pub(super) type Subscriber = (IpAddr, u16);

/// A subscriber's share of one outside address.
#[derive(Clone, Copy, Debug)]
struct PortBlockAllocation {
    outside: IpAddr,
    /// The number of the block; `None` if the address is shared without a block.
    block_index: Option<u16>,
    connections: u32,
}

#[derive(Clone)]
pub(super) struct PortBlocks {
    /// Number of ports in a block; `None` if blocks are off.
    block_size: Option<u16>,
    allocations: KeyedMap<Subscriber, Vec<PortBlockAllocation>>,
    /// Numbers of allocated blocks, by outside address and zone.
    allocated: PortBitmap,
    events: VecDeque<PortBlockEvent>,
    events_lost: u64,
    /// Changes are those that another node has decided: they are no events of ours.
    is_replicated: bool,
}

/// First port of the first block.
const FIRST_PORT: u16 = 1024;
/// Maximum number of outside addresses searched for a free block.
const MAX_ADDRESSES_SEARCHED: usize = 256;
/// Maximum number of events that wait to be polled.
const MAX_QUEUED_EVENTS: usize = 65_536;

impl PortBlocks {
    pub(super) fn new(size: Option<u16>, key: SipKey) -> PortBlocks {
        PortBlocks {
            block_size: size.filter(|size| *size > 0),
            allocations: key.derive(0).map(),
            allocated: PortBitmap::new(key.derive(1)),
            events: VecDeque::new(),
            events_lost: 0,
            is_replicated: false,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.allocations.is_empty() && self.allocated.is_empty()
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.block_size.is_some()
    }

    /// The first outside address that the subscriber has.
    pub(super) fn first_address(&self, subscriber: &Subscriber) -> Option<IpAddr> {
        Some(self.allocations.get(subscriber)?.first()?.outside)
    }

    /// The outside address in `range` that the subscriber has, and its block there.
    pub(super) fn find_allocation(
        &self,
        subscriber: &Subscriber,
        range: &NatRange,
        may_choose: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, Option<RangeInclusive<u16>>)> {
        let fits = |holding: &&PortBlockAllocation| {
            let ports = holding.block_index.map(|block| self.block_ports(block));
            range.addresses.as_ref().is_none_or(|addresses| addresses.contains(&holding.outside))
                && may_choose(holding.outside)
                && ports.is_none_or(|ports| covers(range.ports.as_ref(), &ports))
        };
        let holding = self.allocations.get(subscriber)?.iter().find(fits)?;
        Some((holding.outside, holding.block_index.map(|block| self.block_ports(block))))
    }

    /// A free block of `range`; the address `preferred` is tried first.
    pub(super) fn find_free_block(
        &self,
        preferred: IpAddr,
        zone: u16,
        range: &NatRange,
        own: Option<&OwnSources>,
    ) -> Option<(IpAddr, RangeInclusive<u16>)> {
        let size = self.block_size?;
        let numbers = match &range.ports {
            None => 0..=(u16::MAX - FIRST_PORT) / size - u16::from((u16::MAX - FIRST_PORT) % size != size - 1),
            Some(ports) => {
                let first = ports.start().saturating_sub(FIRST_PORT).div_ceil(size);
                let behind = (u32::from(*ports.end()) + 1).saturating_sub(u32::from(FIRST_PORT)) / u32::from(size);
                first..=u16::try_from(behind.checked_sub(1)?).ok()?
            }
        };
        if numbers.is_empty() {
            return None;
        }
        let all = range.addresses.clone().unwrap_or(preferred..=preferred);
        let free_at = |address: IpAddr| {
            let place = bitmap_key(address, zone);
            let number = self.allocated.find_free(&place, &numbers, *numbers.start(), PortConstraint::Any)?;
            self.allocated.has_room(&place).then(|| (address, self.block_ports(number)))
        };
        let first = core::iter::once(preferred);
        if let Some(own) = own {
            return first.chain(own.within(*all.start(), *all.end())).take(MAX_ADDRESSES_SEARCHED).find_map(free_at);
        }
        let others = core::iter::successors(Some(*all.start()), |address| next_address(*address))
            .take_while(|address| address <= all.end())
            .filter(|address| *address != preferred);
        first.chain(others).take(MAX_ADDRESSES_SEARCHED).find_map(free_at)
    }

    /// Adds a connection of the subscriber at `port` of `outside`.
    pub(super) fn add_connection(&mut self, subscriber: Subscriber, outside: IpAddr, port: u16, now: Instant) {
        let number = self.block_index(port);
        let held = self.allocations.entry(subscriber).or_default();
        if let Some(holding) = held.iter_mut().find(|holding| holding.matches(outside, number)) {
            holding.connections += 1;
            return;
        }
        // If another subscriber has the block, which a rule with its own range may cause, only the address is recorded.
        let block = number.filter(|number| self.allocated.reserve(bitmap_key(outside, subscriber.1), *number));
        held.push(PortBlockAllocation { outside, block_index: block, connections: 1 });
        self.queue_event(true, subscriber, outside, block, now);
    }

    /// Removes a connection of the subscriber.
    pub(super) fn remove_connection(&mut self, subscriber: Subscriber, outside: IpAddr, port: u16, now: Instant) {
        let number = self.block_index(port);
        let Some(held) = self.allocations.get_mut(&subscriber) else { return };
        let Some(at) = held.iter().position(|holding| holding.matches(outside, number)) else { return };
        if let Some(holding) = held.get_mut(at).filter(|holding| holding.connections > 1) {
            holding.connections -= 1;
            return;
        }
        let PortBlockAllocation { block_index: block, .. } = held.swap_remove(at);
        if held.is_empty() {
            self.allocations.remove(&subscriber);
        }
        if let Some(block) = block {
            self.allocated.release(&bitmap_key(outside, subscriber.1), block);
        }
        self.queue_event(false, subscriber, outside, block, now);
    }

    pub(super) fn pop_event(&mut self) -> Option<PortBlockEvent> {
        self.events.pop_front()
    }

    pub(super) fn set_replicated(&mut self, is_replicated: bool) {
        self.is_replicated = is_replicated;
    }

    pub(super) fn events_lost(&self) -> u64 {
        self.events_lost
    }

    fn queue_event(&mut self, taken: bool, subscriber: Subscriber, address: IpAddr, block: Option<u16>, at: Instant) {
        let Some(block) = block.filter(|_| !self.is_replicated) else { return };
        if self.events.len() < MAX_QUEUED_EVENTS {
            let ports = self.block_ports(block);
            self.events.push_back(PortBlockEvent { allocated: taken, subscriber: subscriber.0, address, ports, at });
        } else {
            self.events_lost += 1;
        }
    }

    fn block_index(&self, port: u16) -> Option<u16> {
        Some(port.checked_sub(FIRST_PORT)? / self.block_size?)
    }

    fn block_ports(&self, number: u16) -> RangeInclusive<u16> {
        let size = self.block_size.unwrap_or(1);
        let first = FIRST_PORT.saturating_add(number.saturating_mul(size));
        first..=first.saturating_add(size - 1)
    }
}

impl PortBlockAllocation {
    fn matches(&self, outside: IpAddr, number: Option<u16>) -> bool {
        self.outside == outside && (self.block_index.is_none() || self.block_index == number)
    }
}

/// One block covers all protocols, so the protocol in the key is 0.
const fn bitmap_key(outside: IpAddr, zone: u16) -> BitmapKey {
    (outside, 0, zone)
}

fn covers(allowed: Option<&RangeInclusive<u16>>, ports: &RangeInclusive<u16>) -> bool {
    allowed.is_none_or(|allowed| allowed.contains(ports.start()) && allowed.contains(ports.end()))
}

fn next_address(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?)),
    })
}
