//! What came from the queues in one turn, before the router sees it: segments of one stream that came together go through it as one.
use super::super::gso::MAX_GSO_LEN;
use keepstate_wire::gso::{GroAggregator, GsoPacket};

/// Streams whose segments are being put together at a time.
const MAX_STREAMS: usize = 8;
/// Buffers that are kept, for trains and for others.
const MAX_GSO_BUFFERS: usize = 64;
const MAX_SPARE_BUFFERS: usize = 512;

/// One datagram that has come.
pub(super) struct RxPacket {
    pub(super) bytes: Vec<u8>,
    /// If it stands for many segments: their checksums were right, and it is left open.
    pub(super) gso: Option<GsoPacket>,
    pub(super) device: u32,
}

/// Where arrivals are gathered. Nothing waits here longer than a turn.
#[derive(Default)]
pub(super) struct RxBatch {
    aggregators: Vec<GroAggregator>,
    packets: Vec<RxPacket>,
    gso_buffers: Vec<Vec<u8>>,
    spare_buffers: Vec<Vec<u8>>,
}

impl RxBatch {
    /// Takes a datagram that came in by a device; those of one stream keep their order.
    pub(super) fn push(&mut self, datagram: &[u8], device: u32) {
        if let Some(at) = self.aggregators.iter().position(|train| train.same_flow(datagram)) {
            if self.aggregators.get_mut(at).is_some_and(|train| train.merge(datagram)) {
                return;
            }
            self.finish_stream(at, device);
        }
        let room = self.gso_buffers.pop().unwrap_or_else(|| Vec::with_capacity(MAX_GSO_LEN));
        match GroAggregator::start(datagram, room) {
            Ok(train) => {
                if self.aggregators.len() == MAX_STREAMS {
                    self.finish_stream(0, device);
                }
                self.aggregators.push(train);
            }
            Err(room) => {
                self.gso_buffers.push(room);
                let mut bytes = self.spare_buffers.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(datagram);
                self.packets.push(RxPacket { bytes, gso: None, device });
            }
        }
    }

    /// That was all from this device.
    pub(super) fn flush(&mut self, device: u32) {
        while !self.aggregators.is_empty() {
            self.finish_stream(0, device);
        }
    }

    fn finish_stream(&mut self, at: usize, device: u32) {
        let (bytes, train) = self.aggregators.remove(at).finish();
        self.packets.push(RxPacket { bytes, gso: train, device });
    }

    /// All that has come, in its order.
    pub(super) fn packets(&mut self) -> &mut Vec<RxPacket> {
        &mut self.packets
    }

    /// Takes a buffer back that is not in use any more.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        let (kept, most) = if buffer.capacity() < MAX_GSO_LEN {
            (&mut self.spare_buffers, MAX_SPARE_BUFFERS)
        } else {
            (&mut self.gso_buffers, MAX_GSO_BUFFERS)
        };
        if kept.len() < most && buffer.capacity() > 0 {
            kept.push(buffer);
        }
    }
}
