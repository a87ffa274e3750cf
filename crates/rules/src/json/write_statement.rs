//! Statements of the syntax tree, in the JSON schema.
use super::expression::{JsonHeader, JsonKey, JsonLookup, JsonTarget, JsonTerm, JsonValue, OneOrMore};
use super::stateful::{JsonCounts, JsonLimit, JsonQuota};
use super::statement::{
    JsonCounter, JsonCtCount, JsonDup, JsonFlow, JsonIgnored, JsonLog, JsonMangle, JsonMapChange, JsonMatch, JsonMeter,
    JsonNamed, JsonNat, JsonQueue, JsonReject, JsonReset, JsonSetChange, JsonStatement, JsonSynproxy,
};
use super::write_expression::{concat, expression, field, key, lookup, payload, selector, set_ref, transport_name};
use super::write_value::{literal, range};
use crate::ast::{
    AssignTarget, CtKey, Dynset, DynsetOp, Endpoint, Expression, ExthdrField, ExthdrOp, FibResult, Icmpx, Limit, Log,
    Match, MatchRhs, MetaKey, Nat, NatPorts, NatTarget, NftVerdict, ObjectKind, Order, QueueNumber, QueueSpec, Reject,
    SecMarkCopy, Selector, SetRef, StatefulSpec, Statement, SynproxyInfo, TableFamily,
};
use crate::datatype::DataType;
use crate::parse::exthdr_names;
use crate::program::json_access::anonymous_chain_text;
use keepstate_engine::{Direction, Manip, PortSelection, ZoneDirection};

/// The statements of a rule. `counts` are the present values of its counters, in order; without them counters are `null`.
pub(super) fn statements(
    all: &[Statement],
    family: TableFamily,
    mut counts: impl Iterator<Item = (u64, u64)>,
) -> Vec<JsonStatement> {
    all.iter().map(|one| statement(one, family, &mut counts)).collect()
}

fn statement(one: &Statement, family: TableFamily, counts: &mut impl Iterator<Item = (u64, u64)>) -> JsonStatement {
    match one {
        Statement::Match(one) => JsonStatement::Match(matching(one)),
        Statement::Counter(..) => JsonStatement::Counter(match counts.next() {
            Some((packets, bytes)) => JsonCounter::Counts(JsonCounts { packets, bytes }),
            None => JsonCounter::None(()),
        }),
        Statement::ObjectRef(kind, name, _) => object_ref(*kind, name),
        Statement::ObjectMap(kind, key, map) => object_map(*kind, key, map),
        Statement::Limit(one) => JsonStatement::Limit(JsonNamed::Own(limit(one))),
        Statement::Quota { over, bytes, used } => JsonStatement::Quota(JsonNamed::Own(quota(*over, *bytes, *used))),
        Statement::ConnLimit { over, count } => JsonStatement::CtCount(JsonCtCount { val: *count, inv: *over }),
        Statement::Log(one) => JsonStatement::Log(log(one)),
        Statement::Notrack => JsonStatement::Notrack(()),
        Statement::Assign(target, value) => JsonStatement::Mangle(JsonMangle {
            key: assign_key(target),
            value: match (target, value) {
                // A constant 0 stands for the route's MTU.
                (AssignTarget::TcpMss, Expression::Constant(0, _)) => {
                    JsonTerm::Rt(JsonKey { key: "mtu".into(), ..Default::default() }).into()
                }
                (_, value) => expression(value),
            },
        }),
        Statement::TcpOptStrip(number) => {
            let known =
                ExthdrField { op: ExthdrOp::TcpOptions, number: *number, bits: None, data_type: DataType::Boolean };
            let tcp_option = match exthdr_names(&known) {
                Some((name, _)) => JsonHeader { name: Some(name.to_owned()), ..JsonHeader::default() },
                None => JsonHeader { base: Some(*number), offset: Some(0), len: Some(0), ..JsonHeader::default() },
            };
            JsonStatement::Reset(JsonReset { tcp_option })
        }
        Statement::CtHelper(name, _) => JsonStatement::CtHelper(JsonValue::text(name)),
        Statement::SecMark(copy) => {
            let key = |name: fn(JsonKey) -> JsonTerm| {
                JsonValue::from(name(JsonKey { key: "secmark".into(), ..Default::default() }))
            };
            let (key, value) = match copy {
                SecMarkCopy::ToConnection => (key(JsonTerm::Ct), key(JsonTerm::Meta)),
                SecMarkCopy::FromConnection => (key(JsonTerm::Meta), key(JsonTerm::Ct)),
            };
            JsonStatement::Mangle(JsonMangle { key, value })
        }
        Statement::Queue(one) => JsonStatement::Queue(queue(one)),
        Statement::CtTimeout(name, _) => JsonStatement::CtTimeout(JsonValue::text(name)),
        Statement::CtExpectation(name, _) => JsonStatement::CtExpectation(JsonValue::text(name)),
        Statement::FlowOffload(name, _) => {
            JsonStatement::Flow(JsonFlow { op: "add".to_owned(), flowtable: format!("@{name}") })
        }
        Statement::Last => JsonStatement::Last(JsonIgnored::None(())),
        Statement::Nat(one) => nat(one),
        Statement::Tproxy(one) => JsonStatement::Tproxy(JsonNat {
            family: one.v6.map(|v6| if v6 { "ip6" } else { "ip" }.to_owned()),
            addr: nat_address(&one.target),
            port: one.port.as_ref().map(nat_ports),
            ..JsonNat::default()
        }),
        Statement::Reject(one) => JsonStatement::Reject(Some(reject(*one, family))),
        Statement::Dup { to, device } => JsonStatement::Dup(JsonDup { addr: expression(to), dev: device.clone() }),
        Statement::Synproxy(options) => {
            JsonStatement::Synproxy((*options != SynproxyInfo::default()).then(|| JsonNamed::Own(synproxy(options))))
        }
        Statement::Vmap(parts, map) => JsonStatement::Vmap(JsonLookup { key: key(parts), data: set_ref(map) }),
        Statement::Dynset(change) => dynset(change),
        Statement::AnonymousChain(chain) => JsonStatement::AnonymousChain(anonymous_chain_text(chain, counts)),
        Statement::Verdict(verdict) => match verdict {
            NftVerdict::Accept => JsonStatement::Accept(()),
            NftVerdict::Drop => JsonStatement::Drop(()),
            NftVerdict::Continue => JsonStatement::Continue(()),
            NftVerdict::Return => JsonStatement::Return(()),
            NftVerdict::Jump(name, _) => JsonStatement::Jump(JsonTarget { target: name.clone() }),
            NftVerdict::Goto(name, _) => JsonStatement::Goto(JsonTarget { target: name.clone() }),
        },
    }
}

fn matching(one: &Match) -> JsonMatch {
    let left = key(&one.left);
    let not = |op: &str| if one.not { "!=".to_owned() } else { op.to_owned() };
    let kinds: Vec<DataType> = one.left.iter().map(Expression::data_type).collect();
    match &one.right {
        MatchRhs::Set(set) => JsonMatch { op: not("=="), left, right: set_ref(set) },
        MatchRhs::AnyBit(bits) => {
            let kind = kinds.first().copied().unwrap_or(DataType::Number(32));
            JsonMatch { op: if one.not { "!" } else { "in" }.to_owned(), left, right: literal(kind, *bits) }
        }
        MatchRhs::Ranges(ranges) => {
            // 0 stands for no interface.
            if let ([Expression::Select(Selector::Fib(fib))], [(0, 0)]) = (one.left.as_slice(), ranges.as_slice())
                && fib.result != FibResult::AddressType
            {
                return JsonMatch { op: "==".to_owned(), left, right: JsonValue::Bool(one.not) };
            }
            if let ([kind], [(first, last)], Some(order)) = (kinds.as_slice(), ranges.as_slice(), one.order) {
                let (op, bound) = comparison(order, *first, *last);
                return JsonMatch { op: op.to_owned(), left, right: literal(*kind, bound) };
            }
            let right = kinds.iter().zip(ranges).map(|(kind, one)| range(*kind, *one)).collect();
            JsonMatch { op: not("=="), left, right: concat(right) }
        }
    }
}

/// A comparison: operator and bound.
fn comparison(order: Order, first: u128, last: u128) -> (&'static str, u128) {
    match order {
        Order::Less => ("<", last.saturating_add(1)),
        Order::LessOrEqual => ("<=", last),
        Order::Greater => (">", first.saturating_sub(1)),
        Order::GreaterOrEqual => (">=", first),
    }
}

fn object_ref(kind: ObjectKind, name: &str) -> JsonStatement {
    let name = name.to_owned();
    match kind {
        ObjectKind::Counter => JsonStatement::Counter(JsonCounter::Name(name)),
        ObjectKind::Quota => JsonStatement::Quota(JsonNamed::Name(name)),
        ObjectKind::Limit => JsonStatement::Limit(JsonNamed::Name(name)),
        ObjectKind::Synproxy => JsonStatement::Synproxy(Some(JsonNamed::Name(name))),
        ObjectKind::CtHelper => JsonStatement::CtHelper(JsonValue::Text(name)),
        ObjectKind::CtTimeout => JsonStatement::CtTimeout(JsonValue::Text(name)),
        ObjectKind::CtExpectation => JsonStatement::CtExpectation(JsonValue::Text(name)),
        ObjectKind::SecMark => JsonStatement::Secmark(JsonValue::Text(name)),
    }
}

fn object_map(kind: ObjectKind, key: &[Expression], map: &SetRef) -> JsonStatement {
    let map = lookup(key, map);
    match kind {
        ObjectKind::Counter => JsonStatement::Counter(JsonCounter::Map(map)),
        ObjectKind::Quota => JsonStatement::Quota(JsonNamed::Map(map)),
        ObjectKind::Limit => JsonStatement::Limit(JsonNamed::Map(map)),
        ObjectKind::Synproxy => JsonStatement::Synproxy(Some(JsonNamed::Map(map))),
        ObjectKind::CtHelper => JsonStatement::CtHelper(map.into()),
        ObjectKind::CtTimeout => JsonStatement::CtTimeout(map.into()),
        ObjectKind::CtExpectation => JsonStatement::CtExpectation(map.into()),
        ObjectKind::SecMark => JsonStatement::Secmark(map.into()),
    }
}

/// The period of a limit.
pub(super) fn period(seconds: u64) -> &'static str {
    match seconds {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        86_400 => "day",
        _ => "week",
    }
}

/// A number of bytes in the largest unit that it is a multiple of.
pub(super) fn byte_unit(bytes: u64) -> (u64, &'static str) {
    match bytes {
        0 => (0, "bytes"),
        bytes if bytes.is_multiple_of(1 << 20) => (bytes >> 20, "mbytes"),
        bytes if bytes.is_multiple_of(1 << 10) => (bytes >> 10, "kbytes"),
        bytes => (bytes, "bytes"),
    }
}

pub(super) fn limit(one: &Limit) -> JsonLimit {
    let per = period(one.seconds).to_owned();
    if !one.per_byte {
        return JsonLimit {
            rate: one.rate,
            burst: Some(one.burst),
            per,
            inv: one.over,
            rate_unit: None,
            burst_unit: None,
        };
    }
    let (rate, rate_unit) = byte_unit(one.rate);
    let (burst, burst_unit) = byte_unit(one.burst);
    JsonLimit {
        rate,
        per,
        inv: one.over,
        rate_unit: Some(rate_unit.to_owned()),
        burst_unit: Some(burst_unit.to_owned()),
        burst: Some(burst),
    }
}

pub(super) fn quota(over: bool, bytes: u64, used: u64) -> JsonQuota {
    let (val, unit) = byte_unit(bytes);
    let (used, used_unit) = byte_unit(used);
    let used = (used > 0).then_some(used);
    JsonQuota { val, val_unit: unit.to_owned(), used_unit: used.map(|_| used_unit.to_owned()), used, inv: over }
}

pub(super) fn synproxy(options: &SynproxyInfo) -> JsonSynproxy {
    let flags = [(options.timestamp, "timestamp"), (options.sack, "sack-perm")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
    JsonSynproxy { mss: options.mss, wscale: options.wscale, flags: OneOrMore::short(flags.collect()) }
}

fn log(one: &Log) -> Option<JsonLog> {
    const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
    // The level that is meant where none is written.
    const DEFAULT_LEVEL: u8 = 4;
    let set = one.flags;
    let known = [
        (set.tcp_sequence, "tcp sequence"),
        (set.tcp_options, "tcp options"),
        (set.ip_options, "ip options"),
        (set.skuid, "skuid"),
        (set.ether, "ether"),
    ];
    let flags: Vec<String> = match known.iter().all(|(given, _)| *given) {
        true => vec!["all".to_owned()],
        false => known.iter().filter(|(given, _)| *given).map(|(_, name)| (*name).to_owned()).collect(),
    };
    let level = one.level.filter(|level| *level != DEFAULT_LEVEL);
    let log = JsonLog {
        prefix: (!one.prefix.is_empty()).then(|| one.prefix.clone()),
        group: one.group,
        snaplen: one.snaplen,
        queue_threshold: one.queue_threshold,
        level: match one.audit {
            true => Some("audit".to_owned()),
            false => level.and_then(|level| LEVELS.get(usize::from(level))).map(|name| (*name).to_owned()),
        },
        flags: OneOrMore::short(flags),
    };
    (log != JsonLog::default()).then_some(log)
}

fn queue(one: &QueueSpec) -> Option<JsonQueue> {
    let flags = [(one.bypass, "bypass"), (one.fanout, "fanout")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned()).collect();
    let num = one.number.as_ref().map(|of| match of {
        QueueNumber::Range(first, last) => range(DataType::Number(16), ((*first).into(), (*last).into())),
        QueueNumber::Value(value) => expression(value),
    });
    let queue = JsonQueue { num, flags: OneOrMore::short(flags) };
    (queue != JsonQueue::default()).then_some(queue)
}

fn reject(one: Reject, family: TableFamily) -> JsonReject {
    let named = |kind: &str, code: JsonValue| JsonReject { kind: kind.to_owned(), expr: Some(code) };
    match one {
        Reject::Default => {
            let kind = match family {
                TableFamily::Ip => "icmp",
                TableFamily::Ip6 => "icmpv6",
                TableFamily::Inet => "icmpx",
            };
            named(kind, JsonValue::text("port-unreachable"))
        }
        Reject::TcpReset => JsonReject { kind: "tcp reset".to_owned(), expr: None },
        Reject::Icmp(code) => named("icmp", literal(DataType::IcmpCode, code.into())),
        Reject::Icmpv6(code) => named("icmpv6", literal(DataType::Icmp6Code, code.into())),
        Reject::Icmpx(code) => named(
            "icmpx",
            JsonValue::text(match code {
                Icmpx::NoRoute => "no-route",
                Icmpx::PortUnreachable => "port-unreachable",
                Icmpx::HostUnreachable => "host-unreachable",
                Icmpx::AdminProhibited => "admin-prohibited",
            }),
        ),
    }
}

fn assign_key(target: &AssignTarget) -> JsonValue {
    let ip = |v6: bool| if v6 { "ip6" } else { "ip" };
    match target {
        AssignTarget::MetaMark => selector(Selector::Meta(MetaKey::Mark)),
        AssignTarget::MetaPriority => selector(Selector::Meta(MetaKey::Priority)),
        AssignTarget::PacketType => selector(Selector::Meta(MetaKey::PacketType)),
        AssignTarget::CtEvents => JsonTerm::Ct(JsonKey { key: "event".into(), ..Default::default() }).into(),
        AssignTarget::NfTrace => JsonTerm::Meta(JsonKey { key: "nftrace".into(), ..Default::default() }).into(),
        AssignTarget::CtMark => selector(Selector::Ct(CtKey::Mark)),
        AssignTarget::CtZone(direction) => selector(Selector::Ct(CtKey::Zone(match direction {
            ZoneDirection::Both => None,
            ZoneDirection::Original => Some(Direction::Original),
            ZoneDirection::Reply => Some(Direction::Reply),
        }))),
        AssignTarget::CtLabel => selector(Selector::Ct(CtKey::Label)),
        AssignTarget::Dscp { v6 } => field(ip(*v6), "dscp"),
        AssignTarget::Ttl { v6 } => field(ip(*v6), if *v6 { "hoplimit" } else { "ttl" }),
        AssignTarget::Address { v6, endpoint } => {
            field(ip(*v6), if *endpoint == Endpoint::Source { "saddr" } else { "daddr" })
        }
        AssignTarget::Port { protocol, endpoint } => {
            field(transport_name(*protocol), if *endpoint == Endpoint::Source { "sport" } else { "dport" })
        }
        AssignTarget::TcpMss => selector(Selector::Exthdr(ExthdrField::TCP_MSS)),
        AssignTarget::TcpOption(of) => selector(Selector::Exthdr(*of)),
        AssignTarget::Payload(of) => ip_bits(of).unwrap_or_else(|| payload(of)),
    }
}

/// A field of an IP header that is written by its bits.
fn ip_bits(of: &crate::ast::PayloadField) -> Option<JsonValue> {
    use crate::ast::IpField;
    let v6 = of.v6.filter(|_| of.base == crate::ast::PayloadBase::Network)?;
    let fields = [
        IpField::Version,
        IpField::HeaderLength,
        IpField::Ecn,
        IpField::Id,
        IpField::Fragment,
        IpField::Protocol,
        IpField::Checksum,
        IpField::Length,
        IpField::FlowLabel,
    ];
    let known = fields.into_iter().find(|one| one.rewritable_bits(v6) == Some(of.bits))?;
    Some(selector(if v6 { Selector::Ip6(known) } else { Selector::Ip(known) }))
}

/// The new address, if there is one.
fn nat_address(target: &NatTarget) -> Option<JsonValue> {
    match target {
        NatTarget::Addresses(first, last) => {
            let kind = if first.is_ipv6() { DataType::Address6 } else { DataType::Address4 };
            let bits = |address: &std::net::IpAddr| match address {
                std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
                std::net::IpAddr::V6(address) => address.to_bits(),
            };
            Some(range(kind, (bits(first), bits(last))))
        }
        NatTarget::Value(value) => Some(expression(value)),
        NatTarget::Unchanged | NatTarget::Masquerade | NatTarget::Redirect => None,
    }
}

fn nat_ports(ports: &NatPorts) -> JsonValue {
    match ports {
        NatPorts::Range(first, last) => range(DataType::Port, ((*first).into(), (*last).into())),
        NatPorts::Value(value) => expression(value),
    }
}

fn nat(one: &Nat) -> JsonStatement {
    let mut json = JsonNat::default();
    let v6 = one.v6;
    if matches!(one.target, NatTarget::Addresses(..) | NatTarget::Value(_)) {
        json.family = v6.map(|v6| if v6 { "ip6" } else { "ip" }.to_owned());
    }
    json.addr = nat_address(&one.target);
    json.port = one.ports.as_ref().map(nat_ports);
    let random = one.port_selection == PortSelection::Random;
    let (random, fully) = (random && !one.fully_random, random && one.fully_random);
    let flags = [(random, "random"), (fully, "fully-random"), (one.persistent, "persistent"), (one.netmap, "netmap")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
    json.flags = OneOrMore::short(flags.collect());
    json.type_flags = one.netmap.then(|| OneOrMore::One("prefix".to_owned()));
    let json = (json != JsonNat::default()).then_some(json);
    match (&one.target, one.manip) {
        (NatTarget::Masquerade, _) => JsonStatement::Masquerade(json),
        (NatTarget::Redirect, _) => JsonStatement::Redirect(json),
        (_, Manip::Source) => JsonStatement::Snat(json),
        (_, Manip::Destination) => JsonStatement::Dnat(json),
    }
}

pub(super) fn stateful(spec: &StatefulSpec) -> JsonStatement {
    match spec {
        StatefulSpec::Limit(one) => JsonStatement::Limit(JsonNamed::Own(limit(one))),
        StatefulSpec::Quota { over, bytes, used } => JsonStatement::Quota(JsonNamed::Own(quota(*over, *bytes, *used))),
        StatefulSpec::ConnLimit { over, count } => JsonStatement::CtCount(JsonCtCount { val: *count, inv: *over }),
        StatefulSpec::Counter(..) => JsonStatement::Counter(JsonCounter::None(())),
    }
}

fn dynset(change: &Dynset) -> JsonStatement {
    let op = match change.op {
        DynsetOp::Add => "add",
        DynsetOp::Update => "update",
        DynsetOp::Delete => "delete",
    };
    let mut elem = key(&change.key);
    if change.timeout.is_some() {
        elem = JsonTerm::Elem(Box::new(super::expression::JsonElement {
            val: elem,
            timeout: change.timeout,
            expires: None,
            comment: None,
            counter: None,
            limit: None,
            quota: None,
        }))
        .into();
    }
    let mut stmt: Vec<JsonStatement> = change.stateful.iter().map(stateful).collect();
    if let Some(size) = change.meter_size {
        let first = if stmt.is_empty() { JsonStatement::Counter(JsonCounter::None(())) } else { stmt.remove(0) };
        return JsonStatement::Meter(JsonMeter {
            key: elem,
            stmt: Box::new(first),
            size: Some(size),
            name: change.set.clone(),
        });
    }
    let set = format!("@{}", change.set);
    if change.data.is_empty() {
        return JsonStatement::Set(JsonSetChange { op: op.to_owned(), elem, set, stmt });
    }
    JsonStatement::Map(JsonMapChange { op: op.to_owned(), elem, data: key(&change.data), map: set, stmt })
}
