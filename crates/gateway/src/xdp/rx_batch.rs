//! The packets received in one turn, before the router handles them: segments of one stream that came together are merged (GRO).
use super::port::ETH_HEADER_LEN;
use crate::gso::MAX_GSO_LEN;
use keepstate_wire::gso::{GroAggregator, GsoPacket};

/// Streams merged at a time.
const MAX_STREAMS: usize = 8;
/// Buffers kept for reuse, for GSO packets and for others.
const MAX_GSO_BUFFERS: usize = 64;
const MAX_SPARE_BUFFERS: usize = 512;

/// One received packet.
pub(super) struct RxPacket {
    pub(super) bytes: Vec<u8>,
    /// The Ethernet header; of merged packets, the first one's.
    pub(super) link_header: Option<[u8; 14]>,
    /// For a merged packet: the checksums of its segments were valid, and its own is partial.
    pub(super) gso: Option<GsoPacket>,
    pub(super) ifindex: u32,
}

/// Collects received packets. Nothing waits here longer than a turn.
#[derive(Default)]
pub(super) struct RxBatch {
    /// Streams that are merged, each with the Ethernet header of its first packet.
    aggregators: Vec<(GroAggregator, Option<[u8; 14]>)>,
    packets: Vec<RxPacket>,
    gso_buffers: Vec<Vec<u8>>,
    spare_buffers: Vec<Vec<u8>>,
}

impl RxBatch {
    /// Adds a frame received on an interface; those of one stream keep their order.
    pub(super) fn push(&mut self, frame: &[u8], ifindex: u32) {
        let link_header = frame.first_chunk().copied();
        let packet = frame.get(ETH_HEADER_LEN..).unwrap_or_default();
        if let Some(at) = self.aggregators.iter().position(|(stream, _)| stream.same_flow(packet)) {
            if self.aggregators.get_mut(at).is_some_and(|(stream, _)| stream.merge(packet)) {
                return;
            }
            self.finish_stream(at, ifindex);
        }
        let buffer = self.gso_buffers.pop().unwrap_or_else(|| Vec::with_capacity(MAX_GSO_LEN));
        match GroAggregator::start(packet, buffer) {
            Ok(stream) => {
                if self.aggregators.len() == MAX_STREAMS {
                    self.finish_stream(0, ifindex);
                }
                self.aggregators.push((stream, link_header));
            }
            Err(buffer) => {
                self.gso_buffers.push(buffer);
                let mut bytes = self.spare_buffers.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(packet);
                self.packets.push(RxPacket { bytes, link_header, gso: None, ifindex });
            }
        }
    }

    /// Ends the merging for this interface.
    pub(super) fn flush(&mut self, ifindex: u32) {
        while !self.aggregators.is_empty() {
            self.finish_stream(0, ifindex);
        }
    }

    fn finish_stream(&mut self, at: usize, ifindex: u32) {
        let (stream, link_header) = self.aggregators.remove(at);
        let (bytes, gso) = stream.finish();
        self.packets.push(RxPacket { bytes, link_header, gso, ifindex });
    }

    /// All received packets, in order.
    pub(super) fn packets(&mut self) -> &mut Vec<RxPacket> {
        &mut self.packets
    }

    /// Takes back a buffer.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        let (buffers, max) = if buffer.capacity() < MAX_GSO_LEN {
            (&mut self.spare_buffers, MAX_SPARE_BUFFERS)
        } else {
            (&mut self.gso_buffers, MAX_GSO_BUFFERS)
        };
        if buffers.len() < max && buffer.capacity() > 0 {
            buffers.push(buffer);
        }
    }
}
