//! The `fib` expression: what the routing table says of a packet's address.
use super::context::EvalCtx;
use super::header_bits::packet_address;
use crate::ast::{Endpoint, FibExpr, FibResult};
use crate::fib::is_link_scoped;
use std::net::IpAddr;

/// The value of a `fib` expression; 0 is no interface, what `missing` compares with.
pub(super) fn eval_fib(fib: FibExpr, ctx: &EvalCtx<'_, '_>) -> Option<u128> {
    let address = packet_address(&ctx.current_packet(), fib.endpoint);
    // The interface that the packet is at: the outgoing one only at the end of its way, where no interface is looked up.
    let at = ctx.meta.iif.or(ctx.meta.oif);
    let through = match (fib.iif, fib.oif) {
        (_, true) => Some(ctx.meta.oif?),
        (true, _) => Some(ctx.meta.iif?),
        _ => at.filter(|_| is_link_scoped(address)),
    };
    let index = through.map(|device| device.index);
    if fib.result == FibResult::AddressType {
        return Some(ctx.fib.address_type(address, index) as u128);
    }
    if asks_the_link(ctx) {
        return Some(at.map_or(0, |device| device.name));
    }
    // As in Linux, an address of the machine itself has no output interface.
    let found = if ctx.fib.is_own_address(address, index) { None } else { ctx.fib.route_lookup(address, index) };
    Some(found.map_or(0, |device| device.name))
}

/// A host without an address yet speaks to its link (DHCP, IGMP): it may use any interface.
fn asks_the_link(ctx: &EvalCtx<'_, '_>) -> bool {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (
        packet_address(&ctx.current_packet(), Endpoint::Source),
        packet_address(&ctx.current_packet(), Endpoint::Destination),
    ) else {
        return false;
    };
    let [a, b, c, _] = to.octets();
    from.is_unspecified() && (to.is_broadcast() || (a, b, c) == (224, 0, 0))
}
