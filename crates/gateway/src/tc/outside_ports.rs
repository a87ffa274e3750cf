//! The outside ports in use between an outside address and one port of a server, kept in a bitmap that the programs share: they give a new connection the client's own port if its bit is free.
//!
//! ```text
//! a class needs it: every bit is set ─▶ every port is looked up in the router's table, a part a turn: the bits of those that nobody has are cleared
//! a program opens a connection, or the router's own is entered ─▶ its port's bit is set
//! every few seconds the ports whose bit is set are looked up: whose connection was gone twice, a round apart, is free again
//! ```
//! A connection that is made in another way (by request, read from a file) may be missing for as long: a program then takes a port that is in use, the router finds that out as it judges the SYN, and takes it back.
use keepstate_engine::{Instant, Tuple, Zone};
use keepstate_linux::tc::PortMap;
use keepstate_router::Router;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OutsideEnd {
    pub(super) server: IpAddr,
    pub(super) port: u16,
    pub(super) outside: IpAddr,
}

/// A bitmap, and how far it has been looked through.
pub(super) struct OutsidePorts {
    end: OutsideEnd,
    number: u32,
    /// The next thirty-two ports to look up.
    next: u16,
    is_complete: bool,
    /// Ports whose connection was gone in the last round.
    gone: BTreeSet<u16>,
    /// When the next round begins.
    next_round: Instant,
}

impl OutsidePorts {
    /// No port is known to be free yet.
    pub(super) fn new(end: OutsideEnd, map: PortMap<'_>, number: u32) -> OutsidePorts {
        map.take_all();
        OutsidePorts { end, number, next: FIRST, is_complete: false, gone: BTreeSet::new(), next_round: Instant(0) }
    }

    /// The number of its bitmap.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Has every port been looked up?
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Looks up some ports, as long as there is room for lookups.
    pub(super) fn look_after(&mut self, map: &PortMap<'_>, room: &mut usize, router: &Router, now: Instant) {
        while *room > 0 && now >= self.next_round {
            self.look_up(map, room, router, now);
            self.next = (self.next + 1) % WORDS;
            if self.next == FIRST {
                self.next_round = Instant(now.0 + ROUND);
                self.is_complete = true;
            }
        }
    }

    fn look_up(&mut self, map: &PortMap<'_>, room: &mut usize, router: &Router, now: Instant) {
        let set = map.word(self.next);
        for bit in (0..32).filter(|bit| set >> bit & 1 != 0) {
            let port = self.next * 32 + bit;
            *room = room.saturating_sub(1);
            if self.is_used(port, router, now) {
                self.gone.remove(&port);
            } else if !self.is_complete || !self.gone.insert(port) {
                // Nobody has it: no program could take it yet, or it was gone a round ago too, and what programs have opened until then was read.
                self.gone.remove(&port);
                map.free(port);
            }
        }
    }

    fn is_used(&self, port: u16, router: &Router, now: Instant) -> bool {
        let OutsideEnd { server, port: server_port, outside } = self.end;
        let replies =
            Tuple { source: server, destination: outside, protocol: 6, source_key: server_port, destination_key: port };
        router.engine().find(&replies, Zone::default(), now).is_some()
    }
}

/// Words of thirty-two ports; the first that are looked up: those that Linux gives its own sockets.
const WORDS: u16 = 2048;
const FIRST: u16 = 1024;
/// Between two rounds, in nanoseconds.
const ROUND: u64 = 5_000_000_000;
