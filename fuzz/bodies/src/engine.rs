//! Target `engine`: a story of packets, passing time and turned knobs, told to two engines; one takes packets one by one, the other in batches.

use crate::Script;
use crate::grammar::Grammar;
use crate::invariants::Books;
use keepstate_engine::{Engine, Info, Instant, Knob, Knobs, Outcome, ProtocolInfo, Secret, Status, Why, Zone};
use keepstate_wire::{Packet, Refusal};
use std::collections::BTreeSet;

/// Tells the story in `data`, and keeps the books.
pub fn engine(data: &[u8]) {
    tell(data);
}

/// As [`engine`], and says what the story has led to.
pub fn tell(data: &[u8]) -> Told {
    let mut script = Script::new(data);
    let mut world = World::new(&mut script);
    let mut steps = 0;
    while let Some(what) = script.octet() {
        world.step(what, &mut script);
        steps += 1;
        // An audit looks at the whole table: the larger that is, the rarer they are.
        if steps > 256 + 4 * world.single.count() {
            world.books.audit(&world.single, world.now);
            steps = 0;
        }
    }
    world.finish()
}

/// What a story has led to.
#[derive(Default)]
pub struct Told {
    /// Packets that were tracked.
    pub packets: u64,
    /// The most connections at a time.
    pub most: usize,
    /// Names of states, of relations to the table and of reasons.
    pub seen: BTreeSet<&'static str>,
}

struct World {
    single: Engine,
    batched: Engine,
    books: Books,
    now: Instant,
    grammar: Grammar,
    /// Packets that the batched engine has yet to see, and what the other one said of them.
    waiting: Vec<(Vec<u8>, Outcome)>,
    told: Told,
    polls: u32,
    /// Time passes in ticks only, so that the table fills.
    hasty: bool,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let mut knobs = Knobs::default();
        let max = script.pick(&[4, 1, 16, 64, 0]);
        let hasty = script.octet().unwrap_or(0) < 64;
        for (knob, value) in
            [(Knob::Max, max), (Knob::Buckets, 64), (Knob::Acct, 1), (Knob::Timestamp, 1), (Knob::Events, 1)]
        {
            knobs.set(knob, value).expect("a value in the knob's range");
        }
        let now = Instant::from_secs(1_800_000_000);
        let mut single = Engine::new(knobs.clone(), Secret([7; 16]), now);
        let batched = Engine::new(knobs, Secret([7; 16]), now);
        let books = Books::open(&mut single);
        World {
            single,
            batched,
            books,
            now,
            grammar: Grammar::new(),
            waiting: Vec::new(),
            told: Told::default(),
            polls: 0,
            hasty,
        }
    }

    fn step(&mut self, what: u8, script: &mut Script<'_>) {
        match what {
            0..=207 => self.packet(script),
            208..=239 => self.wait(script),
            240..=247 => self.turn(script),
            248..=251 => self.grammar.move_on(),
            252 => self.remove(script),
            253..=254 => self.drop_on_the_way(script),
            255 => self.flush(script),
        }
        self.books.balance(&mut self.single);
    }

    fn packet(&mut self, script: &mut Script<'_>) {
        let bytes = self.grammar.packet(script);
        match Packet::parse(&bytes) {
            Ok(packet) => {
                let outcome = self.single.handle(&packet, Zone::default(), self.now);
                self.note(&outcome);
                self.waiting.push((bytes, outcome));
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        self.told.packets += 1;
        self.told.most = self.told.most.max(self.single.count());
        self.told.seen.insert(match outcome.info {
            Info::New => "new",
            Info::Established => "established",
            Info::Related => "related",
            Info::Invalid => "invalid",
            Info::Untracked => "untracked",
        });
        self.told.seen.extend(outcome.why.map(Why::name));
        let Some(handle) = outcome.connection else { return };
        let entry = self.single.entry(handle, self.now).expect("an outcome names a living connection");
        self.told.seen.insert(match entry.protocol {
            ProtocolInfo::Tcp { state, .. } => state.name(),
            ProtocolInfo::Sctp { state, .. } => state.name(),
            ProtocolInfo::Stateless => "stateless",
        });
        if entry.status.has(Status::ASSURED) {
            self.told.seen.insert("assured");
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.single.refuse(refusal);
        self.batched.refuse(refusal);
    }

    /// Time passes: ticks, seconds, or days.
    fn wait(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        let nanos = match script.octet().unwrap_or(0) {
            _ if self.hasty => 4_000_000,
            0..=99 => 4_000_000,
            100..=199 => u64::from(script.octet().unwrap_or(0)) * 1_000_000_000,
            200..=249 => 121_000_000_000,
            _ => 432_001_000_000_000,
        };
        self.now = Instant(self.now.0 + nanos);
        if script.octet().unwrap_or(0) & 1 == 0 {
            self.single.poll(self.now);
            self.batched.poll(self.now);
            self.polls += 1;
            // Looking at the whole table takes longer than the rest of the story.
            if self.polls.is_multiple_of(16) {
                let living = self.single.entries(self.now).count();
                assert_eq!(living, self.single.count(), "a poll of a small table leaves nothing that has expired");
            }
        }
    }

    /// Turns a knob. Not that of events: the books live on them.
    fn turn(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        let knob = script.pick(Knob::ALL);
        let value = match knob {
            Knob::Events => return,
            // What tables of millions do, the benches show.
            Knob::Max | Knob::Buckets => u64::from(script.octet().unwrap_or(0)) << script.pick(&[0, 0, 4, 8]),
            _ => u64::from(script.pick(&[0, 1, 2, 3, 30, 255, u32::MAX])),
        };
        let answer = self.single.set(knob, value);
        assert_eq!(answer, self.batched.set(knob, value));
        assert!(answer.is_err() || u64::from(self.single.knobs()[knob]) == value, "a knob keeps what it took");
    }

    fn remove(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        let which = usize::from(script.octet().unwrap_or(0));
        let entry = self.single.entries(self.now).nth(which % self.single.count().max(1));
        if let Some(entry) = entry {
            assert!(self.single.remove(entry.handle, self.now), "what is shown can be removed");
            assert!(!self.single.remove(entry.handle, self.now), "nothing is removed twice");
            assert!(self.batched.remove(entry.handle, self.now));
        }
    }

    /// A packet that a rule drops between tracking and confirming leaves nothing.
    fn drop_on_the_way(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        let bytes = self.grammar.packet(script);
        if let Ok(packet) = Packet::parse(&bytes) {
            let before = self.single.count();
            let _dropped = self.single.track(&packet, Zone::default(), self.now);
            let _dropped = self.batched.track(&packet, Zone::default(), self.now);
            assert!(self.single.count() <= before, "what was not confirmed is not in the table");
        }
    }

    fn flush(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        if script.octet().unwrap_or(0) > 250 {
            self.single.flush(self.now);
            self.batched.flush(self.now);
            assert_eq!(self.single.count(), 0);
        }
    }

    /// Gives the batched engine what it has missed: it must say the same.
    fn catch_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let packets: Vec<Packet<'_>> = waiting.iter().flat_map(|(bytes, _)| Packet::parse(bytes)).collect();
        let mut outcomes = Vec::new();
        self.batched.handle_batch(&packets, self.now, &mut outcomes);
        assert_eq!(outcomes.len(), waiting.len());
        for ((bytes, single), batched) in waiting.iter().zip(&outcomes) {
            assert_eq!(single, batched, "one by one, and in a batch: {bytes:02x?}");
        }
        assert_eq!(self.single.count(), self.batched.count());
    }

    /// At the end of time nothing is left.
    fn finish(mut self) -> Told {
        self.catch_up();
        self.books.audit(&self.single, self.now);
        self.batched.check().expect("a sound table");
        assert_eq!(self.single.counters(), self.batched.counters());
        self.single.flush(self.now);
        self.books.balance(&mut self.single);
        assert_eq!(self.single.count(), 0);
        self.single.check().expect("a sound empty table");
        let counters = self.single.counters();
        for (name, count) in [("early_drop", counters.early_drop), ("drop", counters.drop)] {
            if count > 0 {
                self.told.seen.insert(name);
            }
        }
        self.told
    }
}
