//! What the rules of one hook make of a packet.
use super::context::{EvalCtx, HeaderRewrite, Verdict};
use super::eval_selector::eval_selector;
use super::exthdr::can_be_stripped;
use super::jhash::{jhash, push_register_bytes};
use super::set::{CompiledSet, DynElement, ElementValue};
use super::state::{State, StatefulExpr};
use super::{BaseChain, CompiledChain, CompiledExpr, CompiledRhs, CompiledRule, CompiledVerdict, Instr, Program};
use crate::ast::{AssignTarget, DynsetOp, Endpoint, Hook};
use crate::datatype::DataType;
use keepstate_engine::{Manip, Zone};
use keepstate_wire::Family;
use std::net::IpAddr;
use std::ops::Range;

/// What a rule, or a chain, came to.
enum ChainOutcome {
    /// Its end.
    EndOfChain,
    /// Back to the rule behind the jump.
    Returned,
    Final(Verdict),
}

/// What one statement came to.
pub(super) enum InstrOutcome {
    Continue,
    /// The rule does not apply.
    Break,
    Verdict(CompiledVerdict),
    Final(Verdict),
}

/// The parts of a program, some of which change.
pub(super) struct Evaluator<'a> {
    pub(super) chains: &'a [CompiledChain],
    pub(super) sets: &'a mut [CompiledSet],
    pub(super) state: &'a mut State,
}

impl Program {
    /// Sends a packet through the filtering chains of a hook whose priority lies in `priorities`, in their order.
    pub fn eval_filter_chains(&mut self, hook: Hook, priorities: Range<i32>, scene: &mut EvalCtx<'_, '_>) -> Verdict {
        let v6 = scene.packet.family() == Family::V6;
        for at in 0..self.base_chains.len() {
            let Some(base) = self.base_chains.get(at).copied() else { break };
            if base.nat || base.hook != hook || !base.family.covers(v6) || !priorities.contains(&base.priority) {
                continue;
            }
            match self.eval_base_chain(base, scene) {
                Verdict::Accept => (),
                other => return other,
            }
        }
        Verdict::Accept
    }

    /// Decides how the connection that a packet begins is translated at a hook: by the first rule that says so, or not at all.
    pub fn eval_nat_chains(&mut self, hook: Hook, scene: &mut EvalCtx<'_, '_>) -> Verdict {
        let manip = match hook {
            Hook::Prerouting | Hook::Output => Manip::Destination,
            Hook::Input | Hook::Postrouting => Manip::Source,
            Hook::Forward => return Verdict::Accept,
        };
        let v6 = scene.packet.family() == Family::V6;
        if !self.has_nat_chain(v6) || !nat_undecided(scene, manip) {
            return Verdict::Accept;
        }
        for at in 0..self.base_chains.len() {
            let Some(base) = self.base_chains.get(at).copied() else { break };
            if !base.nat || base.hook != hook || !base.family.covers(v6) {
                continue;
            }
            match self.eval_base_chain(base, scene) {
                Verdict::Accept if nat_undecided(scene, manip) => (),
                other => return other,
            }
        }
        if let Some(passage) = scene.packet_ctx.as_deref_mut() {
            scene.engine.nat_null_binding(passage, manip, scene.now);
        }
        Verdict::Accept
    }

    fn eval_base_chain(&mut self, base: BaseChain, scene: &mut EvalCtx<'_, '_>) -> Verdict {
        let Program { chains, sets: lookups, state, .. } = self;
        if !state.timeouts_started {
            state.timeouts_started = true;
            lookups.iter_mut().for_each(|lookup| lookup.start_timeouts(scene.now));
        }
        let mut parts = Evaluator { chains, sets: lookups, state };
        match parts.eval_chain(base.chain, scene, 0) {
            ChainOutcome::Final(fate) => fate,
            ChainOutcome::EndOfChain | ChainOutcome::Returned if base.policy_drop => Verdict::Drop,
            ChainOutcome::EndOfChain | ChainOutcome::Returned => Verdict::Accept,
        }
    }
}

/// Is this end of the packet's connection still to be decided?
fn nat_undecided(scene: &mut EvalCtx<'_, '_>, manip: Manip) -> bool {
    let passage = scene.packet_ctx.as_deref_mut();
    passage.and_then(|passage| passage.unconfirmed()).is_some_and(|fresh| !fresh.is_nat_initialized(manip))
}

/// The compiler has seen to it that nothing goes deeper.
const MAX_CHAIN_DEPTH: usize = 32;

impl Evaluator<'_> {
    fn eval_chain(&mut self, chain: usize, scene: &mut EvalCtx<'_, '_>, depth: usize) -> ChainOutcome {
        let chains = self.chains;
        let Some(chain) = chains.get(chain).filter(|_| depth < MAX_CHAIN_DEPTH) else {
            return ChainOutcome::EndOfChain;
        };
        for rule in &chain.rules {
            match self.eval_rule(rule, scene) {
                InstrOutcome::Continue | InstrOutcome::Break | InstrOutcome::Verdict(CompiledVerdict::Continue) => (),
                InstrOutcome::Final(fate) => return ChainOutcome::Final(fate),
                InstrOutcome::Verdict(CompiledVerdict::Accept) => return ChainOutcome::Final(Verdict::Accept),
                InstrOutcome::Verdict(CompiledVerdict::Drop) => return ChainOutcome::Final(Verdict::Drop),
                InstrOutcome::Verdict(CompiledVerdict::Return) => return ChainOutcome::Returned,
                InstrOutcome::Verdict(CompiledVerdict::Goto(target)) => {
                    return self.eval_chain(target, scene, depth + 1);
                }
                InstrOutcome::Verdict(CompiledVerdict::Jump(target)) => {
                    if let ChainOutcome::Final(fate) = self.eval_chain(target, scene, depth + 1) {
                        return ChainOutcome::Final(fate);
                    }
                }
            }
        }
        ChainOutcome::EndOfChain
    }

    fn eval_rule(&mut self, rule: &CompiledRule, scene: &mut EvalCtx<'_, '_>) -> InstrOutcome {
        for step in &rule.instrs {
            match self.eval_instr(step, scene) {
                InstrOutcome::Continue => (),
                other => return other,
            }
        }
        InstrOutcome::Continue
    }

    fn eval_instr(&mut self, step: &Instr, scene: &mut EvalCtx<'_, '_>) -> InstrOutcome {
        let octets = scene.packet.total_len() as u64;
        match step {
            Instr::Match { left, not, right } => match self.eval_match(left, right, scene) {
                Some(holds) if holds != *not => InstrOutcome::Continue,
                _ => InstrOutcome::Break,
            },
            Instr::Counter(at) => {
                if let Some((packets, all)) = self.state.counters.get_mut(*at) {
                    *packets += 1;
                    *all += octets;
                }
                InstrOutcome::Continue
            }
            Instr::CounterMap(key, map) => match self.lookup_object(key, *map, scene) {
                Some(at) => self.eval_instr(&Instr::Counter(at), scene),
                None => InstrOutcome::Break,
            },
            Instr::Stateful(at) => {
                let meter = self.state.stateful.get_mut(*at);
                let passage = scene.packet_ctx.as_deref();
                continue_or_break(meter.is_some_and(|meter| meter.eval(octets, scene.engine, passage, scene.now)))
            }
            Instr::StatefulMap(key, map) => match self.lookup_object(key, *map, scene) {
                Some(at) => self.eval_instr(&Instr::Stateful(at), scene),
                None => InstrOutcome::Break,
            },
            Instr::Log(log) => {
                let line = log.format_line(scene);
                scene.meta.log_lines.push((log.level.unwrap_or(4), line));
                InstrOutcome::Continue
            }
            Instr::Notrack => {
                // As in Linux, what was given a zone is tracked in it, whichever comes first.
                scene.meta.untracked = scene.meta.zone.id == 0;
                InstrOutcome::Continue
            }
            Instr::Assign(target, value, kind) => {
                continue_or_break(self.assign(*target, value, *kind, scene).is_some())
            }
            Instr::CtHelper(helper) => {
                if let Some(fresh) = scene.packet_ctx.as_deref_mut().and_then(|passage| passage.unconfirmed()) {
                    fresh.attach_helper(*helper);
                }
                InstrOutcome::Continue
            }
            Instr::CtTimeout(timeout) => {
                let v6 = scene.packet.family() == Family::V6;
                let fits = scene.packet.protocol() == timeout.protocol && timeout.v6.is_none_or(|six| six == v6);
                // A value that no knob takes was refused when the ruleset was read.
                if fits
                    && let Some(fresh) = scene.packet_ctx.as_deref_mut().and_then(|passage| passage.unconfirmed())
                    && let Ok(timeouts) = scene.engine.add_timeout_policy(&timeout.seconds)
                {
                    fresh.set_timeout_policy(timeouts);
                }
                InstrOutcome::Continue
            }
            Instr::Nat(nat) => self.eval_nat(nat, scene),
            // A reset answers segments of TCP only.
            Instr::Reject(crate::ast::Reject::TcpReset) if scene.packet.protocol() != 6 => InstrOutcome::Break,
            Instr::Reject(reject) => InstrOutcome::Final(Verdict::Reject(*reject)),
            Instr::Synproxy(proxy) => {
                const SYN_OR_ACK: u8 = 0x12;
                match (scene.packet.protocol(), scene.packet.transport().get(13)) {
                    (6, Some(_)) if !scene.packet.transport_checksum_ok() => InstrOutcome::Final(Verdict::Drop),
                    (6, Some(flags)) if flags & SYN_OR_ACK != 0 => InstrOutcome::Final(Verdict::Synproxy(*proxy)),
                    (6, Some(_)) => InstrOutcome::Continue,
                    _ => InstrOutcome::Break,
                }
            }
            Instr::Vmap(key, map) => {
                let Some(key) = self.eval_key(key, scene) else { return InstrOutcome::Break };
                match self.sets.get(*map).and_then(|map| map.find(&key, scene.now)) {
                    Some(ElementValue::Verdict(verdict)) => InstrOutcome::Verdict(*verdict),
                    _ => InstrOutcome::Break,
                }
            }
            Instr::TcpOptStrip(number) => {
                if scene.packet.protocol() != 6 {
                    return InstrOutcome::Break;
                }
                // As Linux has it: what cannot be taken out whole does not pass.
                if !can_be_stripped(scene.packet.transport(), *number) {
                    return InstrOutcome::Final(Verdict::Drop);
                }
                scene.meta.rewrites.push(HeaderRewrite::TcpOptStrip(*number));
                InstrOutcome::Continue
            }
            Instr::Dynset { op: operation, set, key, timeout, stateful: each, data } => {
                let Some(key) = self.eval_key(key, scene) else { return InstrOutcome::Break };
                let Some(data) = self.eval_key(data, scene) else { return InstrOutcome::Break };
                let Some(lookup) = self.sets.get_mut(*set) else { return InstrOutcome::Break };
                if *operation == DynsetOp::Delete {
                    lookup.dynamic.remove(key.as_slice());
                    return InstrOutcome::Continue;
                }
                let timeout = timeout.or(lookup.timeout);
                let until = timeout.map(|seconds| scene.now.after(std::time::Duration::from_secs(seconds)));
                let known = lookup.dynamic.get(key.as_slice());
                let lives = known.is_some_and(|living| living.expires_at.is_none_or(|until| until > scene.now));
                if !lives {
                    lookup.dynamic.remove(key.as_slice());
                    if !lookup.make_room(scene.now) {
                        return InstrOutcome::Break;
                    }
                    let each = each.iter().map(StatefulExpr::new).collect();
                    let found = match data.as_slice() {
                        [] => ElementValue::Present,
                        data => {
                            ElementValue::Values(data.iter().map(|value| (*value, *value)).collect::<Vec<_>>().into())
                        }
                    };
                    lookup.dynamic.insert(
                        key.clone().into(),
                        DynElement { expires_at: until, stateful: each, value: found, timeout: None },
                    );
                }
                let Some(living) = lookup.dynamic.get_mut(key.as_slice()) else { return InstrOutcome::Break };
                if *operation == DynsetOp::Update {
                    living.expires_at = until;
                }
                let passage = scene.packet_ctx.as_deref();
                let all = living.stateful.iter_mut().all(|meter| meter.eval(octets, scene.engine, passage, scene.now));
                continue_or_break(all)
            }
            Instr::Verdict(verdict) => InstrOutcome::Verdict(*verdict),
        }
    }

    fn eval_match(&mut self, left: &[CompiledExpr], right: &CompiledRhs, scene: &EvalCtx<'_, '_>) -> Option<bool> {
        Some(match right {
            CompiledRhs::Ranges(ranges) => {
                for (value, (first, last)) in left.iter().zip(ranges) {
                    if !(*first..=*last).contains(&self.eval_expr(value, scene)?) {
                        return Some(false);
                    }
                }
                true
            }
            CompiledRhs::AnyBit(bits) => self.eval_expr(left.first()?, scene)? & bits != 0,
            CompiledRhs::Set(set) => {
                let key = self.eval_key(left, scene)?;
                let lookup = self.sets.get_mut(*set)?;
                let found = lookup.find(&key, scene.now).is_some();
                if found && let Some(living) = lookup.dynamic.get_mut(key.as_slice()) {
                    // What an element has of its own measures whoever is found by it; beyond it, the rule does not apply at all.
                    let octets = scene.packet.total_len() as u64;
                    let passage = scene.packet_ctx.as_deref();
                    let mut each = living.stateful.iter_mut();
                    if !each.all(|meter| meter.eval(octets, scene.engine, passage, scene.now)) {
                        return None;
                    }
                }
                found
            }
        })
    }

    /// The place of the object that a map has for a key.
    fn lookup_object(&mut self, key: &[CompiledExpr], map: usize, scene: &EvalCtx<'_, '_>) -> Option<usize> {
        let key = self.eval_key(key, scene)?;
        match self.sets.get(map)?.find(&key, scene.now)? {
            ElementValue::Values(values) => usize::try_from(values.first()?.0).ok(),
            _ => None,
        }
    }

    pub(super) fn eval_key(&mut self, parts: &[CompiledExpr], scene: &EvalCtx<'_, '_>) -> Option<Vec<u128>> {
        parts.iter().map(|part| self.eval_expr(part, scene)).collect()
    }

    pub(super) fn eval_expr(&mut self, value: &CompiledExpr, scene: &EvalCtx<'_, '_>) -> Option<u128> {
        Some(match value {
            CompiledExpr::Select(selector) => eval_selector(*selector, scene, self.state)?,
            CompiledExpr::Constant(value) => *value,
            CompiledExpr::Bitwise(of, and, xor) => self.eval_expr(of, scene)? & and ^ xor,
            CompiledExpr::Shift(of, by, greatest) => {
                let of = self.eval_expr(of, scene)?;
                let bits = u32::from(by.unsigned_abs());
                let shifted = if *by < 0 { of.checked_shr(bits) } else { of.checked_shl(bits) };
                shifted.unwrap_or(0) & greatest
            }
            CompiledExpr::Map(key, map) => {
                let key = self.eval_key(key, scene)?;
                match self.sets.get(*map)?.find(&key, scene.now)? {
                    ElementValue::Values(values) => values.first()?.0,
                    ElementValue::Present | ElementValue::Verdict(_) | ElementValue::Expiring(..) => return None,
                }
            }
            CompiledExpr::Numgen { slot: Some(slot), modulus, offset } => {
                let next = self.state.numgen_counters.get_mut(*slot)?;
                let number = *next;
                *next = (number + 1) % modulus;
                u128::from(offset.wrapping_add(number))
            }
            CompiledExpr::Numgen { slot: None, modulus, offset } => {
                let draw = self.state.next_random(scene.now.0);
                u128::from(offset.wrapping_add(draw % modulus))
            }
            CompiledExpr::Hash { of, modulus, seed, offset } => {
                let mut octets = Vec::with_capacity(40);
                if of.is_empty() {
                    symhash_key(scene).iter().for_each(|part| octets.extend(part.to_be_bytes()));
                }
                for (part, kind) in of {
                    push_register_bytes(self.eval_expr(part, scene)?, *kind, &mut octets);
                }
                u128::from(offset.wrapping_add(jhash(&octets, *seed, *modulus)))
            }
        })
    }

    fn assign(
        &mut self,
        target: AssignTarget,
        value: &CompiledExpr,
        kind: DataType,
        scene: &mut EvalCtx<'_, '_>,
    ) -> Option<()> {
        let value = self.eval_expr(value, scene)?;
        // Each target's kind has no more bits than are taken here.
        let low = (value & kind.max_value()) as u32;
        match target {
            AssignTarget::MetaMark => scene.meta.mark = low,
            AssignTarget::MetaPriority => scene.meta.priority = low,
            AssignTarget::NfTrace => (),
            AssignTarget::CtMark => {
                scene.engine.set_mark(scene.packet_ctx.as_deref_mut()?, low);
            }
            AssignTarget::CtZone => {
                scene.meta.zone = Zone { id: low as u16, ..Zone::default() };
                scene.meta.untracked = false;
            }
            AssignTarget::CtLabel => {
                scene.engine.add_labels(scene.packet_ctx.as_deref_mut()?, value.to_le_bytes());
            }
            AssignTarget::Dscp { v6 } | AssignTarget::Ttl { v6 } if v6 != (scene.packet.family() == Family::V6) => {
                return None;
            }
            AssignTarget::Dscp { .. } => scene.meta.rewrites.push(HeaderRewrite::Dscp(low as u8)),
            AssignTarget::Ttl { .. } => scene.meta.rewrites.push(HeaderRewrite::Ttl(low as u8)),
            AssignTarget::Address { v6, .. } if v6 != (scene.packet.family() == Family::V6) => return None,
            AssignTarget::Address { v6, endpoint: end } => {
                let address = if v6 { IpAddr::from(value.to_be_bytes()) } else { IpAddr::from(low.to_be_bytes()) };
                scene.meta.rewrites.push(HeaderRewrite::Address(end, address));
            }
            AssignTarget::Port { protocol, .. } if protocol.is_some_and(|one| one != scene.packet.protocol()) => {
                return None;
            }
            AssignTarget::Port { endpoint: end, .. } => scene.meta.rewrites.push(HeaderRewrite::Port(end, low as u16)),
            AssignTarget::Payload(field) => {
                let v6 = scene.packet.family() == Family::V6;
                let fits = field.protocol.is_none_or(|one| one == scene.packet.protocol());
                if !fits || field.v6.is_some_and(|six| six != v6) {
                    return None;
                }
                scene.meta.rewrites.push(HeaderRewrite::Payload(field, value & kind.max_value()));
            }
            AssignTarget::TcpMss => scene.meta.rewrites.push(HeaderRewrite::TcpMss(low as u16)),
        }
        Some(())
    }
}

fn continue_or_break(on: bool) -> InstrOutcome {
    if on { InstrOutcome::Continue } else { InstrOutcome::Break }
}

/// Both ends of a packet's connection, the smaller first: the same for both directions.
fn symhash_key(scene: &EvalCtx<'_, '_>) -> [u128; 5] {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let (source, destination) = scene.packet.ports().unwrap_or_default();
    let one = (number(super::eval_selector::packet_address(scene.packet, Endpoint::Source)), source);
    let other = (number(super::eval_selector::packet_address(scene.packet, Endpoint::Destination)), destination);
    let (first, second) = (one.min(other), one.max(other));
    [first.0, first.1.into(), second.0, second.1.into(), scene.packet.protocol().into()]
}
