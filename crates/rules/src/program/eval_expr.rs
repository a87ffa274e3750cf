//! Evaluating expressions: values and keys of one packet.
use super::context::EvalCtx;
use super::eval_selector::eval_selector;
use super::header_bits::{address_value, packet_address};
use super::instr::{CompiledChain, CompiledExpr};
use super::jhash::{HashInput, jhash, push_register_bytes};
use super::set::{CompiledSet, ElementValue};
use super::state::State;
use crate::ast::Endpoint;
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
    pub(super) fn eval_key(&mut self, parts: &[CompiledExpr], scene: &EvalCtx<'_, '_>) -> Option<Key> {
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
                let mut octets = HashInput::new();
                if of.is_empty() {
                    symhash_key(scene).iter().for_each(|part| octets.extend_from_slice(&part.to_be_bytes()));
                }
                for (part, kind) in of {
                    push_register_bytes(self.eval_expr(part, scene)?, *kind, &mut octets);
                }
                u128::from(offset.wrapping_add(jhash(&octets, *seed, *modulus)))
            }
        })
    }

    /// The place of the object that a map has for a key.
    pub(super) fn lookup_object(&mut self, key: &[CompiledExpr], map: usize, scene: &EvalCtx<'_, '_>) -> Option<usize> {
        let key = self.eval_key(key, scene)?;
        match self.sets.get(map)?.find(&key, scene.now)? {
            ElementValue::Values(values) => usize::try_from(values.first()?.0).ok(),
            _ => None,
        }
    }
}

/// Both ends of a packet's connection, the smaller first: the same for both directions.
fn symhash_key(scene: &EvalCtx<'_, '_>) -> [u128; 5] {
    let (source, destination) = scene.packet.ports().unwrap_or_default();
    let one = (address_value(packet_address(scene.packet, Endpoint::Source)), source);
    let other = (address_value(packet_address(scene.packet, Endpoint::Destination)), destination);
    let (first, second) = (one.min(other), one.max(other));
    [first.0, first.1.into(), second.0, second.1.into(), scene.packet.protocol().into()]
}
