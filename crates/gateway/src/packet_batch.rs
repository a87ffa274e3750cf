//! A batch of packets between a driver and the router: read without the router's lock, routed under it, written without it.
//!
//! Each driver fills it ([`PacketBatch::push`]), locks the router, calls [`PacketBatch::route`], unlocks it, and writes what [`PacketBatch::take_outputs`] gives. Nothing here makes a system
//! call.
use super::gso::{self, MAX_GSO_LEN};
use keepstate_engine::Instant;
use keepstate_router::{Egress, Router};
use keepstate_wire::gso::GsoPacket;

/// Buffers kept for reuse, for GSO packets and for others.
const MAX_GSO_BUFFERS: usize = 64;
const MAX_SPARE_BUFFERS: usize = 512;

/// A longer packet is not copied out of the buffer that it was read into.
const MAX_COPIED_LEN: usize = 2048;

/// One received packet.
pub(super) struct RxPacket {
    pub(super) bytes: Vec<u8>,
    /// For many segments as one: their checksums were valid, and its own is partial.
    pub(super) gso: Option<GsoPacket>,
    pub(super) ifindex: u32,
    /// The driver's own number for it.
    pub(super) id: u32,
}

/// A packet that the router gave out.
pub(super) struct TxPacket {
    pub(super) egress: Egress,
    /// The GSO packet that it was received as.
    pub(super) gso: Option<GsoPacket>,
    /// The number of the received packet that it is, or answers.
    pub(super) id: u32,
}

/// Received packets, and those to send.
#[derive(Default)]
pub(super) struct PacketBatch {
    received: Vec<RxPacket>,
    outputs: Vec<TxPacket>,
    pub(super) buffers: BufferPool,
}

impl PacketBatch {
    /// Adds a received packet, by copying it.
    pub(super) fn push(&mut self, packet: &[u8], ifindex: u32, id: u32) {
        let mut bytes = self.buffers.take();
        bytes.extend_from_slice(packet);
        self.received.push(RxPacket { bytes, gso: None, ifindex, id });
    }

    /// Adds a received packet.
    pub(super) fn push_owned(&mut self, packet: RxPacket) {
        self.received.push(packet);
    }

    /// How many packets wait to be routed.
    pub(super) fn len(&self) -> usize {
        self.received.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Routes the received packets, in order.
    pub(super) fn route(&mut self, router: &mut Router, now: Instant) {
        router.prefetch(self.received.iter().map(|packet| packet.bytes.as_slice()));
        for RxPacket { mut bytes, gso, ifindex, id } in self.received.drain(..) {
            // Drops are counted and answered by the router.
            match &gso {
                Some(gso) => gso::route_gso(router, gso, &mut bytes, ifindex, now),
                None => drop(router.handle_owned(&mut bytes, ifindex, now)),
            }
            // Without a buffer, if the packet was given out.
            self.buffers.recycle(bytes);
            self.outputs.extend(std::iter::from_fn(|| router.poll_output()).map(|egress| TxPacket { egress, gso, id }));
        }
    }

    /// The packets to send, in order. Give the buffers back.
    pub(super) fn take_outputs(&mut self) -> Vec<TxPacket> {
        std::mem::take(&mut self.outputs)
    }

    /// Takes back what [`PacketBatch::take_outputs`] gave.
    pub(super) fn return_outputs(&mut self, mut outputs: Vec<TxPacket>) {
        outputs.clear();
        self.outputs = outputs;
    }
}

/// Buffers that are not in use.
#[derive(Default)]
pub(super) struct BufferPool {
    gso: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl BufferPool {
    /// An empty one, for an ordinary packet.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// One with room for the longest packet.
    pub(super) fn take_gso(&mut self) -> Vec<u8> {
        self.gso.pop().unwrap_or_else(|| Vec::with_capacity(MAX_GSO_LEN))
    }

    /// The packet of this length that was read into `room`: a copy of a short one; a long one is taken away, and `room` is replaced.
    pub(super) fn take_packet(&mut self, room: &mut Vec<u8>, length: usize) -> Vec<u8> {
        if length <= MAX_COPIED_LEN {
            let mut bytes = self.take();
            bytes.extend_from_slice(room.get(..length).unwrap_or_default());
            return bytes;
        }
        let mut empty = self.take_gso();
        empty.resize(MAX_GSO_LEN, 0);
        let mut bytes = std::mem::replace(room, empty);
        bytes.truncate(length);
        bytes
    }

    /// Takes back a buffer.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let (buffers, max) = if buffer.capacity() < MAX_GSO_LEN {
            (&mut self.spare, MAX_SPARE_BUFFERS)
        } else {
            (&mut self.gso, MAX_GSO_BUFFERS)
        };
        if buffers.len() < max && buffer.capacity() > 0 {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}
