//! Ports of outside addresses in exclusive use: one bit each, so that the search for a free one checks 64 at a time.
//!
//! A page of bits belongs to one address, protocol and zone; it is allocated with the first port reserved there and freed with the last. There are never more than
//! [`MAX_PAGES`] pages: without room for a page, no port is reserved.
use alloc::boxed::Box;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// Key of a page: address, protocol, zone.
pub(super) type BitmapKey = (IpAddr, u8, u16);

/// What a port must satisfy beside being free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortConstraint {
    Any,
    /// The parity of this number (RFC 4787, 4.2.2).
    SameParity(u16),
    /// Even, and the next port free as well, for the RTCP port (RFC 4787, 4.2.3).
    Pair,
}

#[derive(Clone)]
pub(super) struct PortBitmap(KeyedMap<BitmapKey, BitmapPage>);

#[derive(Clone)]
struct BitmapPage {
    taken: Box<[u64; 1024]>,
    count: u32,
}

/// Maximum number of pages. A page is 8 KiB: 32 MiB in all.
const MAX_PAGES: usize = 4096;
/// The bits of the even ports.
const EVEN_BITS: u64 = 0x5555_5555_5555_5555;

impl PortBitmap {
    pub(super) fn new(key: SipKey) -> PortBitmap {
        PortBitmap(key.map())
    }

    /// Is there room for a port of this key?
    pub(super) fn has_room(&self, place: &BitmapKey) -> bool {
        self.0.len() < MAX_PAGES || self.0.contains_key(place)
    }

    pub(super) fn is_free(&self, place: &BitmapKey, port: u16) -> bool {
        let bit =
            |page: &BitmapPage| page.taken.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0);
        !self.0.get(place).is_some_and(bit)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reserves a port. False if it is in use, or if there is no room.
    pub(super) fn reserve(&mut self, place: BitmapKey, port: u16) -> bool {
        if !self.has_room(&place) || !self.is_free(&place, port) {
            return false;
        }
        let page = self.0.entry(place).or_insert_with(|| BitmapPage { taken: Box::new([0; 1024]), count: 0 });
        if let Some(word) = page.taken.get_mut(usize::from(port / 64)) {
            *word |= 1 << (port % 64);
            page.count += 1;
        }
        true
    }

    pub(super) fn release(&mut self, place: &BitmapKey, port: u16) {
        if self.is_free(place, port) {
            return;
        }
        let Some(page) = self.0.get_mut(place) else { return };
        if let Some(word) = page.taken.get_mut(usize::from(port / 64)) {
            *word &= !(1 << (port % 64));
            page.count -= 1;
        }
        if page.count == 0 {
            self.0.remove(place);
        }
    }

    /// The first free port of `ports` that meets the constraint, searching from `from` and wrapping around.
    pub(super) fn find_free(
        &self,
        place: &BitmapKey,
        ports: &RangeInclusive<u16>,
        from: u16,
        wish: PortConstraint,
    ) -> Option<u16> {
        let (first, last) = (*ports.start(), *ports.end());
        let from = if ports.contains(&from) { from } else { first };
        let page = self.0.get(place);
        let ahead = find_free_in(page, from, last, wish);
        ahead.or_else(|| if from > first { find_free_in(page, first, from - 1, wish) } else { None })
    }
}

fn find_free_in(page: Option<&BitmapPage>, first: u16, last: u16, wish: PortConstraint) -> Option<u16> {
    (first / 64..=last / 64).find_map(|at| {
        let taken = page.and_then(|page| page.taken.get(usize::from(at))).copied().unwrap_or(0);
        let mut free = !taken;
        if at == first / 64 {
            free &= u64::MAX << (first % 64);
        }
        if at == last / 64 {
            free &= u64::MAX >> (63 - last % 64);
        }
        free &= match wish {
            PortConstraint::Any => u64::MAX,
            PortConstraint::SameParity(port) if port % 2 == 0 => EVEN_BITS,
            PortConstraint::SameParity(_) => !EVEN_BITS,
            // An even port and the next one are always in the same word.
            PortConstraint::Pair => EVEN_BITS & free >> 1,
        };
        // A word has 64 bits, and the last bit of the last word is port 65535.
        (free != 0).then(|| at * 64 + free.trailing_zeros() as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    const KEY: BitmapKey = (IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 17, 0);

    #[test]
    fn every_port_of_a_range_is_found_once_and_no_other() {
        for ports in [1024..=1024, 1000..=1100, 63..=65, 65_500..=65_535, 0..=u16::MAX] {
            let mut all = PortBitmap::new(SipKey::new(1, 2));
            let mut found = BTreeSet::new();
            while let Some(port) = all.find_free(&KEY, &ports, 1050, PortConstraint::Any) {
                assert!(
                    ports.contains(&port) && found.insert(port) && all.reserve(KEY, port) && !all.reserve(KEY, port)
                );
            }
            assert_eq!(found.len(), ports.len());
            found.iter().for_each(|port| all.release(&KEY, *port));
            assert!(all.0.is_empty(), "the page goes with the last");
        }
    }

    #[test]
    fn constraints_are_honoured() {
        let mut all = PortBitmap::new(SipKey::new(1, 2));
        assert_eq!(all.find_free(&KEY, &(1024..=2000), 1025, PortConstraint::SameParity(8)), Some(1026));
        assert_eq!(all.find_free(&KEY, &(1024..=2000), 1026, PortConstraint::SameParity(7)), Some(1027));
        assert!(all.reserve(KEY, 1027));
        assert_eq!(all.find_free(&KEY, &(1024..=2000), 1026, PortConstraint::Pair), Some(1028));
        assert_eq!(
            all.find_free(&KEY, &(1024..=1028), 1026, PortConstraint::Pair),
            Some(1024),
            "and round; 1029 is not in the range"
        );
        assert_eq!(all.find_free(&KEY, &(1027..=1028), 1027, PortConstraint::Pair), None);
    }
}
