//! Sets that packets change: `add`, `update` and `delete` of the element of a packet.
use super::context::EvalCtx;
use super::eval_expr::Evaluator;
use super::instr::CompiledExpr;
use super::set::{DynElement, ElementValue};
use super::state::StatefulExpr;
use crate::ast::{DynsetOp, StatefulSpec};
use std::time::Duration;

/// What a rule does with a set.
pub(super) struct DynsetChange<'a> {
    pub(super) op: DynsetOp,
    /// The index of the set.
    pub(super) set: usize,
    pub(super) key: &'a [CompiledExpr],
    /// The element's own timeout, in seconds.
    pub(super) timeout: Option<u64>,
    pub(super) stateful: &'a [StatefulSpec],
    /// Its value, in a map.
    pub(super) data: &'a [CompiledExpr],
}

impl Evaluator<'_> {
    /// Changes the set. Whether the rule goes on; `None`, as `false`, if the packet has no such key, or the set no room.
    pub(super) fn change_set(&mut self, change: &DynsetChange<'_>, ctx: &EvalCtx<'_, '_>) -> Option<bool> {
        let key = self.eval_key(change.key, ctx)?;
        let data = self.eval_key(change.data, ctx)?;
        let set = self.sets.get_mut(change.set)?;
        if change.op == DynsetOp::Delete {
            set.dynamic.remove(key.as_slice());
            return Some(true);
        }
        let own_timeout = change.timeout;
        let until = own_timeout.or(set.timeout).map(|seconds| ctx.now.after(Duration::from_secs(seconds)));
        let known = set.dynamic.get_mut(key.as_slice());
        let known = known.filter(|element| element.lives(ctx.now));
        if let Some(element) = known {
            // As in Linux: what has no end gets none, and without a timeout the end is now.
            if change.op == DynsetOp::Update && element.expires_at.is_some() {
                element.expires_at = Some(until.unwrap_or(ctx.now));
            }
        } else {
            set.dynamic.remove(key.as_slice());
            if !set.make_room(ctx.now) {
                return None;
            }
            let stateful = change.stateful.iter().map(StatefulExpr::new).collect();
            let found = match data.as_slice() {
                [] => ElementValue::Present,
                data => ElementValue::Values(data.iter().map(|value| (*value, *value)).collect()),
            };
            set.has_state = true;
            set.dynamic.insert(
                key.as_slice().into(),
                DynElement {
                    expires_at: until,
                    stateful,
                    value: found,
                    timeout: own_timeout,
                    time_left: None,
                    declared: false,
                    comment: None,
                },
            );
        }
        let element = set.dynamic.get_mut(key.as_slice())?;
        let packet_ctx = ctx.packet_ctx.as_deref();
        let all = element.stateful.iter_mut().all(|meter| meter.eval(ctx.packet, ctx.engine, packet_ctx, ctx.now));
        Some(all)
    }
}
