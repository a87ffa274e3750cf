//! A packed tuple, for hashing and comparison, and the keyed hash of the table.
use super::simd::Avx2;
use super::siphash;
use crate::Secret;
use crate::Tuple;
use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_types::ipproto;
use keepstate_wire::keyed_hash::SipKey;
use siphasher::sip::SipHasher13;

/// A packed [`Tuple`]: addresses, keys, protocol. IPv4 fits in two words and has its own code path where speed matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TupleKey {
    pub(crate) addresses: PackedAddrs,
    /// Source key, then destination key.
    pub(crate) keys: u32,
    pub(crate) protocol: u8,
}

/// Source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedAddrs {
    /// Source in the upper half.
    V4(u64),
    /// Source, destination; each as upper half, lower half.
    V6([[u64; 2]; 2]),
}

/// A SipHash key, derived from the engine's secret.
#[derive(Clone, Copy)]
pub(crate) struct HashKeys {
    first: u64,
    second: u64,
}

impl HashKeys {
    /// Derives the key for one purpose (`salt`) from the engine's secret.
    pub(crate) fn derive(secret: &Secret, salt: u64) -> HashKeys {
        let mut halves = [0; 2];
        for (half, tweak) in halves.iter_mut().zip([0, 1]) {
            let mut hasher = SipHasher13::new_with_key(&secret.0);
            hasher.write_u64(salt << 1 | tweak);
            *half = hasher.finish();
        }
        HashKeys { first: halves[0], second: halves[1] }
    }

    /// The key for a table of another kind.
    pub(crate) fn sip_key(&self) -> SipKey {
        SipKey::new(self.first, self.second)
    }

    /// The key itself, for multiplicative hashes that need an unpredictable odd number.
    pub(crate) fn words(&self) -> (u64, u64) {
        (self.first, self.second)
    }

    /// The hashes of the first `count` of a group of keys: the `W` words of the addresses of each (all first words, then all second ones), and [`key_tail`] of each. `lanes` says whether this
    /// processor hashes several at once.
    #[inline(always)]
    pub(crate) fn hash_group<const W: usize, const N: usize>(
        &self,
        addresses: [&[u64; N]; W],
        tails: &[u64; N],
        count: usize,
        lanes: Option<Avx2>,
        hashes: &mut [u64; N],
    ) {
        siphash::sip13_group((self.first, self.second), addresses, tails, count, lanes, hashes);
    }

    /// SipHash-1-3 of whole words.
    #[inline(always)]
    pub(crate) fn hash<const N: usize>(&self, words: [u64; N]) -> u64 {
        siphash::sip13((self.first, self.second), words, (N as u64 * 8) << 56)
    }

    /// SipHash-1-3 of whole words and seven more bytes. Those are part of the final block, so they cost nothing.
    #[inline(always)]
    pub(crate) fn hash_with_tail<const N: usize>(&self, words: [u64; N], tail: u64) -> u64 {
        siphash::sip13((self.first, self.second), words, (N as u64 * 8 + 7) << 56 | tail)
    }
}

/// The last seven bytes that are hashed: keys, zone and protocol. Never 0.
#[inline(always)]
pub(crate) fn key_tail(keys: u32, zone: u16, protocol: u8) -> u64 {
    u64::from(keys) << 24 | u64::from(zone) << 8 | u64::from(protocol)
}

impl TupleKey {
    /// The hash of this key in `zone`.
    #[inline(always)]
    pub(crate) fn hash(&self, zone: u16, hash_keys: &HashKeys) -> u64 {
        let tail = key_tail(self.keys, zone, self.protocol);
        match self.addresses {
            PackedAddrs::V4(both) => hash_keys.hash_with_tail([both], tail),
            PackedAddrs::V6([[a, b], [c, d]]) => hash_keys.hash_with_tail([a, b, c, d], tail),
        }
    }

    /// The key of the opposite direction; `None` for an ICMP type that is neither a query nor a reply.
    #[inline(always)]
    pub(crate) fn invert(&self) -> Option<TupleKey> {
        let addresses = match self.addresses {
            PackedAddrs::V4(both) => PackedAddrs::V4(both.rotate_left(32)),
            PackedAddrs::V6([source, destination]) => PackedAddrs::V6([destination, source]),
        };
        let keys = match self.protocol {
            ipproto::ICMP | ipproto::ICMPV6 => {
                let answer = self.tuple().invert()?;
                u32::from(answer.source_key) << 16 | u32::from(answer.destination_key)
            }
            _ => self.keys.rotate_left(16),
        };
        Some(TupleKey { addresses, keys, protocol: self.protocol })
    }

    /// Is it its own reply: the same address and port at both ends?
    #[inline(always)]
    pub(crate) fn is_own_reply(&self) -> bool {
        let one_address = match self.addresses {
            PackedAddrs::V4(both) => both.rotate_left(32) == both,
            PackedAddrs::V6([source, destination]) => source == destination,
        };
        one_address && self.invert() == Some(*self)
    }

    /// Unpacks it.
    pub(crate) fn tuple(&self) -> Tuple {
        let (source, destination) = match self.addresses {
            PackedAddrs::V4(both) => {
                (IpAddr::V4(Ipv4Addr::from_bits((both >> 32) as u32)), IpAddr::V4(Ipv4Addr::from_bits(both as u32)))
            }
            PackedAddrs::V6([source, destination]) => {
                let address = |[high, low]: [u64; 2]| Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
                (IpAddr::V6(address(source)), IpAddr::V6(address(destination)))
            }
        };
        Tuple {
            source,
            destination,
            protocol: self.protocol,
            source_key: (self.keys >> 16) as u16,
            destination_key: self.keys as u16,
        }
    }
}

impl From<&Tuple> for TupleKey {
    /// Packs a tuple. In a tuple of mixed families the IPv4 address becomes an IPv4-mapped IPv6 address.
    fn from(tuple: &Tuple) -> TupleKey {
        let addresses = match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PackedAddrs::V4(u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()))
            }
            (source, destination) => PackedAddrs::V6([source, destination].map(|address| {
                let bits = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                [(bits >> 64) as u64, bits as u64]
            })),
        };
        let keys = u32::from(tuple.source_key) << 16 | u32::from(tuple.destination_key);
        TupleKey { addresses, keys, protocol: tuple.protocol }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unrolled_hash_is_siphash_1_3() {
        let keys = HashKeys { first: 0x0706_0504_0302_0100, second: 0x0f0e_0d0c_0b0a_0908 };
        let reference = |bytes: &[u8]| {
            let mut hasher = SipHasher13::new_with_keys(keys.first, keys.second);
            hasher.write(bytes);
            hasher.finish()
        };
        assert_eq!(keys.hash([1]), reference(&[1u64.to_le_bytes()].concat()));
        assert_eq!(
            keys.hash([u64::MAX, 1 << 63]),
            reference(&[u64::MAX.to_le_bytes(), (1u64 << 63).to_le_bytes()].concat())
        );
        let mut bytes = [7u64.to_le_bytes(), 0x00ff_eedd_ccbb_aa99u64.to_le_bytes()].concat();
        bytes.truncate(15);
        assert_eq!(keys.hash_with_tail([7], 0x00ff_eedd_ccbb_aa99), reference(&bytes));
    }

    #[test]
    fn tuple_key_round_trip() {
        for (source, destination) in [("10.1.0.2", "10.2.0.9"), ("2001:db8::1", "2001:db8::ff")] {
            let tuple = Tuple {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: 6,
                source_key: 40000,
                destination_key: 1883,
            };
            let key = TupleKey::from(&tuple);
            assert_eq!(key.tuple(), tuple);
            assert_eq!(key.invert().unwrap().tuple(), tuple.invert().unwrap());
            assert_eq!(key.invert().unwrap().invert().unwrap(), key);
        }
    }
}
