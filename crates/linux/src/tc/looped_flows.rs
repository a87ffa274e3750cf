//! Flows of the machine to itself. What rules lead from the machine back to it comes in by the loopback interface; what it sends by that interface is taken from there if rules translate it.
//!
//! Of a flow by the loopback interface user space is asked once ([`TcHooks::ask_of_loopback`]), and says either that all its packets come to it ([`TcHooks::take_looped`]) or that they go on
//! ([`TcHooks::let_looped_on`]), until the known flows have another generation.
use super::TcError;
use super::hooks::TcHooks;
use super::tc_error::tc_error;
use crate::address_field::address_field;
use aya::maps::{Array, HashMap, MapData, MapError};
use std::net::IpAddr;

/// The ends of a packet of the machine to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopedEnds {
    /// Who sends it: address and port, or the identifier of an ICMP question.
    pub source: (IpAddr, u16),
    /// Who gets it.
    pub destination: (IpAddr, u16),
    /// Its protocol.
    pub protocol: u8,
}

/// Bytes of `struct looped_key`.
const LOOPED_KEY_LEN: usize = 40;

impl LoopedEnds {
    /// Those of its answers.
    #[must_use]
    pub fn answers(&self) -> LoopedEnds {
        LoopedEnds { source: self.destination, destination: self.source, protocol: self.protocol }
    }

    /// `struct looped_key`.
    fn key(&self) -> [u8; LOOPED_KEY_LEN] {
        let mut key = [0; LOOPED_KEY_LEN];
        let (addresses, rest) = key.split_at_mut(32);
        let (from, to) = addresses.split_at_mut(16);
        from.copy_from_slice(&address_field(self.source.0));
        to.copy_from_slice(&address_field(self.destination.0));
        rest[..2].copy_from_slice(&self.source.1.to_be_bytes());
        rest[2..4].copy_from_slice(&self.destination.1.to_be_bytes());
        rest[4..].copy_from_slice(&u32::from(self.protocol).to_ne_bytes());
        key
    }
}

impl TcHooks {
    /// From now on user space is asked of packets that the machine sends to itself and that may be the first of a connection, or no longer.
    ///
    /// # Errors
    /// The map cannot be written, or the program not be attached.
    pub fn ask_of_loopback(&mut self, asks: bool) -> Result<(), TcError> {
        if asks {
            self.attach_loopback()?;
        }
        let map = self.ebpf.map_mut("loopback_asks").ok_or("not in the object file");
        let map = map.map_err(tc_error("BPF map loopback_asks"))?;
        let mut map: Array<_, u32> = map.try_into().map_err(tc_error::<MapError>("BPF map loopback_asks"))?;
        map.set(0, u32::from(asks), 0).map_err(tc_error::<MapError>("cannot write the BPF map loopback_asks"))
    }

    /// Packets with these ends come to user space, when they leave by the loopback interface.
    ///
    /// # Errors
    /// The map cannot be written, or the program not be attached.
    pub fn take_looped(&mut self, ends: &LoopedEnds) -> Result<(), TcError> {
        self.attach_loopback()?;
        set_looped(&mut self.looped()?, ends, 0)
    }

    /// Packets with these ends, and answers to them, go on by the loopback interface.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn let_looped_on(&mut self, ends: &LoopedEnds) -> Result<(), TcError> {
        let generation = self.generation();
        let mut looped = self.looped()?;
        set_looped(&mut looped, ends, generation)?;
        set_looped(&mut looped, &ends.answers(), generation)
    }

    fn looped(&mut self) -> Result<LoopedMap<'_>, TcError> {
        let map = self.ebpf.map_mut("looped").ok_or("not in the object file").map_err(tc_error("BPF map looped"))?;
        map.try_into().map_err(tc_error::<MapError>("BPF map looped"))
    }
}

type LoopedMap<'a> = HashMap<&'a mut MapData, [u8; LOOPED_KEY_LEN], u32>;

fn set_looped(map: &mut LoopedMap<'_>, ends: &LoopedEnds, value: u32) -> Result<(), TcError> {
    map.insert(ends.key(), value, 0).map_err(tc_error::<MapError>("cannot write the BPF map looped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_has_the_ends_in_their_order() {
        let ends = LoopedEnds {
            source: ([10, 0, 2, 1].into(), 0x1234),
            destination: ([127, 0, 0, 1].into(), 0x5678),
            protocol: 6,
        };
        let key = ends.answers().key();
        assert_eq!((&key[..4], &key[16..20]), (&[127, 0, 0, 1][..], &[10, 0, 2, 1][..]));
        assert_eq!((&key[32..36], &key[36..]), (&[0x56, 0x78, 0x12, 0x34][..], &6_u32.to_ne_bytes()[..]));
    }
}
