//! What `set` changes: marks, the zone, labels, fields of headers.
use super::context::EvalCtx;
use super::eval_expr::Evaluator;
use super::header_rewrite::HeaderRewrite;
use super::instr::CompiledExpr;
use super::trace::HoldReasons;
use crate::ast::{AssignTarget, PayloadBase, PayloadField};
use crate::datatype::DataType;
use keepstate_engine::{EventBits, Zone};
use keepstate_wire::Family;
use std::net::IpAddr;

impl Evaluator<'_> {
    /// Sets `target`; `None` if the packet does not have it, or has no value to set: then the rule ends.
    pub(super) fn assign(
        &mut self,
        target: AssignTarget,
        value: &CompiledExpr,
        kind: DataType,
        ctx: &mut EvalCtx<'_, '_>,
    ) -> Option<()> {
        let value = self.eval_expr(value, ctx)?;
        // The target's type has at most as many bits as are taken here.
        let low = (value & kind.max_value()) as u32;
        match target {
            AssignTarget::MetaMark => {
                ctx.meta.mark = low;
                self.state.trace.mark_set = true;
            }
            AssignTarget::MetaPriority => ctx.meta.priority = low,
            AssignTarget::NfTrace => {
                if let Some(trace) = &mut ctx.meta.rule_trace {
                    trace.ask(low & 1 != 0);
                    // Every packet of the connection is to be traced.
                    self.state.trace.holds |= HoldReasons::LOG;
                }
            }
            AssignTarget::PacketType => ctx.meta.packet_type = Some(low as u8),
            AssignTarget::CtMark => {
                let packet_ctx = ctx.packet_ctx.as_deref_mut()?;
                if ctx.engine.mark(packet_ctx) != Some(low) {
                    // Only where every packet finds what the one before has left, all are judged alike.
                    self.state.trace.holds |= HoldReasons::MARK;
                }
                if !ctx.meta.is_probe {
                    ctx.engine.set_mark(packet_ctx, low);
                }
            }
            AssignTarget::CtEvents => {
                let packet_ctx = ctx.packet_ctx.as_deref_mut()?;
                // The mask has 16 bits in Linux too.
                let told = EventBits(low as u16);
                if ctx.engine.event_bits(packet_ctx) != Some(told) {
                    self.state.trace.holds |= HoldReasons::REWRITE;
                    if !ctx.meta.is_probe {
                        ctx.engine.set_event_bits(packet_ctx, told);
                    }
                }
            }
            // As in Linux, a packet has one zone: the first that is set, before tracking.
            AssignTarget::CtZone(_) if ctx.packet_ctx.is_some() || ctx.meta.zone.is_some() => (),
            AssignTarget::CtZone(direction) => {
                ctx.meta.zone = Some(Zone { id: low as u16, direction });
                ctx.meta.untracked = false;
            }
            AssignTarget::CtLabel => {
                ctx.engine.add_labels(ctx.packet_ctx.as_deref_mut()?, value.to_le_bytes());
            }
            AssignTarget::Dscp { v6 } | AssignTarget::Ttl { v6 } if v6 != (ctx.packet.family() == Family::V6) => {
                return None;
            }
            AssignTarget::Dscp { .. } => return ctx.rewrite_header(HeaderRewrite::Dscp(low as u8)),
            AssignTarget::Ttl { .. } => return ctx.rewrite_header(HeaderRewrite::Ttl(low as u8)),
            AssignTarget::Address { v6, .. } if v6 != (ctx.packet.family() == Family::V6) => return None,
            AssignTarget::Address { v6, endpoint: end } => {
                let address = if v6 { IpAddr::from(value.to_be_bytes()) } else { IpAddr::from(low.to_be_bytes()) };
                return ctx.rewrite_header(HeaderRewrite::Address(end, address));
            }
            AssignTarget::Port { protocol, .. } if protocol.is_some_and(|one| one != ctx.packet.protocol()) => {
                return None;
            }
            AssignTarget::Port { endpoint: end, .. } => {
                return ctx.rewrite_header(HeaderRewrite::Port(end, low as u16));
            }
            // Of a frame that is not sent on. What the machine itself sends has none.
            AssignTarget::Payload(PayloadField { base: PayloadBase::Link, .. }) => return ctx.meta.iif.map(drop),
            AssignTarget::Payload(field) => {
                let v6 = ctx.packet.family() == Family::V6;
                let fits = field.protocol.is_none_or(|one| one == ctx.packet.protocol());
                if !fits || field.v6.is_some_and(|six| six != v6) {
                    return None;
                }
                return ctx.rewrite_header(HeaderRewrite::Payload(field, value & kind.max_value()));
            }
            AssignTarget::TcpOption(field) => {
                return ctx.rewrite_header(HeaderRewrite::TcpOption(field.number, field.bits?, low));
            }
            AssignTarget::TcpMss => return ctx.rewrite_header(HeaderRewrite::TcpMss(low as u16)),
        }
        Some(())
    }
}
