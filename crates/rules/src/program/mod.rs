//! A ruleset ready to judge packets: names are places in arrays, sets are looked up in a time that does not grow with them.
//!
//! A [`Program`] is compiled from a checked tree and lives until the next ruleset takes its place. Its rules never change; its counters, limits and dynamic
//! sets do, with each packet ([`State`]). It asks nobody but the [`Scene`] it is given, and touches neither clock nor devices.
mod chain_graph;
mod compile;
mod context;
mod eval_selector;
mod evaluate;
mod exthdr;
mod jhash;
mod listing;
mod log;
mod nat;
mod range_tree;
mod set;
mod state;

pub use compile::compile;
pub use context::{AddressType, EvalCtx, Fib, HeaderRewrite, InterfaceInfo, PacketMeta, Verdict};

use crate::ast::{
    AssignTarget, CtTimeoutPolicy, DynsetOp, Hook, Icmpx, Log, Reject, Selector, SynproxyInfo, TableFamily,
};
use crate::datatype::DataType;
use crate::source::Span;
use keepstate_engine::{Helper, Manip, PortSelection};
use set::CompiledSet;
use state::{State, StatefulSpec};
use std::net::IpAddr;

/// A ruleset at work.
#[derive(Debug, Default)]
pub struct Program {
    chains: Vec<CompiledChain>,
    /// Base chains by hook, lowest priority first.
    base_chains: Vec<BaseChain>,
    sets: Vec<CompiledSet>,
    state: State,
    listing: listing::Listing,
}

#[derive(Debug)]
struct CompiledChain {
    rules: Vec<CompiledRule>,
}

#[derive(Debug)]
struct CompiledRule {
    /// Where it stands.
    span: Span,
    instrs: Vec<Instr>,
}

/// Where packets enter a chain by themselves.
#[derive(Clone, Copy, Debug)]
struct BaseChain {
    hook: Hook,
    family: TableFamily,
    nat: bool,
    priority: i32,
    policy_drop: bool,
    chain: usize,
}

/// One thing that a rule does; numbers are places in the program's arrays.
#[derive(Debug)]
enum Instr {
    Match {
        left: Vec<CompiledExpr>,
        not: bool,
        right: CompiledRhs,
    },
    Counter(usize),
    /// The counter, or what measures, that a map names.
    CounterMap(Vec<CompiledExpr>, usize),
    Stateful(usize),
    StatefulMap(Vec<CompiledExpr>, usize),
    Log(Log),
    Notrack,
    Assign(AssignTarget, CompiledExpr, DataType),
    CtHelper(Helper),
    CtTimeout(CtTimeoutPolicy),
    Nat(Box<CompiledNat>),
    Reject(Reject),
    Synproxy(SynproxyInfo),
    Vmap(Vec<CompiledExpr>, usize),
    Dynset {
        op: DynsetOp,
        set: usize,
        key: Vec<CompiledExpr>,
        timeout: Option<u64>,
        stateful: Vec<StatefulSpec>,
        data: Vec<CompiledExpr>,
    },
    TcpOptStrip(u8),
    Verdict(CompiledVerdict),
}

#[derive(Debug)]
enum CompiledRhs {
    Ranges(Vec<(u128, u128)>),
    AnyBit(u128),
    Set(usize),
}

#[derive(Clone, Debug)]
enum CompiledExpr {
    Select(Selector),
    Constant(u128),
    Bitwise(Box<CompiledExpr>, u128, u128),
    Shift(Box<CompiledExpr>, i8, u128),
    Map(Vec<CompiledExpr>, usize),
    Numgen { slot: Option<usize>, modulus: u32, offset: u32 },
    Hash { of: Vec<(CompiledExpr, DataType)>, modulus: u32, seed: u32, offset: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CompiledVerdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(usize),
    Goto(usize),
}

#[derive(Debug)]
struct CompiledNat {
    manip: Manip,
    target: NatAddress,
    ports: Option<NatPortSource>,
    port_selection: PortSelection,
    persistent: bool,
    netmap: bool,
}

#[derive(Debug)]
enum NatAddress {
    Unchanged,
    Range(IpAddr, IpAddr),
    /// A map whose values are addresses, perhaps with ports.
    Map(Vec<CompiledExpr>, usize),
    Value(CompiledExpr, DataType),
    Masquerade,
    Redirect,
}

#[derive(Debug)]
enum NatPortSource {
    Range(u16, u16),
    Value(CompiledExpr),
}

impl Program {
    /// Tells it the clock on the wall, for rules that ask for hours, days or dates: `wall` is what has to be added to the engine's time to give nanoseconds
    /// since 1970 of the machine's own zone. Who does not tell it lives in 1970.
    pub fn set_wall_clock_offset(&mut self, wall: i64) {
        self.state.wall_clock_offset = wall;
    }

    /// Does any chain translate packets of this family?
    pub fn has_nat_chain(&self, v6: bool) -> bool {
        self.base_chains.iter().any(|base| base.nat && base.family.covers(v6))
    }

    /// Does any rule answer handshakes in a server's name?
    pub fn has_synproxy(&self) -> bool {
        let mut steps = self.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.instrs);
        steps.any(|step| matches!(step, Instr::Synproxy(_)))
    }
    /// Has a hook chains that filter, at priorities in this range?
    pub fn has_filter_chain(&self, hook: Hook, priorities: &std::ops::Range<i32>) -> bool {
        self.base_chains.iter().any(|base| base.hook == hook && !base.nat && priorities.contains(&base.priority))
    }

    /// Every rule that counts, with its place and what it has counted: packets and octets.
    pub fn rule_counters(&self) -> impl Iterator<Item = (String, u64, u64)> {
        let counted = |rule: &CompiledRule| {
            rule.instrs.iter().find_map(|step| match step {
                Instr::Counter(at) => self.state.counters.get(*at).copied(),
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
        (self.chains.len(), rules, self.sets.iter().map(CompiledSet::len).sum())
    }
}

impl TableFamily {
    /// Does it see IPv6 (or, with `false`, IPv4)?
    pub(crate) fn covers(self, v6: bool) -> bool {
        match self {
            TableFamily::Ip => !v6,
            TableFamily::Ip6 => v6,
            TableFamily::Inet => true,
        }
    }
}

impl Reject {
    /// ICMP or ICMPv6 type and code of the answer; `None` for a reset.
    pub fn icmp_type_code(self, v6: bool) -> Option<(u8, u8)> {
        Some(match (self, v6) {
            (Reject::TcpReset, _) => return None,
            (Reject::Default, false) | (Reject::Icmpx(Icmpx::PortUnreachable), false) => (3, 3),
            (Reject::Default, true) | (Reject::Icmpx(Icmpx::PortUnreachable), true) => (1, 4),
            (Reject::Icmp(code), _) => (3, code),
            (Reject::Icmpv6(code), _) => (1, code),
            (Reject::Icmpx(Icmpx::NoRoute), false) => (3, 0),
            (Reject::Icmpx(Icmpx::NoRoute), true) => (1, 0),
            (Reject::Icmpx(Icmpx::HostUnreachable), false) => (3, 1),
            (Reject::Icmpx(Icmpx::HostUnreachable), true) => (1, 3),
            (Reject::Icmpx(Icmpx::AdminProhibited), false) => (3, 13),
            (Reject::Icmpx(Icmpx::AdminProhibited), true) => (1, 1),
        })
    }
}
