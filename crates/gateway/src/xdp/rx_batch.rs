//! The packets received in one turn, before the router handles them: segments of one stream that came together are merged (GRO).
use super::port::ETH_HEADER_LEN;
use crate::packet_batch::{PacketBatch, RxPacket};
use keepstate_wire::gso::GroAggregator;

/// Streams merged at a time.
const MAX_STREAMS: usize = 8;

/// Collects received packets. Nothing waits here longer than a turn.
#[derive(Default)]
pub(super) struct RxBatch {
    /// Streams that are merged, each with the Ethernet header of its first packet.
    aggregators: Vec<(GroAggregator, Option<[u8; 14]>)>,
    pub(super) packets: PacketBatch,
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
        let buffer = self.packets.buffers.take_gso();
        match GroAggregator::start(packet, buffer) {
            Ok(stream) => {
                if self.aggregators.len() == MAX_STREAMS {
                    self.finish_stream(0, ifindex);
                }
                self.aggregators.push((stream, link_header));
            }
            Err(buffer) => {
                self.packets.buffers.recycle(buffer);
                let mut bytes = self.packets.buffers.take();
                bytes.extend_from_slice(packet);
                self.packets.push_owned(RxPacket { bytes, link_header, gso: None, ifindex, id: 0 });
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
        self.packets.push_owned(RxPacket { bytes, link_header, gso, ifindex, id: 0 });
    }
}
