//! Classes of new TCP connections: those of one client, which may be the machine itself, to one port of one server, by one interface. Where the rules have let one of them pass and have consulted nothing that another one could differ in, a
//! faster data path may let the first SYN of the next ones go on by itself, and tell it afterwards.
//!
//! ```text
//! the first SYN of a connection has passed, and the connection is offered to the data path ─▶ SynClasses::note
//! the next one of the same class, when the one before was established ─▶ Router::poll_syn_class: what the data path does with the class
//! it has let a SYN go on ─▶ it gives the SYN to Router::handle_owned, as if it had come now, and compares what the router says with what it has done
//! rules, sets, routes or anything else that a verdict depends on change ─▶ Router::syn_class_generation: all classes are void
//! ```
use crate::known_flow::{FlowSource, KnownFlow, NotedWay};
use keepstate_engine::{ConnId, Engine, Instant, Tuple};
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};
use std::collections::VecDeque;
use std::net::IpAddr;

/// A class of new TCP connections, and the ways of the one that it was learned from: those of the others differ in the client's port alone, which stays the same where addresses are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynClass {
    /// Original, reply; with the port of the client that it was learned from.
    pub flows: [KnownFlow; 2],
}

/// What the first SYNs of a class have in common: where they come in, and between whom.
fn class_of(source: FlowSource, tuple: &Tuple) -> ClassKey {
    (source, tuple.source, tuple.destination, tuple.destination_key)
}

type ClassKey = (FlowSource, IpAddr, IpAddr, u16);

/// The classes that a router has found.
#[derive(Debug)]
pub(crate) struct SynClasses {
    found: KeyedMap<ClassKey, FoundClass>,
    given: usize,
    ready: VecDeque<SynClass>,
    generation: u64,
    /// Not before then are all of them forgotten for want of room.
    next_forgetting: Instant,
    /// Connections that the data path has opened, and those of them that were taken back.
    opened: [u64; 2],
}

#[derive(Debug)]
enum FoundClass {
    /// By this connection, last.
    Seen(ConnId),
    /// The ways of its connections' packets.
    Given(Box<[NotedWay; 2]>),
}

impl SynClasses {
    pub(crate) fn new(key: SipKey) -> SynClasses {
        SynClasses {
            found: key.map(),
            given: 0,
            ready: VecDeque::new(),
            generation: 1,
            next_forgetting: Instant(0),
            opened: [0; 2],
        }
    }

    /// The ways of the packets of a class that was given, by its first SYN.
    pub(crate) fn ways_of(&self, source: FlowSource, tuple: &Tuple) -> Option<&[NotedWay; 2]> {
        match self.found.get(&class_of(source, tuple)) {
            Some(FoundClass::Given(ways)) => Some(ways),
            _ => None,
        }
    }

    /// A connection was offered to the data path, whose packets take these ways.
    pub(crate) fn note(&mut self, flows: &[KnownFlow; 2], ways: [NotedWay; 2], engine: &Engine, now: Instant) {
        let key = class_of(flows[0].source, &flows[0].tuple);
        if self.found.len() >= MAX_FOUND {
            self.found.retain(|_, found| matches!(found, FoundClass::Given(_)));
        }
        match self.found.get(&key) {
            Some(FoundClass::Given(_)) => (),
            Some(FoundClass::Seen(before)) if engine.is_assured(*before) => {
                if self.given >= MAX_CLASSES && !self.make_room(now) {
                    return;
                }
                self.found.insert(key, FoundClass::Given(Box::new(ways)));
                self.given += 1;
                self.ready.push_back(SynClass { flows: *flows });
            }
            _ => _ = self.found.insert(key, FoundClass::Seen(flows[0].conn_id)),
        }
    }

    /// All classes are forgotten, and those that are still in use are found again: now and then, since each of them costs something to be told.
    pub(crate) fn make_room(&mut self, now: Instant) -> bool {
        let may = now >= self.next_forgetting;
        if may {
            self.next_forgetting = Instant(now.0.saturating_add(FORGETTING_INTERVAL));
            self.forget_all();
        }
        may
    }

    pub(crate) fn forget_all(&mut self) {
        self.found.clear();
        self.ready.clear();
        self.given = 0;
        self.generation += 1;
    }

    pub(crate) fn pop_ready(&mut self) -> Option<SynClass> {
        self.ready.pop_front()
    }

    pub(crate) fn count_opened(&mut self, is_taken_back: bool) {
        let [opened, taken_back] = &mut self.opened;
        *opened += 1;
        *taken_back += u64::from(is_taken_back);
    }

    pub(crate) fn opened(&self) -> [u64; 2] {
        self.opened
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Classes seen and given out, at most.
const MAX_FOUND: usize = 16_384;
/// Nanoseconds from one time that there was no room for further classes to the next that those in use are found anew.
const FORGETTING_INTERVAL: u64 = 60_000_000_000;
/// The data path has room for so many.
pub const MAX_CLASSES: usize = 1024;
