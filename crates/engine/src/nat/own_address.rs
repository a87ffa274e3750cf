//! Which of its own addresses source NAT takes, where it may not take all that a rule names: see [`OwnSources`].
use super::best_ip::hashed_index;
use super::own_sources::OwnSources;
use super::port_part::PortPart;
use super::range::{Manip, NatRange};
use super::unique_tuple::{NatBinding, NatRequest};
use crate::Engine;
use core::net::IpAddr;

impl Engine {
    /// From now on rules' source NAT takes these addresses alone, each with its part of the ports (instead of [`Engine::set_port_part`]'s). `None`: all addresses, as Linux does.
    pub fn set_own_sources(&mut self, own: Option<OwnSources>) {
        self.nat.own_sources = own;
    }

    /// May this search choose the address?
    pub(super) fn may_choose_address(&self, address: IpAddr, wanted: &NatRequest<'_>) -> bool {
        self.own_sources_for(wanted).is_none_or(|own| own.contains(address))
    }

    /// The part of the ports of `address`.
    pub(super) fn part_of_address(&self, address: IpAddr) -> Option<PortPart> {
        match &self.nat.own_sources {
            None => self.nat.port_part,
            Some(own) => own.part_of(address),
        }
    }

    /// The address chosen among those of the range that may be: `None` if all may be, or none of them.
    pub(super) fn own_address(&self, wanted: &NatRequest<'_>) -> Option<IpAddr> {
        let NatRange { addresses, prefix: false, persistent, .. } = wanted.range else { return None };
        let (first, last) = addresses.as_ref().map(|all| (*all.start(), *all.end()))?;
        let own = self.own_sources_for(wanted)?;
        let count = Some(own.count_within(first, last)).filter(|count| *count > 0)?;
        let index = hashed_index(&wanted.current, wanted.manip, *persistent, wanted.zone.id, count);
        own.nth_within(first, last, index)
    }

    /// The addresses that this search may choose from, if not from all.
    pub(super) fn own_sources_for(&self, wanted: &NatRequest<'_>) -> Option<&OwnSources> {
        let by_rule = wanted.manip == Manip::Source && wanted.binding == NatBinding::Rule;
        self.nat.own_sources.as_ref().filter(|_| by_rule)
    }
}
