//! Fragments of which a capture has only the first bytes.
//!
//! The missing bytes are filled with zeros, so that the datagram can be reassembled by its lengths, and where its first gap begins is
//! remembered until then: what lies before the gap is tracked. The bytes filled in must never be taken for the packet's.
use keepstate_wire::{Addresses, Packet};
use std::collections::HashMap;

/// Which datagram a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatagramKey {
    addresses: Addresses,
    id: u32,
    protocol: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CutFragments {
    /// Payload bytes before the first gap of each incomplete datagram.
    gaps: HashMap<DatagramKey, usize>,
    filled: Vec<u8>,
}

/// The datagrams that are remembered at most.
const MAX_DATAGRAMS: usize = 4096;

impl DatagramKey {
    /// The datagram of a fragment.
    pub(crate) fn of(packet: &Packet<'_>) -> Option<DatagramKey> {
        let fragment = packet.fragment()?;
        Some(DatagramKey { addresses: packet.addresses(), id: fragment.id, protocol: packet.protocol() })
    }
}

impl CutFragments {
    /// The fragment with its missing bytes filled in, and remembered as cut.
    pub(crate) fn fill(&mut self, packet: &Packet<'_>) -> Option<&[u8]> {
        let (key, fragment) = (DatagramKey::of(packet)?, packet.fragment()?);
        if self.gaps.len() >= MAX_DATAGRAMS {
            self.gaps.clear();
        }
        let captured = fragment.offset + packet.transport().len();
        let gap = self.gaps.entry(key).or_insert(captured);
        *gap = captured.min(*gap);
        self.filled.clear();
        self.filled.extend_from_slice(packet.bytes());
        self.filled.resize(packet.total_len(), 0);
        Some(&self.filled)
    }

    /// Payload bytes before the first gap of a datagram that is complete now; `None` if it has no gap.
    pub(crate) fn take_gap(&mut self, key: Option<DatagramKey>) -> Option<usize> {
        if self.gaps.is_empty() { None } else { self.gaps.remove(&key?) }
    }
}
