//! Statements and matches that are possible at some hooks only, in every chain that packets of another hook can reach by jumps.
#![allow(clippy::disallowed_types, reason = "the keys are names in a ruleset, not a peer's")]
use super::chain_graph::reachable_chains;
use super::refusal::{Refusal, place};
use crate::ast::{
    AssignTarget, BaseChainSpec, Chain, Expression, FibExpr, FibResult, Hook, MetaKey, NatTarget, RouteKey, Selector,
    SocketKey, Statement, Table, TableFamily, XfrmDirection,
};
use crate::diagnostic::Diagnostic;
use keepstate_engine::Manip;
use std::collections::{HashMap, HashSet};

/// Where something is possible.
struct Placement {
    what: &'static str,
    nat_only: bool,
    hooks: &'static [Hook],
    help: &'static str,
}

const RECEIVED: &[Hook] = &[Hook::Prerouting, Hook::Input, Hook::Forward];
const SENT: &[Hook] = &[Hook::Forward, Hook::Output, Hook::Postrouting];

const MASQUERADE: Placement = Placement {
    what: "masquerade",
    nat_only: true,
    hooks: &[Hook::Postrouting],
    help: "use a chain with `type nat hook postrouting priority srcnat;`",
};
const SNAT: Placement = Placement {
    what: "snat",
    nat_only: true,
    hooks: &[Hook::Postrouting, Hook::Input],
    help: "use a chain with `type nat hook postrouting priority srcnat;`",
};
const DNAT: Placement = Placement {
    what: "dnat",
    nat_only: true,
    hooks: &[Hook::Prerouting, Hook::Output],
    help: "use a chain with `type nat hook prerouting priority dstnat;`",
};
const REDIRECT: Placement = Placement { what: "redirect", ..DNAT };
const REJECT: Placement = Placement {
    what: "reject",
    nat_only: false,
    hooks: &[Hook::Ingress, Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output],
    help: "reject at hook input, forward or output; use `drop` here",
};
const ROUTE_MTU: Placement = Placement {
    what: "`rt mtu`",
    nat_only: false,
    hooks: SENT,
    help: "use a chain at hook forward, output or postrouting, where the route is known",
};
const FIB_RECEIVED: Placement = Placement {
    what: "a fib lookup by or of the input interface",
    nat_only: false,
    hooks: RECEIVED,
    help: "use a chain at hook prerouting, input or forward",
};
const FIB_SENT: Placement = Placement {
    what: "a fib lookup by the output interface",
    nat_only: false,
    hooks: SENT,
    help: "use a chain at hook forward, output or postrouting",
};
const IPSEC: Placement = Placement {
    what: "meta ipsec",
    nat_only: false,
    hooks: RECEIVED,
    help: "use a chain at hook prerouting, input or forward",
};

const XFRM_IN: Placement = Placement { what: "`ipsec in`", ..IPSEC };
const XFRM_OUT: Placement = Placement {
    what: "`ipsec out`",
    nat_only: false,
    hooks: SENT,
    help: "use a chain at hook forward, output or postrouting",
};
const PACKET_TYPE: Placement = Placement {
    what: "`meta pkttype set`",
    nat_only: false,
    hooks: &[Hook::Prerouting],
    help: "use a chain at hook prerouting",
};

const TPROXY: Placement = Placement {
    what: "tproxy",
    nat_only: false,
    hooks: &[Hook::Prerouting],
    help: "use a chain with `type filter hook prerouting priority mangle;`",
};

const SDIF: Placement = Placement {
    what: "meta sdif",
    nat_only: false,
    hooks: &[Hook::Input, Hook::Forward],
    help: "use a chain at hook input or forward",
};

const SOCKET: Placement = Placement {
    what: "a match of the socket",
    nat_only: false,
    hooks: &[Hook::Prerouting, Hook::Input, Hook::Output],
    help: "use a chain at hook prerouting, input or output",
};

const OS_FINGERPRINT: Placement = Placement { what: "osf", ..IPSEC };
const OS_FINGERPRINT_6: Placement = Placement {
    what: "osf, which knows IPv4 alone,",
    nat_only: false,
    hooks: &[],
    help: "use a table of family ip or inet",
};

/// Checks all rules of a table against the hooks from which they can be reached.
pub(super) fn check_hooks(table: &Table) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut refused = HashSet::new();
    let chains: HashMap<&str, usize> =
        table.chains.iter().enumerate().map(|(at, chain)| (chain.name.as_str(), at)).collect();
    for (name, base) in table.chains.iter().filter_map(|chain| Some((&chain.name, chain.base?))) {
        for reached in reachable_chains(table, |chain| chain.name == *name) {
            let Some((at, chain)) = chains.get(reached).and_then(|at| Some((*at, table.chains.get(*at)?))) else {
                continue;
            };
            for (rule_at, rule) in chain.all_rules().enumerate() {
                let statements = rule.statements.iter().enumerate();
                let first = statements
                    .filter_map(|(at, statement)| Some((at, misplaced(statement, &base, table.family)?)))
                    .next();
                if let Some((statement, placement)) = first
                    && refused.insert((at, rule_at))
                {
                    found.push(refusal(placement, name, &base).at(place(rule, statement)));
                }
            }
        }
    }
    found.extend(table.chains.iter().flat_map(Chain::all_rules).filter_map(|rule| {
        let mut statements = rule.statements.iter();
        let at = statements.position(|statement| selectors(statement).into_iter().any(impossible_fib))?;
        let what = "the output interface cannot be both given and asked for";
        Some(Diagnostic::new(place(rule, at), what).with_help("write `fib saddr . iif oif`, or `fib saddr . oif type`"))
    }));
    found
}

fn refusal(placement: &Placement, chain: &str, base: &BaseChainSpec) -> Refusal {
    let hooks: Vec<String> = placement.hooks.iter().map(Hook::to_string).collect();
    let kind = if placement.nat_only { "chains of type nat at " } else { "" };
    if placement.hooks.is_empty() {
        return Refusal::new(format!("{} is not possible in this table", placement.what), placement.help);
    }
    let message = format!(
        "{} is possible at {kind}hook {} only; base chain {chain} is at hook {}",
        placement.what,
        hooks.join(", "),
        base.hook
    );
    Refusal::new(message, placement.help)
}

/// The first thing in a statement that is not possible for packets of this base chain.
fn misplaced(statement: &Statement, base: &BaseChainSpec, family: TableFamily) -> Option<&'static Placement> {
    let of_statement = match statement {
        Statement::Nat(nat) => Some(match (&nat.target, nat.manip) {
            (NatTarget::Masquerade, _) => &MASQUERADE,
            (NatTarget::Redirect, _) => &REDIRECT,
            (_, Manip::Source) => &SNAT,
            (_, Manip::Destination) => &DNAT,
        }),
        Statement::Reject(_) => Some(&REJECT),
        Statement::Tproxy(_) => Some(&TPROXY),
        // A constant 0 stands for the route's MTU.
        Statement::Assign(AssignTarget::TcpMss, Expression::Constant(0, _)) => Some(&ROUTE_MTU),
        _ => None,
    };
    let of_statement = match statement {
        Statement::Assign(AssignTarget::PacketType, _) => Some(&PACKET_TYPE),
        _ => of_statement,
    };
    let of_selectors = selectors(statement).into_iter().filter_map(|selector| match selector {
        Selector::Fib(FibExpr { result: FibResult::Oif | FibResult::OifName, .. }) => Some(&FIB_RECEIVED),
        Selector::Fib(FibExpr { iif: true, .. }) => Some(&FIB_RECEIVED),
        Selector::Fib(FibExpr { oif: true, .. }) => Some(&FIB_SENT),
        Selector::OsFingerprint(_) if family == TableFamily::Ip6 => Some(&OS_FINGERPRINT_6),
        Selector::OsFingerprint(_) => Some(&OS_FINGERPRINT),
        Selector::Meta(MetaKey::Ipsec) => Some(&IPSEC),
        Selector::Xfrm(_, XfrmDirection::In, _) => Some(&XFRM_IN),
        Selector::Xfrm(_, XfrmDirection::Out, _) => Some(&XFRM_OUT),
        Selector::Route(RouteKey::Mss) => Some(&ROUTE_MTU),
        Selector::Meta(MetaKey::Sdif | MetaKey::SdifName) => Some(&SDIF),
        Selector::Socket(SocketKey::Transparent | SocketKey::Wildcard | SocketKey::Mark | SocketKey::CgroupV2) => {
            Some(&SOCKET)
        }
        _ => None,
    });
    let mut all = of_statement.into_iter().chain(of_selectors);
    all.find(|placement| placement.nat_only && !base.nat || !placement.hooks.contains(&base.hook))
}

fn impossible_fib(selector: Selector) -> bool {
    matches!(selector, Selector::Fib(FibExpr { oif: true, result: FibResult::Oif | FibResult::OifName, .. }))
}

/// All selectors that a statement reads.
fn selectors(statement: &Statement) -> Vec<Selector> {
    fn collect(value: &Expression, found: &mut Vec<Selector>) {
        match value {
            Expression::Select(selector) => found.push(*selector),
            Expression::Bitwise(of, ..) | Expression::Shift(of, _) => collect(of, found),
            Expression::Combine(_, left, right) => {
                collect(left, found);
                collect(right, found);
            }
            Expression::Map(of, _) | Expression::Hash { of, .. } => of.iter().for_each(|value| collect(value, found)),
            _ => (),
        }
    }
    let mut found = Vec::new();
    match statement {
        Statement::Match(one) => one.left.iter().for_each(|value| collect(value, &mut found)),
        Statement::Vmap(key, _) | Statement::ObjectMap(_, key, _) => {
            key.iter().for_each(|value| collect(value, &mut found));
        }
        Statement::Assign(_, value) => collect(value, &mut found),
        Statement::Dynset(change) => {
            change.key.iter().chain(&change.data).for_each(|value| collect(value, &mut found));
        }
        _ => (),
    }
    found
}
