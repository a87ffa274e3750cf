//! Plain types of reassembly: one fragment, the key of its queue, and the sizes that the packet came in.
use crate::{Addresses, Family, FragmentHeader, Packet};

/// The sizes of the fragments that a packet came in. A router that fragments it again makes no fragment larger than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FragmentInfo {
    /// Length of the longest fragment, with its headers, in bytes.
    pub max_size: usize,
    /// Length of the headers that every fragment has, in bytes: the IPv4 header with its options, or the IPv6 header with the
    /// extension headers before the fragment header.
    pub header_len: usize,
}

/// One fragment and its place in the packet.
pub(super) struct FragmentView<'p, 'a> {
    pub packet: &'p Packet<'a>,
    pub offset: usize,
    pub more: bool,
}

/// What the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FragmentKey {
    V4 { addresses: [u8; 8], id: u32, protocol: u8 },
    V6 { source: [u8; 16], destination: [u8; 16], id: u32 },
}

impl FragmentKey {
    pub fn new(packet: &Packet<'_>, fragment: &FragmentHeader) -> Self {
        match packet.addresses() {
            Addresses::V4 { source: [a, b, c, d], destination: [e, f, g, h] } => {
                FragmentKey::V4 { addresses: [a, b, c, d, e, f, g, h], id: fragment.id, protocol: packet.protocol() }
            }
            Addresses::V6 { source, destination } => FragmentKey::V6 { source, destination, id: fragment.id },
        }
    }

    pub fn family(&self) -> Family {
        match self {
            FragmentKey::V4 { .. } => Family::V4,
            FragmentKey::V6 { .. } => Family::V6,
        }
    }
}
