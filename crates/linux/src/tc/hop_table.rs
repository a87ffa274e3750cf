//! The neighbours to which XDP programs send packets of known flows, in memory shared with the programs (`struct hop` of `bpf/xdp.h`).
use super::flow_table::wait_for_grace_period;
use super::line_memory::now_ms;
use super::xdp_devices::XdpDevices;
use crate::address_field::address_field;
use crate::mapped_memory::MappedMemory;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// A neighbour by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopKey {
    /// The interface's index.
    pub oif: u16,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// What frames to a neighbour look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour's MAC address.
    pub to: [u8; 6],
    /// The interface's own.
    pub from: [u8; 6],
    /// The interface's MTU, in bytes; not 0.
    pub mtu: u32,
}

/// `HOPS` and `struct hop` of the programs.
const HOPS: usize = 4096;
const HOP_LEN: usize = 64;
pub(super) const HOPS_LEN: usize = HOPS * HOP_LEN;
const OIF: usize = 16;
const FAMILY: usize = 18;
const MTU: usize = 20;
const MACS: usize = 24;
const SEEN: usize = 40;
const DEVICE: usize = 44;

/// The table. It has 4,096 places, and two for each neighbour; one that finds none is sent to by the kernel alone.
#[derive(Debug)]
pub struct HopTable {
    memory: MappedMemory,
    devices: XdpDevices,
    places: HashMap<HopKey, usize>,
    states: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Used,
    /// A program may still be reading who was there.
    Left,
}

impl HopTable {
    /// The table in this memory, all of whose places are free.
    pub(super) fn new(memory: MappedMemory, devices: XdpDevices) -> HopTable {
        HopTable { memory, devices, places: HashMap::new(), states: vec![Place::Free; HOPS] }
    }

    /// Packets to a neighbour are sent so from now on. False if there is no place for it, or for its interface.
    pub fn set(&mut self, key: HopKey, hop: Hop) -> bool {
        let Some(at) = self.places.get(&key).copied().or_else(|| self.take_place(&key)) else { return false };
        let [d0, d1, d2, d3, d4, d5] = hop.to;
        let [s0, s1, s2, s3, s4, s5] = hop.from;
        // The neighbour's address is in one word: no packet goes to half of one.
        let words = [[d0, d1, d2, d3, d4, d5, s0, s1], [s2, s3, s4, s5, 0, 0, 0, 0]].map(u64::from_ne_bytes);
        for (index, word) in words.into_iter().enumerate() {
            self.memory.atomic_u64(at + MACS + index * 8).store(word, Ordering::Relaxed);
        }
        self.memory.atomic_u32(at + MTU).store(hop.mtu, Ordering::Release);
        true
    }

    /// Nothing is sent to a neighbour from now on, but by the kernel.
    pub fn remove(&mut self, key: &HopKey) {
        let Some(at) = self.places.remove(key) else { return };
        self.memory.atomic_u32(at + MTU).store(0, Ordering::Release);
        if let Some(state) = self.states.get_mut(at / HOP_LEN) {
            *state = Place::Left;
        }
    }

    /// These interfaces are gone, by their indices. Their neighbours are to be removed before.
    pub fn forget_interfaces(&mut self, are_gone: impl Fn(u16) -> bool) {
        self.devices.forget(are_gone);
    }

    /// Milliseconds since packets were sent to a neighbour, give or take a second; `None` if it has no place.
    pub fn age_ms(&self, key: &HopKey) -> Option<u32> {
        let at = self.places.get(key)?;
        Some(now_ms().wrapping_sub(self.memory.atomic_u32(at + SEEN).load(Ordering::Relaxed)))
    }

    /// The neighbours in it.
    pub fn keys(&self) -> impl Iterator<Item = &HopKey> {
        self.places.keys()
    }

    /// Writes whose a place is. Returns where it begins.
    fn take_place(&mut self, key: &HopKey) -> Option<usize> {
        let (words, family) = address_words(key.address);
        let mixed = words.iter().fold(0, |mixed, word| mixed ^ word).wrapping_mul(0x9e37_79b1);
        let mixed = mixed.wrapping_add(u32::from(key.oif).wrapping_mul(0x85eb_ca77));
        let place = mixed ^ (mixed >> 15);
        let choices = [place as usize % HOPS, (place >> 16) as usize % HOPS];
        let in_state = |states: &[Place], wanted| choices.into_iter().find(|at| states.get(*at) == Some(&wanted));
        if in_state(&self.states, Place::Free).is_none() && in_state(&self.states, Place::Left).is_some() {
            wait_for_grace_period();
            self.states.iter_mut().filter(|state| **state == Place::Left).for_each(|state| *state = Place::Free);
        }
        let index = in_state(&self.states, Place::Free)?;
        let device = self.devices.place(key.oif)?;
        let at = index * HOP_LEN;
        for (number, word) in words.into_iter().enumerate() {
            self.memory.atomic_u32(at + number * 4).store(word, Ordering::Relaxed);
        }
        let [o0, o1] = key.oif.to_ne_bytes();
        let [f0, f1] = family.to_ne_bytes();
        const { assert!(FAMILY == OIF + 2) };
        self.memory.atomic_u32(at + OIF).store(u32::from_ne_bytes([o0, o1, f0, f1]), Ordering::Relaxed);
        self.memory.atomic_u32(at + SEEN).store(now_ms(), Ordering::Relaxed);
        self.memory.atomic_u32(at + DEVICE).store(device, Ordering::Relaxed);
        *self.states.get_mut(index)? = Place::Used;
        self.places.insert(*key, at);
        Some(at)
    }
}

/// An address as the programs have it, and its family.
fn address_words(address: IpAddr) -> ([u32; 4], u16) {
    let field = address_field(address);
    let mut words = [0; 4];
    words.iter_mut().zip(field.as_chunks().0).for_each(|(to, word)| *to = u32::from_ne_bytes(*word));
    (words, if address.is_ipv6() { 10 } else { 2 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    const HOP: Hop = Hop { to: [2, 0, 0, 0, 0, 9], from: [2, 0, 0, 0, 0, 1], mtu: 1500 };

    fn table() -> HopTable {
        HopTable::new(MappedMemory::anonymous(HOPS_LEN).unwrap(), XdpDevices::new(None))
    }

    #[test]
    fn a_neighbour_stands_as_the_programs_read_it() {
        let mut table = table();
        let key = HopKey { oif: 7, address: "fe80::9".parse().unwrap() };
        assert!(table.set(key, HOP));
        let at = table.places[&key];
        assert_eq!(table.memory.slice(at, 4), Some(&[0xfe, 0x80, 0, 0][..]));
        assert_eq!(table.memory.slice(at + MACS, 12), Some(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1][..]));
        assert_eq!(table.memory.read::<[u16; 2]>(at + OIF), Some([7, 10]));
        assert_eq!(table.memory.read::<u32>(at + MTU), Some(1500));
        assert!(table.age_ms(&key).unwrap() < 60_000);
        table.remove(&key);
        assert_eq!((table.memory.read::<u32>(at + MTU), table.age_ms(&key)), (Some(0), None));
    }

    #[test]
    fn a_place_is_used_again_and_a_full_table_says_so() {
        let mut table = table();
        let key = |number: u32| HopKey { oif: 1, address: IpAddr::from(number.to_be_bytes()) };
        let taken = (0..20_000).filter(|number| table.set(key(*number), HOP)).count();
        assert!((2048..=HOPS).contains(&taken), "{taken}");
        let (first, none) = (0..20_000).map(key).partition::<Vec<_>, _>(|key| table.places.contains_key(key));
        first.iter().for_each(|key| table.remove(key));
        assert_eq!(table.keys().count(), 0);
        assert!(table.set(none[0], HOP), "places that were left are free");
    }
}
