//! The state of a simulation: the engine, the clients and the queue of events. [`super::advance`] moves it on, [`super::traffic`] says
//! what each event does.
use crate::simulate::conversation::{SimLink, TcpConversation};
use crate::simulate::model::TrafficModel;
use crate::simulate::packet_builder::SimPacketBuilder;
use crate::simulate::rng::SimRng;
use crate::simulate::stats::ClientStats;
use crate::simulate::timeseries::{Timeseries, engine_instant};
use keepstate_engine::{AdmissionPolicy, Engine, Secret, Sysctl, Sysctls};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A simulation: the engine, the clients, and the queue of what happens next. See [`crate::simulate`].
pub struct Simulation {
    pub(super) model: TrafficModel,
    pub(super) engine: Engine,
    pub(super) timeseries: Timeseries,
    pub(super) stats: ClientStats,
    pub(super) event_queue: BinaryHeap<Reverse<ScheduledEvent>>,
    pub(super) clients: Vec<Client>,
    /// Free slots in `clients`.
    pub(super) free_clients: Vec<u32>,
    /// Connections whose client is gone and whose server does not know yet.
    pub(super) dead_peers: Vec<TcpConversation>,
    pub(super) free_dead_peers: Vec<u32>,
    pub(super) rng: SimRng,
    pub(super) seed: u64,
    /// Half of the time an entry stays after its last packet, in milliseconds.
    pub(super) max_skip: u64,
    pub(super) now: u64,
    pub(super) arrived: u64,
    pub(super) next_arrivals: NextArrivals,
    pub(super) packet_builder: SimPacketBuilder,
}

/// Times of the next random arrivals, in milliseconds with fractions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NextArrivals {
    pub(super) client: f64,
    pub(super) udp_query: f64,
    pub(super) half_open: f64,
    pub(super) scan: f64,
}

/// An event. Ordered by time, kind and client, so that runs are reproducible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScheduledEvent {
    pub(super) at: u64,
    pub(super) kind: SimEventKind,
    pub(super) client: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SimEventKind {
    /// A new client.
    ClientArrival,
    /// A UDP query.
    UdpQuery,
    /// A SYN of a handshake that is never finished.
    HalfOpenSyn,
    /// A SYN of a scan.
    ScanSyn,
    /// An operator logs in.
    OperatorLogin,
    /// A client sends its SYN, or repeats it.
    Syn,
    /// A client received the SYN-ACK and finishes the handshake.
    HandshakeAck,
    /// A client sends a message.
    Message,
    /// A connection ends.
    ConnectionEnd,
    /// The server closes a connection that was silent for too long.
    DeadPeerClose,
}

/// A client, connected or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) conversation: TcpConversation,
    /// When its connection began, ends, and how.
    pub(super) opened_at: u64,
    pub(super) ends_at: u64,
    pub(super) ending: Ending,
    /// Messages so far, including those the shortcut leaves out.
    pub(super) messages_sent: u64,
    /// SYNs of this attempt so far; attempts given up in a row.
    pub(super) syn_attempts: u8,
    pub(super) failures: u8,
    /// Was it ever refused?
    pub(super) was_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    Silence,
    Reset,
}

impl Simulation {
    /// A new simulation; `secret` keys the engine's hashes, and its first half seeds the traffic.
    ///
    /// # Errors
    /// What in the model does not fit together.
    pub fn new(model: TrafficModel, knobs: Sysctls, secret: [u8; 16]) -> Result<Simulation, String> {
        model.check()?;
        let mut knobs = knobs;
        // Simulated packets are never corrupt, and checksums cost time. The value is in range.
        let _ = knobs.set(Sysctl::Checksum, 0);
        let established = u64::from(knobs[Sysctl::TcpTimeoutEstablished]) * 1000;
        let stretch = if model.every_packet { 0 } else { established / 2 };
        let (first, _) = secret.split_at(8);
        let seed = first.iter().rev().fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
        let mut engine = Engine::new(knobs, Secret(secret));
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
            (SimEventKind::ScanSyn, simulation.model.scan_rate),
        ] {
            if rate > 0.0 {
                simulation.schedule(0, what, 0);
            }
        }
        if let Some(every) = simulation.model.operator_every {
            simulation.schedule(every, SimEventKind::OperatorLogin, 0);
        }
        Ok(simulation)
    }

    /// The same with a table that fails by choice.
    ///
    /// # Errors
    /// The choice does not fit the table.
    pub fn with_admission(mut self, policy: AdmissionPolicy) -> Result<Simulation, String> {
        if policy.adaptive_timeouts.is_some() {
            // Timeouts may become a thirty-second of what is configured.
            self.max_skip /= 32;
        }
        self.engine.set_admission(policy, engine_instant(0)).map_err(|error| error.to_string())?;
        Ok(self)
    }

    /// The model.
    pub fn model(&self) -> &TrafficModel {
        &self.model
    }

    /// The engine, with its sysctls and counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The samples so far.
    pub fn timeseries(&self) -> &Timeseries {
        &self.timeseries
    }

    /// The clients' counters so far.
    pub fn stats(&self) -> &ClientStats {
        &self.stats
    }

    pub(super) fn schedule(&mut self, at: u64, what: SimEventKind, who: u32) {
        // Events after the end are left out.
        if at <= self.model.duration {
            self.event_queue.push(Reverse(ScheduledEvent { at, kind: what, client: who }));
        }
    }

    pub(super) fn link(&mut self) -> SimLink<'_> {
        SimLink {
            engine: &mut self.engine,
            packet_builder: &mut self.packet_builder,
            now: engine_instant(self.now),
            sent: &mut self.stats.packets,
        }
    }
}
