//! What a selector finds in a packet, its connection and its way.
use super::context::{EvalCtx, HeaderRewrite};
use super::exthdr;
use super::header_bits::{address_value, be16, be32, extract_bits, packet_address};
use super::state::State;
use crate::ast::{
    CtCounterKey, CtKey, CtTupleField, Endpoint, ExthdrField, ExthdrOp, FibResult, IpField, MetaKey, PayloadBase,
    PayloadField, Selector,
};
use crate::datatype;
use crate::fib::AddressType;
use keepstate_engine::{Accounting, Connection, CtInfo, Direction, Tuple};
use keepstate_wire::{Family, Packet};
use std::net::IpAddr;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// What is there, as rules before have changed it; `None` where the packet has no such thing.
pub(super) fn eval_selector(selector: Selector, scene: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    if let Selector::Exthdr(ExthdrField { op: ExthdrOp::TcpOptions, number, bits, .. }) = selector
        && scene.meta.rewrites.contains(&HeaderRewrite::TcpOptStrip(number))
    {
        return bits.is_none().then_some(0);
    }
    let there = read_selector(selector, scene, state)?;
    let changes = scene.meta.rewrites.iter();
    Some(
        changes.fold(there, |there, change| {
            pending_rewrite(selector, change, scene.packet).map_or(there, |now| now(there))
        }),
    )
}

/// What a change that is yet to be made makes of what a selector finds; `None` if it leaves that alone.
fn pending_rewrite(
    selector: Selector,
    change: &HeaderRewrite,
    packet: &Packet<'_>,
) -> Option<impl FnOnce(u128) -> u128> {
    let (now, only_less) = match (selector, *change) {
        (Selector::Ip(IpField::Dscp) | Selector::Ip6(IpField::Dscp), HeaderRewrite::Dscp(class)) => {
            (class.into(), false)
        }
        (Selector::Ip(IpField::Ttl) | Selector::Ip6(IpField::Ttl), HeaderRewrite::Ttl(hops)) => (hops.into(), false),
        (Selector::Exthdr(ExthdrField::TCP_MSS), HeaderRewrite::TcpMss(most)) if most > 0 => (most.into(), true),
        (Selector::Port(_, end), HeaderRewrite::Port(which, port)) if end == which && packet.ports().is_some() => {
            (port.into(), false)
        }
        (Selector::Payload(field), HeaderRewrite::Payload(same, value))
            if (field.base, field.bits) == (same.base, same.bits) =>
        {
            (value, false)
        }
        (Selector::Ip(field), HeaderRewrite::Payload(same, value))
            if field.rewritable_bits(false) == Some(same.bits) =>
        {
            (value, false)
        }
        (Selector::Ip6(field), HeaderRewrite::Payload(same, value))
            if field.rewritable_bits(true) == Some(same.bits) =>
        {
            (value, false)
        }
        (Selector::Ip(field) | Selector::Ip6(field), HeaderRewrite::Address(end, address)) => {
            let which = if end == Endpoint::Source { IpField::Source } else { IpField::Destination };
            let now = match address {
                IpAddr::V4(address) => u128::from(address.to_bits()),
                IpAddr::V6(address) => address.to_bits(),
            };
            (field == which).then_some((now, false))?
        }
        _ => return None,
    };
    Some(move |there: u128| if only_less { there.min(now) } else { now })
}

/// What stands in the packet, its connection and its way.
fn read_selector(selector: Selector, scene: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    let packet = scene.packet;
    match selector {
        Selector::Ip(field) if packet.family() == Family::V4 => eval_ip4(packet, field),
        Selector::Ip6(field) if packet.family() == Family::V6 => eval_ip6(packet, field),
        Selector::Ip(_) | Selector::Ip6(_) => None,
        Selector::Port(protocol, end) => {
            let number = packet.protocol();
            let has_ports = matches!(number, 6 | 17 | 33 | 132 | 136);
            if !protocol.map_or(has_ports, |protocol| protocol == number) {
                return None;
            }
            let (source, destination) = packet.ports()?;
            Some(u128::from(if end == Endpoint::Source { source } else { destination }))
        }
        Selector::Payload(field) => eval_payload(&field, packet),
        Selector::Exthdr(piece) => exthdr::eval_exthdr(piece, packet),
        Selector::Meta(meta) => eval_meta(meta, scene, state),
        Selector::Ct(ct) => eval_ct(ct, scene),
        Selector::CtTuple(direction, field) => eval_ct_tuple(direction, field, scene),
        Selector::CtCounter(direction, counted) => eval_ct_counter(direction, counted, &connection(scene)?),
        Selector::Fib(fib) => {
            let address = packet_address(packet, fib.endpoint);
            let through = match (fib.iif, fib.oif) {
                (true, _) => Some(scene.meta.iif?.index),
                (_, true) => Some(scene.meta.oif?.index),
                _ => None,
            };
            Some(match fib.result {
                FibResult::AddressType => scene.fib.address_type(address, through) as u128,
                // 0 is no device: `fib saddr . iif oif missing` compares with it.
                // The way to ourselves leaves by no device: who claims to be us came from nowhere.
                FibResult::Oif | FibResult::OifName if scene.fib.address_type(address, None) == AddressType::Local => 0,
                FibResult::Oif | FibResult::OifName => {
                    scene.fib.route_lookup(address, through).map_or(0, |device| device.name)
                }
            })
        }
    }
}

/// The octets from the beginning of a header on.
fn payload_base<'a>(packet: &Packet<'a>, layer: PayloadBase) -> Option<&'a [u8]> {
    let transport = packet.transport();
    match layer {
        PayloadBase::Network => Some(packet.bytes()),
        PayloadBase::Transport => Some(transport),
        PayloadBase::Inner => {
            let at = match packet.protocol() {
                6 => usize::from(transport.get(12)? >> 4) * 4,
                17 | 136 => 8,
                _ => return None,
            };
            transport.get(at..)
        }
    }
}

/// A field of a header, if the packet is one of those that have it.
fn eval_payload(field: &PayloadField, packet: &Packet<'_>) -> Option<u128> {
    let v6 = packet.family() == Family::V6;
    if field.protocol.is_some_and(|one| one != packet.protocol()) || field.v6.is_some_and(|six| six != v6) {
        return None;
    }
    let header = payload_base(packet, field.base)?;
    if !field.icmp_types.is_empty() && !field.icmp_types.contains(header.first()?) {
        return None;
    }
    extract_bits(header, field.bits)
}

fn eval_ip4(packet: &Packet<'_>, field: IpField) -> Option<u128> {
    let bytes = packet.bytes();
    let octet = |at: usize| bytes.get(at).map(|octet| u128::from(*octet));
    match field {
        IpField::Source => be32(bytes, 12),
        IpField::Destination => be32(bytes, 16),
        IpField::Protocol => octet(9),
        IpField::Dscp => octet(1).map(|class| class >> 2),
        IpField::Ecn => octet(1).map(|class| class & 3),
        IpField::Length => be16(bytes, 2),
        IpField::Ttl => octet(8),
        IpField::Id => be16(bytes, 4),
        IpField::Checksum => be16(bytes, 10),
        IpField::Fragment => be16(bytes, 6),
        IpField::Version => Some(4),
        IpField::HeaderLength => octet(0).map(|first| first & 15),
        IpField::FlowLabel => None,
    }
}

fn eval_ip6(packet: &Packet<'_>, field: IpField) -> Option<u128> {
    let bytes = packet.bytes();
    let address = |at: usize| bytes.get(at..)?.first_chunk().map(|octets| u128::from_be_bytes(*octets));
    let octet = |at: usize| bytes.get(at).map(|octet| u128::from(*octet));
    match field {
        IpField::Source => address(8),
        IpField::Destination => address(24),
        IpField::Protocol => octet(6),
        IpField::Dscp => be16(bytes, 0).map(|word| word >> 6 & 0x3f),
        IpField::Ecn => be16(bytes, 0).map(|word| word >> 4 & 3),
        IpField::Length => be16(bytes, 4),
        IpField::Ttl => octet(7),
        IpField::FlowLabel => be32(bytes, 0).map(|word| word & 0xf_ffff),
        IpField::Version => Some(6),
        IpField::Id | IpField::Fragment | IpField::HeaderLength | IpField::Checksum => None,
    }
}

fn eval_meta(meta: MetaKey, scene: &EvalCtx<'_, '_>, state: &mut State) -> Option<u128> {
    let way = &scene.meta;
    let v6 = scene.packet.family() == Family::V6;
    Some(match meta {
        // Indexes are known by their names here: a ruleset outlives the devices it names.
        MetaKey::Iif | MetaKey::IifName => way.iif?.name,
        MetaKey::Oif | MetaKey::OifName => way.oif?.name,
        MetaKey::Mark => way.mark.into(),
        MetaKey::L4Proto => scene.packet.protocol().into(),
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
        MetaKey::Length => scene.packet.total_len() as u128,
        MetaKey::Priority => way.priority.into(),
        MetaKey::PacketType => match packet_address(scene.packet, Endpoint::Destination) {
            IpAddr::V4(address) if address.is_broadcast() => 1,
            address if address.is_multicast() => 2,
            _ => 0,
        },
        MetaKey::Random => state.next_random(scene.now.0).into(),
        MetaKey::Cpu => 0,
        MetaKey::Group(Endpoint::Source) => way.iif?.group.into(),
        MetaKey::Group(Endpoint::Destination) => way.oif?.group.into(),
        // IPsec is the kernel's: what it has opened comes in as any other packet.
        MetaKey::Ipsec => 0,
        MetaKey::Time => state.wall_clock_ns(scene.now).into(),
        MetaKey::Hour => (state.wall_clock_ns(scene.now) / SECOND % DAY).into(),
        // The first day of 1970 was a Thursday.
        MetaKey::Day => ((state.wall_clock_ns(scene.now) / SECOND / DAY + 4) % 7).into(),
    })
}

/// The packet's connection.
pub(super) fn connection(scene: &EvalCtx<'_, '_>) -> Option<Connection> {
    scene.engine.connection(scene.packet_ctx.as_deref()?, scene.now)
}

fn eval_ct(ct: CtKey, scene: &EvalCtx<'_, '_>) -> Option<u128> {
    let passage = scene.packet_ctx.as_deref();
    match ct {
        CtKey::State => Some(match passage.map(|passage| passage.info()) {
            Some(CtInfo::New) => datatype::CT_STATE_NEW,
            Some(CtInfo::Established) => datatype::CT_STATE_ESTABLISHED,
            Some(CtInfo::Related) => datatype::CT_STATE_RELATED,
            Some(CtInfo::Untracked) => datatype::CT_STATE_UNTRACKED,
            Some(CtInfo::Invalid) => datatype::CT_STATE_INVALID,
            None if scene.meta.untracked => datatype::CT_STATE_UNTRACKED,
            None => datatype::CT_STATE_INVALID,
        }),
        CtKey::Direction => passage?.direction().map(|direction| direction as u128),
        CtKey::Mark => scene.engine.mark(passage?).map(u128::from),
        CtKey::Status => connection(scene).map(|known| known.status.bits().into()),
        CtKey::Zone => connection(scene).map(|known| known.zone.id.into()),
        CtKey::Expiration => connection(scene).map(|known| known.timeout.into()),
        CtKey::Helper => connection(scene).and_then(|known| datatype::encode_name(known.helper?)),
        CtKey::Label => connection(scene).map(|known| u128::from_le_bytes(known.labels.unwrap_or_default())),
        CtKey::Id => connection(scene).map(|known| known.id.into()),
    }
}

fn eval_ct_tuple(direction: Option<Direction>, field: CtTupleField, scene: &EvalCtx<'_, '_>) -> Option<u128> {
    let known = connection(scene)?;
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

fn eval_ct_counter(direction: Option<Direction>, counted: CtCounterKey, known: &Connection) -> Option<u128> {
    let [original, reply] = known.accounting.unwrap_or_default();
    let sum = Accounting { packets: original.packets + reply.packets, bytes: original.bytes + reply.bytes };
    let of = match direction {
        Some(Direction::Original) => original,
        Some(Direction::Reply) => reply,
        None => sum,
    };
    match counted {
        CtCounterKey::Packets => Some(of.packets.into()),
        CtCounterKey::Bytes => Some(of.bytes.into()),
        CtCounterKey::AvgPacketSize => of.bytes.checked_div(of.packets).map(u128::from),
    }
}
