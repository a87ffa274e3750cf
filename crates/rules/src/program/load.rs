//! What a selector finds in a packet, its connection and its way.
use super::piece;
use super::scene::{AddressType, Change, Scene};
use super::state::State;
use crate::kind;
use crate::tree::{
    Among, BitRange, Counted, Ct, End, FibTell, Field, IpField, Layer, Meta, Piece, Selector, TupleField,
};
use keepstate_engine::{Accounting, Connection, Direction, Info, Instant, Tuple};
use keepstate_wire::{Addresses, Family, Packet};
use std::net::IpAddr;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

impl State {
    /// Nanoseconds since 1970 by the clock on the wall.
    fn on_the_wall(&self, now: Instant) -> u64 {
        now.0.saturating_add_signed(self.wall)
    }

    /// A number that looks random; who needs an unguessable one asks the engine.
    pub(super) fn draw(&mut self, salt: u64) -> u32 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(salt);
        let mut word = self.draws;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) as u32
    }
}

/// What is there, as rules before have changed it; `None` where the packet has no such thing.
pub(super) fn load(selector: Selector, scene: &Scene<'_, '_>, state: &mut State) -> Option<u128> {
    if let Selector::Piece(Piece { among: Among::TcpOptions, number, bits, .. }) = selector
        && scene.way.changes.contains(&Change::Strip(number))
    {
        return bits.is_none().then_some(0);
    }
    let there = find(selector, scene, state)?;
    let changes = scene.way.changes.iter();
    Some(changes.fold(there, |there, change| changed(selector, change, scene.packet).map_or(there, |now| now(there))))
}

/// What a change that is yet to be made makes of what a selector finds; `None` if it leaves that alone.
fn changed(selector: Selector, change: &Change, packet: &Packet<'_>) -> Option<impl FnOnce(u128) -> u128> {
    let (now, only_less) = match (selector, *change) {
        (Selector::Ip(IpField::Dscp) | Selector::Ip6(IpField::Dscp), Change::Dscp(class)) => (class.into(), false),
        (Selector::Ip(IpField::Ttl) | Selector::Ip6(IpField::Ttl), Change::Ttl(hops)) => (hops.into(), false),
        (Selector::Piece(Piece::MAX_SEGMENT), Change::MaxSegment(most)) if most > 0 => (most.into(), true),
        (Selector::Port(_, end), Change::Port(which, port)) if end == which && packet.ports().is_some() => {
            (port.into(), false)
        }
        (Selector::Field(field), Change::Bits(same, value)) if (field.layer, field.bits) == (same.layer, same.bits) => {
            (value, false)
        }
        (Selector::Ip(field), Change::Bits(same, value)) if field.changeable(false) == Some(same.bits) => {
            (value, false)
        }
        (Selector::Ip6(field), Change::Bits(same, value)) if field.changeable(true) == Some(same.bits) => {
            (value, false)
        }
        (Selector::Ip(field) | Selector::Ip6(field), Change::Address(end, address)) => {
            let which = if end == End::Source { IpField::Source } else { IpField::Destination };
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
fn find(selector: Selector, scene: &Scene<'_, '_>, state: &mut State) -> Option<u128> {
    let packet = scene.packet;
    match selector {
        Selector::Ip(field) if packet.family() == Family::V4 => ip4(packet, field),
        Selector::Ip6(field) if packet.family() == Family::V6 => ip6(packet, field),
        Selector::Ip(_) | Selector::Ip6(_) => None,
        Selector::Port(protocol, end) => {
            let number = packet.protocol();
            let has_ports = matches!(number, 6 | 17 | 33 | 132 | 136);
            if !protocol.map_or(has_ports, |protocol| protocol == number) {
                return None;
            }
            let (source, destination) = packet.ports()?;
            Some(u128::from(if end == End::Source { source } else { destination }))
        }
        Selector::Field(field) => load_field(&field, packet),
        Selector::Piece(piece) => piece::find(piece, packet),
        Selector::Meta(meta) => load_meta(meta, scene, state),
        Selector::Ct(ct) => load_ct(ct, scene),
        Selector::Tuple(direction, field) => load_tuple(direction, field, scene),
        Selector::Count(direction, counted) => load_count(direction, counted, &connection(scene)?),
        Selector::Fib(fib) => {
            let address = end_of(packet, fib.end);
            let through = match (fib.iif, fib.oif) {
                (true, _) => Some(scene.way.iif?.index),
                (_, true) => Some(scene.way.oif?.index),
                _ => None,
            };
            Some(match fib.tell {
                FibTell::Type => scene.ground.address_type(address, through) as u128,
                // 0 is no device: `fib saddr . iif oif missing` compares with it.
                // The way to ourselves leaves by no device: who claims to be us came from nowhere.
                FibTell::Oif | FibTell::OifName if scene.ground.address_type(address, None) == AddressType::Local => 0,
                FibTell::Oif | FibTell::OifName => scene.ground.route(address, through).map_or(0, |device| device.name),
            })
        }
    }
}

/// The octets from the beginning of a header on.
fn header<'a>(packet: &Packet<'a>, layer: Layer) -> Option<&'a [u8]> {
    let transport = packet.transport();
    match layer {
        Layer::Network => Some(packet.bytes()),
        Layer::Transport => Some(transport),
        Layer::Inner => {
            let at = match packet.protocol() {
                6 => usize::from(transport.get(12)? >> 4) * 4,
                17 | 136 => 8,
                _ => return None,
            };
            transport.get(at..)
        }
    }
}

pub(super) fn bits_of(octets: &[u8], bits: BitRange) -> Option<u128> {
    let (from, count) = (usize::from(bits.from), usize::from(bits.count));
    let end = from + count;
    let covered = octets.get(from / 8..end.div_ceil(8))?;
    let (first, rest) = covered.split_first()?;
    // Whatever stands before them in their first octet is none of them.
    let first = u128::from(*first) & 0xff >> (from % 8);
    let (last, middle) = match rest.split_last() {
        None => return Some(first >> (end.div_ceil(8) * 8 - end)),
        Some((last, middle)) => (u128::from(*last), middle),
    };
    let whole = middle.iter().try_fold(first, |sum, octet| sum.checked_mul(256).map(|sum| sum | u128::from(*octet)))?;
    let behind = end.div_ceil(8) * 8 - end;
    // Of the last octet only the higher bits may be meant.
    whole.checked_mul(1 << (8 - behind)).map(|sum| sum | last >> behind)
}

/// A field of a header, if the packet is one of those that have it.
fn load_field(field: &Field, packet: &Packet<'_>) -> Option<u128> {
    let v6 = packet.family() == Family::V6;
    if field.protocol.is_some_and(|one| one != packet.protocol()) || field.v6.is_some_and(|six| six != v6) {
        return None;
    }
    let header = header(packet, field.layer)?;
    if !field.types.is_empty() && !field.types.contains(header.first()?) {
        return None;
    }
    bits_of(header, field.bits)
}

fn be16(octets: &[u8], at: usize) -> Option<u128> {
    octets.get(at..)?.first_chunk().map(|octets| u128::from(u16::from_be_bytes(*octets)))
}

fn be32(octets: &[u8], at: usize) -> Option<u128> {
    octets.get(at..)?.first_chunk().map(|octets| u128::from(u32::from_be_bytes(*octets)))
}

/// Source or destination of a packet.
pub(super) fn end_of(packet: &Packet<'_>, end: End) -> IpAddr {
    match (packet.addresses(), end) {
        (Addresses::V4 { source, .. }, End::Source) => IpAddr::from(source),
        (Addresses::V4 { destination, .. }, End::Destination) => IpAddr::from(destination),
        (Addresses::V6 { source, .. }, End::Source) => IpAddr::from(source),
        (Addresses::V6 { destination, .. }, End::Destination) => IpAddr::from(destination),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn ip4(packet: &Packet<'_>, field: IpField) -> Option<u128> {
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

fn ip6(packet: &Packet<'_>, field: IpField) -> Option<u128> {
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

fn load_meta(meta: Meta, scene: &Scene<'_, '_>, state: &mut State) -> Option<u128> {
    let way = &scene.way;
    let v6 = scene.packet.family() == Family::V6;
    Some(match meta {
        // Indexes are known by their names here: a ruleset outlives the devices it names.
        Meta::Iif | Meta::IifName => way.iif?.name,
        Meta::Oif | Meta::OifName => way.oif?.name,
        Meta::Mark => way.mark.into(),
        Meta::L4Proto => scene.packet.protocol().into(),
        Meta::NfProto => {
            if v6 {
                10
            } else {
                2
            }
        }
        Meta::Protocol => {
            if v6 {
                0x86dd
            } else {
                0x0800
            }
        }
        Meta::Length => scene.packet.total_len() as u128,
        Meta::Priority => way.priority.into(),
        Meta::PacketType => match end_of(scene.packet, End::Destination) {
            IpAddr::V4(address) if address.is_broadcast() => 1,
            address if address.is_multicast() => 2,
            _ => 0,
        },
        Meta::Random => state.draw(scene.now.0).into(),
        Meta::Cpu => 0,
        Meta::Group(End::Source) => way.iif?.group.into(),
        Meta::Group(End::Destination) => way.oif?.group.into(),
        // IPsec is the kernel's: what it has opened comes in as any other packet.
        Meta::Ipsec => 0,
        Meta::Time => state.on_the_wall(scene.now).into(),
        Meta::Hour => (state.on_the_wall(scene.now) / SECOND % DAY).into(),
        // The first day of 1970 was a Thursday.
        Meta::Day => ((state.on_the_wall(scene.now) / SECOND / DAY + 4) % 7).into(),
    })
}

/// The packet's connection.
pub(super) fn connection(scene: &Scene<'_, '_>) -> Option<Connection> {
    scene.engine.connection(scene.passage.as_deref()?, scene.now)
}

fn load_ct(ct: Ct, scene: &Scene<'_, '_>) -> Option<u128> {
    let passage = scene.passage.as_deref();
    match ct {
        Ct::State => Some(match passage.map(|passage| passage.info()) {
            Some(Info::New) => kind::STATE_NEW,
            Some(Info::Established) => kind::STATE_ESTABLISHED,
            Some(Info::Related) => kind::STATE_RELATED,
            Some(Info::Untracked) => kind::STATE_UNTRACKED,
            Some(Info::Invalid) => kind::STATE_INVALID,
            None if scene.way.untracked => kind::STATE_UNTRACKED,
            None => kind::STATE_INVALID,
        }),
        Ct::Direction => passage?.direction().map(|direction| direction as u128),
        Ct::Mark => scene.engine.mark(passage?).map(u128::from),
        Ct::Status => connection(scene).map(|known| known.status.0.into()),
        Ct::Zone => connection(scene).map(|known| known.zone.id.into()),
        Ct::Expiration => connection(scene).map(|known| known.timeout.into()),
        Ct::Helper => connection(scene).and_then(|known| kind::letters(known.helper?)),
        Ct::Label => connection(scene).map(|known| u128::from_le_bytes(known.labels.unwrap_or_default())),
        Ct::Id => connection(scene).map(|known| known.id.into()),
    }
}

fn load_tuple(direction: Option<Direction>, field: TupleField, scene: &Scene<'_, '_>) -> Option<u128> {
    let known = connection(scene)?;
    let tuple: &Tuple = match direction {
        Some(Direction::Reply) => &known.reply,
        _ => &known.original,
    };
    let wanted6 = matches!(field, TupleField::Source6 | TupleField::Destination6);
    let v6 = tuple.is_ipv6();
    Some(match field {
        TupleField::Source4 | TupleField::Source6 if wanted6 == v6 => number(tuple.source),
        TupleField::Destination4 | TupleField::Destination6 if wanted6 == v6 => number(tuple.destination),
        TupleField::Source4 | TupleField::Source6 | TupleField::Destination4 | TupleField::Destination6 => return None,
        TupleField::SourcePort => tuple.source_key.into(),
        TupleField::DestinationPort => tuple.destination_key.into(),
        TupleField::Protocol => tuple.protocol.into(),
        TupleField::L3Proto => {
            if v6 {
                10
            } else {
                2
            }
        }
    })
}

fn load_count(direction: Option<Direction>, counted: Counted, known: &Connection) -> Option<u128> {
    let [original, reply] = known.accounting.unwrap_or_default();
    let sum = Accounting { packets: original.packets + reply.packets, bytes: original.bytes + reply.bytes };
    let of = match direction {
        Some(Direction::Original) => original,
        Some(Direction::Reply) => reply,
        None => sum,
    };
    match counted {
        Counted::Packets => Some(of.packets.into()),
        Counted::Octets => Some(of.bytes.into()),
        Counted::Average => of.bytes.checked_div(of.packets).map(u128::from),
    }
}
