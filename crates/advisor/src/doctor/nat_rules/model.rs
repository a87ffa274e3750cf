//! A ruleset as far as a connection's destination depends on it: chains, rules, tests on the tuple. Made by the readers, then only evaluated.
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The tables of a namespace that may translate destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTables(pub(super) Vec<NatTable>);

/// One table: chains jump within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NatTable {
    /// Which packets see it; `None` for both families.
    pub(super) is_ipv6: Option<bool>,
    /// iptables' tables as nft lists them are left to `iptables-save`, which prints more of them.
    pub(super) is_of_iptables: bool,
    pub(super) chains: BTreeMap<String, NatChain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NatChain {
    /// For a base chain of type nat: its hook, and its priority.
    pub(super) base: Option<(NatHook, i64)>,
    pub(super) rules: Vec<NatRule>,
}

/// The hooks where a destination is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NatHook {
    Prerouting,
    Output,
}

/// If all tests hold, the first branch whose tests hold decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NatRule {
    pub(super) text: String,
    pub(super) tests: Vec<NatTest>,
    pub(super) branches: Vec<NatBranch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatBranch {
    pub(super) tests: Vec<NatTest>,
    pub(super) action: NatAction,
}

/// A condition on the tuple, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatTest {
    pub(super) field: NatField,
    pub(super) is_negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NatField {
    Protocol(Vec<u8>),
    Address(TupleEnd, Vec<(IpAddr, IpAddr)>),
    Port(TupleEnd, Vec<(u16, u16)>),
    /// The address is one of this machine.
    LocalAddress(TupleEnd),
    /// The packet comes in by one of these; `*` or `+` at the end of a name stands for anything.
    Interface(Vec<String>),
    IsIpv6(bool),
    Always,
    /// Not understood, or not known of a tuple.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TupleEnd {
    Source,
    Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NatAction {
    /// The base chain ends without a translation.
    End,
    Return,
    Jump(String),
    Goto(String),
    Translate(DnatTarget),
    /// It may do anything.
    Unknown,
}

/// Where a rule sends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnatTarget {
    pub(super) address: DnatAddress,
    pub(super) ports: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnatAddress {
    /// Not known.
    Any,
    /// One of this machine: `redirect`.
    Local,
    /// Only the port changes.
    Unchanged,
    Range(IpAddr, IpAddr),
}

impl NatTables {
    /// Is there a rule that translates destinations?
    pub fn translates(&self) -> bool {
        let mut rules = self.0.iter().flat_map(|table| table.chains.values()).flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.branches.iter().any(|branch| matches!(branch.action, NatAction::Translate(_))))
    }
}

impl NatTest {
    pub(super) fn is(field: NatField) -> NatTest {
        NatTest { field, is_negated: false }
    }

    pub(super) const UNKNOWN: NatTest = NatTest { field: NatField::Unknown, is_negated: false };
}

/// The number of a protocol, by its name or number.
pub(super) fn protocol_number(word: &str) -> Option<u8> {
    match word {
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        "ipv6-icmp" | "icmpv6" => Some(58),
        "sctp" => Some(132),
        "dccp" => Some(33),
        "udplite" => Some(136),
        "gre" => Some(47),
        other => other.parse().ok(),
    }
}

/// `10.0.0.1`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.0.0.1-10.0.0.9`.
pub(super) fn address_range(word: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((low, high)) = word.split_once('-') {
        return Some((low.parse().ok()?, high.parse().ok()?));
    }
    let Some((address, mask)) = word.split_once('/') else {
        return word.parse().ok().map(|address| (address, address));
    };
    match address.parse().ok()? {
        IpAddr::V4(address) => {
            let bits = match mask.parse::<u32>() {
                Ok(length) => u32::MAX.checked_shl(32_u32.checked_sub(length)?).unwrap_or(0),
                Err(_) => u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?),
            };
            let low = u32::from(address) & bits;
            Some((IpAddr::V4(low.into()), IpAddr::V4((low | !bits).into())))
        }
        IpAddr::V6(address) => {
            let bits = u128::MAX.checked_shl(128_u32.checked_sub(mask.parse().ok()?)?).unwrap_or(0);
            let low = u128::from(address) & bits;
            Some((IpAddr::V6(low.into()), IpAddr::V6((low | !bits).into())))
        }
    }
}

/// `80`, or `80:90` and `80-90` with their separator.
pub(super) fn port_range(word: &str, separator: char) -> Option<(u16, u16)> {
    let (low, high) = word.split_once(separator).unwrap_or((word, word));
    let low = if low.is_empty() { 0 } else { low.parse().ok()? };
    Some((low, if high.is_empty() { u16::MAX } else { high.parse().ok()? }))
}

/// `10.0.0.2:53`, `10.0.0.2`, `[fd00::2]:53-60`, `fd00::2`, `:53`, `10.0.0.1-10.0.0.4:80`.
pub(super) fn dnat_target(word: &str) -> DnatTarget {
    let any = DnatTarget { address: DnatAddress::Any, ports: None };
    let range = |text: &str| {
        let text: String = text.chars().filter(|letter| !matches!(letter, '[' | ']')).collect();
        address_range(&text).map(|(low, high)| DnatAddress::Range(low, high))
    };
    if let Some(address) = range(word).filter(|_| !word.contains(']')) {
        return DnatTarget { address, ports: None };
    }
    let Some((address, ports)) = word.rsplit_once(':').filter(|(address, _)| !address.ends_with(':')) else {
        return range(word).map_or(any, |address| DnatTarget { address, ports: None });
    };
    let address = if address.is_empty() { Some(DnatAddress::Unchanged) } else { range(address) };
    // What is behind a slash shifts the range.
    let ports = ports.split('/').next().and_then(|ports| port_range(ports, '-'));
    match (address, ports) {
        (Some(address), Some(ports)) => DnatTarget { address, ports: Some(ports) },
        _ => any,
    }
}
