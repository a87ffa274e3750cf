//! What must hold of an engine at every moment.

use keepstate_engine::{Direction, Engine, EventKind, EventMask, Instant, Knob};

/// Keeps the books of one engine.
pub struct Books {
    inserted: usize,
    removed: usize,
    /// The count after the step before: a limit lowered under it may be exceeded, but only downwards.
    before: usize,
}

impl Books {
    /// Opens the books of an engine that has tracked nothing yet; it must report every event, and the reader must lose none.
    pub fn open(engine: &mut Engine) -> Self {
        engine.listen(EventMask::ALL, 1 << 20);
        Books { inserted: 0, removed: 0, before: 0 }
    }

    /// After every step: inserted = living + removed, and never above max.
    pub fn balance(&mut self, engine: &mut Engine) {
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
        let max = engine.knobs()[Knob::Max] as usize;
        assert!(max == 0 || count <= max.max(self.before), "{count} connections, {max} allowed");
        self.before = count;
    }

    /// Now and then, since it looks at the whole table: both directions or neither.
    pub fn audit(&self, engine: &Engine, now: Instant) {
        engine.check().expect("a sound table");
        for entry in engine.entries(now) {
            // A host that talks to itself from port to same port has one tuple for both directions.
            let itself = entry.original == entry.reply;
            for (tuple, direction) in [(&entry.original, Direction::Original), (&entry.reply, Direction::Reply)] {
                let found = engine.find(tuple, entry.zone, now);
                let (handle, found) = found.expect("a living connection is found by both its tuples");
                assert_eq!(handle, entry.handle, "{tuple:?} belongs to two connections");
                assert!(itself || found == direction, "{tuple:?} is found in the wrong direction");
            }
            assert_eq!(engine.entry(entry.handle, now).map(|shown| shown.id), Some(entry.id));
        }
    }
}
