//! What happens at a hook: filter chains, NAT chains and services, and their verdicts.
use super::{AFTER_SNAT, DropReason, InFlightPacket, Router, destination_of, parse_packet};
use crate::service::{ServiceCtx, ServiceVerdict};
use keepstate_engine::{CtInfo, Direction, Manip, NatRewrite, PacketCtx, Status};
use keepstate_rules::ast::{Hook, Reject};
use keepstate_rules::{EvalCtx, Verdict};
use keepstate_wire::Packet;
use std::ops::RangeInclusive;

impl Router {
    /// Evaluates the filter chains of a hook, and makes their header changes.
    pub(super) fn run_filter_chains(
        &mut self,
        hook: Hook,
        priorities: RangeInclusive<i32>,
        pkt: &mut InFlightPacket,
    ) -> Result<(), DropReason> {
        if !self.program.has_filter_chain(hook, &priorities) {
            return Ok(());
        }
        let InFlightPacket { bytes, layout, meta, ctx, now, .. } = pkt;
        let packet = parse_packet(bytes, *layout)?;
        let mut eval_ctx = EvalCtx {
            engine: &mut self.engine,
            packet_ctx: ctx.as_mut(),
            packet: &packet,
            meta,
            fib: &self.fib,
            sockets: self.sockets.as_deref(),
            now: *now,
        };
        let verdict = self.program.eval_filter_chains(hook, priorities, &mut eval_ctx);
        // Before those of an answer to the packet.
        self.queue_log(&mut pkt.meta.log_lines);
        // An error quotes the packet as the rules have changed it.
        pkt.take_rewritten();
        self.send_copies(hook, pkt);
        self.apply_verdict(verdict, pkt)
    }

    /// Evaluates services and the NAT chains of a hook for a new connection; translates the packet as its connection says.
    pub(super) fn run_nat(&mut self, hook: Hook, manip: Manip, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if !self.services.is_empty() {
            self.dispatch_service(manip, pkt)?;
        }
        let InFlightPacket { bytes, layout, meta, ctx, now, .. } = pkt;
        let Some(ctx) = ctx.as_mut() else { return Ok(()) };
        if ctx.unconfirmed().is_none() {
            return self.apply_nat(manip, pkt);
        }
        let packet = parse_packet(bytes, *layout)?;
        let mut eval_ctx = EvalCtx {
            engine: &mut self.engine,
            packet_ctx: Some(ctx),
            packet: &packet,
            meta,
            fib: &self.fib,
            sockets: self.sockets.as_deref(),
            now: *now,
        };
        let verdict = self.program.eval_nat_chains(hook, &mut eval_ctx);
        self.queue_log(&mut pkt.meta.log_lines);
        pkt.take_rewritten();
        self.send_copies(hook, pkt);
        if pkt.backend.is_some()
            && let Some(ctx) = &mut pkt.ctx
        {
            // Also without a rule: a direct connection of the same client to the backend must get another tuple.
            self.engine.nat_null_binding(ctx, manip, pkt.now);
        }
        self.apply_verdict(verdict, pkt)?;
        self.apply_nat(manip, pkt)
    }

    /// Translates the packet as its connection says.
    fn apply_nat(&mut self, manip: Manip, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        // Only an ICMP error is related and may be a redirect: other packets are not looked at again.
        let related = pkt.ctx.as_ref().is_some_and(|ctx| ctx.info() == CtInfo::Related);
        if related && is_redirect(&pkt.packet()?) && self.is_translated(pkt) {
            // As in Linux (`nf_nat_icmp_reply_translation`): the ends would speak past the translation.
            return Err(DropReason::NatFailed);
        }
        let edits = pkt.ctx.as_ref().map_or(NatRewrite::NONE, |ctx| self.engine.nat_rewrite(ctx, manip));
        if edits.is_none() {
            return Ok(());
        }
        // After SNAT only a filter chain could still answer the sender; without one the copy is saved.
        let may_answer = manip == Manip::Destination || self.program.has_filter_chain(Hook::Postrouting, &AFTER_SNAT);
        if may_answer && pkt.pre_nat.is_empty() {
            pkt.pre_nat.clone_from(&pkt.bytes);
        }
        let changed = pkt.rewrite().is_ok_and(|mut rewrite| edits.apply_to(&mut rewrite));
        if changed { Ok(()) } else { Err(DropReason::NatFailed) }
    }

    /// Is the packet's connection translated?
    pub(super) fn is_translated(&self, pkt: &InFlightPacket) -> bool {
        let connection = pkt.ctx.as_ref().and_then(|ctx| self.engine.connection(ctx, pkt.now));
        connection.is_some_and(|connection| connection.status.intersects(Status::SRC_NAT | Status::DST_NAT))
    }

    /// Services come before the ruleset's NAT chains, like the chains of Docker and kube-proxy; a chain cannot override them.
    fn dispatch_service(&mut self, manip: Manip, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let InFlightPacket { meta, ctx: Some(ctx), backend: choice, now, .. } = pkt else { return Ok(()) };
        let service_ctx = ServiceCtx { engine: &mut self.engine, ctx, fib: &self.fib, meta, now: *now };
        match (manip, &choice) {
            (Manip::Source, None) => Ok(()),
            (Manip::Source, Some(choice)) => {
                let to = destination_of(&pkt.bytes)?;
                self.services.masquerade(choice, to, service_ctx);
                Ok(())
            }
            (Manip::Destination, _) => match self.services.dispatch(service_ctx) {
                ServiceVerdict::NotService => Ok(()),
                ServiceVerdict::Dispatched(sent) => {
                    *choice = Some(sent);
                    Ok(())
                }
                ServiceVerdict::Ended => Err(DropReason::NoBackend),
                ServiceVerdict::Refused => {
                    let tcp = Packet::parse(&pkt.bytes).is_ok_and(|packet| packet.protocol() == 6);
                    self.send_reject(if tcp { Reject::TcpReset } else { Reject::Default }, pkt);
                    self.remove_refused_connection(pkt);
                    Err(DropReason::NoBackend)
                }
            },
        }
    }

    /// Removes the connection of a refused packet, after its client was answered.
    fn remove_refused_connection(&mut self, pkt: &InFlightPacket) {
        let ctx = pkt.ctx.as_ref().filter(|ctx| ctx.direction() == Some(Direction::Original));
        if let Some(handle) = ctx.and_then(PacketCtx::connection) {
            self.engine.remove(handle, pkt.now);
        }
    }

    fn apply_verdict(&mut self, verdict: Verdict, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        match verdict {
            Verdict::Accept => Ok(()),
            // Nobody is answered.
            _ if pkt.meta.is_probe => Err(DropReason::RulesetDrop),
            Verdict::Drop => Err(DropReason::RulesetDrop),
            Verdict::Reject(reject) => {
                self.send_reject(reject, pkt);
                Err(DropReason::RulesetReject)
            }
            Verdict::Synproxy(rule) => Err(self.synproxy_answer(&rule, pkt)),
        }
    }
}

/// Is it an ICMP redirect?
fn is_redirect(packet: &Packet<'_>) -> bool {
    matches!((packet.protocol(), packet.transport().first()), (1, Some(5)) | (58, Some(137)))
}
