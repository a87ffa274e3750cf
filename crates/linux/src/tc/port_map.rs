//! The outside ports in use between an outside address and one port of a server (`struct port_map`): a bit each, in memory that the programs share. Whoever sets a bit first has the port.
use crate::mapped_memory::MappedMemory;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of `struct port_map`.
pub(super) const PORT_MAP_LEN: usize = 65_536 / 8;

/// One of the bitmaps.
#[derive(Clone, Copy, Debug)]
pub struct PortMap<'a> {
    pub(super) memory: &'a MappedMemory,
    pub(super) number: u32,
}

impl PortMap<'_> {
    /// Is a port in use?
    pub fn has(&self, port: u16) -> bool {
        let (word, bit) = self.place(port);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Takes a port; false if it was in use.
    pub fn take(&self, port: u16) -> bool {
        let (word, bit) = self.place(port);
        word.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Nobody uses a port any more.
    pub fn free(&self, port: u16) {
        let (word, bit) = self.place(port);
        word.fetch_and(!bit, Ordering::AcqRel);
    }

    /// Thirty-two ports from `32 * index` on, a bit each.
    pub fn word(&self, index: u16) -> u32 {
        self.memory.atomic_u32(self.at(usize::from(index % 2048))).load(Ordering::Acquire)
    }

    /// All are in use, as far as is known.
    pub fn take_all(&self) {
        (0..PORT_MAP_LEN / 4)
            .for_each(|index| self.memory.atomic_u32(self.at(index)).store(u32::MAX, Ordering::Release));
    }

    fn place(&self, port: u16) -> (&AtomicU32, u32) {
        (self.memory.atomic_u32(self.at(usize::from(port / 32))), 1 << (port % 32))
    }

    fn at(&self, word: usize) -> usize {
        self.number as usize * PORT_MAP_LEN + word * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once() {
        let memory = MappedMemory::anonymous(PORT_MAP_LEN * 2).unwrap();
        let [first, second] = [0, 1].map(|number| PortMap { memory: &memory, number });
        for port in [0, 31, 32, 40_000, u16::MAX] {
            assert!(!first.has(port) && first.take(port) && first.has(port) && !first.take(port), "{port}");
            assert!(!second.has(port));
        }
        assert_eq!((first.word(0), first.word(2047)), (1 | 1 << 31, 1 << 31));
        first.free(31);
        assert!(!first.has(31) && first.has(32) && first.take(31));
        first.take_all();
        assert!([0, 33, 40_001].into_iter().all(|port| first.has(port) && !second.has(port)));
    }
}
