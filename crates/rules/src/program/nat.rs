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

/// What a NAT statement has come to.
pub(super) enum NatOutcome {
    /// The rule does not match: the packet is of another family, or a map has nothing for it.
    NoMatch,
    /// The interface has no address to translate to: the packet is dropped, as in Linux (`nf_nat_redirect`, `nf_nat_masquerade`).
    NoAddress,
    /// The packet's connection has its translation.
    Applied,
}

/// Sets up NAT for the packet's connection.
pub(super) fn apply_nat(evaluator: &mut Evaluator<'_>, nat: &CompiledNat, ctx: &mut EvalCtx<'_, '_>) -> NatOutcome {
    let v6 = ctx.packet.family() == Family::V6;
    // Before anything is read from the packet: nft implies the family ahead of the statement.
    if nat.v6.is_some_and(|six| six != v6) {
        return NatOutcome::NoMatch;
    }
    let of_interface = match nat.target {
        NatAddress::Masquerade => Some(masquerade_address(ctx)),
        NatAddress::Redirect => Some(redirect_address(ctx)),
        _ => None,
    };
    if of_interface == Some(None) {
        return NatOutcome::NoAddress;
    }
    let Some(range) = nat_range(evaluator, nat, of_interface.flatten(), ctx) else { return NatOutcome::NoMatch };
    if let Some(packet_ctx) = ctx.packet_ctx.as_deref_mut() {
        ctx.engine.translate(packet_ctx, nat.manip, &range, ctx.now);
    }
    NatOutcome::Applied
}

/// The address that the interface a packet leaves by has for the next hop of its route.
fn masquerade_address(ctx: &EvalCtx<'_, '_>) -> Option<IpAddr> {
    let to = packet_address(&ctx.current_packet(), Endpoint::Destination);
    ctx.fib.source_address(ctx.meta.oif?.index, to, ctx.meta.next_hop)
}

/// The address of the interface that a packet came in by; of what the machine itself sends, that of the loopback interface.
fn redirect_address(ctx: &EvalCtx<'_, '_>) -> Option<IpAddr> {
    let to = packet_address(&ctx.current_packet(), Endpoint::Destination);
    match (ctx.meta.iif, to) {
        (Some(device), _) => ctx.fib.redirect_address(device.index, to),
        (None, IpAddr::V4(_)) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (None, IpAddr::V6(_)) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

fn nat_range(
    evaluator: &mut Evaluator<'_>,
    nat: &CompiledNat,
    of_interface: Option<IpAddr>,
    ctx: &EvalCtx<'_, '_>,
) -> Option<NatRange> {
    let v6 = ctx.packet.family() == Family::V6;
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
        NatAddress::Masquerade | NatAddress::Redirect => of_interface.map(|address| address..=address),
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

pub(super) fn address_from_value(bits: u128, v6: bool) -> IpAddr {
    // The map's type has 32 bits where the packet is IPv4.
    if v6 { IpAddr::V6(Ipv6Addr::from_bits(bits)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) }
}
