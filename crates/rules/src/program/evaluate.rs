//! What the rules of one hook make of a packet.
use super::compiled::Program;
use super::context::{EvalCtx, HeaderRewrite, Verdict};
use super::eval_expr::Evaluator;
use super::exthdr::can_be_stripped;
use super::instr::{BaseChain, CompiledExpr, CompiledRhs, CompiledRule, CompiledVerdict, Instr};
use super::log::format_log_line;
use super::nat::apply_nat;
use super::set::{DynElement, ElementValue};
use super::state::StatefulExpr;
use crate::ast::{AssignTarget, DynsetOp, Hook, Reject};
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
enum InstrOutcome {
    Continue,
    /// The rule does not apply.
    Break,
    Verdict(CompiledVerdict),
    Final(Verdict),
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
                let line = format_log_line(log, scene);
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
            Instr::Nat(nat) if apply_nat(self, nat, scene) => InstrOutcome::Final(Verdict::Accept),
            Instr::Nat(_) => InstrOutcome::Break,
            // A reset answers segments of TCP only.
            Instr::Reject(Reject::TcpReset) if scene.packet.protocol() != 6 => InstrOutcome::Break,
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
                        data => ElementValue::Values(data.iter().map(|value| (*value, *value)).collect()),
                    };
                    lookup.dynamic.insert(
                        key.as_slice().into(),
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
