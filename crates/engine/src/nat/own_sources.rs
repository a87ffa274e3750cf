//! The outside addresses that source NAT may take, where other machines take the others of the same rules.
//!
//! A rule's range of addresses is cut by them: among those that are in it, a hash of client and peer chooses, as among all of them in Linux. A range with none of them is left as it is; who has
//! set the addresses then refuses the connection. Linux knows no such thing; without a set ([`Engine::set_own_sources`] was never called) nothing here runs.
use super::best_ip::hashed_index;
use super::port_part::PortPart;
use super::range::{Manip, NatRange};
use super::unique_tuple::{NatBinding, NatRequest};
use crate::Engine;
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
}

impl Engine {
    /// From now on rules' source NAT takes these addresses alone, each with its part of the ports (instead of [`Engine::set_port_part`]'s). `None`: all addresses, as Linux does.
    pub fn set_own_sources(&mut self, own: Option<OwnSources>) {
        self.nat.own_sources = own;
    }

    /// May this search choose the address?
    pub(super) fn may_choose_address(&self, address: IpAddr, wanted: &NatRequest<'_>) -> bool {
        self.own_sources_for(wanted).is_none_or(|own| own.0.contains_key(&address))
    }

    /// The part of the ports of `address`.
    pub(super) fn part_of_address(&self, address: IpAddr) -> Option<PortPart> {
        match &self.nat.own_sources {
            None => self.nat.port_part,
            Some(own) => own.0.get(&address).copied().flatten(),
        }
    }

    /// The address chosen among those of the range that may be: `None` if all may be, or none of them.
    pub(super) fn own_address(&self, wanted: &NatRequest<'_>) -> Option<IpAddr> {
        let NatRange { addresses, prefix: false, persistent, .. } = wanted.range else { return None };
        let (first, last) = addresses.as_ref().map(|all| (*all.start(), *all.end()))?;
        let own = self.own_sources_for(wanted)?;
        let count = u32::try_from(own.within(first, last).count()).ok().filter(|count| *count > 0)?;
        let index = hashed_index(&wanted.current, wanted.manip, *persistent, wanted.zone.id, count);
        own.within(first, last).nth(index as usize)
    }

    /// The addresses that this search may choose from, if not from all.
    pub(super) fn own_sources_for(&self, wanted: &NatRequest<'_>) -> Option<&OwnSources> {
        let by_rule = wanted.manip == Manip::Source && wanted.binding == NatBinding::Rule;
        self.nat.own_sources.as_ref().filter(|_| by_rule)
    }
}
