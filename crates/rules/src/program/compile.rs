//! From the syntax tree to a program: names become indices, sets are built, and inconsistent rulesets are refused.
#![allow(clippy::disallowed_types, reason = "the keys are names in a ruleset, not a peer's")]
use super::compiled::{ListedTable, Listing, Program, StateSlots};
use super::compiled_chain::CompiledChain;
use super::header_bits::address_value;
use super::hold::mark_updated_sets;
use super::instr::{
    BaseChain, CompiledExpr, CompiledNat, CompiledRhs, CompiledRule, CompiledTproxy, CompiledVerdict, Instr,
    NatAddress, NatPortSource,
};
use super::named_set::NamedSet;
use super::rule_run::RuleRun;
use super::set::CompiledSet;
use super::set_lookup::set_number;
use super::state::StatefulExpr;
use crate::ast::{
    self, Expression, MatchRhs, NatTarget, ObjectBody, ObjectKind, PayloadBase, RouteKey, Ruleset, Selector, SetRef,
    SocketKey, StatefulSpec, Statement,
};
use crate::check::{check_jump_depth, check_ruleset, nat_only_chains, synproxy_allowed_chains};
use crate::datatype::DataType;
use crate::datatype::encode_name;
use crate::diagnostic::{Diagnostic, RulesetError};
use crate::source::{Sources, Span};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Compiles a ruleset that [`parse_with`](crate::parse_with) parsed from `sources`.
///
/// # Errors
/// Missing chains, sets and objects, jump loops, conflicting elements, statements in the wrong chain.
pub fn compile(ruleset: &Ruleset, sources: &Sources) -> Result<Program, RulesetError> {
    let mut compiler = Compiler {
        program: Program::default(),
        tables: Vec::new(),
        diagnostics: Vec::new(),
        scope: TableScope::default(),
    };
    for table in &ruleset.tables {
        compiler.compile_table(table);
    }
    let Program { chains, sets, .. } = &mut compiler.program;
    for instr in chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.instrs) {
        mark_updated_sets(instr, sets);
    }
    // As in Linux (nf_hook_entries_grow), the chain registered last runs first among those of one priority.
    compiler.program.base_chains.sort_by_key(|base| (base.priority, Reverse(base.registration)));
    // One error a rule is enough.
    for diagnostic in check_ruleset(ruleset) {
        if !compiler.diagnostics.iter().any(|known| known.span.overlaps(diagnostic.span)) {
            compiler.diagnostics.push(diagnostic);
        }
    }
    if compiler.diagnostics.is_empty() {
        let listing = Listing { sources: sources.clone(), tree: ruleset.clone(), tables: compiler.tables };
        compiler.program.listing = Arc::new(listing);
        Ok(compiler.program)
    } else {
        Err(RulesetError { diagnostics: compiler.diagnostics, sources: sources.clone() })
    }
}

pub(super) struct Compiler {
    pub(super) program: Program,
    tables: Vec<ListedTable>,
    diagnostics: Vec<Diagnostic>,
    pub(super) scope: TableScope,
}

/// Names of the table being compiled.
#[derive(Default)]
pub(super) struct TableScope {
    chains: HashMap<String, usize>,
    pub(super) sets: HashMap<String, NamedSet>,
    pub(super) counters: HashMap<String, usize>,
    pub(super) stateful: HashMap<(String, bool), usize>,
    pub(super) timeouts: HashMap<String, ast::CtTimeoutPolicy>,
    pub(super) synproxies: HashMap<String, ast::SynproxyInfo>,
    /// What the objects of some kinds do, by kind and name: a map's elements name them by their places.
    pub(super) choices: Vec<(ObjectKind, String, Instr)>,
    flowtables: HashSet<String>,
    /// Chains that stand in rules: their places are behind those of the named ones, from this on.
    anonymous: Vec<CompiledChain>,
    first_anonymous: usize,
    /// The current chain may contain NAT statements.
    allows_nat: bool,
    /// The current chain may contain synproxy statements.
    allows_synproxy: bool,
}

pub(super) type CompileResult<T> = Result<T, Diagnostic>;

impl Compiler {
    fn compile_table(&mut self, table: &ast::Table) {
        self.scope = TableScope::default();
        self.scope.flowtables = table.flowtables.iter().cloned().collect();
        for object in &table.objects {
            self.compile_object(object);
        }
        let first = self.program.chains.len();
        self.scope.first_anonymous = first + table.chains.len();
        for (at, chain) in table.chains.iter().enumerate() {
            self.scope.chains.insert(chain.name.clone(), first + at);
            // The chains of a dormant table see no packets.
            if let Some(base) = chain.base.filter(|_| !table.dormant) {
                let ast::BaseChainSpec { nat, reroutes, hook, priority, policy_drop } = base;
                let devices = (hook == ast::Hook::Ingress).then(|| {
                    let names = chain.devices.iter().filter_map(|name| encode_name(name)).collect();
                    self.program.devices.push(names);
                    self.program.devices.len() - 1
                });
                let base_chain = BaseChain {
                    hook,
                    family: table.family,
                    nat,
                    reroutes,
                    priority,
                    registration: chain.registration,
                    policy_drop,
                    chain: first + at,
                    devices,
                };
                self.program.base_chains.push(base_chain);
            }
        }
        for set in &table.sets {
            let index = self.compile_set(set).unwrap_or_else(|diagnostic| {
                // Rules that name it are not wrong too.
                self.diagnostics.push(diagnostic);
                self.program.sets.push(CompiledSet::new(None, None));
                self.program.sets.len() - 1
            });
            if let Some(compiled) = self.program.sets.get_mut(index) {
                compiled.number = Some(set_number(table.family, &table.name, &set.name));
            }
            let (key, data, stateful) = (set.key.clone(), set.data.clone(), set.stateful.clone());
            self.scope.sets.insert(set.name.clone(), NamedSet { index, key, data, stateful });
        }
        let mut slots_of_rules = HashMap::new();
        let (nat_chains, synproxy_chains) = (nat_only_chains(table), synproxy_allowed_chains(table));
        for chain in &table.chains {
            self.scope.allows_nat = nat_chains.contains(chain.name.as_str());
            self.scope.allows_synproxy = synproxy_chains.contains(chain.name.as_str());
            let mut rules = Vec::with_capacity(chain.rules.len());
            for rule in &chain.rules {
                let before = self.state_sizes();
                match self.compile_rule(rule) {
                    Ok(rule) => rules.push(rule),
                    Err(diagnostic) => self.diagnostics.push(diagnostic),
                }
                let after = self.state_sizes();
                if before != after {
                    let slots = StateSlots {
                        counters: before[0]..after[0],
                        stateful: before[1]..after[1],
                        sets: before[2]..after[2],
                        numgens: before[3]..after[3],
                    };
                    slots_of_rules.insert((rule.handle, rule.replaced), slots);
                }
            }
            let runs = RuleRun::find_all(&rules);
            let before = self.program.chains.iter().rev().find_map(|chain| Some((chain.number?, chain)));
            let number = Some(before.map_or(0, |(number, _)| number + 1));
            let first_rule = before.map_or(0, |(_, chain)| chain.first_rule + chain.rules.len());
            self.program.chains.push(CompiledChain { number, first_rule, rules, runs });
        }
        self.program.chains.append(&mut self.scope.anonymous);
        self.add_listing(table, slots_of_rules);
        if let Err(diagnostic) = check_jump_depth(table) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Adds the table to the listing.
    fn add_listing(&mut self, table: &ast::Table, slots: HashMap<(u64, u32), StateSlots>) {
        let counters = table.objects.iter().filter(|object| matches!(object.body, ObjectBody::Counter(..)));
        let counters =
            counters.filter_map(|object| Some((object.name.clone(), *self.scope.counters.get(&object.name)?)));
        let listed = ListedTable {
            family: table.family,
            name: table.name.clone(),
            counters: counters.collect(),
            stateful: self.scope.stateful.iter().map(|(name, at)| (name.clone(), *at)).collect(),
            set_indices: self.scope.sets.iter().map(|(name, set)| (name.clone(), set.index)).collect(),
            slots,
        };
        self.tables.push(listed);
    }

    /// Lengths of the arrays that hold state: what a rule adds lies between two of these.
    fn state_sizes(&self) -> [usize; 4] {
        let state = &self.program.state;
        [state.counters.len(), state.stateful.len(), self.program.sets.len(), state.numgen_counters.len()]
    }

    pub(super) fn add_counter(&mut self, packets: u64, bytes: u64) -> usize {
        self.program.state.counters.push((packets, bytes));
        self.program.state.counters.len() - 1
    }

    pub(super) fn add_stateful(&mut self, spec: &StatefulSpec) -> usize {
        self.program.state.stateful.push(StatefulExpr::new(spec));
        self.program.state.stateful.len() - 1
    }

    fn compile_rule(&mut self, rule: &ast::Rule) -> CompileResult<CompiledRule> {
        let mut instrs = Vec::with_capacity(rule.statements.len());
        for statement in &rule.statements {
            let instr = self.compile_statement(statement, rule.span)?;
            if instr.has_synproxy() && !self.scope.allows_synproxy {
                return Err(Diagnostic::new(rule.span, "synproxy is not possible in this chain")
                    .with_help("use it in chains of type filter at hook input or forward"));
            }
            self.program.has_synproxy |= instr.has_synproxy();
            instrs.push(instr);
        }
        let ends = |instr: &Instr| match instr {
            Instr::Verdict(verdict) => *verdict != CompiledVerdict::Continue,
            other => matches!(other, Instr::Nat(_) | Instr::Reject(_)),
        };
        // As in nft, what stands behind a chain without a name is taken.
        if let Some(at) = instrs.iter().position(ends)
            && at + 1 < instrs.len()
            && !matches!(rule.statements.get(at), Some(Statement::AnonymousChain(_)))
        {
            return Err(Diagnostic::new(rule.span, "statements after a verdict are never reached")
                .with_help("put the verdict at the end of the rule"));
        }
        Ok(CompiledRule { span: rule.span, instrs })
    }

    fn compile_anonymous_chain(&mut self, chain: &ast::AnonymousChain) -> CompileResult<CompiledVerdict> {
        let rules: Vec<CompiledRule> =
            chain.rules.iter().map(|rule| self.compile_rule(rule)).collect::<CompileResult<_>>()?;
        let runs = RuleRun::find_all(&rules);
        self.scope.anonymous.push(CompiledChain { number: None, first_rule: 0, rules, runs });
        let at = self.scope.first_anonymous + self.scope.anonymous.len() - 1;
        Ok(if chain.comes_back { CompiledVerdict::Jump(at) } else { CompiledVerdict::Goto(at) })
    }

    fn compile_statement(&mut self, statement: &Statement, span: Span) -> CompileResult<Instr> {
        Ok(match statement {
            Statement::Match(one) => {
                let left = self.compile_exprs(&one.left)?;
                let right = match &one.right {
                    MatchRhs::Ranges(ranges) => CompiledRhs::Ranges(ranges.clone()),
                    MatchRhs::AnyBit(bits) => CompiledRhs::AnyBit(*bits),
                    MatchRhs::Set(set) => CompiledRhs::Set(self.resolve_set(set, &one.left, None)?),
                };
                Instr::Match { left, not: one.not, right }
            }
            Statement::Counter(packets, bytes) => Instr::Counter(self.add_counter(*packets, *bytes)),
            Statement::ObjectRef(kind, name, span) => self.compile_object_ref(*kind, name, *span)?,
            Statement::ObjectMap(kind, key, map) => {
                let place = self.resolve_set(map, key, Some(&[DataType::Object(*kind)]))?;
                let key = self.compile_exprs(key)?;
                match kind {
                    ObjectKind::Counter => Instr::CounterMap(key, place),
                    ObjectKind::Quota | ObjectKind::Limit => Instr::StatefulMap(key, place),
                    ObjectKind::Synproxy
                    | ObjectKind::CtHelper
                    | ObjectKind::CtTimeout
                    | ObjectKind::CtExpectation
                    | ObjectKind::SecMark => {
                        let choices = self.scope.choices.iter().filter(|(known, ..)| known == kind);
                        Instr::ObjectMap { key, map: place, choices: choices.map(|(.., does)| does.clone()).collect() }
                    }
                }
            }
            Statement::Limit(limit) => Instr::Stateful(self.add_stateful(&StatefulSpec::Limit(*limit))),
            Statement::Quota { over, bytes, used } => {
                Instr::Stateful(self.add_stateful(&StatefulSpec::Quota { over: *over, bytes: *bytes, used: *used }))
            }
            Statement::ConnLimit { over, count } => {
                Instr::Stateful(self.add_stateful(&StatefulSpec::ConnLimit { over: *over, count: *count }))
            }
            Statement::Log(log) => Instr::Log(log.clone()),
            Statement::Notrack => Instr::Notrack,
            Statement::Assign(target, value) => Instr::Assign(*target, self.compile_expr(value)?, value.data_type()),
            Statement::CtHelper(name, span) => {
                self.compile_object_ref(ObjectKind::CtHelper, name, *span).map_err(|_| {
                    Diagnostic::new(*span, format!("no ct helper named {name} in this table"))
                        .with_help(format!("write `ct helper {name} {{ type \"ftp\" protocol tcp; }}` above the chain"))
                })?
            }
            Statement::CtTimeout(name, span) => match self.scope.timeouts.get(name) {
                Some(timeout) => Instr::CtTimeout(timeout.clone()),
                None => {
                    return Err(Diagnostic::new(*span, format!("no ct timeout named {name} in this table"))
                        .with_help(format!("write `ct timeout {name} {{ protocol tcp; policy = {{ established : 3600 }}; }}` above the chain")));
                }
            },
            Statement::CtExpectation(name, span) => self.compile_object_ref(ObjectKind::CtExpectation, name, *span)?,
            Statement::FlowOffload(name, _) if self.scope.flowtables.contains(name) => Instr::FlowOffload,
            Statement::FlowOffload(name, span) => {
                return Err(Diagnostic::new(*span, format!("no flowtable named {name} in this table"))
                    .with_help(format!("write `flowtable {name} {{ hook ingress priority filter; devices = {{ … }}; }}` above the chain")));
            }
            Statement::Last | Statement::SecMark(_) => Instr::Nop,
            Statement::Tproxy(proxy) => {
                (self.program.asks_for_sockets, self.program.has_tproxy) = (true, true);
                Instr::Tproxy(Box::new(self.compile_tproxy(proxy)?))
            }
            // Nobody listens.
            Statement::Queue(queue) => {
                Instr::Verdict(if queue.bypass { CompiledVerdict::Accept } else { CompiledVerdict::Drop })
            }
            Statement::Nat(nat) => {
                if !self.scope.allows_nat {
                    return Err(Diagnostic::new(span, "NAT statements are only possible in chains of type nat")
                        .with_help("use a chain with `type nat hook prerouting priority dstnat;` (dnat, redirect) or `type nat hook postrouting priority srcnat;` (snat, masquerade)"));
                }
                Instr::Nat(Box::new(self.compile_nat(nat)?))
            }
            Statement::Reject(reject) => Instr::Reject(*reject),
            Statement::Synproxy(proxy) => Instr::Synproxy(*proxy),
            Statement::Vmap(key, map) => Instr::Vmap(self.compile_exprs(key)?, self.resolve_set(map, key, Some(&[]))?),
            Statement::Dynset(dynamic) => {
                if let Some(size) = dynamic.meter_size {
                    self.declare_meter_set(dynamic, size);
                }
                let name = SetRef::Named(dynamic.set.clone(), dynamic.span);
                let kinds: Vec<DataType> = dynamic.data.iter().map(Expression::data_type).collect();
                let set = self.resolve_set(&name, &dynamic.key, (!kinds.is_empty()).then_some(&kinds))?;
                let key = self.compile_exprs(&dynamic.key)?;
                let own = &dynamic.stateful;
                let shared = self.scope.sets.get(&dynamic.set).map_or(&[][..], |set| &set.stateful);
                let stateful = if own.is_empty() { shared.to_vec() } else { own.clone() };
                let data = self.compile_exprs(&dynamic.data)?;
                Instr::Dynset { op: dynamic.op, set, key, timeout: dynamic.timeout, stateful, data }
            }
            Statement::Dup { to, device } => Instr::Dup {
                v6: to.data_type() == DataType::Address6,
                to: self.compile_expr(to)?,
                device: device.as_deref().and_then(encode_name),
            },
            Statement::TcpOptStrip(number) => Instr::TcpOptStrip(*number),
            Statement::Verdict(verdict) => Instr::Verdict(self.compile_verdict(verdict)?),
            Statement::AnonymousChain(chain) => Instr::Verdict(self.compile_anonymous_chain(chain)?),
        })
    }

    pub(super) fn compile_verdict(&self, verdict: &ast::NftVerdict) -> CompileResult<CompiledVerdict> {
        let chain = |name: &String, span: &Span| {
            let found = self.scope.chains.get(name).copied();
            found.ok_or_else(|| Diagnostic::new(*span, format!("no chain named {name} in this table")))
        };
        Ok(match verdict {
            ast::NftVerdict::Accept => CompiledVerdict::Accept,
            ast::NftVerdict::Drop => CompiledVerdict::Drop,
            ast::NftVerdict::Continue => CompiledVerdict::Continue,
            ast::NftVerdict::Return => CompiledVerdict::Return,
            ast::NftVerdict::Jump(name, span) => CompiledVerdict::Jump(chain(name, span)?),
            ast::NftVerdict::Goto(name, span) => CompiledVerdict::Goto(chain(name, span)?),
        })
    }

    fn compile_exprs(&mut self, values: &[Expression]) -> CompileResult<Vec<CompiledExpr>> {
        values.iter().map(|value| self.compile_expr(value)).collect()
    }

    fn compile_expr(&mut self, value: &Expression) -> CompileResult<CompiledExpr> {
        Ok(match value {
            Expression::Select(selector) => {
                self.program.needs_accounting |= matches!(selector, Selector::CtCounter(..));
                self.program.asks_for_sockets |= matches!(
                    selector,
                    Selector::Socket(SocketKey::Transparent | SocketKey::Wildcard | SocketKey::Mark)
                );
                self.program.reads_link_header |=
                    matches!(selector, Selector::Payload(field) if field.base == PayloadBase::Link);
                self.program.reads_next_hop |=
                    matches!(selector, Selector::Route(RouteKey::NextHop4 | RouteKey::NextHop6));
                CompiledExpr::Select(*selector)
            }
            Expression::Constant(value, _) => CompiledExpr::Constant(*value),
            Expression::Cast(of, _) => self.compile_expr(of)?,
            Expression::Bitwise(of, and, xor) => CompiledExpr::Bitwise(Box::new(self.compile_expr(of)?), *and, *xor),
            Expression::Combine(operator, left, right) => CompiledExpr::Combine(
                *operator,
                Box::new(self.compile_expr(left)?),
                Box::new(self.compile_expr(right)?),
            ),
            Expression::Shift(of, by) => {
                CompiledExpr::Shift(Box::new(self.compile_expr(of)?), *by, of.data_type().max_value())
            }
            Expression::Map(key, map) => {
                CompiledExpr::Map(self.compile_exprs(key)?, self.resolve_set(map, key, Some(&[DataType::Number(32)]))?)
            }
            Expression::Numgen { random, modulus, offset } => {
                let slot = (!random).then(|| {
                    self.program.state.numgen_counters.push(0);
                    self.program.state.numgen_counters.len() - 1
                });
                CompiledExpr::Numgen { slot, modulus: *modulus, offset: *offset }
            }
            Expression::Hash { of, modulus, seed, offset } => CompiledExpr::Hash {
                of: self.compile_exprs(of)?.into_iter().zip(of.iter().map(Expression::data_type)).collect(),
                modulus: *modulus,
                seed: *seed,
                offset: *offset,
            },
        })
    }

    /// Index of a set whose key has the types of `key`; with `data`, of a map (a verdict map if `data` is empty).
    fn resolve_set(&mut self, set: &SetRef, key: &[Expression], data: Option<&[DataType]>) -> CompileResult<usize> {
        let (name, span) = match set {
            SetRef::Anonymous(set) => return self.compile_set(set),
            SetRef::Named(name, span) => (name, *span),
        };
        let Some(set) = self.scope.sets.get(name) else {
            return Err(Diagnostic::new(span, format!("no set or map named {name} in this table")));
        };
        set.check_use(name, span, key, data)?;
        Ok(set.index)
    }

    /// Of which family are the addresses of a NAT statement (`None` for one without an address)? Is it IPv6?
    fn nat_family(&self, nat: &ast::Nat) -> Option<bool> {
        let data_type = match &nat.target {
            NatTarget::Addresses(first, _) => return Some(first.is_ipv6()),
            NatTarget::Value(Expression::Map(_, SetRef::Named(name, _))) => {
                self.scope.sets.get(name).and_then(|set| set.data.as_deref()?.first().copied())
            }
            NatTarget::Value(value) => Some(value.data_type()),
            NatTarget::Unchanged | NatTarget::Masquerade | NatTarget::Redirect => None,
        };
        match data_type {
            Some(DataType::Address6) => Some(true),
            Some(DataType::Address4) => Some(false),
            _ => None,
        }
    }

    fn compile_tproxy(&mut self, proxy: &ast::TproxySpec) -> CompileResult<CompiledTproxy> {
        let address = match &proxy.target {
            NatTarget::Addresses(first, _) => Some(CompiledExpr::Constant(address_value(*first))),
            NatTarget::Value(value) => Some(self.compile_expr(value)?),
            NatTarget::Unchanged | NatTarget::Masquerade | NatTarget::Redirect => None,
        };
        let of_address = match &proxy.target {
            NatTarget::Addresses(first, _) => Some(first.is_ipv6()),
            NatTarget::Value(value) => Some(value.data_type() == DataType::Address6),
            _ => None,
        };
        let port = match &proxy.port {
            None => None,
            Some(ast::NatPorts::Range(first, _)) => Some(CompiledExpr::Constant(u128::from(*first))),
            Some(ast::NatPorts::Value(value)) => Some(self.compile_expr(value)?),
        };
        Ok(CompiledTproxy { v6: proxy.v6.or(of_address), address, port })
    }

    fn compile_nat(&mut self, nat: &ast::Nat) -> CompileResult<CompiledNat> {
        let v6 = nat.v6.or_else(|| self.nat_family(nat));
        let to = match &nat.target {
            NatTarget::Unchanged => NatAddress::Unchanged,
            NatTarget::Addresses(first, last) => NatAddress::Range(*first, *last),
            NatTarget::Masquerade => NatAddress::Masquerade,
            NatTarget::Redirect => NatAddress::Redirect,
            NatTarget::Value(Expression::Map(key, map)) => {
                let set = self.resolve_set(map, key, Some(&[DataType::Address4]))?;
                NatAddress::Map(self.compile_exprs(key)?, set)
            }
            NatTarget::Value(value) => NatAddress::Value(self.compile_expr(value)?, value.data_type()),
        };
        let ports = match &nat.ports {
            None => None,
            Some(ast::NatPorts::Range(first, last)) => Some(NatPortSource::Range(*first, *last)),
            Some(ast::NatPorts::Value(value)) => Some(NatPortSource::Value(self.compile_expr(value)?)),
        };
        let ast::Nat { manip, port_selection: choice, persistent, netmap: prefix, .. } = *nat;
        Ok(CompiledNat { manip, v6, target: to, ports, port_selection: choice, persistent, netmap: prefix })
    }
}
