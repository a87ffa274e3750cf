//! What a ruleset makes of a packet of which only protocol, one port and state are known.
//!
//! A [`Walk`] goes through one base chain as the kernel would. Where a condition may hold or not, both ways are followed: what comes
//! out is every fate that is possible, and every rule that the packet may meet. It changes nothing and lives as long as one question.
use super::service::{Protocol, Service};
use keepstate_linux::dependents::rules::{Chain, End, Rule, Table, Test, Verdict};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// A packet: to a port, or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The service whose packet it is.
    pub service: Service,
    /// Which way it goes.
    pub way: Way,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The service's port is its destination.
    To,
    /// The service's port is its source.
    From,
}

/// What rules see of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its first packet.
    New,
    /// A later one.
    Established,
    /// It is not tracked.
    Untracked,
}

/// Everything that may become of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// It may pass.
    pub accept: bool,
    /// It may be dropped.
    pub drop: bool,
    /// It may go where it is lost from sight.
    pub elsewhere: bool,
    /// It may come to the end of the chain undecided.
    falls: bool,
}

/// A rule that a packet may meet.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// The chain it is in.
    pub chain: &'a Chain,
    /// The rule.
    pub rule: &'a Rule,
    /// What it decides then may let the packet pass.
    pub accepts: bool,
    /// What it decides then may drop the packet.
    pub drops: bool,
}

/// One packet's way through one base chain.
pub struct Walk<'a> {
    table: &'a Table,
    packet: Packet,
    seen: Seen,
    known: HashMap<&'a str, Fates>,
    met: Vec<Met<'a>>,
}

/// Does a condition hold?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl<'a> Walk<'a> {
    /// Walks a chain of `table`; its policy decides what its rules do not.
    pub fn through(table: &'a Table, chain: &'a Chain, packet: Packet, seen: Seen) -> (Fates, Vec<Met<'a>>) {
        let mut walk = Walk { table, packet, seen, known: HashMap::new(), met: Vec::new() };
        let mut fates = walk.chain(chain);
        if fates.falls {
            let accepts = chain.base.as_ref().is_none_or(|base| base.accepts);
            fates.accept |= accepts;
            fates.drop |= !accepts;
        }
        (fates, walk.met)
    }

    fn named(&mut self, name: &str) -> Fates {
        if let Some(fates) = self.known.get(name) {
            return *fates;
        }
        match self.table.chains.iter().find(|chain| chain.name == name) {
            // Rulesets have no loops; a listing that has one must not catch us in it.
            Some(chain) => {
                self.known.insert(&chain.name, Fates::default());
                let fates = self.chain(chain);
                self.known.insert(&chain.name, fates);
                fates
            }
            // A target that is no chain: an extension.
            None => Fates { elsewhere: true, falls: true, ..Fates::default() },
        }
    }

    fn chain(&mut self, chain: &'a Chain) -> Fates {
        let mut all = Fates::default();
        for rule in &chain.rules {
            let holds = self.all(&rule.tests);
            if holds == Truth::No {
                continue;
            }
            let (decided, goes_on) = self.rule(chain, rule, holds);
            all = all.or(decided);
            if !goes_on {
                return all;
            }
        }
        Fates { falls: true, ..all }
    }

    /// What a rule decides whose conditions may hold, and whether the next rule may be reached.
    fn rule(&mut self, chain: &'a Chain, rule: &'a Rule, holds: Truth) -> (Fates, bool) {
        let at = self.met.len();
        self.met.push(Met { chain, rule, accepts: false, drops: false });
        let mut all = Fates::default();
        let mut goes_on = true;
        for branch in &rule.branches {
            let holds = branch.test.as_ref().map_or(holds, |test| holds.min(self.test(test)));
            if holds == Truth::No {
                continue;
            }
            let comes_back;
            let fates = match &branch.verdict {
                Verdict::Jump(name) => {
                    let fates = self.named(name);
                    comes_back = fates.falls;
                    Fates { falls: false, ..fates }
                }
                decided => {
                    comes_back = false;
                    match decided {
                        Verdict::Accept => Fates { accept: true, ..Fates::default() },
                        Verdict::Drop => Fates { drop: true, ..Fates::default() },
                        Verdict::Goto(name) => self.named(name),
                        Verdict::Return => Fates { falls: true, ..Fates::default() },
                        _ => Fates { elsewhere: true, ..Fates::default() },
                    }
                }
            };
            all = all.or(fates);
            if holds == Truth::Yes {
                goes_on = comes_back;
                break;
            }
        }
        if let Some(met) = self.met.get_mut(at) {
            (met.accepts, met.drops) = (all.accept, all.drop);
        }
        (all, goes_on)
    }

    fn all(&self, tests: &[Test]) -> Truth {
        tests.iter().map(|test| self.test(test)).min().unwrap_or(Truth::Yes)
    }

    fn test(&self, test: &Test) -> Truth {
        let Packet { service, way } = self.packet;
        match test {
            Test::Protocol { names, not } => {
                let listed = names.iter().any(|name| name == service.protocol.name());
                Truth::from(listed != *not)
            }
            Test::Port { end, ports, not } => {
                let listed = contain(ports, service.port);
                let is_ours = matches!((end, way), (End::Destination, Way::To) | (End::Source, Way::From));
                match (is_ours || *end == End::Any && listed, is_narrow(ports) && !listed) {
                    (true, _) => Truth::from(listed != *not),
                    // The other end's port is one that a system picks, not one of a few that a rule names.
                    (false, true) => Truth::from(*not),
                    (false, false) => Truth::Maybe,
                }
            }
            Test::State { states, not } => {
                let state = match self.seen {
                    Seen::New => "new",
                    Seen::Established => "established",
                    Seen::Untracked => "untracked",
                };
                Truth::from(states.iter().any(|listed| listed == state) != *not)
            }
            // What a server sends never opens a connection.
            Test::NotOpening if way == Way::From && service.protocol == Protocol::Tcp => Truth::Yes,
            Test::Connection if self.seen == Seen::Untracked => Truth::No,
            Test::NotOpening | Test::Connection | Test::Other => Truth::Maybe,
        }
    }
}

/// Are these so few ports that a system hardly picks one of them for the other end of a connection?
fn is_narrow(ports: &[RangeInclusive<u16>]) -> bool {
    ports.iter().map(|range| usize::from(*range.end()).saturating_sub(usize::from(*range.start())) + 1).sum::<usize>()
        < 1024
}

/// Is the port in one of the ranges?
pub fn contain(ports: &[RangeInclusive<u16>], port: u16) -> bool {
    ports.iter().any(|range| range.contains(&port))
}

impl Fates {
    fn or(self, other: Fates) -> Fates {
        Fates {
            accept: self.accept || other.accept,
            drop: self.drop || other.drop,
            elsewhere: self.elsewhere || other.elsewhere,
            falls: self.falls || other.falls,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Truth {
        if holds { Truth::Yes } else { Truth::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::dependents::{iptables, rules::Language};

    /// The fate of an untracked, a new and an established packet: `a`ccepted, `d`ropped, or either.
    fn fates(rules: &str, way: Way) -> String {
        let saved = format!("*filter\n:INPUT DROP [0:0]\n:A - [0:0]\n:B - [0:0]\n{rules}\nCOMMIT\n");
        let tables = iptables::parse(&saved, Language::IptablesLegacy, "ip").unwrap();
        let packet = Packet { service: "tcp/1883".parse().unwrap(), way };
        let fate = |seen| {
            let (fates, _) = Walk::through(&tables[0], &tables[0].chains[0], packet, seen);
            let letters = [(fates.accept, "a"), (fates.drop, "d"), (fates.elsewhere, "e")];
            letters.iter().filter(|(may, _)| *may).map(|(_, letter)| *letter).collect::<String>()
        };
        [Seen::Untracked, Seen::New, Seen::Established].map(fate).join(" ")
    }

    #[test]
    fn what_the_state_decides() {
        assert_eq!(fates("", Way::To), "d d d");
        assert_eq!(fates("-A INPUT -m state --state ESTABLISHED -j ACCEPT", Way::To), "d d a");
        assert_eq!(fates("-A INPUT -p tcp --dport 1883 -j ACCEPT", Way::To), "a a a");
        assert_eq!(
            fates("-A INPUT -p tcp --dport 1883 -j ACCEPT", Way::From),
            "ad ad ad",
            "brokers talk among themselves"
        );
        assert_eq!(fates("-A INPUT -p tcp --dport 22 -j ACCEPT", Way::From), "d d d");
        assert_eq!(fates("-A INPUT -p tcp --dport 1024:65535 -j ACCEPT", Way::From), "ad ad ad");
        assert_eq!(fates("-A INPUT -p udp --dport 1883 -j ACCEPT", Way::To), "d d d");
        assert_eq!(fates("-A INPUT -m state ! --state INVALID -j ACCEPT", Way::To), "a a a");
        assert_eq!(fates("-A INPUT -m connmark --mark 1 -j ACCEPT", Way::To), "d ad ad");
        assert_eq!(fates("-A INPUT -s 10.0.0.0/8 -m state --state NEW -j ACCEPT", Way::To), "d ad d");
        assert_eq!(
            fates("-A INPUT -p tcp --sport 1883 -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT", Way::From),
            "a a a"
        );
    }

    #[test]
    fn chains_that_come_back_and_that_do_not() {
        let jump = "-A INPUT -j A\n-A INPUT -j ACCEPT\n-A A -p tcp -m tcp --dport 1883 -m state --state NEW -j DROP";
        assert_eq!(fates(jump, Way::To), "a d a");
        let goto = "-A INPUT -g A\n-A INPUT -j ACCEPT\n-A A -m state --state NEW -j ACCEPT";
        assert_eq!(fates(goto, Way::To), "d a d");
        let back = "-A INPUT -j A\n-A INPUT -j ACCEPT\n-A A -m state --state UNTRACKED -j RETURN\n-A A -j DROP";
        assert_eq!(fates(back, Way::To), "a d d");
        let nested = "-A INPUT -j A\n-A A -g B\n-A A -j ACCEPT\n-A B -m state --state NEW -j ACCEPT\n-A INPUT -m state --state ESTABLISHED -j ACCEPT";
        assert_eq!(fates(nested, Way::To), "d a a");
        assert_eq!(fates("-A INPUT -j NFQUEUE --queue-num 1", Way::To), "e e e");
        assert_eq!(fates("-A INPUT -j A\n-A A -j B\n-A B -j A", Way::To), "  ", "a loop decides nothing");
    }
}
