//! Tables, chains and rules.
use super::object::Object;
use super::set::Set;
use super::statement::Rule;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use std::fmt;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl TableFamily {
    /// Does a table of this family see IPv6 packets (with `false`: IPv4 packets)?
    pub fn covers(self, v6: bool) -> bool {
        match self {
            TableFamily::Ip => !v6,
            TableFamily::Ip6 => v6,
            TableFamily::Inet => true,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
        })
    }
}

/// A ruleset.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// Tables, in the order of the text.
    pub tables: Vec<Table>,
    /// Chains created so far: the next value of [`Chain::registration`].
    pub registrations: u64,
    /// Tables that got a handle so far.
    pub table_handles: u64,
    /// The text empties the ruleset first (`flush ruleset`).
    pub flushed: bool,
    /// What the text has and is not in force here as it is in the kernel, each once: tables of families arp, bridge and netdev, and statements whose note says what they do here. Whoever loads a
    /// ruleset shows them.
    pub notes: Vec<Diagnostic>,
}

impl Ruleset {
    /// Gives a handle to all that has none, as Linux does: tables count apart; in a table chains come first, then objects, sets and rules.
    pub fn assign_handles(&mut self) {
        for table in &mut self.tables {
            if table.handle == 0 {
                self.table_handles += 1;
                table.handle = self.table_handles;
            }
            let Table { chains, sets, objects, handles, .. } = table;
            let mut assign = |handle: &mut u64| {
                if *handle == 0 {
                    *handles += 1;
                    *handle = *handles;
                }
            };
            chains.iter_mut().for_each(|chain| assign(&mut chain.handle));
            objects.iter_mut().for_each(|object| assign(&mut object.handle));
            sets.iter_mut().for_each(|set| assign(&mut set.handle));
            chains.iter_mut().flat_map(|chain| &mut chain.rules).for_each(|rule| rule.assign_handle(handles));
        }
    }
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Address family.
    pub family: TableFamily,
    /// Name.
    pub name: String,
    /// Chains.
    pub chains: Vec<Chain>,
    /// Named sets and maps.
    pub sets: Vec<Set>,
    /// Named counters, quotas, limits, helpers, timeouts and synproxies.
    pub objects: Vec<Object>,
    /// Number by which commands name it; 0 until [`Ruleset::assign_handles`].
    pub handle: u64,
    /// Handles of its chains, sets, objects and rules so far.
    pub handles: u64,
    /// Created by a script, not by the ruleset's file.
    pub by_script: bool,
    /// Comment.
    pub comment: Option<String>,
    /// Names of its flowtables.
    pub flowtables: Vec<String>,
    /// Its chains see no packets (`flags dormant`).
    pub dormant: bool,
}

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Place in the text.
    pub span: Span,
    /// Hook and priority of a base chain; `None` for a chain that is only jumped to.
    pub base: Option<BaseChainSpec>,
    /// `type … hook … priority …` as written.
    pub base_text: String,
    /// The names of its devices, at hook ingress.
    pub devices: Vec<String>,
    /// Comment.
    pub comment: Option<String>,
    /// Number by which commands name it.
    pub handle: u64,
    /// When it was created: of base chains with the same hook and priority, the newest runs first, as in Linux.
    pub registration: u64,
    /// Rules.
    pub rules: Vec<Rule>,
}

/// Type, hook, priority and policy of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChainSpec {
    /// Type `nat`, else `filter` or `route`.
    pub nat: bool,
    /// Type `route`: a packet is routed again if what its route depends on has changed.
    pub reroutes: bool,
    /// Hook.
    pub hook: Hook,
    /// Priority; chains of a hook run in ascending order.
    pub priority: i32,
    /// Policy `drop`, else `accept`.
    pub policy_drop: bool,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Hook {
    /// As a packet comes in by one of the chain's devices: before it is put together from its fragments.
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        })
    }
}

impl Chain {
    /// Its rules, each followed by those of the chains without a name that stand in it.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().flat_map(|rule| std::iter::once(rule).chain(rule.nested_rules()))
    }
}
