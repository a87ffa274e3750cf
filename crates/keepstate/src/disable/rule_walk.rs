//! The possible verdicts of a ruleset for a packet of which only protocol, one port and the tracking state are known.
//!
//! A [`ChainWalk`] goes through one base chain as the kernel would. If a condition may or may not hold, both cases are followed: the
//! result is every possible verdict, and every rule the packet may match. It changes nothing and is used once.
use super::service::{PortProtocol, ServicePort};
use keepstate_linux::ct_users::listed_ruleset::{
    ListedChain, ListedRule, ListedTable, ListedVerdict, PortSide, RuleMatch,
};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// A packet to or from a service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkPacket {
    /// The service.
    pub service: ServicePort,
    /// Its direction.
    pub direction: PacketDirection,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PacketDirection {
    /// The service's port is its destination.
    ToService,
    /// The service's port is its source.
    FromService,
}

/// The assumed tracking state of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssumedCtState {
    /// The first packet of a connection.
    New,
    /// A later packet.
    Established,
    /// It is not tracked.
    Untracked,
}

/// The possible verdicts for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PossibleVerdicts {
    /// It may be accepted.
    pub accept: bool,
    /// It may be dropped.
    pub drop: bool,
    /// It may go to an unknown target.
    pub unknown: bool,
    /// It may reach the end of the chain without a verdict.
    falls_through: bool,
}

/// A rule that a packet may match.
#[derive(Clone, Copy, Debug)]
pub struct MatchedRule<'a> {
    /// The chain it is in.
    pub chain: &'a ListedChain,
    /// The rule.
    pub rule: &'a ListedRule,
    /// It may accept the packet.
    pub accepts: bool,
    /// It may drop the packet.
    pub drops: bool,
}

/// The evaluation of one packet in one base chain.
pub struct ChainWalk<'a> {
    table: &'a ListedTable,
    packet: WalkPacket,
    ct_state: AssumedCtState,
    chain_verdicts: HashMap<&'a str, PossibleVerdicts>,
    matched: Vec<MatchedRule<'a>>,
}

/// Does a condition hold?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MatchCertainty {
    No,
    Maybe,
    Yes,
}

impl<'a> ChainWalk<'a> {
    /// Walks a chain of `table`; its policy applies if no rule decides.
    pub fn run(
        table: &'a ListedTable,
        chain: &'a ListedChain,
        packet: WalkPacket,
        seen: AssumedCtState,
    ) -> (PossibleVerdicts, Vec<MatchedRule<'a>>) {
        let mut walk = ChainWalk { table, packet, ct_state: seen, chain_verdicts: HashMap::new(), matched: Vec::new() };
        let mut verdicts = walk.walk_chain(chain);
        if verdicts.falls_through {
            let accepts = chain.base.as_ref().is_none_or(|base| base.policy_accept);
            verdicts.accept |= accepts;
            verdicts.drop |= !accepts;
        }
        (verdicts, walk.matched)
    }

    fn walk_chain_named(&mut self, name: &str) -> PossibleVerdicts {
        if let Some(verdicts) = self.chain_verdicts.get(name) {
            return *verdicts;
        }
        match self.table.chains.iter().find(|chain| chain.name == name) {
            // The kernel allows no loops; a listing with one must not make this endless.
            Some(chain) => {
                self.chain_verdicts.insert(&chain.name, PossibleVerdicts::default());
                let verdicts = self.walk_chain(chain);
                self.chain_verdicts.insert(&chain.name, verdicts);
                verdicts
            }
            // A target that is no chain: an extension.
            None => PossibleVerdicts { unknown: true, falls_through: true, ..PossibleVerdicts::default() },
        }
    }

    fn walk_chain(&mut self, chain: &'a ListedChain) -> PossibleVerdicts {
        let mut all = PossibleVerdicts::default();
        for rule in &chain.rules {
            let holds = self.eval_tests(&rule.matches);
            if holds == MatchCertainty::No {
                continue;
            }
            let (decided, continues) = self.eval_rule(chain, rule, holds);
            all = all.union(decided);
            if !continues {
                return all;
            }
        }
        PossibleVerdicts { falls_through: true, ..all }
    }

    /// The verdicts of a rule whose conditions may hold, and whether the next rule may be reached.
    fn eval_rule(
        &mut self,
        chain: &'a ListedChain,
        rule: &'a ListedRule,
        holds: MatchCertainty,
    ) -> (PossibleVerdicts, bool) {
        let at = self.matched.len();
        self.matched.push(MatchedRule { chain, rule, accepts: false, drops: false });
        let mut all = PossibleVerdicts::default();
        let mut continues = true;
        for branch in &rule.branches {
            let holds = branch.condition.as_ref().map_or(holds, |test| holds.min(self.eval_test(test)));
            if holds == MatchCertainty::No {
                continue;
            }
            let returns;
            let verdicts = match &branch.verdict {
                ListedVerdict::Jump(name) => {
                    let verdicts = self.walk_chain_named(name);
                    returns = verdicts.falls_through;
                    PossibleVerdicts { falls_through: false, ..verdicts }
                }
                decided => {
                    returns = false;
                    match decided {
                        ListedVerdict::Accept => PossibleVerdicts { accept: true, ..PossibleVerdicts::default() },
                        ListedVerdict::Drop => PossibleVerdicts { drop: true, ..PossibleVerdicts::default() },
                        ListedVerdict::Goto(name) => self.walk_chain_named(name),
                        ListedVerdict::Return => {
                            PossibleVerdicts { falls_through: true, ..PossibleVerdicts::default() }
                        }
                        _ => PossibleVerdicts { unknown: true, ..PossibleVerdicts::default() },
                    }
                }
            };
            all = all.union(verdicts);
            if holds == MatchCertainty::Yes {
                continues = returns;
                break;
            }
        }
        if let Some(met) = self.matched.get_mut(at) {
            (met.accepts, met.drops) = (all.accept, all.drop);
        }
        (all, continues)
    }

    fn eval_tests(&self, tests: &[RuleMatch]) -> MatchCertainty {
        tests.iter().map(|test| self.eval_test(test)).min().unwrap_or(MatchCertainty::Yes)
    }

    fn eval_test(&self, test: &RuleMatch) -> MatchCertainty {
        let WalkPacket { service, direction: way } = self.packet;
        match test {
            RuleMatch::Protocol { names, not } => {
                let listed = names.iter().any(|name| name == service.protocol.name());
                MatchCertainty::from(listed != *not)
            }
            RuleMatch::Port { side: end, ports, not } => {
                let listed = contains_port(ports, service.port);
                let is_ours = matches!(
                    (end, way),
                    (PortSide::Destination, PacketDirection::ToService)
                        | (PortSide::Source, PacketDirection::FromService)
                );
                match (is_ours || *end == PortSide::Any && listed, is_narrow_range(ports) && !listed) {
                    (true, _) => MatchCertainty::from(listed != *not),
                    // The other port is an ephemeral one, not one of a few named by a rule.
                    (false, true) => MatchCertainty::from(*not),
                    (false, false) => MatchCertainty::Maybe,
                }
            }
            RuleMatch::CtState { states, not } => {
                let state = match self.ct_state {
                    AssumedCtState::New => "new",
                    AssumedCtState::Established => "established",
                    AssumedCtState::Untracked => "untracked",
                };
                MatchCertainty::from(states.iter().any(|listed| listed == state) != *not)
            }
            // A server's packets never open a connection.
            RuleMatch::NotSyn if way == PacketDirection::FromService && service.protocol == PortProtocol::Tcp => {
                MatchCertainty::Yes
            }
            RuleMatch::CtField if self.ct_state == AssumedCtState::Untracked => MatchCertainty::No,
            RuleMatch::NotSyn | RuleMatch::CtField | RuleMatch::Unknown => MatchCertainty::Maybe,
        }
    }
}

/// Are these so few ports that an ephemeral port is hardly one of them?
fn is_narrow_range(ports: &[RangeInclusive<u16>]) -> bool {
    ports.iter().map(|range| usize::from(*range.end()).saturating_sub(usize::from(*range.start())) + 1).sum::<usize>()
        < 1024
}

/// Is the port in one of the ranges?
pub fn contains_port(ports: &[RangeInclusive<u16>], port: u16) -> bool {
    ports.iter().any(|range| range.contains(&port))
}

impl PossibleVerdicts {
    fn union(self, other: PossibleVerdicts) -> PossibleVerdicts {
        PossibleVerdicts {
            accept: self.accept || other.accept,
            drop: self.drop || other.drop,
            unknown: self.unknown || other.unknown,
            falls_through: self.falls_through || other.falls_through,
        }
    }
}

impl From<bool> for MatchCertainty {
    fn from(holds: bool) -> MatchCertainty {
        if holds { MatchCertainty::Yes } else { MatchCertainty::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::ct_users::{iptables, listed_ruleset::RulesetFormat};

    /// The verdicts for an untracked, a new and an established packet: `a`ccept, `d`rop, `e` unknown.
    fn verdicts(rules: &str, way: PacketDirection) -> String {
        let saved = format!("*filter\n:INPUT DROP [0:0]\n:A - [0:0]\n:B - [0:0]\n{rules}\nCOMMIT\n");
        let tables = iptables::parse(&saved, RulesetFormat::IptablesLegacy, "ip").unwrap();
        let packet = WalkPacket { service: "tcp/1883".parse().unwrap(), direction: way };
        let letters_of = |seen| {
            let (verdicts, _) = ChainWalk::run(&tables[0], &tables[0].chains[0], packet, seen);
            let letters = [(verdicts.accept, "a"), (verdicts.drop, "d"), (verdicts.unknown, "e")];
            letters.iter().filter(|(may, _)| *may).map(|(_, letter)| *letter).collect::<String>()
        };
        [AssumedCtState::Untracked, AssumedCtState::New, AssumedCtState::Established].map(letters_of).join(" ")
    }

    #[test]
    fn verdicts_depend_on_ct_state() {
        assert_eq!(verdicts("", PacketDirection::ToService), "d d d");
        assert_eq!(verdicts("-A INPUT -m state --state ESTABLISHED -j ACCEPT", PacketDirection::ToService), "d d a");
        assert_eq!(verdicts("-A INPUT -p tcp --dport 1883 -j ACCEPT", PacketDirection::ToService), "a a a");
        assert_eq!(
            verdicts("-A INPUT -p tcp --dport 1883 -j ACCEPT", PacketDirection::FromService),
            "ad ad ad",
            "brokers talk among themselves"
        );
        assert_eq!(verdicts("-A INPUT -p tcp --dport 22 -j ACCEPT", PacketDirection::FromService), "d d d");
        assert_eq!(verdicts("-A INPUT -p tcp --dport 1024:65535 -j ACCEPT", PacketDirection::FromService), "ad ad ad");
        assert_eq!(verdicts("-A INPUT -p udp --dport 1883 -j ACCEPT", PacketDirection::ToService), "d d d");
        assert_eq!(verdicts("-A INPUT -m state ! --state INVALID -j ACCEPT", PacketDirection::ToService), "a a a");
        assert_eq!(verdicts("-A INPUT -m connmark --mark 1 -j ACCEPT", PacketDirection::ToService), "d ad ad");
        assert_eq!(
            verdicts("-A INPUT -s 10.0.0.0/8 -m state --state NEW -j ACCEPT", PacketDirection::ToService),
            "d ad d"
        );
        assert_eq!(
            verdicts(
                "-A INPUT -p tcp --sport 1883 -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
                PacketDirection::FromService
            ),
            "a a a"
        );
    }

    #[test]
    fn jump_returns_and_goto_does_not() {
        let jump = "-A INPUT -j A\n-A INPUT -j ACCEPT\n-A A -p tcp -m tcp --dport 1883 -m state --state NEW -j DROP";
        assert_eq!(verdicts(jump, PacketDirection::ToService), "a d a");
        let goto = "-A INPUT -g A\n-A INPUT -j ACCEPT\n-A A -m state --state NEW -j ACCEPT";
        assert_eq!(verdicts(goto, PacketDirection::ToService), "d a d");
        let back = "-A INPUT -j A\n-A INPUT -j ACCEPT\n-A A -m state --state UNTRACKED -j RETURN\n-A A -j DROP";
        assert_eq!(verdicts(back, PacketDirection::ToService), "a d d");
        let nested = "-A INPUT -j A\n-A A -g B\n-A A -j ACCEPT\n-A B -m state --state NEW -j ACCEPT\n-A INPUT -m state --state ESTABLISHED -j ACCEPT";
        assert_eq!(verdicts(nested, PacketDirection::ToService), "d a a");
        assert_eq!(verdicts("-A INPUT -j NFQUEUE --queue-num 1", PacketDirection::ToService), "e e e");
        assert_eq!(
            verdicts("-A INPUT -j A\n-A A -j B\n-A B -j A", PacketDirection::ToService),
            "  ",
            "a loop decides nothing"
        );
    }
}
