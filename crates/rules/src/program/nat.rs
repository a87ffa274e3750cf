//! NAT statements: from a rule to the engine's NAT range.
use super::context::EvalCtx;
use super::eval_expr::Evaluator;
use super::header_bits::packet_address;
use super::instr::{CompiledNat, NatAddress, NatPortSource};
use super::set::ElementValue;
use crate::ast::Endpoint;
use crate::datatype::DataType;
use keepstate_engine::{Manip, NatRange};
use keepstate_wire::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Sets up NAT for the packet's connection; false (the rule does not match) if the address or port is not known.
pub(super) fn apply_nat(evaluator: &mut Evaluator<'_>, nat: &CompiledNat, ctx: &mut EvalCtx<'_, '_>) -> bool {
    let Some(range) = nat_range(evaluator, nat, ctx) else { return false };
    if let Some(packet_ctx) = ctx.packet_ctx.as_deref_mut() {
        ctx.engine.translate(packet_ctx, nat.manip, &range, ctx.now);
    }
    true
}

fn nat_range(evaluator: &mut Evaluator<'_>, nat: &CompiledNat, ctx: &EvalCtx<'_, '_>) -> Option<NatRange> {
    let v6 = ctx.packet.family() == Family::V6;
    // Before anything is read from the packet: nft implies the family ahead of the statement.
    if nat.v6.is_some_and(|six| six != v6) {
        return None;
    }
    let mut ports = match &nat.ports {
        None => None,
        Some(NatPortSource::Range(first, last)) => Some(*first..=*last),
        Some(NatPortSource::Value(value)) => {
            let port = u16::try_from(evaluator.eval_expr(value, ctx)?).ok()?;
            Some(port..=port)
        }
    };
    let addresses = match &nat.target {
        NatAddress::Unchanged => None,
        NatAddress::Range(first, last) => Some(*first..=*last),
        NatAddress::Value(value, kind) => {
            let value = evaluator.eval_expr(value, ctx)?;
            let address = address_from_value(value, *kind == DataType::Address6 || v6);
            Some(address..=address)
        }
        NatAddress::Map(key, map) => {
            let key = evaluator.eval_key(key, ctx)?;
            if !evaluator.passes_element(*map, &key, ctx) {
                return None;
            }
            let ElementValue::Values(values) = evaluator.sets.get(*map)?.find(&key, ctx.now)? else { return None };
            if let Some((first, last)) = values.get(1) {
                ports = Some(u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?);
            }
            let (first, last) = values.first()?;
            let one_port =
                ports.as_ref().is_none_or(|ports| nat.manip == Manip::Destination && ports.start() == ports.end());
            evaluator.state.trace.one_connection |= first != last || !one_port;
            Some(address_from_value(*first, v6)..=address_from_value(*last, v6))
        }
        NatAddress::Masquerade => single_address(
            ctx.fib
                .source_address(ctx.meta.oif?.index, packet_address(&ctx.current_packet(), Endpoint::Destination))?,
        ),
        NatAddress::Redirect => match ctx.meta.iif {
            Some(device) => single_address(
                ctx.fib.source_address(device.index, packet_address(&ctx.current_packet(), Endpoint::Source))?,
            ),
            None if v6 => single_address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            None => single_address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        },
    };
    // In an inet table, the address may be of the other family.
    if addresses.as_ref().is_some_and(|addresses| addresses.start().is_ipv6() != v6) {
        return None;
    }
    debug_assert!(nat.manip == Manip::Source || !matches!(nat.target, NatAddress::Masquerade));
    Some(NatRange {
        addresses,
        ports,
        port_selection: nat.port_selection,
        persistent: nat.persistent,
        masquerade: matches!(nat.target, NatAddress::Masquerade),
        prefix: nat.netmap,
    })
}

fn single_address(address: IpAddr) -> Option<RangeInclusive<IpAddr>> {
    Some(address..=address)
}

pub(super) fn address_from_value(bits: u128, v6: bool) -> IpAddr {
    // The map's type has 32 bits where the packet is IPv4.
    if v6 { IpAddr::V6(Ipv6Addr::from_bits(bits)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) }
}
