//! The outside addresses that source NAT may take, where other machines take the others of the same rules.
//!
//! A rule's range of addresses is cut by them: among those that are in it, a hash of client and peer chooses, as among all of them in Linux. A range with none of them is left as it is; who has
//! set the addresses then refuses the connection. Linux knows no such thing; without a set ([`Engine::set_own_sources`](crate::Engine::set_own_sources) was never called) nothing here runs.
use super::port_part::PortPart;
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// Outside addresses, each with the part of its ports that is taken; `None`: all ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnSources(BTreeMap<IpAddr, Option<PortPart>>);

impl FromIterator<(IpAddr, Option<PortPart>)> for OwnSources {
    fn from_iter<I: IntoIterator<Item = (IpAddr, Option<PortPart>)>>(addresses: I) -> OwnSources {
        OwnSources(addresses.into_iter().collect())
    }
}

impl OwnSources {
    /// Those in a range, lowest first.
    pub(super) fn within(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> + '_ {
        // An empty range must not be asked for.
        let all = (first <= last).then(|| self.0.range(first..=last));
        all.into_iter().flatten().map(|(address, _)| *address)
    }

    /// Is it one of them?
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// The part of its ports.
    pub(super) fn part_of(&self, address: IpAddr) -> Option<PortPart> {
        self.0.get(&address).copied().flatten()
    }
}
