//! Evaluating the chains of a hook for one packet.
use super::compiled::Program;
use super::context::{EvalCtx, PacketCopy, Verdict};
use super::eval_dynset::DynsetChange;
use super::eval_expr::Evaluator;
use super::eval_selector::eval_selector;
use super::exthdr::can_be_stripped;
use super::flow_offload::may_be_offloaded;
use super::header_rewrite::HeaderRewrite;
use super::hold::{holds_of_instr, is_alike, is_ordinary_in, stops_probe, tcp_flags_of_match};
use super::instr::{BaseChain, CompiledExpr, CompiledRhs, CompiledRule, CompiledVerdict, Instr};
use super::log::format_log_line;
use super::nat::{NatOutcome, apply_nat};
use super::rule_trace::Decision;
use super::set::ElementValue;
use super::tproxy::eval_tproxy;
use super::trace::HoldReasons;
use crate::ast::{Hook, Reject};
use keepstate_engine::{ExpectResult, Instant, Manip};
use keepstate_wire::Family;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Result of a chain.
enum ChainOutcome {
    /// The end of the chain was reached.
    EndOfChain,
    /// `return`: continue after the jump.
    Returned,
    Final(Verdict),
}

/// Result of one instruction.
enum InstrOutcome {
    Continue,
    /// No match: the rule ends.
    Break,
    Verdict(CompiledVerdict),
    Final(Verdict),
}

impl Program {
    /// Evaluates the filter chains of a hook with priorities in `priorities`, in ascending order.
    pub fn eval_filter_chains(
        &mut self,
        hook: Hook,
        priorities: RangeInclusive<i32>,
        ctx: &mut EvalCtx<'_, '_>,
    ) -> Verdict {
        let v6 = ctx.packet.family() == Family::V6;
        for at in 0..self.base_chains.len() {
            let Some(base) = self.base_chains.get(at).copied() else { break };
            if base.nat || base.hook != hook || !base.family.covers(v6) || !priorities.contains(&base.priority) {
                continue;
            }
            if let Some(devices) = base.devices.and_then(|at| self.devices.get(at))
                && !ctx.meta.iif.is_some_and(|device| devices.contains(&device.name))
            {
                continue;
            }
            let before = base.reroutes.then(|| ctx.route_key());
            match self.eval_base_chain(base, ctx) {
                Verdict::Accept => (),
                other => return other,
            }
            if before.is_some_and(|before| before != ctx.route_key()) {
                ctx.meta.reroute_mark = Some(ctx.meta.mark);
            }
        }
        Verdict::Accept
    }

    /// Evaluates the nat chains of a hook for the first packet of a connection: the first NAT statement reached decides, else the connection is not translated.
    pub fn eval_nat_chains(&mut self, hook: Hook, ctx: &mut EvalCtx<'_, '_>) -> Verdict {
        let manip = match hook {
            Hook::Prerouting | Hook::Output => Manip::Destination,
            Hook::Input | Hook::Postrouting => Manip::Source,
            Hook::Ingress | Hook::Forward => return Verdict::Accept,
        };
        let v6 = ctx.packet.family() == Family::V6;
        if !self.has_nat_chain(v6) || !nat_undecided(ctx, manip) {
            return Verdict::Accept;
        }
        for at in 0..self.base_chains.len() {
            let Some(base) = self.base_chains.get(at).copied() else { break };
            if !base.nat || base.hook != hook || !base.family.covers(v6) {
                continue;
            }
            match self.eval_base_chain(base, ctx) {
                Verdict::Accept if nat_undecided(ctx, manip) => (),
                other => return other,
            }
        }
        if let Some(packet_ctx) = ctx.packet_ctx.as_deref_mut() {
            ctx.engine.nat_null_binding(packet_ctx, manip, ctx.now);
        }
        Verdict::Accept
    }

    /// The timeouts of the ruleset's elements begin to run, unless they do already.
    pub(super) fn start_timeouts(&mut self, now: Instant) {
        self.state.last_seen = now;
        if self.state.started_at.is_none() {
            self.state.started_at = Some(now);
            self.sets.iter_mut().for_each(|set| set.start_timeouts(now));
        }
    }

    fn eval_base_chain(&mut self, base: BaseChain, ctx: &mut EvalCtx<'_, '_>) -> Verdict {
        self.start_timeouts(ctx.now);
        let Program { chains, sets, state, .. } = self;
        state.trace.begin_chain(ctx.meta.trace.mark_set);
        let mut parts = Evaluator { chains, sets, state };
        let verdict = match parts.eval_chain(base.chain, ctx, 0) {
            ChainOutcome::Final(verdict) => verdict,
            ChainOutcome::EndOfChain | ChainOutcome::Returned => {
                let verdict = if base.policy_drop { Verdict::Drop } else { Verdict::Accept };
                // A base chain has a name.
                let number = parts.number_of(base.chain).unwrap_or_default();
                if base.policy_drop && !ctx.meta.is_probe {
                    parts.state.drops.count_policy(number);
                }
                if let Some(trace) = &mut ctx.meta.rule_trace {
                    trace.note(number, None, Decision::of_verdict(verdict));
                }
                verdict
            }
        };
        ctx.meta.trace.add(&state.trace);
        verdict
    }
}

/// Is NAT of this direction still undecided for the packet's connection?
fn nat_undecided(ctx: &mut EvalCtx<'_, '_>, manip: Manip) -> bool {
    let packet_ctx = ctx.packet_ctx.as_deref_mut();
    packet_ctx.and_then(|packet_ctx| packet_ctx.unconfirmed()).is_some_and(|fresh| !fresh.is_nat_initialized(manip))
}

/// The compiler refuses deeper jumps.
const MAX_CHAIN_DEPTH: usize = 32;

impl Evaluator<'_> {
    fn eval_chain(&mut self, number: usize, ctx: &mut EvalCtx<'_, '_>, depth: usize) -> ChainOutcome {
        let chains = self.chains;
        let Some(chain) = chains.get(number).filter(|_| depth < MAX_CHAIN_DEPTH) else {
            return ChainOutcome::EndOfChain;
        };
        let (mut at, mut runs) = (0, chain.runs.iter().peekable());
        while at < chain.rules.len() {
            if let Some(run) = runs.peek() {
                // Rules that cannot match are skipped.
                if at >= run.start {
                    at = run.next_rule(at, |selector| eval_selector(selector, ctx, self.state)).unwrap_or(run.end);
                    if at >= run.end {
                        runs.next();
                        continue;
                    }
                }
            }
            let Some(rule) = chain.rules.get(at) else { break };
            at += 1;
            let outcome = self.eval_rule(rule, ctx);
            self.note_outcome(&outcome, number, at - 1, ctx);
            match outcome {
                InstrOutcome::Continue | InstrOutcome::Break | InstrOutcome::Verdict(CompiledVerdict::Continue) => (),
                InstrOutcome::Final(verdict) => return ChainOutcome::Final(verdict),
                InstrOutcome::Verdict(CompiledVerdict::Accept) => return ChainOutcome::Final(Verdict::Accept),
                InstrOutcome::Verdict(CompiledVerdict::Drop) => return ChainOutcome::Final(Verdict::Drop),
                InstrOutcome::Verdict(CompiledVerdict::Return) => return ChainOutcome::Returned,
                InstrOutcome::Verdict(CompiledVerdict::Goto(target)) => {
                    let outcome = self.eval_chain(target, ctx, depth + 1);
                    self.note_anonymous(&outcome, target, (number, at - 1), ctx);
                    return outcome;
                }
                InstrOutcome::Verdict(CompiledVerdict::Jump(target)) => {
                    let outcome = self.eval_chain(target, ctx, depth + 1);
                    self.note_anonymous(&outcome, target, (number, at - 1), ctx);
                    if let ChainOutcome::Final(verdict) = outcome {
                        return ChainOutcome::Final(verdict);
                    }
                }
            }
        }
        if depth > 0
            && let (Some(trace), Some(named)) = (&mut ctx.meta.rule_trace, chain.number)
        {
            trace.note(named, None, Decision::Continue);
        }
        ChainOutcome::EndOfChain
    }

    /// Counts what a rule drops, and notes what it does if somebody traces the packet. Rules of a chain without a name are part of the rule that has it.
    fn note_outcome(&mut self, outcome: &InstrOutcome, chain: usize, rule: usize, ctx: &mut EvalCtx<'_, '_>) {
        let decision = match outcome {
            // Not all of it has matched.
            InstrOutcome::Break => return,
            InstrOutcome::Continue if ctx.meta.rule_trace.is_none() => return,
            InstrOutcome::Continue => Decision::Continue,
            InstrOutcome::Verdict(verdict) => Decision::of_compiled(*verdict, |chain| self.number_of(chain)),
            InstrOutcome::Final(verdict) => Decision::of_verdict(*verdict),
        };
        let Some((number, first_rule)) =
            self.chains.get(chain).and_then(|chain| Some((chain.number?, chain.first_rule)))
        else {
            return;
        };
        if decision.is_drop() && !ctx.meta.is_probe {
            self.state.drops.count_rule(first_rule + rule);
        }
        if let Some(trace) = &mut ctx.meta.rule_trace {
            trace.note(number, Some(rule), decision);
        }
    }

    /// Notes what came of a chain without a name, for the rule that has it.
    fn note_anonymous(&mut self, outcome: &ChainOutcome, target: usize, at: (usize, usize), ctx: &mut EvalCtx<'_, '_>) {
        if let (ChainOutcome::Final(verdict), None) = (outcome, self.number_of(target)) {
            self.note_outcome(&InstrOutcome::Final(*verdict), at.0, at.1, ctx);
        }
    }

    fn eval_rule(&mut self, rule: &CompiledRule, ctx: &mut EvalCtx<'_, '_>) -> InstrOutcome {
        for instr in &rule.instrs {
            match self.eval_instr(instr, ctx) {
                InstrOutcome::Continue => (),
                other => return other,
            }
        }
        InstrOutcome::Continue
    }

    fn eval_instr(&mut self, instr: &Instr, ctx: &mut EvalCtx<'_, '_>) -> InstrOutcome {
        let bytes = ctx.packet.total_len() as u64;
        self.state.trace.holds |= holds_of_instr(instr);
        self.state.trace.one_connection |= !is_alike(instr);
        if ctx.meta.is_probe && stops_probe(instr) {
            self.state.trace.holds |= HoldReasons::REWRITE;
            return InstrOutcome::Final(Verdict::Drop);
        }
        match instr {
            Instr::Match { left, not, right } => {
                let holds = self.state.trace.holds;
                let matched = self.eval_match(left, right, *not, ctx);
                if let Some(flags) = tcp_flags_of_match(left, right)
                    && is_ordinary_in(ctx.packet, flags)
                {
                    self.state.trace.holds = holds;
                    self.state.trace.tcp_flags_read |= flags;
                }
                match matched {
                    Some(holds) if holds != *not => InstrOutcome::Continue,
                    _ => InstrOutcome::Break,
                }
            }
            Instr::Counter(at) => {
                if let Some((packets, all)) = self.state.counters.get_mut(*at) {
                    if !ctx.meta.is_probe {
                        *packets += 1;
                        *all += bytes;
                    }
                    self.state.trace.note_counter(u32::try_from(*at).unwrap_or(u32::MAX));
                }
                InstrOutcome::Continue
            }
            Instr::CounterMap(key, map) => match self.lookup_object(key, *map, ctx) {
                Some(at) => self.eval_instr(&Instr::Counter(at), ctx),
                None => InstrOutcome::Break,
            },
            Instr::Stateful(at) => {
                let meter = self.state.stateful.get_mut(*at);
                let packet_ctx = ctx.packet_ctx.as_deref();
                continue_or_break(meter.is_some_and(|meter| meter.eval(ctx.packet, ctx.engine, packet_ctx, ctx.now)))
            }
            Instr::StatefulMap(key, map) => match self.lookup_object(key, *map, ctx) {
                Some(at) => self.eval_instr(&Instr::Stateful(at), ctx),
                None => InstrOutcome::Break,
            },
            Instr::ObjectMap { key, map, choices } => {
                match self.lookup_object(key, *map, ctx).and_then(|at| choices.get(at)) {
                    Some(choice) => self.eval_instr(choice, ctx),
                    None => InstrOutcome::Break,
                }
            }
            Instr::Nop => InstrOutcome::Continue,
            Instr::Tproxy(proxy) => continue_or_break(eval_tproxy(self, proxy, ctx)),
            Instr::FlowOffload => continue_or_break(may_be_offloaded(ctx)),
            Instr::Log(log) => {
                let line = format_log_line(log, ctx);
                ctx.meta.log_lines.push((log.level.unwrap_or(4), line));
                InstrOutcome::Continue
            }
            Instr::Notrack => {
                // As in Linux, a packet with a zone is tracked in it, whichever statement comes first.
                ctx.meta.untracked = ctx.meta.zone.is_none();
                InstrOutcome::Continue
            }
            Instr::Assign(target, value, kind) => continue_or_break(self.assign(*target, value, *kind, ctx).is_some()),
            Instr::CtHelper(helper) => {
                if let Some(fresh) = ctx.packet_ctx.as_deref_mut().and_then(|packet_ctx| packet_ctx.unconfirmed()) {
                    fresh.attach_helper(*helper);
                }
                InstrOutcome::Continue
            }
            Instr::CtTimeout(timeout) => {
                let v6 = ctx.packet.family() == Family::V6;
                let fits = ctx.packet.protocol() == timeout.protocol && timeout.v6.is_none_or(|six| six == v6);
                // The parser has refused values that no sysctl takes.
                if fits
                    && let Some(packet_ctx) = ctx.packet_ctx.as_deref_mut()
                    && packet_ctx.unconfirmed().is_some()
                    && let Ok(timeouts) = ctx.engine.add_timeout_policy(&timeout.seconds)
                {
                    ctx.engine.set_timeout_policy(packet_ctx, timeouts);
                }
                InstrOutcome::Continue
            }
            Instr::CtExpectation(policy) => {
                let result = ctx.packet_ctx.as_deref_mut().map(|of| ctx.engine.expect_by_policy(of, policy, ctx.now));
                match result {
                    Some(ExpectResult::Expected) => InstrOutcome::Continue,
                    Some(ExpectResult::Refused) => InstrOutcome::Final(Verdict::Drop),
                    // A packet of a known connection, or of none.
                    Some(ExpectResult::NotApplicable) | None => InstrOutcome::Break,
                }
            }
            Instr::Nat(nat) => match apply_nat(self, nat, ctx) {
                NatOutcome::Applied => InstrOutcome::Final(Verdict::Accept),
                NatOutcome::NoAddress => InstrOutcome::Final(Verdict::Drop),
                NatOutcome::NoMatch => InstrOutcome::Break,
            },
            // Only TCP segments can be answered with a reset.
            Instr::Reject(Reject::TcpReset) if ctx.packet.protocol() != 6 => InstrOutcome::Break,
            // The type implies the family: nothing is done with packets of the other one.
            Instr::Reject(Reject::Icmp(_)) if ctx.packet.family() == Family::V6 => InstrOutcome::Break,
            Instr::Reject(Reject::Icmpv6(_)) if ctx.packet.family() == Family::V4 => InstrOutcome::Break,
            Instr::Reject(reject) => InstrOutcome::Final(Verdict::Reject(*reject)),
            Instr::Synproxy(proxy) => {
                const SYN_OR_ACK: u8 = 0x12;
                let packet = ctx.current_packet();
                match (packet.protocol(), packet.transport().get(13)) {
                    (6, Some(_)) if !packet.transport_checksum_ok() => InstrOutcome::Final(Verdict::Drop),
                    (6, Some(flags)) if flags & SYN_OR_ACK != 0 => InstrOutcome::Final(Verdict::Synproxy(*proxy)),
                    (6, Some(_)) => InstrOutcome::Continue,
                    _ => InstrOutcome::Break,
                }
            }
            Instr::Vmap(key, map) => {
                let Some(key) = self.eval_key(key, ctx) else { return InstrOutcome::Break };
                self.note_set(*map, &key);
                if !self.passes_element(*map, &key, ctx) {
                    return InstrOutcome::Break;
                }
                match self.sets.get(*map).and_then(|map| map.find(&key, ctx.now)) {
                    // As in Linux, the rule itself goes on.
                    Some(ElementValue::Verdict(CompiledVerdict::Continue)) => InstrOutcome::Continue,
                    Some(ElementValue::Verdict(verdict)) => InstrOutcome::Verdict(*verdict),
                    _ => InstrOutcome::Break,
                }
            }
            Instr::TcpOptStrip(number) => {
                if ctx.packet.protocol() != 6 {
                    return InstrOutcome::Break;
                }
                // As in Linux: a packet whose option cannot be removed completely is dropped.
                if !can_be_stripped(ctx.current_packet().transport(), *number) {
                    return InstrOutcome::Final(Verdict::Drop);
                }
                continue_or_break(ctx.rewrite_header(HeaderRewrite::TcpOptStrip(*number)).is_some())
            }
            Instr::Dynset { op, set, key, timeout, stateful, data } => {
                let change = DynsetChange { op: *op, set: *set, key, timeout: *timeout, stateful, data };
                continue_or_break(self.change_set(&change, ctx).unwrap_or(false))
            }
            Instr::Dup { to, v6, device } => {
                let Some(value) = self.eval_expr(to, ctx) else { return InstrOutcome::Break };
                let address = if *v6 {
                    IpAddr::from(value.to_be_bytes())
                } else {
                    // The type has 32 bits.
                    IpAddr::from((value as u32).to_be_bytes())
                };
                let bytes = ctx.current_packet().bytes().to_vec();
                ctx.meta.copies.push(PacketCopy { bytes, to: address, device: *device });
                InstrOutcome::Continue
            }
            // As in Linux, the rule itself goes on.
            Instr::Verdict(CompiledVerdict::Continue) => InstrOutcome::Continue,
            Instr::Verdict(verdict) => InstrOutcome::Verdict(*verdict),
        }
    }

    fn eval_match(
        &mut self,
        left: &[CompiledExpr],
        right: &CompiledRhs,
        not: bool,
        ctx: &EvalCtx<'_, '_>,
    ) -> Option<bool> {
        Some(match right {
            CompiledRhs::Ranges(ranges) => {
                for (value, (first, last)) in left.iter().zip(ranges) {
                    if !(*first..=*last).contains(&self.eval_expr(value, ctx)?) {
                        return Some(false);
                    }
                }
                true
            }
            CompiledRhs::AnyBit(bits) => self.eval_expr(left.first()?, ctx)? & bits != 0,
            CompiledRhs::Set(set) => {
                let key = self.eval_key(left, ctx)?;
                self.note_set(*set, &key);
                let found = self.sets.get(*set)?.find(&key, ctx.now).is_some();
                // Limits and quotas of an element apply to the packets that match it; beyond them the rule does not match. With `!=` none are asked, as in Linux.
                if found && !not && !self.passes_element(*set, &key, ctx) {
                    return None;
                }
                found
            }
        })
    }
}

fn continue_or_break(on: bool) -> InstrOutcome {
    if on { InstrOutcome::Continue } else { InstrOutcome::Break }
}
