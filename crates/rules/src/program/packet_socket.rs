//! The socket of a packet that has come in, or that the machine itself sends: matches of it, as Linux has them (`nft_socket_eval`), and what `tproxy` needs as well.
use super::context::EvalCtx;
use super::header_bits::packet_address;
use super::state::State;
use super::trace::HoldReasons;
use crate::ast::{Endpoint, SocketKey};
use crate::socket_lookup::{ProxySocket, SocketEnds, SocketInfo, SocketLookup, SocketState};
use keepstate_engine::{CtInfo, Direction, PacketCtx};
use keepstate_wire::Packet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;

/// The value of a selector of a packet's socket: that which takes it, or at the output hook that which sends it.
pub(super) fn eval_socket(key: SocketKey, ctx: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    if ctx.meta.is_sent && ctx.meta.iif.is_none() {
        return eval_sender(key, ctx, state);
    }
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
    note_asked(key, ends.protocol, found.as_ref(), state);
    value_of(key, &found?, &ends, sockets)
}

/// The same of the socket that sends it. What the kernel sends by itself (answers to pings, errors, resets) is of a socket of its own, which is bound to no address.
fn eval_sender(key: SocketKey, ctx: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    let Some(sockets) = ctx.sockets else {
        state.trace.holds |= HoldReasons::SOCKET;
        return None;
    };
    let packet = ctx.current_packet();
    let of_kernel = |ctx: &EvalCtx<'_, '_>| SocketInfo {
        state: SocketState::Connected,
        is_transparent: Some(false),
        is_wildcard: true,
        // Which its packets get: rules may have changed it by now.
        mark: Some(ctx.meta.mark),
    };
    let Some(ends) = sender_ends(&packet, ctx) else {
        // Sockets of other protocols are not asked for: mostly they are the kernel's, and those of ping.
        state.trace.holds |= HoldReasons::SOCKET;
        return value_of(key, &of_kernel(ctx), &packet_ends(&packet, ctx).unwrap_or(NO_ENDS), sockets);
    };
    match sockets.find(&ends) {
        None | Some(SocketInfo { state: SocketState::TimeWait(_), .. }) if ends.protocol == TCP => {
            // Of a connection that has ended, or of none.
            state.trace.holds |= HoldReasons::SOCKET;
            value_of(key, &of_kernel(ctx), &ends, sockets)
        }
        found => {
            note_asked(key, ends.protocol, found.as_ref(), state);
            value_of(key, &found?, &ends, sockets)
        }
    }
}

/// The ends of what a socket of TCP or UDP sends, as that socket has them: before they are translated.
fn sender_ends(packet: &Packet<'_>, ctx: &EvalCtx<'_, '_>) -> Option<SocketEnds> {
    let sent = packet_ends(packet, ctx)?;
    let iif = ctx.meta.oif.map_or(0, |device| device.index);
    let known = ctx.packet_ctx.as_deref().filter(|packet_ctx| packet_ctx.info() != CtInfo::Related);
    let direction = known.and_then(PacketCtx::direction);
    let of = known.and_then(|packet_ctx| ctx.engine.connection(packet_ctx, ctx.now));
    let (local, peer) = match (of, direction) {
        (Some(of), Some(direction)) => {
            let tuple = if direction == Direction::Reply { of.reply } else { of.original };
            (SocketAddr::new(tuple.source, tuple.source_key), SocketAddr::new(tuple.destination, tuple.destination_key))
        }
        _ => (sent.peer, sent.local),
    };
    Some(SocketEnds { protocol: sent.protocol, peer, local, iif })
}

const NO_ENDS: SocketEnds = SocketEnds {
    protocol: 0,
    peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    iif: 0,
};

/// Notes how long the answer to a question holds.
fn note_asked(key: SocketKey, protocol: u8, found: Option<&SocketInfo>, state: &mut State) {
    match key {
        // A mark is changed at any time.
        SocketKey::Mark if found.is_some() => state.trace.holds |= HoldReasons::SOCKET,
        _ => note_found(protocol, found, state),
    }
}

fn value_of(key: SocketKey, info: &SocketInfo, ends: &SocketEnds, sockets: &dyn SocketLookup) -> Option<u128> {
    let is_whole = matches!(info.state, SocketState::Listening | SocketState::Connected);
    match key {
        SocketKey::Transparent => Some(is_transparent(info, ends, sockets).into()),
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
