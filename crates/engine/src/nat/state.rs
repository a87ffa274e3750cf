//! NAT state outside the connection table.
use super::bysource::BysourceTable;
use super::eim_table::EimTable;
use super::exhaustion::Exhaustion;
use crate::table::key::{HashKeys, TupleKey};
use crate::{Connection, NatPolicy, Secret};
use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// NAT state outside the connection table.
#[derive(Clone)]
pub(crate) struct NatState {
    pub(crate) keys: HashKeys,
    pub(crate) random_counter: u64,
    pub(crate) bysource: BysourceTable,
    pub(crate) exhaustion: Exhaustion,
    pub(crate) eim: EimTable,
    /// True once any connection has been translated.
    pub(crate) in_use: bool,
    /// Whether a connection that the current packet ends is stored for the ruleset.
    pub(crate) keep_ended: bool,
    /// The connection that the current packet ended.
    pub(crate) ended: Option<Box<Connection>>,
}

impl NatState {
    pub(crate) fn new(secret: &Secret) -> NatState {
        let tables = HashKeys::derive(secret, 5).sip_key();
        NatState {
            keys: HashKeys::derive(secret, 4),
            random_counter: 0,
            bysource: BysourceTable::new(tables.derive(0)),
            exhaustion: Exhaustion::new(tables.derive(1)),
            eim: EimTable::new(NatPolicy::default(), tables.derive(2)),
            in_use: false,
            keep_ended: false,
            ended: None,
        }
    }

    /// A number that cannot be predicted without the secret.
    pub(crate) fn random_u16(&mut self) -> u16 {
        self.random_counter += 1;
        self.keys.hash([self.random_counter]) as u16
    }

    /// An address in `first..=last`; the same `seed` always gives the same address.
    pub(super) fn hash_to_address(&self, seed: &TupleKey, first: IpAddr, last: IpAddr) -> IpAddr {
        let [high, low] = [0, 1].map(|half| seed.hash(half, &self.keys));
        let hash = u128::from(high) << 64 | u128::from(low);
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let size = u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1;
                IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + (high % size) as u32))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let size = last.to_bits().saturating_sub(first.to_bits()).checked_add(1);
                let step = size.map_or(hash, |size| hash % size);
                IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(step)))
            }
            (first, _) => first,
        }
    }
}
