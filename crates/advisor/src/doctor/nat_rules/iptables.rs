//! The nat table as `iptables-save` and `ip6tables-save` print it.
use super::model::{
    DnatAddress, DnatTarget, NatAction, NatBranch, NatChain, NatField, NatHook, NatRule, NatTable, NatTest, TupleEnd,
    address_range, dnat_target, port_range, protocol_number,
};

/// The nat table, if it is there.
pub(super) fn read(saved: &str, is_ipv6: bool) -> Option<NatTable> {
    let mut table = NatTable { is_ipv6: Some(is_ipv6), is_of_iptables: true, ..NatTable::default() };
    let mut is_nat = false;
    let mut was_there = false;
    for line in saved.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            is_nat = name == "nat";
            was_there |= is_nat;
        } else if let Some(chain) = line.strip_prefix(':').filter(|_| is_nat) {
            let name = chain.split_whitespace().next().unwrap_or_default();
            let base = match name {
                "PREROUTING" => Some((NatHook::Prerouting, -100)),
                "OUTPUT" => Some((NatHook::Output, -100)),
                _ => None,
            };
            table.chains.insert(name.to_owned(), NatChain { base, rules: Vec::new() });
        } else if is_nat {
            let rule = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, rule)| rule);
            let words = super::words::words_by_spaces(rule);
            let ["-A", name, options @ ..] = words.as_slice() else { continue };
            if let Some(chain) = table.chains.get_mut(*name) {
                chain.rules.push(read_rule(rule, options));
            }
        }
    }
    was_there.then_some(table)
}

/// Options that never decide anything, with the number of words behind them.
const IDLE_OPTIONS: [(&str, usize); 3] = [("--comment", 1), ("--set-counters", 2), ("-c", 2)];

fn read_rule(text: &str, options: &[&str]) -> NatRule {
    let mut rule = NatRule { text: text.to_owned(), ..NatRule::default() };
    let mut action = None;
    let mut is_negated = false;
    let mut rest = options.iter().copied().peekable();
    while let Some(option) = rest.next() {
        if option == "!" {
            is_negated = true;
            continue;
        }
        if let Some((_, words)) = IDLE_OPTIONS.iter().find(|(idle, _)| *idle == option) {
            for _ in 0..*words {
                rest.next();
            }
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = rest.next_if(|next| *next != "!" && !is_option(next)) {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        match option {
            "-j" | "--jump" => action = target(value),
            "-g" | "--goto" => action = Some(NatAction::Goto(value.to_owned())),
            "--to-ports" if !matches!(action, Some(NatAction::Translate(_))) => (),
            "--to-destination" => action = Some(NatAction::Translate(dnat_target(value))),
            "--to-ports" => {
                let ports = port_range(value, '-');
                action = Some(NatAction::Translate(DnatTarget { address: DnatAddress::Local, ports }));
            }
            // Behind its target stand the target's own options.
            _ if action.is_some() => (),
            "-m" | "--match" => rule.tests.extend(module(value)),
            _ => rule.tests.push(NatTest { field: field(option, &values), is_negated }),
        }
        is_negated = false;
    }
    rule.branches.extend(action.map(|action| NatBranch { tests: Vec::new(), action }));
    rule
}

fn is_option(word: &str) -> bool {
    let rest = word.strip_prefix('-');
    rest.is_some_and(|rest| rest.starts_with(|first: char| first == '-' || first.is_ascii_alphabetic()))
}

/// A match whose options are understood asks nothing by itself.
fn module(name: &str) -> Option<NatTest> {
    let known = ["tcp", "udp", "sctp", "multiport", "comment", "addrtype", "iprange", "state", "conntrack"];
    (!known.contains(&name)).then_some(NatTest::UNKNOWN)
}

fn field(option: &str, values: &[&str]) -> NatField {
    let value = values.first().copied().unwrap_or_default();
    let addresses = |end| {
        let ranges: Option<Vec<_>> = value.split(',').map(address_range).collect();
        ranges.map(|ranges| NatField::Address(end, ranges))
    };
    let ports = |end| {
        let ranges: Option<Vec<_>> = value.split(',').map(|range| port_range(range, ':')).collect();
        ranges.map(|ranges| NatField::Port(end, ranges))
    };
    let known = match option {
        "-p" | "--protocol" => protocol_number(value).map(|number| NatField::Protocol(vec![number])),
        "-s" | "--source" | "--src-range" => addresses(TupleEnd::Source),
        "-d" | "--destination" | "--dst-range" => addresses(TupleEnd::Destination),
        "--sport" | "--source-port" | "--sports" => ports(TupleEnd::Source),
        "--dport" | "--destination-port" | "--dports" => ports(TupleEnd::Destination),
        "--dst-type" if value == "LOCAL" => Some(NatField::LocalAddress(TupleEnd::Destination)),
        "--src-type" if value == "LOCAL" => Some(NatField::LocalAddress(TupleEnd::Source)),
        "-i" | "--in-interface" => Some(NatField::Interface(vec![value.to_owned()])),
        // The nat table sees the first packet of a connection only.
        "--ctstate" | "--state" if value == "NEW" => Some(NatField::Always),
        _ => None,
    };
    known.unwrap_or(NatField::Unknown)
}

/// What a target does; none for one that goes on with the next rule.
fn target(name: &str) -> Option<NatAction> {
    match name {
        "DNAT" | "NETMAP" => Some(NatAction::Translate(DnatTarget { address: DnatAddress::Any, ports: None })),
        "REDIRECT" => Some(NatAction::Translate(DnatTarget { address: DnatAddress::Local, ports: None })),
        "RETURN" => Some(NatAction::Return),
        "ACCEPT" | "DROP" | "SNAT" | "MASQUERADE" => Some(NatAction::End),
        "MARK" | "CONNMARK" | "LOG" | "NFLOG" | "TRACE" | "SET" | "AUDIT" => None,
        chain => Some(NatAction::Jump(chain.to_owned())),
    }
}
