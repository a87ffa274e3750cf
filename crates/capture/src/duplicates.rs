//! Packets that a capture of several interfaces (`tcpdump -i any`) has more than once: where a router received them and where it sent them.
//!
//! Linux tracks such a packet once. A cooked capture, version 2, says on which interface a frame was seen, and in which direction; a
//! pcapng file of several interfaces says the interface. The interface on which a connection is seen first is its own; where the same
//! packets appear again, with a hop less or behind a bridge, the connection as seen there is skipped in both directions. So the table is
//! that of a capture on the first interface, and a translated connection is not counted as two.
//!
//! A cooked capture, version 1, says the direction only. There a connection that was received and then sent on is skipped where it is
//! sent; if it was translated on the way, it is skipped as translated, in both directions.
//!
//! A [`DuplicateFilter`] remembers the packets of the last moment by a hash of what a router does not change. It only skips: it never
//! changes a frame.
use crate::frame::Frame;
use keepstate_types::ipproto;
use keepstate_wire::link::LinkType;
use keepstate_wire::{Addresses, Family, Packet};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

/// A copy comes within this time.
const COPY_WITHIN_NANOS: u64 = 1_000_000_000;
/// Packets and connections that are remembered at most.
const MAX_RECENT: usize = 1 << 16;
const MAX_VIEWS: usize = 1 << 20;
const ARPHRD_LOOPBACK: u16 = 772;
const PACKET_OUTGOING: u8 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DuplicateFilter {
    /// By content: the first sighting.
    recent: HashMap<u64, Sighting>,
    /// When each was seen, in order.
    order: VecDeque<(u64, u64)>,
    /// Connections on interfaces where they are seen again.
    copies: HashSet<View>,
    hasher: RandomState,
    skipped: u64,
}

/// Where a packet was seen first.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    at: SeenOn,
    addresses: Addresses,
    ports: Option<(u16, u16)>,
    hop_limit: u8,
    time: u64,
}

/// Where a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenOn {
    /// Of a cooked capture, version 1, the direction stands for it.
    interface: u32,
    outgoing: Option<bool>,
    /// The direction is all that is known.
    direction_only: bool,
    loopback: bool,
}

/// A connection as seen on one interface: its two ends, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct View {
    interface: u32,
    ends: [(std::net::IpAddr, u16); 2],
    protocol: u8,
}

impl DuplicateFilter {
    /// May frames of this kind show a packet again?
    pub(crate) fn may_repeat(frame: &Frame<'_>) -> bool {
        frame.interface.is_some() || matches!(frame.link, LinkType::LINUX_SLL | LinkType::LINUX_SLL2)
    }

    /// Frames skipped so far.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Is this frame another sighting of a packet whose connection is tracked on another interface?
    pub(crate) fn is_duplicate(&mut self, frame: &Frame<'_>, packet: &Packet<'_>) -> bool {
        let Some(at) = seen_on(frame) else { return false };
        let duplicate = at.loopback && at.outgoing == Some(true) || self.is_copy(at, frame.time.unwrap_or(0), packet);
        self.skipped += u64::from(duplicate);
        duplicate
    }

    fn is_copy(&mut self, at: SeenOn, time: u64, packet: &Packet<'_>) -> bool {
        let view = View::new(at.interface, packet);
        if self.copies.contains(&view) {
            return true;
        }
        self.forget_before(time.saturating_sub(COPY_WITHIN_NANOS));
        let content = self.hasher.hash_one(Content::of(packet));
        let seen =
            Sighting { at, addresses: packet.addresses(), ports: packet.ports(), hop_limit: packet.hop_limit(), time };
        let Some(first) = self.recent.get(&content).copied().filter(|first| seen.is_copy_of(first)) else {
            self.recent.insert(content, seen);
            self.order.push_back((time, content));
            return false;
        };
        debug_assert!(first.at.interface != at.interface);
        if self.copies.len() >= MAX_VIEWS {
            self.copies.clear();
        }
        self.copies.insert(view);
        if at.direction_only && (seen.addresses, seen.ports) != (first.addresses, first.ports) {
            // Its answers come in as translated.
            self.copies.insert(View { interface: first.at.interface, ..view });
        }
        true
    }

    fn forget_before(&mut self, oldest: u64) {
        while let Some((time, content)) = self.order.front().copied()
            && (time < oldest || self.order.len() > MAX_RECENT)
        {
            self.order.pop_front();
            if self.recent.get(&content).is_some_and(|sighting| sighting.time == time) {
                self.recent.remove(&content);
            }
        }
    }
}

impl Sighting {
    /// The same packet, on another interface: unchanged or a hop further, or translated where it was forwarded.
    fn is_copy_of(&self, first: &Sighting) -> bool {
        if self.at.interface == first.at.interface {
            return false;
        }
        let received_then_sent = first.at.outgoing != Some(true) && self.at.outgoing != Some(false);
        if self.at.direction_only && !received_then_sent {
            return false;
        }
        let forwarded = self.hop_limit.wrapping_add(1) == first.hop_limit;
        if self.addresses == first.addresses && self.ports == first.ports {
            return forwarded || self.hop_limit == first.hop_limit;
        }
        let one_end_kept = self.addresses.source() == first.addresses.source()
            || self.addresses.destination() == first.addresses.destination();
        forwarded && one_end_kept && received_then_sent
    }
}

impl View {
    fn new(interface: u32, packet: &Packet<'_>) -> View {
        let has_ports = matches!(packet.protocol(), ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP);
        let (source, destination) = packet.ports().filter(|_| has_ports).unwrap_or((0, 0));
        let addresses = packet.addresses();
        let mut ends = [(addresses.source(), source), (addresses.destination(), destination)];
        ends.sort_unstable();
        View { interface, ends, protocol: packet.protocol() }
    }
}

/// What a router does not change in a packet.
#[derive(Hash)]
struct Content<'a> {
    protocol: u8,
    total_len: usize,
    id: u16,
    fragment: Option<(usize, bool)>,
    /// Of the transport header, what neither NAT nor a checksum is part of, and the payload.
    parts: [&'a [u8]; 2],
}

impl<'a> Content<'a> {
    fn of(packet: &Packet<'a>) -> Content<'a> {
        let transport = packet.transport();
        let part = |range: std::ops::Range<usize>| transport.get(range).unwrap_or_default();
        let rest = |at: usize| transport.get(at..).unwrap_or_default();
        let id = packet.bytes().get(4..6).and_then(<[u8]>::first_chunk).filter(|_| packet.family() == Family::V4);
        let parts = match packet.protocol() {
            _ if packet.ports().is_none() => [transport, &[]],
            ipproto::TCP => [part(4..16), rest(18)],
            ipproto::UDP | ipproto::UDPLITE => [part(4..6), rest(8)],
            // Type and code, then sequence number and data: NAT changes the id.
            ipproto::ICMP | ipproto::ICMPV6 => [part(0..2), rest(6)],
            ipproto::SCTP => [part(4..8), rest(12)],
            _ => [transport, &[]],
        };
        Content {
            protocol: packet.protocol(),
            total_len: packet.total_len(),
            id: id.map_or(0, |id| u16::from_be_bytes(*id)),
            fragment: packet.fragment().map(|fragment| (fragment.offset, fragment.more)),
            parts,
        }
    }
}

/// Where a frame was seen. Link header of a cooked capture, version 2: protocol, reserved, interface (4 bytes), ARPHRD type, packet type;
/// version 1: packet type and ARPHRD type, two bytes each.
fn seen_on(frame: &Frame<'_>) -> Option<SeenOn> {
    let number = frame.interface;
    match frame.link {
        LinkType::LINUX_SLL2 => {
            let &[_, _, _, _, a, b, c, d, e, f, kind] = frame.data.first_chunk()?;
            let loopback = u16::from_be_bytes([e, f]) == ARPHRD_LOOPBACK;
            let interface = u32::from_be_bytes([a, b, c, d]);
            Some(SeenOn { interface, outgoing: Some(kind == PACKET_OUTGOING), direction_only: false, loopback })
        }
        LinkType::LINUX_SLL => {
            let &[_, kind, e, f] = frame.data.first_chunk()?;
            let (loopback, outgoing) = (u16::from_be_bytes([e, f]) == ARPHRD_LOOPBACK, kind == PACKET_OUTGOING);
            let interface = number.unwrap_or_else(|| outgoing.into());
            Some(SeenOn { interface, outgoing: Some(outgoing), direction_only: number.is_none(), loopback })
        }
        _ => number.map(|interface| SeenOn { interface, outgoing: None, direction_only: false, loopback: false }),
    }
}
