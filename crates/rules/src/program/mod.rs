//! A ruleset ready to judge packets: names are places in arrays, sets are looked up in a time that does not grow with them.
//!
//! A [`Program`] is compiled from a checked tree and lives until the next ruleset takes its place. Its rules never change; its counters, limits and dynamic
//! sets do, with each packet ([`State`]). It asks nobody but the [`Scene`] it is given, and touches neither clock nor devices.
mod boxes;
mod compile;
mod evaluate;
mod jhash;
mod listing;
mod load;
mod log;
mod lookup;
mod piece;
mod reach;
mod scene;
mod state;
mod translate;

pub use compile::compile;
pub use scene::{AddressType, Change, Device, Fate, Ground, Scene, Way};

use crate::kind::Kind;
use crate::source::Span;
use crate::tree::{Family, Hook, Icmpx, Log, Operation, Reject, Selector, Synproxy, Target, Timeout};
use keepstate_engine::{Choice, Helper, Manip};
use lookup::Lookup;
use state::{Measure, State};
use std::net::IpAddr;

/// A ruleset at work.
#[derive(Debug, Default)]
pub struct Program {
    chains: Vec<Chain>,
    /// Base chains by hook, lowest priority first.
    bases: Vec<Entrance>,
    lookups: Vec<Lookup>,
    state: State,
    listing: listing::Listing,
}

#[derive(Debug)]
struct Chain {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// Where it stands.
    span: Span,
    steps: Vec<Step>,
}

/// Where packets enter a chain by themselves.
#[derive(Clone, Copy, Debug)]
struct Entrance {
    hook: Hook,
    family: Family,
    nat: bool,
    priority: i32,
    drops: bool,
    chain: usize,
}

/// One thing that a rule does; numbers are places in the program's arrays.
#[derive(Debug)]
enum Step {
    Match {
        left: Vec<Value>,
        not: bool,
        right: Held,
    },
    Counter(usize),
    /// The counter, or what measures, that a map names.
    CounterBy(Vec<Value>, usize),
    Measure(usize),
    MeasureBy(Vec<Value>, usize),
    Log(Log),
    Notrack,
    Set(Target, Value, Kind),
    Helper(Helper),
    Timeout(Timeout),
    Nat(Box<Nat>),
    Reject(Reject),
    Synproxy(Synproxy),
    Vmap(Vec<Value>, usize),
    Dynamic {
        operation: Operation,
        set: usize,
        key: Vec<Value>,
        timeout: Option<u64>,
        each: Vec<Measure>,
        data: Vec<Value>,
    },
    Strip(u8),
    Verdict(Verdict),
}

#[derive(Debug)]
enum Held {
    Ranges(Vec<(u128, u128)>),
    AnyBit(u128),
    Set(usize),
}

#[derive(Clone, Debug)]
enum Value {
    Select(Selector),
    Constant(u128),
    Bits(Box<Value>, u128, u128),
    Shift(Box<Value>, i8, u128),
    Map(Vec<Value>, usize),
    Number { slot: Option<usize>, modulus: u32, offset: u32 },
    Hash { of: Vec<(Value, Kind)>, modulus: u32, seed: u32, offset: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(usize),
    Goto(usize),
}

#[derive(Debug)]
struct Nat {
    manip: Manip,
    to: Address,
    ports: Option<PortsOf>,
    choice: Choice,
    persistent: bool,
    prefix: bool,
}

#[derive(Debug)]
enum Address {
    Kept,
    Range(IpAddr, IpAddr),
    /// A map whose values are addresses, perhaps with ports.
    Map(Vec<Value>, usize),
    Value(Value, Kind),
    Masquerade,
    Redirect,
}

#[derive(Debug)]
enum PortsOf {
    Range(u16, u16),
    Value(Value),
}

impl Program {
    /// Tells it the clock on the wall, for rules that ask for hours, days or dates: `wall` is what has to be added to the engine's time to give nanoseconds
    /// since 1970 of the machine's own zone. Who does not tell it lives in 1970.
    pub fn set_wall(&mut self, wall: i64) {
        self.state.wall = wall;
    }

    /// Does any chain translate packets of this family?
    pub fn translates(&self, v6: bool) -> bool {
        self.bases.iter().any(|base| base.nat && base.family.has(v6))
    }

    /// Does any rule answer handshakes in a server's name?
    pub fn proxies(&self) -> bool {
        let mut steps = self.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps);
        steps.any(|step| matches!(step, Step::Synproxy(_)))
    }
    /// Has a hook chains that filter, at priorities in this range?
    pub fn filters(&self, hook: Hook, priorities: &std::ops::Range<i32>) -> bool {
        self.bases.iter().any(|base| base.hook == hook && !base.nat && priorities.contains(&base.priority))
    }

    /// Every rule that counts, with its place and what it has counted: packets and octets.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64, u64)> {
        let counted = |rule: &Rule| {
            rule.steps.iter().find_map(|step| match step {
                Step::Counter(at) => self.state.counters.get(*at).copied(),
                _ => None,
            })
        };
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.filter_map(move |rule| {
            counted(rule)
                .map(|(packets, octets)| (self.listing.sources.position(rule.span).to_string(), packets, octets))
        })
    }

    /// Chains, rules and elements of sets: how large it is.
    pub fn size(&self) -> (usize, usize, usize) {
        let rules = self.chains.iter().map(|chain| chain.rules.len()).sum();
        (self.chains.len(), rules, self.lookups.iter().map(Lookup::len).sum())
    }
}

impl Family {
    /// Does it see IPv6 (or, with `false`, IPv4)?
    pub(crate) fn has(self, v6: bool) -> bool {
        match self {
            Family::Ip => !v6,
            Family::Ip6 => v6,
            Family::Inet => true,
        }
    }
}

impl Reject {
    /// ICMP or ICMPv6 type and code of the answer; `None` for a reset.
    pub fn icmp(self, v6: bool) -> Option<(u8, u8)> {
        Some(match (self, v6) {
            (Reject::Reset, _) => return None,
            (Reject::Default, false) | (Reject::Icmpx(Icmpx::Port), false) => (3, 3),
            (Reject::Default, true) | (Reject::Icmpx(Icmpx::Port), true) => (1, 4),
            (Reject::Icmp(code), _) => (3, code),
            (Reject::Icmp6(code), _) => (1, code),
            (Reject::Icmpx(Icmpx::NoRoute), false) => (3, 0),
            (Reject::Icmpx(Icmpx::NoRoute), true) => (1, 0),
            (Reject::Icmpx(Icmpx::Host), false) => (3, 1),
            (Reject::Icmpx(Icmpx::Host), true) => (1, 3),
            (Reject::Icmpx(Icmpx::Admin), false) => (3, 13),
            (Reject::Icmpx(Icmpx::Admin), true) => (1, 1),
        })
    }
}
