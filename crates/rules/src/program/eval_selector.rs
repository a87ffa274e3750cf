//! Reading selectors from a packet, its connection and its metadata.
use super::context::EvalCtx;
use super::exthdr;
use super::fib_expr::eval_fib;
use super::header_bits::{address_value, be16, packet_address};
use super::header_fields::{bits_of_header, eval_ip4, eval_ip6, inner_offset};
use super::hold::{holds_of_selector, is_of_ends};
use super::packet_socket::eval_socket;
use super::state::State;
use super::tunnel::eval_tunnel;
use crate::ast::{
    CtCounterKey, CtKey, CtTupleField, Endpoint, MetaKey, PayloadBase, PayloadField, RouteKey, Selector, SocketKey,
};
use crate::datatype;
use keepstate_engine::{Accounting, Connection, CtInfo, Direction, Tuple};
use keepstate_wire::{Family, Packet};
use std::net::IpAddr;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// The value of a selector, including changes by earlier rules; `None` where the packet does not have it.
pub(super) fn eval_selector(selector: Selector, ctx: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    state.trace.holds |= holds_of_selector(&selector);
    state.trace.one_connection |= !is_of_ends(&selector);
    let packet = &ctx.current_packet();
    match selector {
        Selector::Ip(field) if packet.family() == Family::V4 => eval_ip4(packet, field),
        Selector::Ip6(field) if packet.family() == Family::V6 => eval_ip6(packet, field),
        Selector::Ip(_) | Selector::Ip6(_) => None,
        Selector::Port(protocol, end) => {
            let number = packet.protocol();
            if protocol.is_some_and(|protocol| protocol != number) {
                return None;
            }
            // As in Linux, `th dport` loads the bytes of any protocol.
            be16(packet.transport(), if end == Endpoint::Source { 0 } else { 2 })
        }
        Selector::Payload(field) => eval_payload(&field, packet, ctx),
        Selector::Tunnel(field) => eval_tunnel(field, packet),
        Selector::Exthdr(piece) => exthdr::eval_exthdr(piece, packet),
        Selector::Meta(meta) => eval_meta(meta, ctx, state),
        Selector::Ct(ct) => {
            state.trace.status_read |= ct == CtKey::Status;
            eval_ct(ct, ctx)
        }
        Selector::CtTuple(direction, field) => eval_ct_tuple(direction, field, ctx),
        Selector::CtCounter(direction, counts) => eval_ct_counter(direction, counts, &connection(ctx)?),
        Selector::Socket(SocketKey::UserId) => ctx.meta.socket_uid.map(u128::from),
        Selector::Socket(key) => eval_socket(key, ctx, state),
        // No fingerprints are loaded: in Linux too every SYN is of an unknown system then.
        Selector::OsFingerprint(_) => {
            const SYN: u8 = 2;
            let is_syn = packet.protocol() == 6 && packet.transport().get(13).is_some_and(|flags| flags & SYN != 0);
            datatype::encode_name("unknown").filter(|_| is_syn && packet.family() == Family::V4)
        }
        // Realms and IPsec are not there; packets have a route from the routing decision on.
        Selector::Route(RouteKey::ClassId | RouteKey::Ipsec) => ctx.meta.oif.map(|_| 0),
        Selector::Route(RouteKey::NextHop4) => next_hop(packet, ctx).filter(IpAddr::is_ipv4).map(address_value),
        Selector::Route(RouteKey::NextHop6) => next_hop(packet, ctx).filter(IpAddr::is_ipv6).map(address_value),
        Selector::Route(RouteKey::Mss) => ctx.meta.oif.map(|_| ctx.route_mss().into()),
        Selector::Xfrm(..) => None,
        Selector::Fib(fib) => {
            state.trace.fib_read = true;
            eval_fib(fib, ctx)
        }
    }
}

/// Where the packet's route leads next; `None` before the routing decision.
fn next_hop(packet: &Packet<'_>, ctx: &EvalCtx<'_, '_>) -> Option<IpAddr> {
    let to = packet_address(packet, Endpoint::Destination);
    match ctx.meta.oif {
        Some(device) => ctx.meta.next_hop.or_else(|| ctx.fib.next_hop(to, device.index)),
        None => ctx.meta.is_delivered.then_some(to),
    }
}

/// The packet from the start of a header on.
fn payload_base<'a>(packet: &Packet<'a>, ctx: &'a EvalCtx<'_, '_>, layer: PayloadBase) -> Option<&'a [u8]> {
    let transport = packet.transport();
    match layer {
        PayloadBase::Link => ctx.meta.link_header.as_ref().map(<[u8; 14]>::as_slice),
        PayloadBase::Network => Some(packet.bytes()),
        PayloadBase::Transport => Some(transport),
        PayloadBase::Inner => transport.get(inner_offset(packet)?..),
    }
}

/// A header field, if the packet has it.
fn eval_payload(field: &PayloadField, packet: &Packet<'_>, ctx: &EvalCtx<'_, '_>) -> Option<u128> {
    let v6 = packet.family() == Family::V6;
    if field.protocol.is_some_and(|one| one != packet.protocol()) || field.v6.is_some_and(|six| six != v6) {
        return None;
    }
    bits_of_header(field, payload_base(packet, ctx, field.base)?)
}

fn eval_meta(key: MetaKey, ctx: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    let meta = &ctx.meta;
    let v6 = ctx.packet.family() == Family::V6;
    Some(match key {
        // Indices are represented by names: a ruleset outlives the interfaces that it names. Where there is no interface, both are 0.
        MetaKey::Iif | MetaKey::IifName => meta.iif.map_or(0, |device| device.name),
        MetaKey::Oif | MetaKey::OifName => meta.oif.map_or(0, |device| device.name),
        MetaKey::Mark => {
            state.trace.note_mark();
            meta.mark.into()
        }
        MetaKey::L4Proto => ctx.packet.protocol().into(),
        MetaKey::NfProto => {
            if v6 {
                10
            } else {
                2
            }
        }
        MetaKey::Protocol => {
            if v6 {
                0x86dd
            } else {
                0x0800
            }
        }
        MetaKey::Length => ctx.packet.total_len() as u128,
        MetaKey::Priority => meta.priority.into(),
        MetaKey::PacketType if meta.packet_type.is_some() => meta.packet_type?.into(),
        MetaKey::PacketType => match packet_address(&ctx.current_packet(), Endpoint::Destination) {
            IpAddr::V4(address) if address.is_broadcast() => 1,
            address if address.is_multicast() => 2,
            _ => 0,
        },
        MetaKey::Random => state.next_random(ctx.now.0).into(),
        MetaKey::Cpu => 0,
        MetaKey::Group(Endpoint::Source) => meta.iif?.group.into(),
        MetaKey::Group(Endpoint::Destination) => meta.oif?.group.into(),
        MetaKey::LinkType(Endpoint::Source) => meta.iif?.link_type.into(),
        MetaKey::LinkType(Endpoint::Destination) => meta.oif?.link_type.into(),
        // IPsec is done by the kernel; its packets cannot be told apart here.
        MetaKey::Ipsec => 0,
        // No interface here is a VRF.
        MetaKey::Sdif | MetaKey::SdifName => 0,
        // Nor are there realms; packets have a route from the routing decision on.
        MetaKey::Realm => meta.oif.map(|_| 0)?,
        MetaKey::Kind(end) => {
            let device = if end == Endpoint::Source { meta.iif? } else { meta.oif? };
            (device.kind != 0).then_some(device.kind)?
        }
        MetaKey::Time => state.wall_clock_ns(ctx.now).into(),
        MetaKey::Hour => (state.wall_clock_ns(ctx.now) / SECOND % DAY).into(),
        // 1970-01-01 was a Thursday.
        MetaKey::Day => ((state.wall_clock_ns(ctx.now) / SECOND / DAY + 4) % 7).into(),
    })
}

/// The packet's connection.
pub(super) fn connection(ctx: &EvalCtx<'_, '_>) -> Option<Connection> {
    ctx.engine.connection(ctx.packet_ctx.as_deref()?, ctx.now)
}

fn eval_ct(ct: CtKey, ctx: &EvalCtx<'_, '_>) -> Option<u128> {
    let packet_ctx = ctx.packet_ctx.as_deref();
    match ct {
        CtKey::State => Some(match packet_ctx.map(|packet_ctx| packet_ctx.info()) {
            Some(CtInfo::New) => datatype::CT_STATE_NEW,
            Some(CtInfo::Established) => datatype::CT_STATE_ESTABLISHED,
            Some(CtInfo::Related) => datatype::CT_STATE_RELATED,
            Some(CtInfo::Untracked) => datatype::CT_STATE_UNTRACKED,
            Some(CtInfo::Invalid) => datatype::CT_STATE_INVALID,
            None if ctx.meta.untracked => datatype::CT_STATE_UNTRACKED,
            // As in Linux, where a packet that has a zone already has a template of its connection.
            None if ctx.meta.zone.is_some() => datatype::CT_STATE_NEW,
            None => datatype::CT_STATE_INVALID,
        }),
        CtKey::Direction => packet_ctx?.direction().map(|direction| direction as u128),
        CtKey::Mark => ctx.engine.mark(packet_ctx?).map(u128::from),
        CtKey::Status => connection(ctx).map(|known| known.status.bits().into()),
        CtKey::Zone(direction) => {
            let zone = connection(ctx)?.zone;
            Some(direction.map_or(zone.id, |direction| zone.id_for(direction)).into())
        }
        CtKey::Expiration => connection(ctx).map(|known| known.timeout.into()),
        // As in Linux: the connections that a helper expected, not the one that it listens to.
        CtKey::Helper => datatype::encode_name(ctx.engine.master_helper(packet_ctx?)?),
        CtKey::Label => connection(ctx).map(|known| u128::from_le_bytes(known.labels.unwrap_or_default())),
        CtKey::Id => connection(ctx).map(|known| known.id.into()),
    }
}

fn eval_ct_tuple(direction: Option<Direction>, field: CtTupleField, ctx: &EvalCtx<'_, '_>) -> Option<u128> {
    let known = connection(ctx)?;
    let tuple: &Tuple = match direction {
        Some(Direction::Reply) => &known.reply,
        _ => &known.original,
    };
    let wanted6 = matches!(field, CtTupleField::Source6 | CtTupleField::Destination6);
    let v6 = tuple.is_ipv6();
    Some(match field {
        CtTupleField::Source4 | CtTupleField::Source6 if wanted6 == v6 => address_value(tuple.source),
        CtTupleField::Destination4 | CtTupleField::Destination6 if wanted6 == v6 => address_value(tuple.destination),
        CtTupleField::Source4 | CtTupleField::Source6 | CtTupleField::Destination4 | CtTupleField::Destination6 => {
            return None;
        }
        CtTupleField::SourcePort => tuple.source_key.into(),
        CtTupleField::DestinationPort => tuple.destination_key.into(),
        CtTupleField::Protocol => tuple.protocol.into(),
        CtTupleField::L3Proto => {
            if v6 {
                10
            } else {
                2
            }
        }
    })
}

fn eval_ct_counter(direction: Option<Direction>, counts: CtCounterKey, known: &Connection) -> Option<u128> {
    let [original, reply] = known.accounting.unwrap_or_default();
    let sum = Accounting { packets: original.packets + reply.packets, bytes: original.bytes + reply.bytes };
    let of = match direction {
        Some(Direction::Original) => original,
        Some(Direction::Reply) => reply,
        None => sum,
    };
    match counts {
        CtCounterKey::Packets => Some(of.packets.into()),
        CtCounterKey::Bytes => Some(of.bytes.into()),
        CtCounterKey::AvgPacketSize => Some(of.bytes.checked_div(of.packets).unwrap_or(0).into()),
    }
}
