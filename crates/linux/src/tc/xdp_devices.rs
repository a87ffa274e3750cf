//! The interfaces to which XDP programs send, in the kernel's own kind of map for them (`devices` of `bpf/xdp.h`): to send by a place there is cheaper than to search for an interface by its index.
use super::flow_table::wait_for_grace_period;
use aya::maps::MapData;
use aya::maps::xdp::DevMap;
use std::collections::HashMap;
use std::fmt;

/// The map's entries.
const DEVICES: u32 = 256;

/// The places of interfaces in the map.
pub(super) struct XdpDevices {
    /// None in tests.
    map: Option<DevMap<MapData>>,
    places: HashMap<u16, u32>,
    /// Not used so far, from this one on.
    unused: u32,
    /// Their interfaces are gone; a program may still be sending by them.
    left: Vec<u32>,
}

impl fmt::Debug for XdpDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpDevices").field("places", &self.places).finish_non_exhaustive()
    }
}

impl XdpDevices {
    /// The interfaces in this map, which has none.
    pub(super) fn new(map: Option<DevMap<MapData>>) -> XdpDevices {
        XdpDevices { map, places: HashMap::new(), unused: 0, left: Vec::new() }
    }

    /// The place of an interface, which it is given when it has none; `None` if there is none left, or no such interface.
    pub(super) fn place(&mut self, oif: u16) -> Option<u32> {
        if let Some(place) = self.places.get(&oif) {
            return Some(*place);
        }
        if self.unused == DEVICES && !self.left.is_empty() {
            wait_for_grace_period();
        }
        let place = if self.unused < DEVICES { Some(self.unused) } else { self.left.last().copied() }?;
        if let Some(map) = &mut self.map {
            map.set(place, u32::from(oif), None, 0).ok()?;
        }
        if self.unused < DEVICES {
            self.unused += 1;
        } else {
            self.left.pop();
        }
        self.places.insert(oif, place);
        Some(place)
    }

    /// These interfaces are gone, and the kernel has taken them out of the map.
    pub(super) fn forget(&mut self, are_gone: impl Fn(u16) -> bool) {
        let gone = self.places.extract_if(|oif, _| are_gone(*oif));
        self.left.extend(gone.map(|(_, place)| place));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn every_interface_has_a_place_of_its_own_while_it_is_there() {
        let mut devices = XdpDevices::new(None);
        let given: Vec<u32> = (1..=256).map(|oif| devices.place(oif).unwrap()).collect();
        assert_eq!(given, (0..256).collect::<Vec<_>>());
        assert_eq!((devices.place(7), devices.place(257)), (Some(6), None));
        devices.forget(|oif| oif == 7);
        assert_eq!((devices.place(257), devices.place(7)), (Some(6), None));
    }
}
