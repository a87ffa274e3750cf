//! A compiled ruleset: the arrays that instructions index, and the state that packets change.
//!
//! A [`Program`] is compiled from a parsed ruleset and lives until the next ruleset replaces it. Its rules never change; its counters, limits and dynamic
//! sets change with each packet ([`State`]). It reads neither clock nor devices: everything comes from the [`EvalCtx`](crate::EvalCtx) of the packet.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled_chain::CompiledChain;
use super::instr::{BaseChain, CompiledRule, Instr};
use super::set::CompiledSet;
use super::state::State;
use crate::ast::{Hook, Ruleset, TableFamily};
use crate::source::Sources;
use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

/// A compiled ruleset with its state.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(super) chains: Vec<CompiledChain>,
    /// Base chains, lowest priority first.
    pub(super) base_chains: Vec<BaseChain>,
    /// Names of devices, for base chains at hook ingress.
    pub(super) devices: Vec<Vec<u128>>,
    pub(super) sets: Vec<CompiledSet>,
    pub(super) state: State,
    /// Shared with those who list or change the ruleset, away from the packets.
    pub(super) listing: Arc<Listing>,
    /// A rule reads the counters of connections.
    pub(super) needs_accounting: bool,
    pub(super) reads_link_header: bool,
    /// See [`Program::reads_next_hop`].
    pub(super) reads_next_hop: bool,
    pub(super) has_synproxy: bool,
    pub(super) asks_for_sockets: bool,
    pub(super) has_tproxy: bool,
}

/// What a listing or a change needs besides the program: the tree, its texts, and which index is what.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) sources: Sources,
    pub(super) tree: Ruleset,
    /// In the order of the tree's.
    pub(super) tables: Vec<ListedTable>,
}

#[derive(Clone, Debug)]
pub(super) struct ListedTable {
    pub(super) family: TableFamily,
    pub(super) name: String,
    /// Name and index of each named counter.
    pub(super) counters: Vec<(String, usize)>,
    /// Name and index of each named quota (true) and limit.
    pub(super) stateful: Vec<((String, bool), usize)>,
    /// Index of each set by its name, those of `meter` statements included.
    pub(super) set_indices: HashMap<String, usize>,
    /// Where each rule keeps its state, by handle and how often it was replaced.
    pub(super) slots: HashMap<(u64, u32), StateSlots>,
}

/// The parts of a program's state that belong to one rule: indices into the arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StateSlots {
    pub(super) counters: Range<usize>,
    pub(super) stateful: Range<usize>,
    pub(super) sets: Range<usize>,
    pub(super) numgens: Range<usize>,
}

impl Program {
    /// Sets the wall clock, for rules with `meta hour`, `day` or `time`: `offset` is added to the engine's time and gives nanoseconds since 1970 in the
    /// machine's time zone. Defaults to 0: the engine's time counts from the Unix epoch.
    pub fn set_wall_clock_offset(&mut self, offset: i64) {
        self.state.wall_clock_offset = offset;
    }

    /// Does any nat chain see packets of this family?
    pub fn has_nat_chain(&self, v6: bool) -> bool {
        self.base_chains.iter().any(|base| base.nat && base.family.covers(v6))
    }

    /// Does a hook have nat chains?
    pub fn has_nat_chain_at(&self, hook: Hook) -> bool {
        self.base_chains.iter().any(|base| base.nat && base.hook == hook)
    }

    /// Does any rule use synproxy?
    pub fn has_synproxy(&self) -> bool {
        self.has_synproxy
    }

    /// Does any rule read the counters of connections? Like Linux, who runs the program then has to count (`nf_conntrack_acct`).
    pub fn needs_accounting(&self) -> bool {
        self.needs_accounting
    }

    /// Does a rule match the Ethernet header of packets? Where packets come without one, such a rule never matches.
    pub fn reads_link_header(&self) -> bool {
        self.reads_link_header
    }

    /// Does a rule ask where a packet goes next (`rt nexthop`)?
    pub fn reads_next_hop(&self) -> bool {
        self.reads_next_hop
    }

    /// Does a rule ask for the socket of a packet, or give packets to that of a transparent proxy? Where sockets cannot be asked for, such a rule never matches.
    pub fn asks_for_sockets(&self) -> bool {
        self.asks_for_sockets
    }

    /// Does a rule give packets to transparent proxies?
    pub fn has_tproxy(&self) -> bool {
        self.has_tproxy
    }

    /// Does a hook have filter chains at priorities in this range?
    pub fn has_filter_chain(&self, hook: Hook, priorities: &RangeInclusive<i32>) -> bool {
        self.base_chains.iter().any(|base| base.hook == hook && !base.nat && priorities.contains(&base.priority))
    }

    /// Counts packets that a faster data path has forwarded on the way that one of them took here, by the counters of its [`EvalTrace`](super::EvalTrace).
    pub fn count_offloaded(&mut self, counters: &[u32], packets: u64, bytes: u64) {
        for at in counters {
            if let Some((all_packets, all_bytes)) = self.state.counters.get_mut(*at as usize) {
                *all_packets += packets;
                *all_bytes += bytes;
            }
        }
    }

    /// Every rule with a counter: its place, packets and bytes.
    pub fn rule_counters(&self) -> impl Iterator<Item = (String, u64, u64)> {
        let counts = |rule: &CompiledRule| {
            rule.instrs.iter().find_map(|instr| match instr {
                Instr::Counter(at) => self.state.counters.get(*at).copied(),
                _ => None,
            })
        };
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.filter_map(move |rule| {
            counts(rule).map(|(packets, bytes)| (self.listing.sources.position(rule.span).to_string(), packets, bytes))
        })
    }

    /// The same program with every rule evaluated one after another, as it is written: to compare with.
    #[doc(hidden)]
    pub fn without_lookup_of_rules(mut self) -> Program {
        self.chains.iter_mut().for_each(|chain| chain.runs.clear());
        self
    }

    /// Number of rules that are found by lookup.
    #[doc(hidden)]
    pub fn rules_found_by_lookup(&self) -> usize {
        self.chains.iter().flat_map(|chain| &chain.runs).map(|run| run.end - run.start).sum()
    }

    /// Number of chains, rules and set elements.
    pub fn size(&self) -> (usize, usize, usize) {
        let rules = self.chains.iter().map(|chain| chain.rules.len()).sum();
        (self.chains.len(), rules, self.sets.iter().map(CompiledSet::len).sum())
    }
}
