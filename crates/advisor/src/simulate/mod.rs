//! The engine in virtual time under a traffic model: how the table fills, when it is full, who is refused.
//!
//! Every packet is a real one and goes through the real engine. Clients connect, speak, and go as the [`Model`] says; what they do next
//! waits in an agenda, earliest first. A simulation is made, moved on to any later time as often as its owner likes, and told at the end.
//! It has no clock: the same model, knobs and secret give the same record.
//!
//! **The shortcut.** A million clients that ping each minute send thousands of millions of packets a day, and nearly all of them change
//! nothing but a deadline that is five days away. So of a client's words only those are sent that could matter: the next one whenever half of the
//! established timeout has passed since the last that was sent, and always the last before it falls silent, at its own time. In between
//! its entry cannot expire, and being ASSURED it is never pushed out, so that the table is the same at every moment; a test compares
//! both ways. Where a client speaks more rarely than half of the timeout, where its entry was forgotten, or with `every_packet`, each is sent.
pub mod chance;
mod client;
mod model;
mod packets;
pub mod record;
pub mod story;
mod traffic;

use chance::Chance;
use client::{Line, Talk};
use keepstate_engine::{Engine, Instant, Knob, Knobs, Secret};
pub use model::{Cause, LARGEST_MESSAGE, LONGEST, MOST_CLIENTS, Model, Storm};
use packets::Press;
pub use record::{Record, instant};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
pub use story::story;

/// What clients met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Packets that went through the engine.
    pub packets: u64,
    /// Connections opened.
    pub opened: u64,
    /// SYNs dropped because there was no room.
    pub syns_dropped: u64,
    /// Attempts given up after the SYN was sent four times.
    pub refused: u64,
    /// Clients that were refused at least once.
    pub clients_refused: u64,
    /// Connections closed by both ends.
    pub closed: u64,
    /// Connections that ended without a word.
    pub fell_silent: u64,
    /// Connections reset by a server that restarted.
    pub reset: u64,
    /// Living connections whose entry had been forgotten, and that were entered anew with their next packet.
    pub picked_up: u64,
    /// The same, but their packet was invalid: where a rule drops those, they hang.
    pub invalid: u64,
    /// Connections that broke, half open or living, because their entry was gone and there was no room to enter them again.
    pub broken: u64,
    /// UDP questions dropped because there was no room.
    pub questions_dropped: u64,
    /// SYNs of handshakes that are never finished, dropped because there was no room.
    pub half_open_dropped: u64,
    /// Connections open now, by the clients.
    pub connected: u64,
    /// Clients that wait to try again now.
    pub waiting: u64,
}

/// See the module's words.
pub struct Simulation {
    model: Model,
    engine: Engine,
    record: Record,
    tally: Tally,
    agenda: BinaryHeap<Reverse<Appointment>>,
    clients: Vec<Client>,
    /// Places in `clients` that are free, where every connection is another's.
    free: Vec<u32>,
    /// Connections whose client is gone and whose server has not noticed.
    ghosts: Vec<Talk>,
    free_ghosts: Vec<u32>,
    chance: Chance,
    seed: u64,
    /// How long an entry surely stands after its last packet, halved (milliseconds).
    stretch: u64,
    now: u64,
    arrived: u64,
    due: Due,
    press: Press,
}

/// When the next of those comes who come at random, in milliseconds with their fractions.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    arrive: f64,
    ask: f64,
    scan: f64,
}

/// Something will happen. Ordered by time, then by what and who, so that it is the same each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Appointment {
    at: u64,
    what: What,
    who: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Somebody new comes.
    Arrive,
    /// A UDP question is asked.
    Ask,
    /// A handshake is begun that nobody will finish.
    Scan,
    /// A client sends its SYN, for the first time or again.
    Knock,
    /// The SYN's answer has come: it finishes the handshake.
    Enter,
    /// It says something.
    Speak,
    /// Its connection ends.
    End,
    /// The server closes what has been silent for too long.
    Notice,
}

/// A client, connected or not.
#[derive(Clone, Copy, Debug)]
struct Client {
    talk: Talk,
    /// When its connection began, ends, and how.
    began: u64,
    ends: u64,
    end: Ending,
    /// Its word that was sent last, counted from 0 at the beginning.
    spoken: u64,
    /// SYNs of this attempt so far; attempts given up in a row.
    knocks: u8,
    failures: u8,
    /// Was it ever refused?
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    Silence,
    Reset,
}

impl Simulation {
    /// A simulation at its beginning; `secret` keys the engine's hashes and, its first half, the traffic's chance.
    ///
    /// # Errors
    /// What in the model does not fit together: a sentence for the user.
    pub fn new(model: Model, knobs: Knobs, secret: [u8; 16]) -> Result<Simulation, String> {
        model.check()?;
        let mut knobs = knobs;
        // Nothing corrupts a packet here, and to sum it up would cost. The value is in range.
        let _ = knobs.set(Knob::Checksum, 0);
        let established = u64::from(knobs[Knob::TcpTimeoutEstablished]) * 1000;
        let stretch = if model.every_packet { 0 } else { established / 2 };
        let (first, _) = secret.split_at(8);
        let seed = first.iter().rev().fold(0, |word: u64, octet| word << 8 | u64::from(*octet));
        let mut engine = Engine::new(knobs, Secret(secret), Instant(0));
        let record = Record::new(&mut engine, Some(model.duration));
        let mut simulation = Simulation {
            engine,
            record,
            tally: Tally::default(),
            agenda: BinaryHeap::new(),
            clients: Vec::new(),
            free: Vec::new(),
            ghosts: Vec::new(),
            free_ghosts: Vec::new(),
            chance: Chance::new(seed),
            seed,
            stretch,
            now: 0,
            arrived: 0,
            due: Due::default(),
            press: Press::new(),
            model,
        };
        for (what, rate) in [
            (What::Arrive, simulation.model.arrival),
            (What::Ask, simulation.model.udp_rate),
            (What::Scan, simulation.model.half_open_rate),
        ] {
            if rate > 0.0 {
                simulation.appoint(0, what, 0);
            }
        }
        Ok(simulation)
    }

    /// Moves on to `to` (milliseconds from the beginning), but not past the end.
    pub fn advance(&mut self, to: u64) {
        let to = to.min(self.model.duration);
        while let Some(Reverse(next)) = self.agenda.peek().copied().filter(|Reverse(next)| next.at <= to) {
            self.pass(next.at);
            self.agenda.pop();
            self.keep(next);
            self.record.note(&mut self.engine, self.now);
        }
        self.pass(to);
    }

    /// Time goes on to `to`: what expires, expires at its own time, and samples are taken at theirs.
    fn pass(&mut self, to: u64) {
        while self.record.due() <= to {
            let due = self.record.due();
            self.expire(due);
            self.record.sample(&self.engine, instant(due));
        }
        self.expire(to);
    }

    fn expire(&mut self, to: u64) {
        let (mut clock, end) = (instant(self.now), instant(to));
        while let Some(wake) = self.engine.next_wake(clock).filter(|wake| *wake <= end) {
            clock = clock.max(wake);
            self.engine.poll(clock);
            self.record.polled(&mut self.engine, clock.0 / 1_000_000);
        }
        self.now = self.now.max(to);
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine, with its knobs and counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the table went through so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What clients met with so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn appoint(&mut self, at: u64, what: What, who: u32) {
        // What comes after the end never comes.
        if at <= self.model.duration {
            self.agenda.push(Reverse(Appointment { at, what, who }));
        }
    }

    fn line(&mut self) -> Line<'_> {
        Line { engine: &mut self.engine, press: &mut self.press, now: instant(self.now), sent: &mut self.tally.packets }
    }
}

#[cfg(test)]
mod tests;
