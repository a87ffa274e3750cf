//! What happens at a hook: chains that filter, chains and services that translate, and what their verdicts ask for.
use super::{AFTER_SNAT, DropReason, InFlightPacket, Router, destination_of, parse_packet};
use crate::service::{ServiceCtx, ServiceVerdict};
use keepstate_engine::{Direction, Manip, NatRewrite, PacketCtx};
use keepstate_rules::ast::{Hook, Reject};
use keepstate_rules::{EvalCtx, Verdict};
use keepstate_wire::Packet;
use std::ops::Range;

impl Router {
    /// The filtering chains of a hook, and what they want changed.
    pub(super) fn run_filter_chains(
        &mut self,
        hook: Hook,
        priorities: Range<i32>,
        trip: &mut InFlightPacket,
    ) -> Result<(), DropReason> {
        if !self.program.has_filter_chain(hook, &priorities) {
            return Ok(());
        }
        let InFlightPacket { bytes, layout, meta: way, ctx: passage, now, .. } = trip;
        let packet = parse_packet(bytes, *layout)?;
        let mut scene = EvalCtx {
            engine: &mut self.engine,
            packet_ctx: passage.as_mut(),
            packet: &packet,
            meta: way,
            fib: &self.fib,
            now: *now,
        };
        let fate = self.program.eval_filter_chains(hook, priorities, &mut scene);
        self.apply_verdict(fate, trip)?;
        self.rewrite_headers(trip)
    }

    /// The translating chains of a hook, and the change of the packet that follows from its connection.
    pub(super) fn run_nat(&mut self, hook: Hook, manip: Manip, trip: &mut InFlightPacket) -> Result<(), DropReason> {
        if !self.services.is_empty() {
            self.dispatch_service(manip, trip)?;
        }
        let InFlightPacket { bytes, layout, meta: way, ctx: passage, now, .. } = trip;
        let Some(passage) = passage.as_mut() else { return Ok(()) };
        if passage.unconfirmed().is_none() {
            return self.apply_nat(manip, trip);
        }
        let packet = parse_packet(bytes, *layout)?;
        let mut scene = EvalCtx {
            engine: &mut self.engine,
            packet_ctx: Some(passage),
            packet: &packet,
            meta: way,
            fib: &self.fib,
            now: *now,
        };
        let fate = self.program.eval_nat_chains(hook, &mut scene);
        if trip.backend.is_some()
            && let Some(passage) = &mut trip.ctx
        {
            // Also where the ruleset translates nothing: who asks a backend directly as well must be told apart.
            self.engine.nat_null_binding(passage, manip, trip.now);
        }
        self.apply_verdict(fate, trip)?;
        self.apply_nat(manip, trip)
    }

    /// The change of the packet that follows from its connection.
    fn apply_nat(&mut self, manip: Manip, trip: &mut InFlightPacket) -> Result<(), DropReason> {
        let edits = trip.ctx.as_ref().map_or(NatRewrite::NONE, |passage| self.engine.nat_rewrite(passage, manip));
        if edits.is_none() {
            return Ok(());
        }
        // Behind a translated source there are seldom rules that could refuse a packet, and nobody else tells its sender anything.
        let may_tell = manip == Manip::Destination || self.program.has_filter_chain(Hook::Postrouting, &AFTER_SNAT);
        if may_tell && trip.pre_nat.is_empty() {
            trip.pre_nat.clone_from(&trip.bytes);
        }
        let changed = trip.rewrite().is_ok_and(|mut rewrite| edits.apply_to(&mut rewrite));
        if changed { Ok(()) } else { Err(DropReason::NatFailed) }
    }

    /// Services come before the ruleset's own translations, as the chains of Docker and kube-proxy stand before others: what they decide is decided.
    fn dispatch_service(&mut self, manip: Manip, trip: &mut InFlightPacket) -> Result<(), DropReason> {
        let InFlightPacket { meta: way, ctx: Some(passage), backend: pick, now, .. } = trip else { return Ok(()) };
        let asked = ServiceCtx { engine: &mut self.engine, ctx: passage, fib: &self.fib, meta: way, now: *now };
        match (manip, &pick) {
            (Manip::Source, None) => Ok(()),
            (Manip::Source, Some(pick)) => {
                let to = destination_of(&trip.bytes)?;
                self.services.masquerade(pick, to, asked);
                Ok(())
            }
            (Manip::Destination, _) => match self.services.dispatch(asked) {
                ServiceVerdict::NotService => Ok(()),
                ServiceVerdict::Dispatched(sent) => {
                    *pick = Some(sent);
                    Ok(())
                }
                ServiceVerdict::Refused => {
                    let tcp = Packet::parse(&trip.bytes).is_ok_and(|packet| packet.protocol() == 6);
                    self.send_reject(if tcp { Reject::TcpReset } else { Reject::Default }, trip);
                    self.remove_refused_connection(trip);
                    Err(DropReason::NoBackend)
                }
            },
        }
    }

    /// A refused packet's connection is over once its client has been told.
    fn remove_refused_connection(&mut self, trip: &InFlightPacket) {
        let passage = trip.ctx.as_ref().filter(|passage| passage.direction() == Some(Direction::Original));
        if let Some(handle) = passage.and_then(PacketCtx::connection) {
            self.engine.remove(handle, trip.now);
        }
    }

    fn apply_verdict(&mut self, fate: Verdict, trip: &mut InFlightPacket) -> Result<(), DropReason> {
        match fate {
            Verdict::Accept => Ok(()),
            Verdict::Drop => Err(DropReason::RulesetDrop),
            Verdict::Reject(reject) => {
                self.send_reject(reject, trip);
                Err(DropReason::RulesetReject)
            }
            Verdict::Synproxy(rule) => Err(self.synproxy_answer(&rule, trip)),
        }
    }
}
