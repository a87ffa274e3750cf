//! Classes of new TCP connections: those of one client, which may be the machine itself, to one port of one server, by one interface. Where the rules have let one of them pass and have consulted nothing that another one could differ in, a
//! faster data path may let the first SYN of the next ones go on by itself, and tell it afterwards.
//!
//! ```text
//! the first SYN of a connection has passed, and the connection is offered to the data path ─▶ SynClasses::note
//! the next one of the same class, when the one before was established ─▶ Router::poll_syn_class: what the data path does with the class
//! it has let a SYN go on ─▶ it gives the SYN to Router::handle_owned, as if it had come now, and compares what the router says with what it has done
//! rules, sets, routes or anything else that a verdict depends on change ─▶ Router::syn_class_generation: all classes are void
//! ```
use crate::known_flow::{FlowSource, KnownFlow};
use keepstate_engine::{ConnId, Engine};
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};
use std::collections::VecDeque;
use std::net::IpAddr;

/// A class of new TCP connections, and the ways of the one that it was learned from: those of the others differ in the client's port alone, which stays the same where addresses are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynClass {
    /// Original, reply; with the port of the client that it was learned from.
    pub flows: [KnownFlow; 2],
}

impl SynClass {
    /// What the first SYNs of the class have in common: where they come in, and between whom.
    fn key_of(flows: &[KnownFlow; 2]) -> ClassKey {
        let [KnownFlow { source, tuple, .. }, _] = flows;
        (*source, tuple.source, tuple.destination, tuple.destination_key)
    }
}

type ClassKey = (FlowSource, IpAddr, IpAddr, u16);

/// The classes that a router has found.
#[derive(Debug)]
pub(crate) struct SynClasses {
    found: KeyedMap<ClassKey, FoundClass>,
    given: usize,
    ready: VecDeque<SynClass>,
    generation: u64,
    /// Connections that the data path has opened, and those of them that were taken back.
    opened: [u64; 2],
}

#[derive(Clone, Copy, Debug)]
enum FoundClass {
    /// By this connection, last.
    Seen(ConnId),
    Given,
}

impl SynClasses {
    pub(crate) fn new(key: SipKey) -> SynClasses {
        SynClasses { found: key.map(), given: 0, ready: VecDeque::new(), generation: 1, opened: [0; 2] }
    }

    /// A connection was offered to the data path.
    pub(crate) fn note(&mut self, flows: &[KnownFlow; 2], engine: &Engine) {
        if self.found.len() >= MAX_FOUND || self.given >= MAX_CLASSES {
            // Those that are still in use are found again.
            self.forget_all();
        }
        let key = SynClass::key_of(flows);
        match self.found.get(&key) {
            Some(FoundClass::Given) => (),
            Some(FoundClass::Seen(before)) if engine.is_assured(*before) => {
                self.found.insert(key, FoundClass::Given);
                self.given += 1;
                self.ready.push_back(SynClass { flows: *flows });
            }
            _ => _ = self.found.insert(key, FoundClass::Seen(flows[0].conn_id)),
        }
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

/// Classes seen, and given out, at most.
const MAX_FOUND: usize = 16_384;
/// The data path has room for so many.
pub const MAX_CLASSES: usize = 1024;
