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
mod conversation;
mod model;
mod packet_builder;
pub mod rng;
pub mod summary;
pub mod timeseries;
mod traffic;

use conversation::{SimLink, TcpConversation};
use keepstate_engine::{Engine, Instant, Secret, Sysctl, Sysctls};
pub use model::{MAX_CLIENTS, MAX_DURATION, MAX_MESSAGE_BYTES, ReconnectStorm, StormCause, TrafficModel};
use packet_builder::SimPacketBuilder;
use rng::SimRng;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
pub use summary::summarize;
pub use timeseries::{Timeseries, engine_instant};

/// What clients met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientStats {
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
    model: TrafficModel,
    engine: Engine,
    timeseries: Timeseries,
    stats: ClientStats,
    event_queue: BinaryHeap<Reverse<ScheduledEvent>>,
    clients: Vec<Client>,
    /// Places in `clients` that are free, where every connection is another's.
    free_clients: Vec<u32>,
    /// Connections whose client is gone and whose server has not noticed.
    dead_peers: Vec<TcpConversation>,
    free_dead_peers: Vec<u32>,
    rng: SimRng,
    seed: u64,
    /// How long an entry surely stands after its last packet, halved (milliseconds).
    max_skip: u64,
    now: u64,
    arrived: u64,
    next_arrivals: NextArrivals,
    packet_builder: SimPacketBuilder,
}

/// When the next of those comes who come at random, in milliseconds with their fractions.
#[derive(Clone, Copy, Debug, Default)]
struct NextArrivals {
    client: f64,
    udp_query: f64,
    half_open: f64,
}

/// Something will happen. Ordered by time, then by what and who, so that it is the same each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ScheduledEvent {
    at: u64,
    kind: SimEventKind,
    client: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SimEventKind {
    /// Somebody new comes.
    ClientArrival,
    /// A UDP question is asked.
    UdpQuery,
    /// A handshake is begun that nobody will finish.
    HalfOpenSyn,
    /// A client sends its SYN, for the first time or again.
    Syn,
    /// The SYN's answer has come: it finishes the handshake.
    HandshakeAck,
    /// It says something.
    Message,
    /// Its connection ends.
    ConnectionEnd,
    /// The server closes what has been silent for too long.
    DeadPeerClose,
}

/// A client, connected or not.
#[derive(Clone, Copy, Debug)]
struct Client {
    conversation: TcpConversation,
    /// When its connection began, ends, and how.
    opened_at: u64,
    ends_at: u64,
    ending: Ending,
    /// Its word that was sent last, counted from 0 at the beginning.
    messages_sent: u64,
    /// SYNs of this attempt so far; attempts given up in a row.
    syn_attempts: u8,
    failures: u8,
    /// Was it ever refused?
    was_refused: bool,
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
    pub fn new(model: TrafficModel, knobs: Sysctls, secret: [u8; 16]) -> Result<Simulation, String> {
        model.check()?;
        let mut knobs = knobs;
        // Nothing corrupts a packet here, and to sum it up would cost. The value is in range.
        let _ = knobs.set(Sysctl::Checksum, 0);
        let established = u64::from(knobs[Sysctl::TcpTimeoutEstablished]) * 1000;
        let stretch = if model.every_packet { 0 } else { established / 2 };
        let (first, _) = secret.split_at(8);
        let seed = first.iter().rev().fold(0, |word: u64, octet| word << 8 | u64::from(*octet));
        let mut engine = Engine::new(knobs, Secret(secret), Instant(0));
        let record = Timeseries::new(&mut engine, Some(model.duration));
        let mut simulation = Simulation {
            engine,
            timeseries: record,
            stats: ClientStats::default(),
            event_queue: BinaryHeap::new(),
            clients: Vec::new(),
            free_clients: Vec::new(),
            dead_peers: Vec::new(),
            free_dead_peers: Vec::new(),
            rng: SimRng::new(seed),
            seed,
            max_skip: stretch,
            now: 0,
            arrived: 0,
            next_arrivals: NextArrivals::default(),
            packet_builder: SimPacketBuilder::new(),
            model,
        };
        for (what, rate) in [
            (SimEventKind::ClientArrival, simulation.model.arrival),
            (SimEventKind::UdpQuery, simulation.model.udp_rate),
            (SimEventKind::HalfOpenSyn, simulation.model.half_open_rate),
        ] {
            if rate > 0.0 {
                simulation.schedule(0, what, 0);
            }
        }
        Ok(simulation)
    }

    /// Moves on to `to` (milliseconds from the beginning), but not past the end.
    pub fn advance(&mut self, to: u64) {
        let to = to.min(self.model.duration);
        while let Some(Reverse(next)) = self.event_queue.peek().copied().filter(|Reverse(next)| next.at <= to) {
            self.advance_sampling(next.at);
            self.event_queue.pop();
            self.dispatch(next);
            self.timeseries.record_packet(&mut self.engine, self.now);
        }
        self.advance_sampling(to);
    }

    /// Time goes on to `to`: what expires, expires at its own time, and samples are taken at theirs.
    fn advance_sampling(&mut self, to: u64) {
        while self.timeseries.next_sample_at() <= to {
            let due = self.timeseries.next_sample_at();
            self.expire_until(due);
            self.timeseries.take_sample(&self.engine, engine_instant(due));
        }
        self.expire_until(to);
    }

    fn expire_until(&mut self, to: u64) {
        let (mut clock, end) = (engine_instant(self.now), engine_instant(to));
        while let Some(wake) = self.engine.next_wake(clock).filter(|wake| *wake <= end) {
            clock = clock.max(wake);
            self.engine.poll(clock);
            self.timeseries.record_poll(&mut self.engine, clock.0 / 1_000_000);
        }
        self.now = self.now.max(to);
    }

    /// The model.
    pub fn model(&self) -> &TrafficModel {
        &self.model
    }

    /// The engine, with its knobs and counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the table went through so far.
    pub fn timeseries(&self) -> &Timeseries {
        &self.timeseries
    }

    /// What clients met with so far.
    pub fn stats(&self) -> &ClientStats {
        &self.stats
    }

    fn schedule(&mut self, at: u64, what: SimEventKind, who: u32) {
        // What comes after the end never comes.
        if at <= self.model.duration {
            self.event_queue.push(Reverse(ScheduledEvent { at, kind: what, client: who }));
        }
    }

    fn link(&mut self) -> SimLink<'_> {
        SimLink {
            engine: &mut self.engine,
            packet_builder: &mut self.packet_builder,
            now: engine_instant(self.now),
            sent: &mut self.stats.packets,
        }
    }
}

#[cfg(test)]
mod tests;
