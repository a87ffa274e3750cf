//! What came from the queues in one turn, before the router sees it: segments of one stream that came together go through it as one.
use super::super::train::LONGEST;
use keepstate_wire::segment::{Coupling, Train};

/// Streams whose segments are being put together at a time.
const STREAMS: usize = 8;
/// Buffers that are kept, for trains and for others.
const ROOMS: usize = 64;
const SPARE: usize = 512;

/// One datagram that has come.
pub(super) struct Arrival {
    pub(super) bytes: Vec<u8>,
    /// If it stands for many segments: their checksums were right, and it is left open.
    pub(super) train: Option<Train>,
    pub(super) device: u32,
}

/// Where arrivals are gathered. Nothing waits here longer than a turn.
#[derive(Default)]
pub(super) struct Intake {
    open: Vec<Coupling>,
    arrived: Vec<Arrival>,
    rooms: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Intake {
    /// Takes a datagram that came in by a device; those of one stream keep their order.
    pub(super) fn take(&mut self, datagram: &[u8], device: u32) {
        if let Some(at) = self.open.iter().position(|train| train.is_of_same_stream(datagram)) {
            if self.open.get_mut(at).is_some_and(|train| train.couple(datagram)) {
                return;
            }
            self.close(at, device);
        }
        let room = self.rooms.pop().unwrap_or_else(|| Vec::with_capacity(LONGEST));
        match Coupling::begin(datagram, room) {
            Ok(train) => {
                if self.open.len() == STREAMS {
                    self.close(0, device);
                }
                self.open.push(train);
            }
            Err(room) => {
                self.rooms.push(room);
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(datagram);
                self.arrived.push(Arrival { bytes, train: None, device });
            }
        }
    }

    /// That was all from this device.
    pub(super) fn end(&mut self, device: u32) {
        while !self.open.is_empty() {
            self.close(0, device);
        }
    }

    fn close(&mut self, at: usize, device: u32) {
        let (bytes, train) = self.open.remove(at).finish();
        self.arrived.push(Arrival { bytes, train, device });
    }

    /// All that has come, in its order.
    pub(super) fn arrived(&mut self) -> &mut Vec<Arrival> {
        &mut self.arrived
    }

    /// Takes a buffer back that is not in use any more.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        let (kept, most) =
            if buffer.capacity() < LONGEST { (&mut self.spare, SPARE) } else { (&mut self.rooms, ROOMS) };
        if kept.len() < most && buffer.capacity() > 0 {
            kept.push(buffer);
        }
    }
}
