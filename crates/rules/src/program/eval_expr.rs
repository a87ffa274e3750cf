//! Evaluating expressions: values and keys of one packet.
use super::compiled_chain::CompiledChain;
use super::context::EvalCtx;
use super::eval_selector::eval_selector;
use super::hash_input::{HashInput, push_register_bytes};
use super::header_bits::{address_value, packet_address};
use super::instr::CompiledExpr;
use super::set::{CompiledSet, ElementValue};
use super::set_lookup::SetLookup;
use super::state::State;
use super::trace::HoldReasons;
use crate::ast::{BitOperator, Endpoint};
use keepstate_wire::jhash::{jhash, scale};
use smallvec::SmallVec;

/// The values of a key's parts. Six fit without an allocation: the five of a tuple and one more.
pub(super) type Key = SmallVec<[u128; 6]>;

/// The parts of a program that evaluation reads and changes.
pub(super) struct Evaluator<'a> {
    pub(super) chains: &'a [CompiledChain],
    pub(super) sets: &'a mut [CompiledSet],
    pub(super) state: &'a mut State,
}

impl Evaluator<'_> {
    pub(super) fn eval_key(&mut self, parts: &[CompiledExpr], ctx: &EvalCtx<'_, '_>) -> Option<Key> {
        parts.iter().map(|part| self.eval_expr(part, ctx)).collect()
    }

    pub(super) fn eval_expr(&mut self, value: &CompiledExpr, ctx: &EvalCtx<'_, '_>) -> Option<u128> {
        Some(match value {
            CompiledExpr::Select(selector) => eval_selector(*selector, ctx, self.state)?,
            CompiledExpr::Constant(value) => *value,
            CompiledExpr::Bitwise(of, and, xor) => self.eval_expr(of, ctx)? & and ^ xor,
            CompiledExpr::Combine(operator, left, right) => {
                let (left, right) = (self.eval_expr(left, ctx)?, self.eval_expr(right, ctx)?);
                match operator {
                    BitOperator::And => left & right,
                    BitOperator::Or => left | right,
                    BitOperator::Xor => left ^ right,
                }
            }
            CompiledExpr::Shift(of, by, greatest) => {
                let of = self.eval_expr(of, ctx)?;
                let bits = u32::from(by.unsigned_abs());
                let shifted = if *by < 0 { of.checked_shr(bits) } else { of.checked_shl(bits) };
                shifted.unwrap_or(0) & greatest
            }
            CompiledExpr::Map(key, map) => {
                let key = self.eval_key(key, ctx)?;
                self.note_set(*map, &key);
                if !self.passes_element(*map, &key, ctx) {
                    return None;
                }
                match self.sets.get(*map)?.find(&key, ctx.now)? {
                    ElementValue::Values(values) => values.first()?.0,
                    _ => return None,
                }
            }
            CompiledExpr::Numgen { slot: Some(slot), modulus, offset } => {
                self.state.trace.holds |= HoldReasons::NUMGEN;
                let next = self.state.numgen_counters.get_mut(*slot)?;
                let number = *next;
                if !ctx.meta.is_probe {
                    *next = (number + 1) % modulus;
                }
                u128::from(offset.wrapping_add(number))
            }
            CompiledExpr::Numgen { slot: None, modulus, offset } => {
                self.state.trace.holds |= HoldReasons::NUMGEN;
                let draw = self.state.next_random(ctx.now.0);
                u128::from(offset.wrapping_add(draw % modulus))
            }
            CompiledExpr::Hash { of, modulus, seed, offset } => {
                let mut bytes = HashInput::new();
                if of.is_empty() {
                    self.state.trace.one_connection = true;
                    symhash_key(ctx).iter().for_each(|part| bytes.extend_from_slice(&part.to_be_bytes()));
                }
                for (part, kind) in of {
                    let value = self.eval_expr(part, ctx)?;
                    push_register_bytes(part, value, *kind, ctx, of.len() > 1, &mut bytes);
                }
                u128::from(offset.wrapping_add(scale(jhash(&bytes, *seed), *modulus)))
            }
        })
    }

    /// Notes a lookup in a set.
    pub(super) fn note_set(&mut self, set: usize, key: &[u128]) {
        let Some(set) = self.sets.get(set) else { return };
        if set.changes_by_itself(key) {
            self.state.trace.holds |= HoldReasons::DYNAMIC_SET;
        }
        // What is held is judged packet by packet.
        if let Some(number) = set.number
            && self.state.trace.holds.is_empty()
        {
            self.state.trace.note_lookup(SetLookup::new(number, key));
        }
    }

    /// Applies the counter, limit or quota of the element that a key finds: is the packet within them? Of what has none, or is not found, it is.
    pub(super) fn passes_element(&mut self, set: usize, key: &[u128], ctx: &EvalCtx<'_, '_>) -> bool {
        if ctx.meta.is_probe {
            // The lookup is noted as one of a set that changes by itself.
            return true;
        }
        let Some(element) = self.sets.get_mut(set).and_then(|set| set.element_mut(key, ctx.now)) else { return true };
        let packet_ctx = ctx.packet_ctx.as_deref();
        element.stateful.iter_mut().all(|state| state.eval(ctx.packet, ctx.engine, packet_ctx, ctx.now))
    }

    /// Index of the object that a map has for a key.
    pub(super) fn lookup_object(&mut self, key: &[CompiledExpr], map: usize, ctx: &EvalCtx<'_, '_>) -> Option<usize> {
        let key = self.eval_key(key, ctx)?;
        self.note_set(map, &key);
        if !self.passes_element(map, &key, ctx) {
            return None;
        }
        match self.sets.get(map)?.find(&key, ctx.now)? {
            ElementValue::Values(values) => usize::try_from(values.first()?.0).ok(),
            _ => None,
        }
    }
}

/// Addresses, ports and protocol, the smaller end first: the same for both directions.
fn symhash_key(ctx: &EvalCtx<'_, '_>) -> [u128; 5] {
    let packet = &ctx.current_packet();
    let (source, destination) = packet.ports().unwrap_or_default();
    let one = (address_value(packet_address(packet, Endpoint::Source)), source);
    let other = (address_value(packet_address(packet, Endpoint::Destination)), destination);
    let (first, second) = (one.min(other), one.max(other));
    [first.0, first.1.into(), second.0, second.1.into(), packet.protocol().into()]
}
