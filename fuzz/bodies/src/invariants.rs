//! Invariants of an engine.

use keepstate_engine::{Direction, Engine, EventKind, EventMask, Instant, Sysctl};

/// Checks the invariants of one engine.
pub struct Invariants {
    inserted: usize,
    removed: usize,
    /// The count after the step before: a limit lowered under it may be exceeded, but only downwards.
    previous_count: usize,
}

impl Invariants {
    /// Opens the books of an engine that has tracked nothing yet; it must report every event, and the reader must lose none.
    pub fn new(engine: &mut Engine) -> Self {
        engine.subscribe(EventMask::ALL, 1 << 20);
        Invariants { inserted: 0, removed: 0, previous_count: 0 }
    }

    /// After every step: inserted = living + removed, and never above max.
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

    /// Now and then, since it looks at the whole table: both directions or neither.
    pub fn check_table(&self, engine: &Engine, now: Instant) {
        engine.check_invariants().expect("a sound table");
        for entry in engine.entries(now) {
            // A host that talks to itself from port to same port has one tuple for both directions.
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
