//! What the rules of one hook make of a packet.
use super::jhash::{jhash, register};
use super::load::load;
use super::lookup::{Found, Living, Lookup};
use super::piece::can_be_stripped;
use super::scene::{Change, Fate, Scene};
use super::state::{Meter, State};
use super::{Chain, Entrance, Held, Program, Rule, Step, Value, Verdict};
use crate::kind::Kind;
use crate::tree::{End, Hook, Operation, Target};
use keepstate_engine::{Manip, Zone};
use keepstate_wire::Family;
use std::net::IpAddr;
use std::ops::Range;

/// What a rule, or a chain, came to.
enum Walk {
    /// Its end.
    Through,
    /// Back to the rule behind the jump.
    Back,
    Fate(Fate),
}

/// What one statement came to.
pub(super) enum Next {
    On,
    /// The rule does not apply.
    Break,
    Verdict(Verdict),
    Fate(Fate),
}

/// The parts of a program, some of which change.
pub(super) struct Parts<'a> {
    pub(super) chains: &'a [Chain],
    pub(super) lookups: &'a mut [Lookup],
    pub(super) state: &'a mut State,
}

impl Program {
    /// Sends a packet through the filtering chains of a hook whose priority lies in `priorities`, in their order.
    pub fn filter(&mut self, hook: Hook, priorities: Range<i32>, scene: &mut Scene<'_, '_>) -> Fate {
        let v6 = scene.packet.family() == Family::V6;
        for at in 0..self.bases.len() {
            let Some(base) = self.bases.get(at).copied() else { break };
            if base.nat || base.hook != hook || !base.family.has(v6) || !priorities.contains(&base.priority) {
                continue;
            }
            match self.enter(base, scene) {
                Fate::Accept => (),
                other => return other,
            }
        }
        Fate::Accept
    }

    /// Decides how the connection that a packet begins is translated at a hook: by the first rule that says so, or not at all.
    pub fn translate(&mut self, hook: Hook, scene: &mut Scene<'_, '_>) -> Fate {
        let manip = match hook {
            Hook::Prerouting | Hook::Output => Manip::Destination,
            Hook::Input | Hook::Postrouting => Manip::Source,
            Hook::Forward => return Fate::Accept,
        };
        let v6 = scene.packet.family() == Family::V6;
        if !self.translates(v6) || !is_open(scene, manip) {
            return Fate::Accept;
        }
        for at in 0..self.bases.len() {
            let Some(base) = self.bases.get(at).copied() else { break };
            if !base.nat || base.hook != hook || !base.family.has(v6) {
                continue;
            }
            match self.enter(base, scene) {
                Fate::Accept if is_open(scene, manip) => (),
                other => return other,
            }
        }
        if let Some(passage) = scene.passage.as_deref_mut() {
            scene.engine.keep(passage, manip, scene.now);
        }
        Fate::Accept
    }

    fn enter(&mut self, base: Entrance, scene: &mut Scene<'_, '_>) -> Fate {
        let Program { chains, lookups, state, .. } = self;
        if !state.begun {
            state.begun = true;
            lookups.iter_mut().for_each(|lookup| lookup.begin(scene.now));
        }
        let mut parts = Parts { chains, lookups, state };
        match parts.walk(base.chain, scene, 0) {
            Walk::Fate(fate) => fate,
            Walk::Through | Walk::Back if base.drops => Fate::Drop,
            Walk::Through | Walk::Back => Fate::Accept,
        }
    }
}

/// Is this end of the packet's connection still to be decided?
fn is_open(scene: &mut Scene<'_, '_>, manip: Manip) -> bool {
    let passage = scene.passage.as_deref_mut();
    passage.and_then(|passage| passage.unconfirmed()).is_some_and(|fresh| !fresh.is_decided(manip))
}

/// The compiler has seen to it that nothing goes deeper.
const DEEPEST: usize = 32;

impl Parts<'_> {
    fn walk(&mut self, chain: usize, scene: &mut Scene<'_, '_>, depth: usize) -> Walk {
        let chains = self.chains;
        let Some(chain) = chains.get(chain).filter(|_| depth < DEEPEST) else { return Walk::Through };
        for rule in &chain.rules {
            match self.apply(rule, scene) {
                Next::On | Next::Break | Next::Verdict(Verdict::Continue) => (),
                Next::Fate(fate) => return Walk::Fate(fate),
                Next::Verdict(Verdict::Accept) => return Walk::Fate(Fate::Accept),
                Next::Verdict(Verdict::Drop) => return Walk::Fate(Fate::Drop),
                Next::Verdict(Verdict::Return) => return Walk::Back,
                Next::Verdict(Verdict::Goto(target)) => return self.walk(target, scene, depth + 1),
                Next::Verdict(Verdict::Jump(target)) => {
                    if let Walk::Fate(fate) = self.walk(target, scene, depth + 1) {
                        return Walk::Fate(fate);
                    }
                }
            }
        }
        Walk::Through
    }

    fn apply(&mut self, rule: &Rule, scene: &mut Scene<'_, '_>) -> Next {
        for step in &rule.steps {
            match self.step(step, scene) {
                Next::On => (),
                other => return other,
            }
        }
        Next::On
    }

    fn step(&mut self, step: &Step, scene: &mut Scene<'_, '_>) -> Next {
        let octets = scene.packet.total_len() as u64;
        match step {
            Step::Match { left, not, right } => match self.holds(left, right, scene) {
                Some(holds) if holds != *not => Next::On,
                _ => Next::Break,
            },
            Step::Counter(at) => {
                if let Some((packets, all)) = self.state.counters.get_mut(*at) {
                    *packets += 1;
                    *all += octets;
                }
                Next::On
            }
            Step::CounterBy(key, map) => match self.place(key, *map, scene) {
                Some(at) => self.step(&Step::Counter(at), scene),
                None => Next::Break,
            },
            Step::Measure(at) => {
                let meter = self.state.meters.get_mut(*at);
                let passage = scene.passage.as_deref();
                goes_on(meter.is_some_and(|meter| meter.goes_on(octets, scene.engine, passage, scene.now)))
            }
            Step::MeasureBy(key, map) => match self.place(key, *map, scene) {
                Some(at) => self.step(&Step::Measure(at), scene),
                None => Next::Break,
            },
            Step::Log(log) => {
                let line = log.line(scene);
                scene.way.lines.push((log.level.unwrap_or(4), line));
                Next::On
            }
            Step::Notrack => {
                // As in Linux, what was given a zone is tracked in it, whichever comes first.
                scene.way.untracked = scene.way.zone.id == 0;
                Next::On
            }
            Step::Set(target, value, kind) => goes_on(self.set(*target, value, *kind, scene).is_some()),
            Step::Helper(helper) => {
                if let Some(fresh) = scene.passage.as_deref_mut().and_then(|passage| passage.unconfirmed()) {
                    fresh.attach_helper(*helper);
                }
                Next::On
            }
            Step::Timeout(timeout) => {
                let v6 = scene.packet.family() == Family::V6;
                let fits = scene.packet.protocol() == timeout.protocol && timeout.v6.is_none_or(|six| six == v6);
                // A value that no knob takes was refused when the ruleset was read.
                if fits
                    && let Some(fresh) = scene.passage.as_deref_mut().and_then(|passage| passage.unconfirmed())
                    && let Ok(timeouts) = scene.engine.timeouts(&timeout.seconds)
                {
                    fresh.set_timeouts(timeouts);
                }
                Next::On
            }
            Step::Nat(nat) => self.translate(nat, scene),
            // A reset answers segments of TCP only.
            Step::Reject(crate::tree::Reject::Reset) if scene.packet.protocol() != 6 => Next::Break,
            Step::Reject(reject) => Next::Fate(Fate::Reject(*reject)),
            Step::Synproxy(proxy) => {
                const SYN_OR_ACK: u8 = 0x12;
                match (scene.packet.protocol(), scene.packet.transport().get(13)) {
                    (6, Some(_)) if !scene.packet.transport_checksum_ok() => Next::Fate(Fate::Drop),
                    (6, Some(flags)) if flags & SYN_OR_ACK != 0 => Next::Fate(Fate::Synproxy(*proxy)),
                    (6, Some(_)) => Next::On,
                    _ => Next::Break,
                }
            }
            Step::Vmap(key, map) => {
                let Some(key) = self.key(key, scene) else { return Next::Break };
                match self.lookups.get(*map).and_then(|map| map.find(&key, scene.now)) {
                    Some(Found::Verdict(verdict)) => Next::Verdict(*verdict),
                    _ => Next::Break,
                }
            }
            Step::Strip(number) => {
                if scene.packet.protocol() != 6 {
                    return Next::Break;
                }
                // As Linux has it: what cannot be taken out whole does not pass.
                if !can_be_stripped(scene.packet.transport(), *number) {
                    return Next::Fate(Fate::Drop);
                }
                scene.way.changes.push(Change::Strip(*number));
                Next::On
            }
            Step::Dynamic { operation, set, key, timeout, each, data } => {
                let Some(key) = self.key(key, scene) else { return Next::Break };
                let Some(data) = self.key(data, scene) else { return Next::Break };
                let Some(lookup) = self.lookups.get_mut(*set) else { return Next::Break };
                if *operation == Operation::Delete {
                    lookup.living.remove(key.as_slice());
                    return Next::On;
                }
                let timeout = timeout.or(lookup.timeout);
                let until = timeout.map(|seconds| scene.now.after(std::time::Duration::from_secs(seconds)));
                let known = lookup.living.get(key.as_slice());
                let lives = known.is_some_and(|living| living.until.is_none_or(|until| until > scene.now));
                if !lives {
                    lookup.living.remove(key.as_slice());
                    if !lookup.has_room(scene.now) {
                        return Next::Break;
                    }
                    let each = each.iter().map(Meter::new).collect();
                    let found = match data.as_slice() {
                        [] => Found::Here,
                        data => Found::Values(data.iter().map(|value| (*value, *value)).collect::<Vec<_>>().into()),
                    };
                    lookup.living.insert(key.clone().into(), Living { until, each, found, lasts: None });
                }
                let Some(living) = lookup.living.get_mut(key.as_slice()) else { return Next::Break };
                if *operation == Operation::Update {
                    living.until = until;
                }
                let passage = scene.passage.as_deref();
                let all = living.each.iter_mut().all(|meter| meter.goes_on(octets, scene.engine, passage, scene.now));
                goes_on(all)
            }
            Step::Verdict(verdict) => Next::Verdict(*verdict),
        }
    }

    fn holds(&mut self, left: &[Value], right: &Held, scene: &Scene<'_, '_>) -> Option<bool> {
        Some(match right {
            Held::Ranges(ranges) => {
                for (value, (first, last)) in left.iter().zip(ranges) {
                    if !(*first..=*last).contains(&self.value(value, scene)?) {
                        return Some(false);
                    }
                }
                true
            }
            Held::AnyBit(bits) => self.value(left.first()?, scene)? & bits != 0,
            Held::Set(set) => {
                let key = self.key(left, scene)?;
                let lookup = self.lookups.get_mut(*set)?;
                let found = lookup.find(&key, scene.now).is_some();
                if found && let Some(living) = lookup.living.get_mut(key.as_slice()) {
                    // What an element has of its own measures whoever is found by it; beyond it, the rule does not apply at all.
                    let octets = scene.packet.total_len() as u64;
                    let passage = scene.passage.as_deref();
                    let mut each = living.each.iter_mut();
                    if !each.all(|meter| meter.goes_on(octets, scene.engine, passage, scene.now)) {
                        return None;
                    }
                }
                found
            }
        })
    }

    /// The place of the object that a map has for a key.
    fn place(&mut self, key: &[Value], map: usize, scene: &Scene<'_, '_>) -> Option<usize> {
        let key = self.key(key, scene)?;
        match self.lookups.get(map)?.find(&key, scene.now)? {
            Found::Values(values) => usize::try_from(values.first()?.0).ok(),
            _ => None,
        }
    }

    pub(super) fn key(&mut self, parts: &[Value], scene: &Scene<'_, '_>) -> Option<Vec<u128>> {
        parts.iter().map(|part| self.value(part, scene)).collect()
    }

    pub(super) fn value(&mut self, value: &Value, scene: &Scene<'_, '_>) -> Option<u128> {
        Some(match value {
            Value::Select(selector) => load(*selector, scene, self.state)?,
            Value::Constant(value) => *value,
            Value::Bits(of, and, xor) => self.value(of, scene)? & and ^ xor,
            Value::Shift(of, by, greatest) => {
                let of = self.value(of, scene)?;
                let bits = u32::from(by.unsigned_abs());
                let shifted = if *by < 0 { of.checked_shr(bits) } else { of.checked_shl(bits) };
                shifted.unwrap_or(0) & greatest
            }
            Value::Map(key, map) => {
                let key = self.key(key, scene)?;
                match self.lookups.get(*map)?.find(&key, scene.now)? {
                    Found::Values(values) => values.first()?.0,
                    Found::Here | Found::Verdict(_) | Found::Timed(..) => return None,
                }
            }
            Value::Number { slot: Some(slot), modulus, offset } => {
                let next = self.state.numbers.get_mut(*slot)?;
                let number = *next;
                *next = (number + 1) % modulus;
                u128::from(offset.wrapping_add(number))
            }
            Value::Number { slot: None, modulus, offset } => {
                let draw = self.state.draw(scene.now.0);
                u128::from(offset.wrapping_add(draw % modulus))
            }
            Value::Hash { of, modulus, seed, offset } => {
                let mut octets = Vec::with_capacity(40);
                if of.is_empty() {
                    symmetric(scene).iter().for_each(|part| octets.extend(part.to_be_bytes()));
                }
                for (part, kind) in of {
                    register(self.value(part, scene)?, *kind, &mut octets);
                }
                u128::from(offset.wrapping_add(jhash(&octets, *seed, *modulus)))
            }
        })
    }

    fn set(&mut self, target: Target, value: &Value, kind: Kind, scene: &mut Scene<'_, '_>) -> Option<()> {
        let value = self.value(value, scene)?;
        // Each target's kind has no more bits than are taken here.
        let low = (value & kind.greatest()) as u32;
        match target {
            Target::MetaMark => scene.way.mark = low,
            Target::MetaPriority => scene.way.priority = low,
            Target::NfTrace => (),
            Target::CtMark => {
                scene.engine.set_mark(scene.passage.as_deref_mut()?, low);
            }
            Target::CtZone => {
                scene.way.zone = Zone { id: low as u16, ..Zone::default() };
                scene.way.untracked = false;
            }
            Target::CtLabel => {
                scene.engine.add_labels(scene.passage.as_deref_mut()?, value.to_le_bytes());
            }
            Target::Dscp { v6 } | Target::Ttl { v6 } if v6 != (scene.packet.family() == Family::V6) => return None,
            Target::Dscp { .. } => scene.way.changes.push(Change::Dscp(low as u8)),
            Target::Ttl { .. } => scene.way.changes.push(Change::Ttl(low as u8)),
            Target::Address { v6, .. } if v6 != (scene.packet.family() == Family::V6) => return None,
            Target::Address { v6, end } => {
                let address = if v6 { IpAddr::from(value.to_be_bytes()) } else { IpAddr::from(low.to_be_bytes()) };
                scene.way.changes.push(Change::Address(end, address));
            }
            Target::Port { protocol, .. } if protocol.is_some_and(|one| one != scene.packet.protocol()) => return None,
            Target::Port { end, .. } => scene.way.changes.push(Change::Port(end, low as u16)),
            Target::Field(field) => {
                let v6 = scene.packet.family() == Family::V6;
                let fits = field.protocol.is_none_or(|one| one == scene.packet.protocol());
                if !fits || field.v6.is_some_and(|six| six != v6) {
                    return None;
                }
                scene.way.changes.push(Change::Bits(field, value & kind.greatest()));
            }
            Target::MaxSegment => scene.way.changes.push(Change::MaxSegment(low as u16)),
        }
        Some(())
    }
}

fn goes_on(on: bool) -> Next {
    if on { Next::On } else { Next::Break }
}

/// Both ends of a packet's connection, the smaller first: the same for both directions.
fn symmetric(scene: &Scene<'_, '_>) -> [u128; 5] {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let (source, destination) = scene.packet.ports().unwrap_or_default();
    let one = (number(super::load::end_of(scene.packet, End::Source)), source);
    let other = (number(super::load::end_of(scene.packet, End::Destination)), destination);
    let (first, second) = (one.min(other), one.max(other));
    [first.0, first.1.into(), second.0, second.1.into(), scene.packet.protocol().into()]
}
