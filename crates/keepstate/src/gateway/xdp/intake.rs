//! From a queue to the router: segments of one stream that came together go through it as one.
use super::super::train::{self, LONGEST};
use super::Leaving;
use keepstate_engine::Instant;
use keepstate_gateway::{Out, Router};
use keepstate_wire::segment::{Coupling, Train};

/// Streams whose segments are being put together at a time.
const STREAMS: usize = 8;
/// Buffers for trains that are kept.
const ROOMS: usize = 64;

/// Where trains are put together. Nothing waits here longer than a turn.
#[derive(Default)]
pub(super) struct Trains {
    open: Vec<Coupling>,
    rooms: Vec<Vec<u8>>,
    out: Vec<Out>,
}

/// What comes from one device in one turn.
pub(super) struct Intake<'a> {
    pub(super) trains: &'a mut Trains,
    pub(super) router: &'a mut Router,
    pub(super) device: u32,
    pub(super) now: Instant,
    pub(super) out: &'a mut Vec<Leaving>,
}

impl Trains {
    /// Takes a buffer back; false and nothing if it is not one of these.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) -> Result<(), Vec<u8>> {
        if buffer.capacity() < LONGEST {
            return Err(buffer);
        }
        if self.rooms.len() < ROOMS {
            self.rooms.push(buffer);
        }
        Ok(())
    }
}

impl Intake<'_> {
    /// Routes a datagram, at the latest when the turn ends; those of one stream in their order.
    pub(super) fn take(&mut self, datagram: &[u8]) {
        let same = self.trains.open.iter().position(|train| train.is_of_same_stream(datagram));
        if let Some(at) = same {
            if self.trains.open.get_mut(at).is_some_and(|train| train.couple(datagram)) {
                return;
            }
            self.depart(at);
        }
        let room = self.trains.rooms.pop().unwrap_or_else(|| Vec::with_capacity(LONGEST));
        match Coupling::begin(datagram, room) {
            Ok(train) => {
                if self.trains.open.len() == STREAMS {
                    self.depart(0);
                }
                self.trains.open.push(train);
            }
            Err(room) => {
                self.trains.rooms.push(room);
                self.route(datagram);
            }
        }
    }

    /// When the turn ends.
    pub(super) fn end(&mut self) {
        while !self.trains.open.is_empty() {
            self.depart(0);
        }
    }

    fn depart(&mut self, at: usize) {
        let (mut bytes, train) = self.trains.open.remove(at).finish();
        match train {
            None => self.route(&bytes),
            Some(train) => {
                train::route(self.router, &train, &mut bytes, self.device, self.now, &mut self.trains.out);
                self.leave(Some(train));
            }
        }
        // Empty and without room, if it has left.
        let _ = self.trains.recycle(bytes);
    }

    fn route(&mut self, datagram: &[u8]) {
        // A loss is counted, and told to whom it must be.
        let _ = self.router.handle(datagram, self.device, self.now, &mut self.trains.out);
        self.leave(None);
    }

    fn leave(&mut self, train: Option<Train>) {
        self.out.extend(self.trains.out.drain(..).map(|out| Leaving { out, train }));
    }
}
