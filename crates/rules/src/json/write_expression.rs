//! Expressions, values and sets of the syntax tree, in the JSON schema.
use super::expression::{
    JsonDccpOption, JsonElement, JsonFib, JsonHash, JsonHeader, JsonKey, JsonLookup, JsonNumgen, JsonOsf, JsonPayload,
    JsonTarget, JsonTerm, JsonValue, OneOrMore,
};
use super::write_value::{literal, range};
use crate::ast::{
    BitOperator, CtCounterKey, CtKey, CtTupleField, ElementData, Endpoint, Expression, ExthdrField, ExthdrOp, FibExpr,
    FibResult, IpField, MetaKey, NftVerdict, OsTtlCheck, PayloadBase, PayloadField, RouteKey, Selector, Set,
    SetElement, SetRef, SocketKey, TunnelField, TunnelPart, XfrmDirection, XfrmKey,
};
use crate::datatype::DataType;
use crate::parse::{exthdr_names, payload_field_names, srh_names};
use keepstate_engine::Direction;

/// Several values as one: a concatenation, unless there is one only.
pub(super) fn concat(mut parts: Vec<JsonValue>) -> JsonValue {
    match parts.len() {
        1 => parts.pop().unwrap_or(JsonValue::Number(0)),
        _ => JsonTerm::Concat(parts).into(),
    }
}

fn ranges(kinds: &[DataType], ranges: &[(u128, u128)]) -> JsonValue {
    let part = |(kind, one): (&DataType, &(u128, u128))| match *one == (0, kind.max_value()) && kinds.len() > 1 {
        true => JsonValue::text("*"),
        false => range(*kind, *one),
    };
    concat(kinds.iter().zip(ranges).map(part).collect())
}

pub(super) fn key(parts: &[Expression]) -> JsonValue {
    concat(parts.iter().map(expression).collect())
}

pub(super) fn expression(value: &Expression) -> JsonValue {
    match value {
        Expression::Select(selector) => self::selector(*selector),
        Expression::Constant(value, kind) => literal(*kind, *value),
        Expression::Cast(of, _) => expression(of),
        Expression::Shift(of, by) if *by < 0 => {
            JsonTerm::ShiftRight(vec![expression(of), JsonValue::Number(by.unsigned_abs().into())]).into()
        }
        Expression::Shift(of, by) => {
            JsonTerm::ShiftLeft(vec![expression(of), JsonValue::Number(by.unsigned_abs().into())]).into()
        }
        Expression::Bitwise(of, and, xor) => bitwise(of, *and, *xor),
        Expression::Combine(operator, left, right) => {
            let operands = vec![expression(left), expression(right)];
            match operator {
                BitOperator::And => JsonTerm::And(operands),
                BitOperator::Or => JsonTerm::Or(operands),
                BitOperator::Xor => JsonTerm::Xor(operands),
            }
            .into()
        }
        Expression::Map(key, map) => lookup(key, map).into(),
        Expression::Numgen { random, modulus, offset } => JsonTerm::Numgen(JsonNumgen {
            mode: if *random { "random" } else { "inc" }.to_owned(),
            modulus: *modulus,
            offset: *offset,
        })
        .into(),
        Expression::Hash { of, modulus, seed, offset } => {
            let hash = |expr| JsonHash { modulus: *modulus, seed: *seed, offset: *offset, expr };
            if of.is_empty() { JsonTerm::Symhash(hash(None)) } else { JsonTerm::Jhash(hash(Some(key(of)))) }.into()
        }
    }
}

/// `(of & and) ^ xor` as it is written: `|` where the bits that are set were masked before.
fn bitwise(of: &Expression, and: u128, xor: u128) -> JsonValue {
    let kind = of.data_type();
    let all = kind.max_value();
    let mut value = expression(of);
    let (masked, sets) = (!and & all, xor & !and);
    let flips = xor & and;
    if masked & !sets != 0 {
        value = JsonTerm::And(vec![value, literal(kind, and | sets)]).into();
    }
    if sets != 0 {
        value = JsonTerm::Or(vec![value, literal(kind, sets)]).into();
    }
    if flips != 0 {
        value = JsonTerm::Xor(vec![value, literal(kind, flips)]).into();
    }
    value
}

pub(super) fn lookup(key: &[Expression], map: &SetRef) -> JsonTerm {
    JsonTerm::Map(JsonLookup { key: self::key(key), data: set_ref(map) })
}

/// A set by name, or its elements.
pub(super) fn set_ref(set: &SetRef) -> JsonValue {
    match set {
        SetRef::Named(name, _) => JsonValue::Text(format!("@{name}")),
        SetRef::Anonymous(set) => {
            JsonTerm::Set(set.elements.iter().map(|element| tree_element(set, element, None)).collect()).into()
        }
    }
}

/// Flags that are one value together.
fn joined_flags(value: JsonValue) -> JsonValue {
    let JsonValue::List(flags) = value else { return value };
    let all = flags.into_iter().reduce(|all, flag| JsonTerm::Or(vec![all, flag]).into());
    all.unwrap_or(JsonValue::Number(0))
}

/// An element as the ruleset has it.
pub(super) fn tree_element(set: &Set, element: &SetElement, state: Option<JsonElement>) -> JsonValue {
    let val = element.key.as_ref().map_or(JsonValue::text("*"), |key| joined_flags(ranges(&set.key, key)));
    let (comment, timeout) = (element.comment.as_deref().map(str::to_owned), element.timeout);
    let key = match state {
        Some(state) => JsonTerm::Elem(Box::new(JsonElement { val, timeout, comment, ..state })).into(),
        None if comment.is_none() && timeout.is_none() => val,
        None => {
            let (expires, counter, limit, quota) = (None, None, None, None);
            JsonTerm::Elem(Box::new(JsonElement { val, timeout, expires, comment, counter, limit, quota })).into()
        }
    };
    let data = match &element.data {
        None => return key,
        Some(ElementData::Values(values)) => ranges(set.data.as_deref().unwrap_or_default(), values),
        Some(ElementData::Verdict(verdict)) => self::verdict(verdict).into(),
        Some(ElementData::Object(name, _)) => JsonValue::text(name),
    };
    JsonValue::List(vec![key, data])
}

pub(super) fn verdict(verdict: &NftVerdict) -> JsonTerm {
    match verdict {
        NftVerdict::Accept => JsonTerm::Accept(()),
        NftVerdict::Drop => JsonTerm::Drop(()),
        NftVerdict::Continue => JsonTerm::Continue(()),
        NftVerdict::Return => JsonTerm::Return(()),
        NftVerdict::Jump(name, _) => JsonTerm::Jump(JsonTarget { target: name.clone() }),
        NftVerdict::Goto(name, _) => JsonTerm::Goto(JsonTarget { target: name.clone() }),
    }
}

pub(super) fn field(protocol: &str, field: &str) -> JsonValue {
    JsonTerm::Payload(JsonPayload::Field { tunnel: None, protocol: protocol.to_owned(), field: field.to_owned() })
        .into()
}

fn keyed(key: &str) -> JsonKey {
    JsonKey { key: key.to_owned(), ..JsonKey::default() }
}

fn directed(key: &str, direction: Option<Direction>) -> JsonValue {
    let dir = direction.map(|direction| match direction {
        Direction::Original => "original".to_owned(),
        Direction::Reply => "reply".to_owned(),
    });
    JsonTerm::Ct(JsonKey { dir, ..keyed(key) }).into()
}

pub(super) fn selector(selector: Selector) -> JsonValue {
    match selector {
        Selector::Ip(of) => field("ip", ip_field(of, false)),
        Selector::Ip6(of) => field("ip6", ip_field(of, true)),
        Selector::Port(protocol, end) => {
            let port = if end == Endpoint::Source { "sport" } else { "dport" };
            field(transport_name(protocol), port)
        }
        Selector::Payload(of) => payload(&of),
        Selector::Exthdr(of) => exthdr(&of),
        Selector::Meta(of) => JsonTerm::Meta(keyed(meta_key(of))).into(),
        Selector::Ct(of) => match of {
            CtKey::Zone(direction) => directed("zone", direction),
            other => directed(ct_key(other), None),
        },
        Selector::CtTuple(direction, of) => directed(tuple_key(of), direction),
        Selector::CtCounter(direction, of) => {
            let key = match of {
                CtCounterKey::Packets => "packets",
                CtCounterKey::Bytes => "bytes",
                CtCounterKey::AvgPacketSize => "avgpkt",
            };
            directed(key, direction)
        }
        Selector::Fib(of) => JsonTerm::Fib(fib(of)).into(),
        Selector::Socket(key) => match key {
            SocketKey::Transparent => JsonTerm::Socket(keyed("transparent")),
            SocketKey::Wildcard => JsonTerm::Socket(keyed("wildcard")),
            SocketKey::Mark => JsonTerm::Socket(keyed("mark")),
            SocketKey::CgroupV2 => JsonTerm::Socket(keyed("cgroupv2")),
            SocketKey::UserId => JsonTerm::Meta(keyed("skuid")),
            SocketKey::GroupId => JsonTerm::Meta(keyed("skgid")),
            SocketKey::Cgroup => JsonTerm::Meta(keyed("cgroup")),
        }
        .into(),
        Selector::OsFingerprint(of) => {
            let ttl = match of.ttl {
                OsTtlCheck::Local => None,
                OsTtlCheck::Loose => Some("loose".to_owned()),
                OsTtlCheck::Skip => Some("skip".to_owned()),
            };
            JsonTerm::Osf(JsonOsf { key: if of.version { "version" } else { "name" }.to_owned(), ttl }).into()
        }
        Selector::Route(RouteKey::ClassId) => JsonTerm::Rt(keyed("classid")).into(),
        Selector::Route(RouteKey::Ipsec) => JsonTerm::Rt(keyed("ipsec")).into(),
        Selector::Route(RouteKey::Mss) => JsonTerm::Rt(keyed("mtu")).into(),
        Selector::Route(RouteKey::NextHop4) => {
            JsonTerm::Rt(JsonKey { family: Some("ip".into()), ..keyed("nexthop") }).into()
        }
        Selector::Route(RouteKey::NextHop6) => {
            JsonTerm::Rt(JsonKey { family: Some("ip6".into()), ..keyed("nexthop") }).into()
        }
        Selector::Tunnel(field) => tunnel(field),
        Selector::Xfrm(key, direction, number) => {
            let (key, family) = match key {
                XfrmKey::RequestId => ("reqid", None),
                XfrmKey::Spi => ("spi", None),
                XfrmKey::Address4(end) => (end_name(end), Some("ip".to_owned())),
                XfrmKey::Address6(end) => (end_name(end), Some("ip6".to_owned())),
            };
            let dir = if direction == XfrmDirection::In { "in" } else { "out" };
            JsonTerm::Ipsec(JsonKey { family, dir: Some(dir.to_owned()), spnum: Some(number), ..keyed(key) }).into()
        }
    }
}

/// A field of the packet in a tunnel's packet: as that of a packet, with the tunnel beside it.
fn tunnel(field: TunnelField) -> JsonValue {
    let inner = match field.part {
        TunnelPart::Header(bits, _) => {
            let known = field.tunnel.header_fields().iter().find(|(_, known, _)| *known == bits);
            return self::field(field.tunnel.keyword(), known.map_or("", |(name, ..)| name));
        }
        TunnelPart::Link(bits, data_type) => payload(&PayloadField {
            base: PayloadBase::Link,
            bits,
            data_type,
            protocol: None,
            v6: None,
            icmp_types: &[],
        }),
        TunnelPart::Ip(of) => selector(Selector::Ip(of)),
        TunnelPart::Ip6(of) => selector(Selector::Ip6(of)),
        TunnelPart::Port(protocol, end) => selector(Selector::Port(protocol, end)),
        TunnelPart::Transport(of) => payload(&of),
    };
    match inner {
        JsonValue::Term(term) => match *term {
            JsonTerm::Payload(JsonPayload::Field { protocol, field: name, .. }) => {
                let tunnel = Some(field.tunnel.keyword().to_owned());
                JsonTerm::Payload(JsonPayload::Field { tunnel, protocol, field: name }).into()
            }
            other => other.into(),
        },
        other => other,
    }
}

fn end_name(end: Endpoint) -> &'static str {
    if end == Endpoint::Source { "saddr" } else { "daddr" }
}

pub(super) fn transport_name(protocol: Option<u8>) -> &'static str {
    match protocol {
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(136) => "udplite",
        Some(132) => "sctp",
        Some(33) => "dccp",
        _ => "th",
    }
}

fn ip_field(field: IpField, v6: bool) -> &'static str {
    match field {
        IpField::Source => "saddr",
        IpField::Destination => "daddr",
        IpField::Protocol if v6 => "nexthdr",
        IpField::Protocol => "protocol",
        IpField::Dscp => "dscp",
        IpField::Ecn => "ecn",
        IpField::Length => "length",
        IpField::Ttl if v6 => "hoplimit",
        IpField::Ttl => "ttl",
        IpField::Checksum => "checksum",
        IpField::Id => "id",
        IpField::Fragment => "frag-off",
        IpField::Version => "version",
        IpField::HeaderLength => "hdrlength",
        IpField::FlowLabel => "flowlabel",
    }
}

pub(super) fn payload(of: &PayloadField) -> JsonValue {
    if let Some((header, name)) = payload_field_names(of) {
        return field(header, name);
    }
    let base = match of.base {
        PayloadBase::Link => "ll",
        PayloadBase::Network => "nh",
        PayloadBase::Transport => "th",
        PayloadBase::Inner => "ih",
    };
    JsonTerm::Payload(JsonPayload::Bits { base: base.to_owned(), offset: of.bits.offset, len: of.bits.count }).into()
}

fn exthdr(of: &ExthdrField) -> JsonValue {
    let header = match srh_names(of).or_else(|| exthdr_names(of).map(own_field)) {
        Some((name, field)) => JsonHeader { name: Some(name.to_owned()), field, ..JsonHeader::default() },
        None => JsonHeader {
            base: Some(of.number),
            offset: Some(of.bits.map_or(0, |bits| bits.offset)),
            len: Some(of.bits.map_or(8, |bits| bits.count)),
            ..JsonHeader::default()
        },
    };
    match of.op {
        ExthdrOp::TcpOptions => JsonTerm::TcpOption(header),
        ExthdrOp::Ip4Options => JsonTerm::IpOption(header),
        ExthdrOp::Ipv6ExtHeaders => JsonTerm::Exthdr(header),
        ExthdrOp::SctpChunks => JsonTerm::SctpChunk(header),
        ExthdrOp::DccpOptions => JsonTerm::DccpOption(JsonDccpOption { kind: of.number }),
    }
    .into()
}

fn own_field((name, field): (&'static str, Option<&str>)) -> (&'static str, Option<String>) {
    (name, field.map(str::to_owned))
}

pub(super) fn meta_key(key: MetaKey) -> &'static str {
    match key {
        MetaKey::Iif => "iif",
        MetaKey::Oif => "oif",
        MetaKey::IifName => "iifname",
        MetaKey::OifName => "oifname",
        MetaKey::Mark => "mark",
        MetaKey::L4Proto => "l4proto",
        MetaKey::NfProto => "nfproto",
        MetaKey::Protocol => "protocol",
        MetaKey::Length => "length",
        MetaKey::Priority => "priority",
        MetaKey::PacketType => "pkttype",
        MetaKey::Random => "random",
        MetaKey::Cpu => "cpu",
        MetaKey::Hour => "hour",
        MetaKey::Day => "day",
        MetaKey::Time => "time",
        MetaKey::Group(Endpoint::Source) => "iifgroup",
        MetaKey::Group(Endpoint::Destination) => "oifgroup",
        MetaKey::LinkType(Endpoint::Source) => "iiftype",
        MetaKey::LinkType(Endpoint::Destination) => "oiftype",
        MetaKey::Ipsec => "ipsec",
        MetaKey::Sdif => "sdif",
        MetaKey::SdifName => "sdifname",
        MetaKey::Realm => "rtclassid",
        MetaKey::Kind(Endpoint::Source) => "iifkind",
        MetaKey::Kind(Endpoint::Destination) => "oifkind",
    }
}

fn ct_key(key: CtKey) -> &'static str {
    match key {
        CtKey::State => "state",
        CtKey::Direction => "direction",
        CtKey::Status => "status",
        CtKey::Mark => "mark",
        CtKey::Zone(_) => "zone",
        CtKey::Expiration => "expiration",
        CtKey::Helper => "helper",
        CtKey::Label => "label",
        CtKey::Id => "id",
    }
}

fn tuple_key(field: CtTupleField) -> &'static str {
    match field {
        CtTupleField::Source4 => "ip saddr",
        CtTupleField::Destination4 => "ip daddr",
        CtTupleField::Source6 => "ip6 saddr",
        CtTupleField::Destination6 => "ip6 daddr",
        CtTupleField::SourcePort => "proto-src",
        CtTupleField::DestinationPort => "proto-dst",
        CtTupleField::Protocol => "protocol",
        CtTupleField::L3Proto => "l3proto",
    }
}

fn fib(of: FibExpr) -> JsonFib {
    let address = if of.endpoint == Endpoint::Source { "saddr" } else { "daddr" };
    let flags = [(true, address), (of.mark, "mark"), (of.iif, "iif"), (of.oif, "oif")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
    let result = match of.result {
        FibResult::AddressType => "type",
        FibResult::Oif => "oif",
        FibResult::OifName => "oifname",
    };
    JsonFib { result: result.to_owned(), flags: OneOrMore::More(flags.collect()) }
}
