//! NAT statements: whether the family of the new address is known and fits, and whether a port is changed of packets that have one.
use super::protocol::ProtocolContext;
use super::refusal::Refusal;
use crate::ast::{
    Expression, IpField, MetaKey, Nat, NatPorts, NatTarget, Selector, SetRef, Table, TableFamily, TproxySpec,
};
use crate::datatype::DataType;

/// Checks a NAT statement of a rule whose earlier statements have given `context`.
pub(super) fn check_nat(table: &Table, context: &mut ProtocolContext, nat: &Nat) -> Result<(), Refusal> {
    if let Some(v6) = nat.v6 {
        context.require_family(v6)?;
    }
    let v6 = nat.v6.or(context.v6);
    let has_address = matches!(nat.target, NatTarget::Addresses(..) | NatTarget::Value(_));
    let Some(v6) = v6.or((!has_address).then_some(false)) else {
        return Err(Refusal::new(
            "in a table of family inet, a new address needs its family",
            "write `ip` or `ip6` before `to`: `dnat ip to 10.0.0.1`, `snat ip6 to 2001:db8::1`",
        ));
    };
    let wanted = if v6 { DataType::Address6 } else { DataType::Address4 };
    let mut maps_port = false;
    match &nat.target {
        NatTarget::Addresses(first, _) if first.is_ipv6() != v6 => {
            return Err(wrong_type(wanted, "an address of the other family"));
        }
        NatTarget::Value(value) => {
            let types = value_types(table, value);
            if let Some(found) = types.first()
                && *found != wanted
            {
                return Err(wrong_type(wanted, found.description()));
            }
            maps_port = types.len() > 1 && !names_protocol(value);
            context.expression(value)?;
        }
        _ => (),
    }
    if (nat.ports.is_some() || maps_port) && context.protocols.is_empty() {
        return Err(Refusal::new(
            "a port is changed, but the rule takes packets of every protocol, also of those without ports",
            "match the protocol before it: `tcp dport 80 …` or `meta l4proto { tcp, udp } …`",
        ));
    }
    match &nat.ports {
        Some(NatPorts::Value(value)) => context.expression(value),
        _ => Ok(()),
    }
}

/// Checks a tproxy statement of a rule whose earlier statements have given `context`.
pub(super) fn check_tproxy(table: &Table, context: &mut ProtocolContext, proxy: &TproxySpec) -> Result<(), Refusal> {
    match proxy.v6 {
        Some(v6) => context.require_family(v6)?,
        // As in nft: once the rule has told the family, the statement has to.
        None if table.family == TableFamily::Inet && context.v6.is_some() => {
            return Err(Refusal::new(
                "the rule has selected packets of one family, and tproxy does not say which",
                "write `tproxy ip to …` or `tproxy ip6 to …`",
            ));
        }
        None => (),
    }
    if context.protocols.is_empty() {
        return Err(Refusal::new(
            "tproxy looks for a socket of TCP or UDP, but the rule takes packets of every protocol",
            "match the protocol before it: `tcp dport 80 …` or `meta l4proto { tcp, udp } …`",
        ));
    }
    let found = match &proxy.target {
        NatTarget::Addresses(first, _) => Some(if first.is_ipv6() { DataType::Address6 } else { DataType::Address4 }),
        NatTarget::Value(value) => {
            context.expression(value)?;
            value_types(table, value).first().copied()
        }
        _ => None,
    };
    if let Some(found) = found {
        let Some(v6) = proxy.v6.or(context.v6) else {
            return Err(Refusal::new(
                "in a table of family inet, the proxy's address needs its family",
                "write `ip` or `ip6` before `to`: `tproxy ip to 127.0.0.1:50080`",
            ));
        };
        let wanted = if v6 { DataType::Address6 } else { DataType::Address4 };
        if found != wanted {
            return Err(wrong_type(wanted, found.description()));
        }
    }
    match &proxy.port {
        Some(NatPorts::Value(value)) => context.expression(value),
        _ => Ok(()),
    }
}

/// Is the value looked up by several fields, the protocol among them? What a protocol without ports finds then is what the map has for it.
fn names_protocol(value: &Expression) -> bool {
    let Expression::Map(key, _) = value else { return false };
    let is_protocol = |part: &Expression| {
        matches!(
            part,
            Expression::Select(
                Selector::Meta(MetaKey::L4Proto) | Selector::Ip(IpField::Protocol) | Selector::Ip6(IpField::Protocol)
            )
        )
    };
    key.len() > 1 && key.iter().any(is_protocol)
}

fn wrong_type(wanted: DataType, found: &str) -> Refusal {
    Refusal::new(
        format!("the new address has to be {}, not {found}", wanted.description()),
        "write `dnat ip …` or `snat ip …` for IPv4, `ip6` for IPv6, and values of that family",
    )
}

/// Types of the parts of a value; empty if a map is not known.
fn value_types(table: &Table, value: &Expression) -> Vec<DataType> {
    match value {
        Expression::Map(_, SetRef::Named(name, _)) => {
            let map = table.sets.iter().find(|set| set.name == *name);
            map.and_then(|map| map.data.clone()).unwrap_or_default()
        }
        Expression::Map(_, SetRef::Anonymous(map)) => {
            // The parser allows an address with or without a port.
            let with_port = map.elements.iter().any(
                |element| matches!(&element.data, Some(crate::ast::ElementData::Values(values)) if values.len() > 1),
            );
            let types = map.data.clone().unwrap_or_default();
            types.into_iter().take(if with_port { 2 } else { 1 }).collect()
        }
        other => vec![other.data_type()],
    }
}
