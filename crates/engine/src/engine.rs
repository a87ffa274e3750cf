//! The engine: stubs until it is written.
use crate::{Counters, Entry, Event, EventMask, Instant, Knob, KnobError, Knobs, Outcome, Zone};
use keepstate_wire::Packet;

/// Names a connection while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The secret that keys hashes and ids: sixteen random octets, fresh at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

/// Tracks connections.
pub struct Engine {}

#[allow(missing_docs, unused_variables, clippy::unimplemented)]
impl Engine {
    pub fn new(knobs: Knobs, secret: Secret, now: Instant) -> Engine {
        unimplemented!()
    }
    /// Tracks one packet and confirms its connection at once: for who has no rules.
    pub fn handle(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Outcome {
        unimplemented!()
    }
    /// As `handle` for each of `packets`, in order, with their cache lines fetched ahead. `outcomes` is cleared first.
    pub fn handle_batch(&mut self, packets: &[Packet<'_>], now: Instant, outcomes: &mut alloc::vec::Vec<Outcome>) {
        unimplemented!()
    }
    /// Counts a packet that wire refused before it could be tracked (or that a driver could not make whole).
    pub fn refuse(&mut self, refusal: keepstate_wire::Refusal) {
        unimplemented!()
    }
    /// Removes what has expired, and does one step of any resizing. Call at `next_wake`, or whenever convenient.
    pub fn poll(&mut self, now: Instant) {
        unimplemented!()
    }
    /// When `poll` has something to do; `None` while the table is empty.
    pub fn next_wake(&self) -> Option<Instant> {
        unimplemented!()
    }
    /// Which events to queue; at most `capacity` wait, later ones are lost and counted.
    pub fn listen(&mut self, mask: EventMask, capacity: usize) {
        unimplemented!()
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// Events lost because the queue was full, since the start.
    pub fn events_lost(&self) -> u64 {
        unimplemented!()
    }
    /// The next line the kernel would have logged ("nf_conntrack: table full, dropping packet"), rate-limited.
    pub fn poll_log(&mut self) -> Option<alloc::string::String> {
        unimplemented!()
    }
    pub fn count(&self) -> usize {
        unimplemented!()
    }
    /// Every connection that has not expired at `now`.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = Entry> + '_ {
        core::iter::empty()
    }
    /// One connection, if it still lives.
    pub fn entry(&self, handle: Handle, now: Instant) -> Option<Entry> {
        unimplemented!()
    }
    pub fn counters(&self) -> &Counters {
        unimplemented!()
    }
    pub fn knobs(&self) -> &Knobs {
        unimplemented!()
    }
    /// Changes a knob while the engine runs.
    pub fn set(&mut self, knob: Knob, value: u64) -> Result<(), KnobError> {
        unimplemented!()
    }
    /// Bytes held: records, index, timers.
    pub fn memory(&self) -> usize {
        unimplemented!()
    }
}
