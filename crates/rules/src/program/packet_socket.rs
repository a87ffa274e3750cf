//! The socket of a packet that has come in: matches of it, as Linux has them (`nft_socket_eval`), and what `tproxy` needs as well.
use super::context::EvalCtx;
use super::header_bits::packet_address;
use super::state::State;
use super::trace::HoldReasons;
use crate::ast::{Endpoint, SocketKey};
use crate::socket_lookup::{ProxySocket, SocketEnds, SocketInfo, SocketLookup, SocketState};
use keepstate_engine::{CtInfo, Direction, PacketCtx};
use keepstate_wire::Packet;
use std::net::SocketAddr;

pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;

/// The value of a selector of the socket of a packet that has come in.
pub(super) fn eval_socket(key: SocketKey, ctx: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    let asked = ctx.sockets.and_then(|sockets| Some((sockets, packet_ends(&ctx.current_packet(), ctx)?)));
    let Some((sockets, ends)) = asked else {
        state.trace.holds |= HoldReasons::SOCKET;
        return None;
    };
    let (found, ends) = match ctx.meta.proxy {
        Some(ProxySocket { info, listens_at, .. }) => {
            (Some(info), SocketEnds { local: listens_at.unwrap_or(ends.local), ..ends })
        }
        None => {
            let ends = before_source_nat(ends, ctx);
            (sockets.find(&ends), ends)
        }
    };
    match key {
        // A mark is changed at any time.
        SocketKey::Mark if found.is_some() => state.trace.holds |= HoldReasons::SOCKET,
        _ => note_found(ends.protocol, found.as_ref(), state),
    }
    let info = found?;
    let is_whole = matches!(info.state, SocketState::Listening | SocketState::Connected);
    match key {
        SocketKey::Transparent => Some(is_transparent(&info, &ends, sockets).into()),
        SocketKey::Wildcard => is_whole.then_some(info.is_wildcard.into()),
        SocketKey::Mark => info.mark.filter(|_| is_whole).map(u128::from),
        _ => None,
    }
}

/// What listens at an address for this packet.
pub(super) fn find_listener(own: &SocketEnds, at: SocketAddr, sockets: &dyn SocketLookup) -> Option<SocketInfo> {
    // A connection of TCP to that address itself has the port of its peer.
    let peer = if own.protocol == TCP { SocketAddr::new(own.peer.ip(), 0) } else { own.peer };
    let found = sockets.find(&SocketEnds { peer, local: at, iif: 0, ..*own })?;
    (found.state == SocketState::Listening).then_some(found)
}

/// Notes how long an answer holds. The socket of a TCP connection is there as long as the connection; that there is none changes with what listens, which whoever sends packets on by itself follows. Other sockets come and go.
pub(super) fn note_found(protocol: u8, found: Option<&SocketInfo>, state: &mut State) {
    match found.map(|info| info.state) {
        Some(SocketState::Connected) if protocol == TCP => (),
        Some(SocketState::Listening) | None if protocol == TCP => state.trace.listeners_read = true,
        _ => state.trace.holds |= HoldReasons::SOCKET,
    }
}

/// Of handshakes and remains the kernel does not tell it: what listens at their own address does, and if nobody does, only a proxy can have taken them.
pub(super) fn is_transparent(info: &SocketInfo, ends: &SocketEnds, sockets: &dyn SocketLookup) -> bool {
    info.is_transparent.unwrap_or_else(|| {
        find_listener(ends, ends.local, sockets).is_none_or(|listener| listener.is_transparent == Some(true))
    })
}

/// The ends of a packet of TCP or UDP.
pub(super) fn packet_ends(packet: &Packet<'_>, ctx: &EvalCtx<'_, '_>) -> Option<SocketEnds> {
    let protocol = packet.protocol();
    let &[s0, s1, d0, d1, ..] = packet.transport().first_chunk::<8>()?;
    (protocol == TCP || protocol == UDP).then(|| SocketEnds {
        protocol,
        peer: SocketAddr::new(packet_address(packet, Endpoint::Source), u16::from_be_bytes([s0, s1])),
        local: SocketAddr::new(packet_address(packet, Endpoint::Destination), u16::from_be_bytes([d0, d1])),
        iif: ctx.meta.iif.map_or(0, |device| device.index),
    })
}

/// As in Linux (`nf_sk_lookup_slow_v4`): an answer to what was translated on its way out belongs to the socket that has sent it. IPv4 only.
fn before_source_nat(ends: SocketEnds, ctx: &EvalCtx<'_, '_>) -> SocketEnds {
    let answers = |packet_ctx: &&PacketCtx| {
        packet_ctx.info() == CtInfo::Established && packet_ctx.direction() == Some(Direction::Reply)
    };
    let of = ctx.packet_ctx.as_deref().filter(answers).filter(|_| ends.local.is_ipv4());
    match of.and_then(|packet_ctx| ctx.engine.connection(packet_ctx, ctx.now)) {
        Some(known) => SocketEnds { local: SocketAddr::new(known.original.source, known.original.source_key), ..ends },
        None => ends,
    }
}
