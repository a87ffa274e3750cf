//! Target `engine`: a scenario of packets, waits and sysctl changes, run on two engines: one tracks packets one by one, the other in batches.

use crate::FuzzInput;
use crate::grammar::PacketGrammar;
use crate::invariants::Invariants;
use keepstate_engine::{CtInfo, Engine, Instant, Outcome, ProtocolInfo, Reason, Secret, Status, Sysctl, Sysctls, Zone};
use keepstate_wire::{Packet, ParseError};
use std::collections::BTreeSet;

/// Runs the scenario in `data`, and checks the invariants.
pub fn engine(data: &[u8]) {
    run_engine(data);
}

/// As [`engine`], and returns the outcome.
pub fn run_engine(data: &[u8]) -> EngineCoverage {
    let mut script = FuzzInput::new(data);
    let mut world = EnginePair::new(&mut script);
    let mut steps = 0;
    while let Some(what) = script.next_byte() {
        world.step(what, &mut script);
        steps += 1;
        // A check reads the whole table: the larger the table, the rarer the checks.
        if steps > 256 + 4 * world.single.count() {
            world.invariants.check_table(&world.single, world.now);
            steps = 0;
        }
    }
    world.finish()
}

/// The result of a scenario.
#[derive(Default)]
pub struct EngineCoverage {
    /// Number of tracked packets.
    pub packets: u64,
    /// Largest number of connections at a time.
    pub max_connections: usize,
    /// Names of the states, of `CtInfo` values and of reasons that occurred.
    pub seen: BTreeSet<&'static str>,
}

struct EnginePair {
    single: Engine,
    batched: Engine,
    invariants: Invariants,
    now: Instant,
    grammar: PacketGrammar,
    /// Packets that the batched engine has not tracked yet, with the outcomes of the other engine.
    pending: Vec<(Vec<u8>, Outcome)>,
    coverage: EngineCoverage,
    polls: u32,
    /// Waits are single ticks, so that the table fills.
    short_ticks_only: bool,
}

impl EnginePair {
    fn new(script: &mut FuzzInput<'_>) -> Self {
        let mut sysctls = Sysctls::default();
        let max = script.choose(&[4, 1, 16, 64, 0]);
        let short_ticks_only = script.next_byte().unwrap_or(0) < 64;
        for (knob, value) in
            [(Sysctl::Max, max), (Sysctl::Buckets, 64), (Sysctl::Acct, 1), (Sysctl::Timestamp, 1), (Sysctl::Events, 1)]
        {
            sysctls.set(knob, value).expect("a value in the knob's range");
        }
        let now = Instant::from_secs(1_800_000_000);
        let mut single = Engine::new(sysctls.clone(), Secret([7; 16]));
        let batched = Engine::new(sysctls, Secret([7; 16]));
        let invariants = Invariants::new(&mut single);
        EnginePair {
            single,
            batched,
            invariants,
            now,
            grammar: PacketGrammar::new(),
            pending: Vec::new(),
            coverage: EngineCoverage::default(),
            polls: 0,
            short_ticks_only,
        }
    }

    fn step(&mut self, what: u8, script: &mut FuzzInput<'_>) {
        match what {
            0..=207 => self.handle_packet(script),
            208..=239 => self.advance_time(script),
            240..=247 => self.set_sysctl(script),
            248..=251 => self.grammar.use_new_ports(),
            252 => self.remove(script),
            253..=254 => self.drop_unconfirmed(script),
            255 => self.flush(script),
        }
        self.invariants.check_counts(&mut self.single);
    }

    fn handle_packet(&mut self, script: &mut FuzzInput<'_>) {
        let bytes = self.grammar.packet(script);
        match Packet::parse(&bytes) {
            Ok(packet) => {
                let outcome = self.single.handle(&packet, Zone::default(), self.now);
                self.record_coverage(&outcome);
                self.pending.push((bytes, outcome));
            }
            Err(refusal) => self.record_parse_error(refusal),
        }
    }

    fn record_coverage(&mut self, outcome: &Outcome) {
        self.coverage.packets += 1;
        self.coverage.max_connections = self.coverage.max_connections.max(self.single.count());
        self.coverage.seen.insert(match outcome.info {
            CtInfo::New => "new",
            CtInfo::Established => "established",
            CtInfo::Related => "related",
            CtInfo::Invalid => "invalid",
            CtInfo::Untracked => "untracked",
        });
        self.coverage.seen.extend(outcome.reason.map(Reason::name));
        let Some(handle) = outcome.connection else { return };
        let entry = self.single.entry(handle, self.now).expect("an outcome names a living connection");
        self.coverage.seen.insert(match entry.protocol {
            ProtocolInfo::Tcp { state, .. } => state.name(),
            ProtocolInfo::Sctp { state, .. } => state.name(),
            ProtocolInfo::Stateless => "stateless",
        });
        if entry.status.contains(Status::ASSURED) {
            self.coverage.seen.insert("assured");
        }
    }

    fn record_parse_error(&mut self, refusal: ParseError) {
        self.single.count_parse_error(refusal);
        self.batched.count_parse_error(refusal);
    }

    /// Advances the time by a tick, by seconds, or by days.
    fn advance_time(&mut self, script: &mut FuzzInput<'_>) {
        self.run_batch();
        let nanos = match script.next_byte().unwrap_or(0) {
            _ if self.short_ticks_only => 4_000_000,
            0..=99 => 4_000_000,
            100..=199 => u64::from(script.next_byte().unwrap_or(0)) * 1_000_000_000,
            200..=249 => 121_000_000_000,
            _ => 432_001_000_000_000,
        };
        self.now = Instant(self.now.0 + nanos);
        if script.next_byte().unwrap_or(0) & 1 == 0 {
            self.single.poll(self.now);
            self.batched.poll(self.now);
            self.polls += 1;
            // Reading the whole table takes longer than the rest of the scenario.
            if self.polls.is_multiple_of(16) {
                let living = self.single.entries(self.now).count();
                assert_eq!(living, self.single.count(), "a poll of a small table leaves nothing that has expired");
            }
        }
    }

    /// Sets a sysctl, except `Events`, which the invariants need.
    fn set_sysctl(&mut self, script: &mut FuzzInput<'_>) {
        self.run_batch();
        let knob = script.choose(Sysctl::ALL);
        let value = match knob {
            Sysctl::Events => return,
            // Small values only: the benchmarks cover tables of millions.
            Sysctl::Max | Sysctl::Buckets => u64::from(script.next_byte().unwrap_or(0)) << script.choose(&[0, 0, 4, 8]),
            _ => u64::from(script.choose(&[0, 1, 2, 3, 30, 255, u32::MAX])),
        };
        let answer = self.single.set_sysctl(knob, value);
        assert_eq!(answer, self.batched.set_sysctl(knob, value));
        assert!(answer.is_err() || u64::from(self.single.sysctls()[knob]) == value, "a knob keeps what it took");
    }

    fn remove(&mut self, script: &mut FuzzInput<'_>) {
        self.run_batch();
        let which = usize::from(script.next_byte().unwrap_or(0));
        let entry = self.single.entries(self.now).nth(which % self.single.count().max(1));
        if let Some(entry) = entry {
            assert!(self.single.remove(entry.conn_id, self.now), "what is shown can be removed");
            assert!(!self.single.remove(entry.conn_id, self.now), "nothing is removed twice");
            assert!(self.batched.remove(entry.conn_id, self.now));
        }
    }

    /// A packet dropped by a rule between `track` and `confirm` leaves nothing in the table.
    fn drop_unconfirmed(&mut self, script: &mut FuzzInput<'_>) {
        self.run_batch();
        let bytes = self.grammar.packet(script);
        if let Ok(packet) = Packet::parse(&bytes) {
            let before = self.single.count();
            let _dropped = self.single.track(&packet, Zone::default(), self.now);
            let _dropped = self.batched.track(&packet, Zone::default(), self.now);
            assert!(self.single.count() <= before, "what was not confirmed is not in the table");
        }
    }

    fn flush(&mut self, script: &mut FuzzInput<'_>) {
        self.run_batch();
        if script.next_byte().unwrap_or(0) > 250 {
            self.single.flush(self.now);
            self.batched.flush(self.now);
            assert_eq!(self.single.count(), 0);
        }
    }

    /// Tracks the pending packets with the batched engine: the outcomes must be equal.
    fn run_batch(&mut self) {
        let waiting = std::mem::take(&mut self.pending);
        let packets: Vec<Packet<'_>> = waiting.iter().flat_map(|(bytes, _)| Packet::parse(bytes)).collect();
        let mut outcomes = Vec::new();
        self.batched.handle_batch(&packets, Zone::default(), self.now, &mut outcomes);
        assert_eq!(outcomes.len(), waiting.len());
        for ((bytes, single), batched) in waiting.iter().zip(&outcomes) {
            assert_eq!(single, batched, "one by one, and in a batch: {bytes:02x?}");
        }
        assert_eq!(self.single.count(), self.batched.count());
    }

    /// At the end, flushes and checks that nothing is left.
    fn finish(mut self) -> EngineCoverage {
        self.run_batch();
        self.invariants.check_table(&self.single, self.now);
        self.batched.check_invariants().expect("a sound table");
        assert_eq!(self.single.counters(), self.batched.counters());
        self.single.flush(self.now);
        self.invariants.check_counts(&mut self.single);
        assert_eq!(self.single.count(), 0);
        self.single.check_invariants().expect("a sound empty table");
        let counters = self.single.counters();
        for (name, count) in [("early_drop", counters.early_drop), ("drop", counters.drop)] {
            if count > 0 {
                self.coverage.seen.insert(name);
            }
        }
        self.coverage
    }
}
