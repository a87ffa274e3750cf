//! Walks the nat chains for one tuple, and follows both ways where a test may hold or not.
use super::model::{
    DnatAddress, DnatTarget, NatAction, NatField, NatHook, NatRule, NatTable, NatTables, NatTest, TupleEnd,
};
use std::net::{IpAddr, SocketAddr};

/// The first packet of a connection, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct NatCandidate<'a> {
    /// Number of the layer 4 protocol.
    pub protocol: u8,
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
    /// The addresses of this machine; empty if they are not known.
    pub local: &'a [IpAddr],
    /// The interface by which it comes in, if that is known.
    pub interface: Option<&'a str>,
}

/// What the rules make of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnatOutcome<'a> {
    /// Where it may be sent, and the rule that does it.
    pub targets: Vec<(&'a str, DnatTarget)>,
    /// May it go where it was addressed to?
    pub may_pass: bool,
}

/// Rules looked at for one connection; more than any real ruleset needs.
const MAX_STEPS: u32 = 100_000;

/// Chains within chains; nftables allows 16.
const MAX_DEPTH: u32 = 64;

impl NatTables {
    /// What happens to a new connection.
    pub fn evaluate(&self, new: &NatCandidate<'_>) -> DnatOutcome<'_> {
        let is_own = new.local.contains(&new.source.ip()) || new.source.ip().is_loopback();
        let hooks: &[NatHook] = match (is_own, new.local.is_empty()) {
            (true, _) => &[NatHook::Output],
            (false, false) => &[NatHook::Prerouting],
            (false, true) => &[NatHook::Prerouting, NatHook::Output],
        };
        let mut outcome = DnatOutcome::default();
        for hook in hooks {
            self.evaluate_hook(*hook, new, &mut outcome);
        }
        outcome
    }

    /// Each base chain in turn, until one translates.
    fn evaluate_hook<'a>(&'a self, hook: NatHook, new: &NatCandidate<'_>, outcome: &mut DnatOutcome<'a>) {
        let mut bases: Vec<(i64, &NatTable, &str)> = Vec::new();
        for table in self.0.iter().filter(|table| table.is_ipv6.is_none_or(|six| six == new.destination.is_ipv6())) {
            let chains = table.chains.iter().filter_map(|(name, chain)| Some((name, chain.base?)));
            bases.extend(chains.filter(|(_, base)| base.0 == hook).map(|(name, base)| (base.1, table, name.as_str())));
        }
        bases.sort_by_key(|(priority, _, _)| *priority);
        for (_, table, name) in bases {
            let mut walk = Walk { table, new, steps: 0, targets: Vec::new(), may_end: false };
            let may_fall = walk.chain(name, 0);
            outcome.targets.append(&mut walk.targets);
            if !may_fall && !walk.may_end {
                return;
            }
        }
        outcome.may_pass = true;
    }
}

impl DnatTarget {
    /// May a connection to `original` that this translates be answered by `reply`?
    pub fn fits(&self, original: SocketAddr, reply: SocketAddr, local: &[IpAddr]) -> bool {
        let address = match self.address {
            DnatAddress::Any => true,
            DnatAddress::Local => local.is_empty() || local.contains(&reply.ip()) || reply.ip().is_loopback(),
            DnatAddress::Unchanged => reply.ip() == original.ip(),
            DnatAddress::Range(low, high) => (low..=high).contains(&reply.ip()),
        };
        let is_port = match self.ports {
            Some((low, high)) => (low..=high).contains(&reply.port()),
            None => matches!(self.address, DnatAddress::Any | DnatAddress::Local) || reply.port() == original.port(),
        };
        address && is_port
    }
}

/// Does a test hold? `None` if that is not known.
type Truth = Option<bool>;

/// Where a packet may be after a rule, if it was not decided about.
#[derive(Clone, Copy, Debug)]
struct AfterRule {
    /// At the next rule of the chain.
    may_go_on: bool,
    /// Back in the chain that jumped here.
    may_return: bool,
}

struct Walk<'a, 'n> {
    table: &'a NatTable,
    new: &'n NatCandidate<'n>,
    steps: u32,
    targets: Vec<(&'a str, DnatTarget)>,
    /// May the base chain end without a translation?
    may_end: bool,
}

impl<'a> Walk<'a, '_> {
    /// Walks a chain; may it come back to where it was called from?
    fn chain(&mut self, name: &str, depth: u32) -> bool {
        let Some(chain) = self.table.chains.get(name).filter(|_| depth < MAX_DEPTH) else {
            self.give_up();
            return true;
        };
        let mut may_return = false;
        for rule in &chain.rules {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                self.give_up();
                return true;
            }
            let after = self.rule(rule, depth);
            may_return |= after.may_return;
            if !after.may_go_on {
                return may_return;
            }
        }
        true
    }

    fn rule(&mut self, rule: &'a NatRule, depth: u32) -> AfterRule {
        let holds = self.all(&rule.tests);
        let mut after = AfterRule { may_go_on: holds.is_none(), may_return: false };
        for branch in rule.branches.iter().filter(|_| holds != Some(false)) {
            self.steps += 1;
            let taken = self.all(&branch.tests);
            if taken == Some(false) {
                continue;
            }
            match &branch.action {
                NatAction::End => self.may_end = true,
                NatAction::Return => after.may_return = true,
                NatAction::Jump(chain) => after.may_go_on |= self.chain(chain, depth + 1),
                NatAction::Goto(chain) => after.may_return |= self.chain(chain, depth + 1),
                NatAction::Translate(target) => self.targets.push((&rule.text, *target)),
                NatAction::Unknown => self.give_up(),
            }
            if taken == Some(true) {
                return after;
            }
        }
        // No branch is certain: the next rule may be reached.
        AfterRule { may_go_on: true, ..after }
    }

    /// Anything may happen.
    fn give_up(&mut self) {
        self.targets.push(("", DnatTarget { address: DnatAddress::Any, ports: None }));
        self.may_end = true;
    }

    fn all(&self, tests: &[NatTest]) -> Truth {
        let mut is_known = true;
        for test in tests {
            match self.holds(&test.field, test.is_negated) {
                Some(holds) if holds == test.is_negated => return Some(false),
                Some(_) => (),
                None => is_known = false,
            }
        }
        is_known.then_some(true)
    }

    fn holds(&self, field: &NatField, is_negated: bool) -> Truth {
        let end = |end| match end {
            TupleEnd::Source => self.new.source,
            TupleEnd::Destination => self.new.destination,
        };
        let in_any = |ranges: &[(IpAddr, IpAddr)], address: IpAddr| {
            ranges.iter().any(|(low, high)| low.is_ipv4() == address.is_ipv4() && (*low..=*high).contains(&address))
        };
        match field {
            NatField::Protocol(numbers) => Some(numbers.contains(&self.new.protocol)),
            NatField::Address(side, ranges) => Some(in_any(ranges, end(*side).ip())),
            NatField::Port(side, ranges) => {
                Some(ranges.iter().any(|(low, high)| (*low..=*high).contains(&end(*side).port())))
            }
            NatField::LocalAddress(side) => {
                let address = end(*side).ip();
                let is_known = !self.new.local.is_empty() || address.is_loopback();
                is_known.then(|| address.is_loopback() || self.new.local.contains(&address))
            }
            NatField::Interface(names) => match self.new.interface {
                Some(interface) => Some(names.iter().any(|name| is_interface(name, interface))),
                // `! -i docker0` of Docker: it comes from elsewhere, or would not be translated.
                None => is_negated.then_some(false),
            },
            NatField::IsIpv6(is_ipv6) => Some(self.new.destination.is_ipv6() == *is_ipv6),
            NatField::Always => Some(true),
            NatField::Unknown => None,
        }
    }
}

/// Is this the interface? `eth+` and `eth*` name all that begin so.
fn is_interface(name: &str, interface: &str) -> bool {
    match name.strip_suffix(['*', '+']) {
        Some(start) => interface.starts_with(start),
        None => name == interface,
    }
}
