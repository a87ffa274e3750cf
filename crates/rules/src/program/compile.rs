//! From the tree to a program: names become places, sets are made ready, and what cannot be is refused.
use super::listing;
use super::lookup::{Conflict, Found, Living, Lookup};
use super::reach::{answering, depth, translating};
use super::state::{Measure, Meter};
use super::{Address, Chain, Entrance, Held, Nat, PortsOf, Program, Rule, Step, Value, Verdict};
use crate::fault::{Fault, Refused};
use crate::kind::Kind;
use crate::source::{Sources, Span};
use crate::tree::{self, Data, Expression, ObjectBody, ObjectKind, Right, Ruleset, Set, SetRef, Statement, To};
use keepstate_engine::Helper;
use std::collections::HashMap;

/// Elements that packets may add where a set names no size.
const MOST: usize = 65_535;

/// Compiles a ruleset that [`parse_with`](crate::parse_with) has read from `sources`.
///
/// # Errors
/// Chains, sets and objects that do not exist, jumps in a circle, elements that exclude one another, statements in the wrong chain.
pub fn compile(ruleset: &Ruleset, sources: &Sources) -> Result<Program, Refused> {
    let mut compiler = Compiler { program: Program::default(), faults: Vec::new(), here: Here::default() };
    for table in &ruleset.tables {
        compiler.table(table);
    }
    compiler.program.bases.sort_by_key(|base| base.priority);
    compiler.program.listing.sources = sources.clone();
    if compiler.faults.is_empty() {
        Ok(compiler.program)
    } else {
        Err(Refused { faults: compiler.faults, sources: sources.clone() })
    }
}

struct Compiler {
    program: Program,
    faults: Vec<Fault>,
    here: Here,
}

/// The names of the table that is compiled.
#[derive(Default)]
struct Here {
    chains: HashMap<String, usize>,
    sets: HashMap<String, Named>,
    counters: HashMap<String, usize>,
    meters: HashMap<(String, bool), usize>,
    helpers: HashMap<String, Helper>,
    timeouts: HashMap<String, tree::Timeout>,
    synproxies: HashMap<String, tree::Synproxy>,
    /// Does the chain that is compiled translate?
    nat: bool,
    /// May it answer handshakes?
    answers: bool,
}

/// A named set: where it is, what its keys are made of, and what its values (of a map) are.
struct Named {
    at: usize,
    key: Vec<Kind>,
    data: Option<Vec<Kind>>,
}

type Compiled<T> = Result<T, Fault>;

impl Compiler {
    fn table(&mut self, table: &tree::Table) {
        self.here = Here::default();
        for object in &table.objects {
            self.object(object);
        }
        let first = self.program.chains.len();
        for (at, chain) in table.chains.iter().enumerate() {
            self.here.chains.insert(chain.name.clone(), first + at);
            if let Some(base) = chain.base {
                let tree::Base { nat, hook, priority, drops } = base;
                let entrance = Entrance { hook, family: table.family, nat, priority, drops, chain: first + at };
                self.program.bases.push(entrance);
            }
        }
        for set in &table.sets {
            match self.lookup(set) {
                Ok(at) => {
                    let named = Named { at, key: set.key.clone(), data: set.data.clone() };
                    self.here.sets.insert(set.name.clone(), named);
                }
                Err(fault) => self.faults.push(fault),
            }
        }
        let (translating, answering) = (translating(table), answering(table));
        for chain in &table.chains {
            self.here.nat = translating.contains(chain.name.as_str());
            self.here.answers = answering.contains(chain.name.as_str());
            let mut rules = Vec::with_capacity(chain.rules.len());
            for rule in &chain.rules {
                match self.rule(rule) {
                    Ok(rule) => rules.push(rule),
                    Err(fault) => self.faults.push(fault),
                }
            }
            self.program.chains.push(Chain { rules });
        }
        self.listed(table, first);
        if let Err(fault) = depth(table) {
            self.faults.push(fault);
        }
    }

    /// The table for people, whose chains begin at a place.
    fn listed(&mut self, table: &tree::Table, first: usize) {
        let counters = table.objects.iter().filter(|object| matches!(object.what, ObjectBody::Counter(..)));
        let counters =
            counters.filter_map(|object| Some((object.name.clone(), *self.here.counters.get(&object.name)?)));
        let sets = table.sets.iter().filter_map(|set| Some((set.name.clone(), self.here.sets.get(&set.name)?.at)));
        let listed = listing::Table {
            family: table.family,
            name: table.name.clone(),
            counters: counters.collect(),
            sets: sets.collect(),
            chains: table.chains.iter().map(|chain| (chain.name.clone(), chain.base)).collect(),
            places: first..first + table.chains.len(),
        };
        self.program.listing.tables.push(listed);
    }

    fn object(&mut self, object: &tree::Object) {
        let name = object.name.clone();
        match &object.what {
            ObjectBody::Counter(packets, octets) => {
                let at = self.counter(*packets, *octets);
                self.here.counters.insert(name, at);
            }
            ObjectBody::Quota { over, octets } => {
                let at = self.meter(&Measure::Quota { over: *over, octets: *octets });
                self.here.meters.insert((name, true), at);
            }
            ObjectBody::Limit(limit) => {
                let at = self.meter(&Measure::Limit(*limit));
                self.here.meters.insert((name, false), at);
            }
            ObjectBody::Helper(kind, _) => {
                if let Some(helper) = Helper::named(kind) {
                    self.here.helpers.insert(name, helper);
                }
            }
            ObjectBody::Timeout(timeout) => {
                self.here.timeouts.insert(name, timeout.clone());
            }
            ObjectBody::Synproxy(proxy) => {
                self.here.synproxies.insert(name, *proxy);
            }
        }
    }

    fn counter(&mut self, packets: u64, octets: u64) -> usize {
        self.program.state.counters.push((packets, octets));
        self.program.state.counters.len() - 1
    }

    fn meter(&mut self, measure: &Measure) -> usize {
        self.program.state.meters.push(Meter::new(measure));
        self.program.state.meters.len() - 1
    }

    fn lookup(&mut self, set: &Set) -> Compiled<usize> {
        let most = set.size.map_or(MOST, |size| size as usize);
        let mut lookup = Lookup::new(set.timeout, most);
        let mut last = Span::default();
        for element in &set.elements {
            last = element.span;
            let found = match &element.data {
                None => Found::Here,
                Some(Data::Object(name, span)) => {
                    let at = self.place(set.data.as_deref().unwrap_or_default(), name, *span)? as u128;
                    Found::Values([(at, at)].into())
                }
                Some(Data::Values(values)) => Found::Values(values.clone().into()),
                Some(Data::Verdict(verdict)) => Found::Verdict(self.verdict(verdict)?),
            };
            let lasts = element.timeout.or(set.timeout);
            let exact = element.key.as_ref().filter(|key| key.iter().all(|(first, last)| first == last));
            // What packets may take away, what is over some time, what measures, lives as the elements do that packets add.
            if let Some(key) = exact
                && (set.dynamic || lasts.is_some() || !element.each.is_empty())
                && !matches!(found, Found::Verdict(_))
            {
                let each = element.each.iter().filter_map(measure).map(|measure| Meter::new(&measure)).collect();
                let key = key.iter().map(|(first, _)| *first).collect();
                lookup.living.insert(key, Living { until: None, lasts, each, found });
                continue;
            }
            if element.each.iter().any(|statement| !matches!(statement, Statement::Counter(..))) {
                return Err(Fault::new(
                    element.span,
                    "a range has no limit, quota or number of connections of its own",
                ));
            }
            let found = match lasts {
                Some(seconds) => Found::Timed(Box::new(found), seconds, None),
                None => found,
            };
            lookup.put(element.key.as_deref(), found).map_err(|conflict| refused(&conflict, element.span))?;
        }
        lookup.finish(set.merges).map_err(|conflict| refused(&conflict, last))?;
        self.program.lookups.push(lookup);
        Ok(self.program.lookups.len() - 1)
    }

    fn rule(&mut self, rule: &tree::Rule) -> Compiled<Rule> {
        let mut steps = Vec::with_capacity(rule.statements.len());
        for statement in &rule.statements {
            let step = self.step(statement, rule.span)?;
            if matches!(step, Step::Synproxy(_)) && !self.here.answers {
                return Err(Fault::new(
                    rule.span,
                    "handshakes are answered where packets are tracked and go to somebody",
                )
                .instead("synproxy in chains of type filter at the hooks input and forward"));
            }
            steps.push(step);
        }
        let ends = |step: &Step| matches!(step, Step::Verdict(_) | Step::Nat(_) | Step::Reject(_) | Step::Synproxy(_));
        if let Some(at) = steps.iter().position(ends)
            && at + 1 < steps.len()
        {
            return Err(Fault::new(rule.span, "nothing behind a verdict is ever done").instead("the verdict last"));
        }
        Ok(Rule { span: rule.span, steps })
    }

    fn step(&mut self, statement: &Statement, span: Span) -> Compiled<Step> {
        Ok(match statement {
            Statement::Match(one) => {
                let left = self.values(&one.left)?;
                let right = match &one.right {
                    Right::Ranges(ranges) => Held::Ranges(ranges.clone()),
                    Right::AnyBit(bits) => Held::AnyBit(*bits),
                    Right::Set(set) => Held::Set(self.set(set, &one.left, None)?),
                };
                Step::Match { left, not: one.not, right }
            }
            Statement::Counter(packets, octets) => Step::Counter(self.counter(*packets, *octets)),
            Statement::Object(kind, name, span) => self.named(*kind, name, *span)?,
            Statement::ObjectBy(ObjectKind::Synproxy, ..) => {
                return Err(Fault::new(span, "a synproxy is named, not found in a map").instead("synproxy name \"…\""));
            }
            Statement::ObjectBy(kind, key, map) => {
                let place = self.set(map, key, Some(&[Kind::Object(*kind)]))?;
                let key = self.values(key)?;
                if *kind == ObjectKind::Counter { Step::CounterBy(key, place) } else { Step::MeasureBy(key, place) }
            }
            Statement::Limit(_) | Statement::Quota { .. } | Statement::Connections { .. } => match measure(statement) {
                Some(measure) => Step::Measure(self.meter(&measure)),
                None => return Err(Fault::new(span, "this measures nothing")),
            },
            Statement::Log(log) => Step::Log(log.clone()),
            Statement::Notrack => Step::Notrack,
            Statement::Set(target, value) => Step::Set(*target, self.value(value)?, value.kind()),
            Statement::Helper(name, span) => match self.here.helpers.get(name) {
                Some(helper) => Step::Helper(*helper),
                None => {
                    return Err(Fault::new(*span, format!("{name}: there is no such helper in this table"))
                        .instead(format!("ct helper {name} {{ type \"ftp\" protocol tcp; }} above the chain")));
                }
            },
            Statement::Timeout(name, span) => {
                match self.here.timeouts.get(name) {
                    Some(timeout) => Step::Timeout(timeout.clone()),
                    None => {
                        return Err(Fault::new(*span, format!("{name}: there is no such timeout in this table"))
                        .instead(format!("ct timeout {name} {{ protocol tcp; policy = {{ established : 3600 }}; }} above the chain")));
                    }
                }
            }
            Statement::Nat(nat) => {
                if !self.here.nat {
                    return Err(Fault::new(span, "only chains of type nat translate")
                        .instead("a chain with `type nat hook prerouting priority dstnat;` (dnat, redirect) or `type nat hook postrouting priority srcnat;` (snat, masquerade)"));
                }
                Step::Nat(Box::new(self.nat(nat)?))
            }
            Statement::Reject(reject) => Step::Reject(*reject),
            Statement::Synproxy(proxy) => Step::Synproxy(*proxy),
            Statement::Vmap(key, map) => Step::Vmap(self.values(key)?, self.set(map, key, Some(&[]))?),
            Statement::Dynamic(dynamic) => {
                if let Some(size) = dynamic.meter {
                    self.metered(dynamic, size);
                }
                let name = SetRef::Named(dynamic.set.clone(), dynamic.span);
                let kinds: Vec<Kind> = dynamic.data.iter().map(Expression::kind).collect();
                let set = self.set(&name, &dynamic.key, (!kinds.is_empty()).then_some(&kinds))?;
                let key = self.values(&dynamic.key)?;
                let each = dynamic.each.iter().filter_map(measure).collect();
                let data = self.values(&dynamic.data)?;
                Step::Dynamic { operation: dynamic.operation, set, key, timeout: dynamic.timeout, each, data }
            }
            Statement::Strip(number) => Step::Strip(*number),
            Statement::Verdict(verdict) => Step::Verdict(self.verdict(verdict)?),
        })
    }

    /// The set of a meter, if no meter of its name has made it yet.
    fn metered(&mut self, meter: &tree::Dynamic, size: u32) {
        if self.here.sets.contains_key(&meter.set) {
            return;
        }
        self.program.lookups.push(Lookup::new(None, size as usize));
        let key = meter.key.iter().map(Expression::kind).collect();
        let named = Named { at: self.program.lookups.len() - 1, key, data: None };
        self.here.sets.insert(meter.set.clone(), named);
    }

    /// The place of the object that an element of a map names.
    fn place(&self, kinds: &[Kind], name: &str, span: Span) -> Compiled<usize> {
        let place = match kinds {
            [Kind::Object(ObjectKind::Counter)] => self.here.counters.get(name),
            [Kind::Object(ObjectKind::Quota)] => self.here.meters.get(&(name.to_owned(), true)),
            [Kind::Object(ObjectKind::Limit)] => self.here.meters.get(&(name.to_owned(), false)),
            _ => None,
        };
        place.copied().ok_or_else(|| Fault::new(span, format!("{name}: there is no such object in this table")))
    }

    fn named(&self, kind: ObjectKind, name: &str, span: Span) -> Compiled<Step> {
        let step = match kind {
            ObjectKind::Counter => self.here.counters.get(name).map(|at| Step::Counter(*at)),
            ObjectKind::Quota => self.here.meters.get(&(name.to_owned(), true)).map(|at| Step::Measure(*at)),
            ObjectKind::Limit => self.here.meters.get(&(name.to_owned(), false)).map(|at| Step::Measure(*at)),
            ObjectKind::Synproxy => self.here.synproxies.get(name).map(|proxy| Step::Synproxy(*proxy)),
        };
        step.ok_or_else(|| Fault::new(span, format!("{name}: there is no such object in this table")))
    }

    fn verdict(&self, verdict: &tree::Verdict) -> Compiled<Verdict> {
        let chain = |name: &String, span: &Span| {
            let found = self.here.chains.get(name).copied();
            found.ok_or_else(|| Fault::new(*span, format!("{name}: there is no such chain in this table")))
        };
        Ok(match verdict {
            tree::Verdict::Accept => Verdict::Accept,
            tree::Verdict::Drop => Verdict::Drop,
            tree::Verdict::Continue => Verdict::Continue,
            tree::Verdict::Return => Verdict::Return,
            tree::Verdict::Jump(name, span) => Verdict::Jump(chain(name, span)?),
            tree::Verdict::Goto(name, span) => Verdict::Goto(chain(name, span)?),
        })
    }

    fn values(&mut self, values: &[Expression]) -> Compiled<Vec<Value>> {
        values.iter().map(|value| self.value(value)).collect()
    }

    fn value(&mut self, value: &Expression) -> Compiled<Value> {
        Ok(match value {
            Expression::Select(selector) => Value::Select(*selector),
            Expression::Constant(value, _) => Value::Constant(*value),
            Expression::Bits(of, and, xor) => Value::Bits(Box::new(self.value(of)?), *and, *xor),
            Expression::Shift(of, by) => Value::Shift(Box::new(self.value(of)?), *by, of.kind().greatest()),
            Expression::Map(key, map) => Value::Map(self.values(key)?, self.set(map, key, Some(&[Kind::Number(32)]))?),
            Expression::Number { random, modulus, offset } => {
                let slot = (!random).then(|| {
                    self.program.state.numbers.push(0);
                    self.program.state.numbers.len() - 1
                });
                Value::Number { slot, modulus: *modulus, offset: *offset }
            }
            Expression::Hash { of, modulus, seed, offset } => Value::Hash {
                of: self.values(of)?.into_iter().zip(of.iter().map(Expression::kind)).collect(),
                modulus: *modulus,
                seed: *seed,
                offset: *offset,
            },
        })
    }

    /// A set whose keys are like `key`; a map (to verdicts, where `data` is empty) if `data` is given.
    fn set(&mut self, set: &SetRef, key: &[Expression], data: Option<&[Kind]>) -> Compiled<usize> {
        let (name, span) = match set {
            SetRef::Here(set) => return self.lookup(set),
            SetRef::Named(name, span) => (name, *span),
        };
        let Some(Named { at, key: kinds, data: values }) = self.here.sets.get(name) else {
            return Err(Fault::new(span, format!("{name}: there is no such set in this table")));
        };
        let wanted: Vec<Kind> = key.iter().map(Expression::kind).collect();
        let like = |one: &Kind, other: &Kind| one == other || one.bits() == other.bits() && is_plain(*one, *other);
        if kinds.len() != wanted.len() || !kinds.iter().zip(&wanted).all(|(one, other)| like(one, other)) {
            let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" . ");
            let what = format!("{name} holds {}, and is asked for {}", names(kinds), names(&wanted));
            return Err(Fault::new(span, what));
        }
        let object = |kinds: Option<&[Kind]>| match kinds {
            Some([kind @ Kind::Object(_)]) => Some(*kind),
            _ => None,
        };
        if let (wanted, Some(there)) = (object(data), values)
            && wanted != object(Some(there))
        {
            let names = |kind: Option<Kind>| kind.map_or("a value", Kind::name);
            let what = format!("{name} maps to {}, and {} is wanted", names(object(Some(there))), names(wanted));
            return Err(Fault::new(span, what));
        }
        match (data, values) {
            (None, Some(_)) => {
                Err(Fault::new(span, format!("{name} is a map, and a set is wanted")).instead("map or vmap before it"))
            }
            (Some(_), None) => Err(Fault::new(span, format!("{name} is a set, and a map is wanted"))),
            (Some([]), Some(values)) if !values.is_empty() => {
                Err(Fault::new(span, format!("{name} maps to values, not to verdicts")).instead("map"))
            }
            (Some([_, ..]), Some(values)) if values.is_empty() => {
                Err(Fault::new(span, format!("{name} maps to verdicts, not to values")).instead("vmap"))
            }
            _ => Ok(*at),
        }
    }

    fn nat(&mut self, nat: &tree::Nat) -> Compiled<Nat> {
        let to = match &nat.to {
            To::Kept => Address::Kept,
            To::Addresses(first, last) => Address::Range(*first, *last),
            To::Masquerade => Address::Masquerade,
            To::Redirect => Address::Redirect,
            To::Value(Expression::Map(key, map)) => {
                let set = self.set(map, key, Some(&[Kind::Address4]))?;
                Address::Map(self.values(key)?, set)
            }
            To::Value(value) => Address::Value(self.value(value)?, value.kind()),
        };
        let ports = match &nat.ports {
            None => None,
            Some(tree::Ports::Range(first, last)) => Some(PortsOf::Range(*first, *last)),
            Some(tree::Ports::Value(value)) => Some(PortsOf::Value(self.value(value)?)),
        };
        let tree::Nat { manip, choice, persistent, prefix, .. } = *nat;
        Ok(Nat { manip, to, ports, choice, persistent, prefix })
    }
}

/// May a number stand for the other kind, and the other way round?
fn is_plain(one: Kind, other: Kind) -> bool {
    let number = |kind| matches!(kind, Kind::Number(_) | Kind::Mark);
    number(one)
        || number(other)
        || matches!((one, other), (Kind::Interface, Kind::InterfaceName) | (Kind::InterfaceName, Kind::Interface))
}

fn refused(conflict: &Conflict, span: Span) -> Fault {
    match conflict {
        Conflict::Overlap => Fault::new(span, "this element, or one before it, overlaps another")
            .instead("auto-merge; in a set that may put overlapping ranges together, or ranges that do not overlap"),
        Conflict::Twice => Fault::new(span, "this key maps to something else already"),
    }
}

fn measure(statement: &Statement) -> Option<Measure> {
    Some(match statement {
        Statement::Limit(limit) => Measure::Limit(*limit),
        Statement::Quota { over, octets } => Measure::Quota { over: *over, octets: *octets },
        Statement::Connections { over, count } => Measure::Connections { over: *over, count: *count },
        Statement::Counter(..) => Measure::Counter,
        _ => return None,
    })
}
