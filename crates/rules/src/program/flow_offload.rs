//! `flow add`: which packets go on, as in Linux (`nft_flow_offload.c`).
//!
//! Nothing is offloaded by it: established connections take the engine's fast path anyway, and rules go on to see their packets.
use super::context::EvalCtx;
use super::eval_selector::connection;
use keepstate_engine::{ProtocolInfo, Status, TcpState};
use keepstate_wire::Family;

/// Bits of a TCP header.
const FIN_OR_RST: u8 = 5;

/// May the connection of this packet be offloaded? Else the rule does not match.
pub(super) fn may_be_offloaded(ctx: &EvalCtx<'_, '_>) -> bool {
    let packet = ctx.current_packet();
    let has_options = packet.family() == Family::V4 && packet.bytes().first().is_some_and(|first| first & 15 > 5);
    let Some(known) = connection(ctx).filter(|_| !has_options) else { return false };
    if !known.status.contains(Status::CONFIRMED) || known.helper.is_some() {
        return false;
    }
    match known.original.protocol {
        6 => {
            let flags = packet.transport().get(13).copied().unwrap_or(FIN_OR_RST);
            let found = ctx.engine.find(&known.original, known.zone, ctx.now);
            let entry = found.and_then(|(handle, _)| ctx.engine.entry(handle, ctx.now));
            let established = entry.is_some_and(
                |entry| matches!(entry.protocol, ProtocolInfo::Tcp { state, .. } if state == TcpState::Established),
            );
            established && flags & FIN_OR_RST == 0
        }
        17 => true,
        47 => !known.status.intersects(Status::SRC_NAT | Status::DST_NAT),
        _ => false,
    }
}
