//! `tproxy`: packets for the socket of a transparent proxy, as Linux has it (`nft_tproxy_eval`).
use super::context::EvalCtx;
use super::eval_expr::Evaluator;
use super::instr::CompiledTproxy;
use super::nat::address_from_value;
use super::packet_socket::{TCP, find_listener, is_transparent, note_found, packet_ends};
use super::trace::HoldReasons;
use crate::socket_lookup::{ProxySocket, SocketEnds, SocketInfo, SocketLookup, SocketState};
use keepstate_wire::{Family, Packet};
use std::net::SocketAddr;

/// Gives the packet to a proxy's socket; false (the rule does not match) if none is there.
pub(super) fn eval_tproxy(evaluator: &mut Evaluator<'_>, proxy: &CompiledTproxy, ctx: &mut EvalCtx<'_, '_>) -> bool {
    let packet = ctx.current_packet();
    let is_of_family = proxy.v6.is_none_or(|six| six == (packet.family() == Family::V6));
    let own = packet_ends(&packet, ctx).filter(|_| is_of_family);
    // What the machine sends to itself is given to no proxy.
    let sockets = ctx.sockets.filter(|_| !ctx.meta.is_sent);
    let (Some(own), Some(sockets)) = (own, sockets) else { return false };
    let found = find_proxy(evaluator, proxy, ctx, (&own, sockets));
    match found {
        // Each packet is given to it anew.
        Some(ProxySocket { listens_at: Some(_), .. }) => evaluator.state.trace.holds |= HoldReasons::SOCKET,
        _ => note_found(own.protocol, found.as_ref().map(|proxy| &proxy.info), evaluator.state),
    }
    ctx.meta.proxy = found.or(ctx.meta.proxy);
    found.is_some()
}

fn find_proxy(
    evaluator: &mut Evaluator<'_>,
    proxy: &CompiledTproxy,
    ctx: &EvalCtx<'_, '_>,
    (own, sockets): (&SocketEnds, &dyn SocketLookup),
) -> Option<ProxySocket> {
    let v6 = own.local.is_ipv6();
    let address = match &proxy.address {
        Some(value) => Some(address_from_value(evaluator.eval_expr(value, ctx)?, v6)),
        None => None,
    };
    let port = match &proxy.port {
        Some(value) => u16::try_from(evaluator.eval_expr(value, ctx)?).ok()?,
        None => 0,
    };
    let address = address
        .filter(|address| !address.is_unspecified())
        .or_else(|| ctx.fib.primary_address(own.iif, v6))
        .unwrap_or(own.local.ip());
    let port = if port == 0 { own.local.port() } else { port };
    let listens_at = SocketAddr::new(address, port);
    let protocol = own.protocol;
    let listener = || find_listener(own, listens_at, sockets);
    let given = |info: SocketInfo, listens_at| {
        // Whoever shakes hands or has left was a proxy's if what listens there is one.
        let of_listener = || listener().and_then(|listener| listener.is_transparent);
        let is_proxy = info.is_transparent == Some(true)
            || info.is_transparent.is_none() && (of_listener() == Some(true) || is_transparent(&info, own, sockets));
        is_proxy.then_some(ProxySocket { protocol, listens_at, info })
    };
    match sockets.find(own).filter(|info| has_own_connection(protocol, info)) {
        Some(info @ SocketInfo { state: SocketState::TimeWait(number), .. }) if is_plain_syn(&ctx.current_packet()) => {
            // A new connection takes the place of one that has ended, if somebody listens.
            let Some(listener) = listener() else { return given(info, None) };
            sockets.end_time_wait(own, number);
            given(listener, Some(listens_at))
        }
        Some(info) => given(info, None),
        None => given(listener()?, Some(listens_at)),
    }
}

/// Belongs the socket to the packet's own connection?
fn has_own_connection(protocol: u8, info: &SocketInfo) -> bool {
    info.state != SocketState::Listening && (protocol == TCP || !info.is_wildcard)
}

/// Is it a SYN, and nothing else?
fn is_plain_syn(packet: &Packet<'_>) -> bool {
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 2;
    packet.transport().get(13).is_some_and(|flags| flags & FIN_SYN_RST_ACK == SYN)
}
