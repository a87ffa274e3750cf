//! Invariants of an engine.

use keepstate_engine::{Direction, Engine, EventKind, EventMask, Instant, Sysctl};

/// Checks the invariants of one engine.
pub struct Invariants {
    inserted: usize,
    removed: usize,
    /// The count after the previous step: if the limit is lowered below it, the count may exceed the limit, but must not grow.
    previous_count: usize,
}

impl Invariants {
    /// Subscribes to all events of an engine that has tracked nothing yet; the engine must report every event, and none may be lost.
    pub fn new(engine: &mut Engine) -> Self {
        engine.subscribe(EventMask::ALL, 1 << 20);
        Invariants { inserted: 0, removed: 0, previous_count: 0 }
    }

    /// Run after every step: inserted = living + removed, and the count never exceeds the maximum.
    pub fn check_counts(&mut self, engine: &mut Engine) {
        while let Some(event) = engine.poll_event() {
            match event.kind {
                EventKind::New => self.inserted += 1,
                EventKind::Destroy => self.removed += 1,
                EventKind::Update => {}
            }
        }
        assert_eq!(engine.events_lost(), 0, "the queue is long enough for one step");
        let count = engine.count();
        assert_eq!(self.inserted, count + self.removed, "inserted = living + removed");
        let max = engine.sysctls()[Sysctl::Max] as usize;
        assert!(max == 0 || count <= max.max(self.previous_count), "{count} connections, {max} allowed");
        self.previous_count = count;
    }

    /// Run now and then, since it reads the whole table: every connection is found in both directions or in neither.
    pub fn check_table(&self, engine: &Engine, now: Instant) {
        engine.check_invariants().expect("a sound table");
        for entry in engine.entries(now) {
            // For a host that sends to itself from the same port, both directions have the same tuple.
            let itself = entry.original == entry.reply;
            for (tuple, direction) in [(&entry.original, Direction::Original), (&entry.reply, Direction::Reply)] {
                let found = engine.find(tuple, entry.zone, now);
                let (handle, found) = found.expect("a living connection is found by both its tuples");
                assert_eq!(handle, entry.conn_id, "{tuple:?} belongs to two connections");
                assert!(itself || found == direction, "{tuple:?} is found in the wrong direction");
            }
            assert_eq!(engine.entry(entry.conn_id, now).map(|shown| shown.id), Some(entry.id));
        }
    }
}
