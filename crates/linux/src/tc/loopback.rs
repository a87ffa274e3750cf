//! Packets that rules lead from the machine to the machine itself: they come in by the loopback interface, and only answers to them are taken from it.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
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
pub(super) const LOOPED_KEY_LEN: usize = 40;

impl LoopedEnds {
    /// `struct looped_key` of its answers.
    pub(super) fn answers_key(&self) -> [u8; LOOPED_KEY_LEN] {
        let mut key = [0; LOOPED_KEY_LEN];
        let (addresses, rest) = key.split_at_mut(32);
        let (from, to) = addresses.split_at_mut(16);
        for (place, address) in [(from, self.destination.0), (to, self.source.0)] {
            match address {
                IpAddr::V4(address) => place[..4].copy_from_slice(&address.octets()),
                IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
            }
        }
        rest[..2].copy_from_slice(&self.destination.1.to_be_bytes());
        rest[2..4].copy_from_slice(&self.source.1.to_be_bytes());
        rest[4..].copy_from_slice(&u32::from(self.protocol).to_ne_bytes());
        key
    }
}

/// The settings of the loopback interface that let packets in which have lost their route on the way through user space. Only the machine itself can send by it.
#[derive(Debug)]
pub(super) struct LoopbackSettings(io::Result<[File; 2]>);

impl LoopbackSettings {
    /// To be opened while files can be; nothing is changed yet.
    pub(super) fn open() -> LoopbackSettings {
        let open = |name: &str| OpenOptions::new().write(true).open(format!("/proc/sys/net/ipv4/conf/lo/{name}"));
        LoopbackSettings(open("accept_local").and_then(|first| Ok([first, open("route_localnet")?])))
    }

    /// Sets them.
    pub(super) fn set(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Ok(files) => files.iter_mut().try_for_each(|file| file.write_all(b"1\n")),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_answers() {
        let ends = LoopedEnds {
            source: ([10, 0, 2, 1].into(), 0x1234),
            destination: ([127, 0, 0, 1].into(), 0x5678),
            protocol: 6,
        };
        let key = ends.answers_key();
        assert_eq!((&key[..4], &key[16..20]), (&[127, 0, 0, 1][..], &[10, 0, 2, 1][..]));
        assert_eq!((&key[32..36], &key[36..]), (&[0x56, 0x78, 0x12, 0x34][..], &6_u32.to_ne_bytes()[..]));
    }
}
