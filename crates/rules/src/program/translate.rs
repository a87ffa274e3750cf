//! What a nat statement asks of the engine.
use super::evaluate::{Next, Parts};
use super::load::end_of;
use super::lookup::Found;
use super::scene::{Fate, Scene};
use super::{Address, Nat, PortsOf};
use crate::kind::Kind;
use crate::tree::End;
use keepstate_engine::{Manip, Range};
use keepstate_wire::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

impl Parts<'_> {
    /// Translates, and ends the chain; a rule whose address or port is not known does not apply.
    pub(super) fn translate(&mut self, nat: &Nat, scene: &mut Scene<'_, '_>) -> Next {
        let Some(range) = self.range(nat, scene) else { return Next::Break };
        if let Some(passage) = scene.passage.as_deref_mut() {
            scene.engine.translate(passage, nat.manip, &range, scene.now);
        }
        Next::Fate(Fate::Accept)
    }

    fn range(&mut self, nat: &Nat, scene: &Scene<'_, '_>) -> Option<Range> {
        let v6 = scene.packet.family() == Family::V6;
        let mut ports = match &nat.ports {
            None => None,
            Some(PortsOf::Range(first, last)) => Some(*first..=*last),
            Some(PortsOf::Value(value)) => {
                let port = u16::try_from(self.value(value, scene)?).ok()?;
                Some(port..=port)
            }
        };
        let addresses = match &nat.to {
            Address::Kept => None,
            Address::Range(first, last) => Some(*first..=*last),
            Address::Value(value, kind) => {
                let value = self.value(value, scene)?;
                let address = address(value, *kind == Kind::Address6 || v6);
                Some(address..=address)
            }
            Address::Map(key, map) => {
                let key = self.key(key, scene)?;
                let Found::Values(values) = self.lookups.get(*map)?.find(&key, scene.now)? else { return None };
                if let Some((first, last)) = values.get(1) {
                    ports = Some(u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?);
                }
                let (first, last) = values.first()?;
                Some(address(*first, v6)..=address(*last, v6))
            }
            Address::Masquerade => {
                one(scene.ground.address(scene.way.oif?.index, end_of(scene.packet, End::Destination))?)
            }
            Address::Redirect => match scene.way.iif {
                Some(device) => one(scene.ground.address(device.index, end_of(scene.packet, End::Source))?),
                None if v6 => one(IpAddr::V6(Ipv6Addr::LOCALHOST)),
                None => one(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            },
        };
        // Rules of a table for both families may name an address of the other one.
        if addresses.as_ref().is_some_and(|addresses| addresses.start().is_ipv6() != v6) {
            return None;
        }
        debug_assert!(nat.manip == Manip::Source || !matches!(nat.to, Address::Masquerade));
        Some(Range { addresses, ports, choice: nat.choice, persistent: nat.persistent, prefix: nat.prefix })
    }
}

fn one(address: IpAddr) -> Option<RangeInclusive<IpAddr>> {
    Some(address..=address)
}

fn address(bits: u128, v6: bool) -> IpAddr {
    // The map's kind has 32 bits where the packet is IPv4's.
    if v6 { IpAddr::V6(Ipv6Addr::from_bits(bits)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) }
}
