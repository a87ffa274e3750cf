//! A packet in flight: its bytes, their layout, and what goes with it from hook to hook.
use super::drop_reason::DropReason;
use crate::known_flow::NotedWay;
use crate::service::BackendChoice;
use keepstate_engine::{ConnId, Direction, Instant, PacketCtx, SynproxyState};
use keepstate_rules::{InterfaceInfo, PacketMeta};
use keepstate_wire::reassembly::FragmentInfo;
use keepstate_wire::rewrite::PacketMut;
use keepstate_wire::{Addresses, Layout, Packet};
use std::net::IpAddr;
use std::ops::Range;

/// A packet in flight.
#[derive(Default)]
pub(crate) struct InFlightPacket {
    pub(crate) bytes: Vec<u8>,
    /// The offsets of its headers, while they are known.
    pub(super) layout: Option<Layout>,
    /// The packet before NAT, if it was translated: what ICMP errors quote.
    pub(super) pre_nat: Vec<u8>,
    pub(super) meta: PacketMeta,
    pub(crate) ctx: Option<PacketCtx>,
    /// The state of the synproxy handshake, for a SYN sent in a client's name.
    pub(super) synproxy: Option<SynproxyState>,
    /// The length of the longest segment, if it is a GSO packet.
    pub(super) gso_packet_len: Option<usize>,
    /// Its fragments, if it was fragmented.
    pub(super) fragments: Option<FragmentInfo>,
    /// Where IPv4 options ask for the router's address.
    pub(super) record_route_slots: Vec<Range<usize>>,
    /// The established connection that it was confirmed to belong to.
    pub(super) established: Option<(ConnId, Direction)>,
    /// The connection that it has begun.
    pub(super) began: Option<ConnId>,
    /// The context that a probe gets where other packets are tracked.
    pub(super) probe_ctx: Option<PacketCtx>,
    /// The way that a probe has found.
    pub(super) probed: Option<NotedWay>,
    /// The connection that it was confirmed to belong to.
    pub(super) conn_id: Option<ConnId>,
    /// It goes to an address of this shard, which another gateway of the cluster decides.
    pub(super) to_other_shard: Option<usize>,
    /// A rule has made it as the copy of another one.
    pub(super) is_copy: bool,
    /// It came with a mark.
    pub(super) came_marked: bool,
    /// The MTU that its route has.
    pub(super) route_mtu: Option<u32>,
    /// Its sender is told of a router that is nearer.
    pub(super) redirects: bool,
    /// The machine sends it to itself, and no rule translates it.
    pub(super) goes_on: bool,
    /// The machine itself sends it.
    pub(super) is_output: bool,
    /// The interface that it was about to leave by.
    pub(super) sent_by: Option<u32>,
    /// Another way that it was given.
    pub(super) way_out: Option<(InterfaceInfo, IpAddr)>,
    /// The backend of its connection, until that is confirmed.
    pub(super) backend: Option<BackendChoice>,
    pub(crate) now: Instant,
}

impl InFlightPacket {
    /// The length of its longest fragment or segment: what the MTU is compared with.
    pub(super) fn max_packet_len(&self) -> usize {
        self.fragments.map(|pieces| pieces.max_size).or(self.gso_packet_len).unwrap_or(self.bytes.len())
    }

    /// The packet as it is now.
    #[inline]
    pub(crate) fn packet(&self) -> Result<Packet<'_>, DropReason> {
        parse_packet(&self.bytes, self.layout)
    }

    /// The packet, to change it.
    #[inline]
    pub(super) fn rewrite(&mut self) -> Result<PacketMut<'_>, DropReason> {
        match self.layout {
            Some(layout) if layout.view(&self.bytes).is_some() => {
                PacketMut::from_layout(&mut self.bytes, layout).ok_or(DropReason::Malformed)
            }
            _ => PacketMut::new(&mut self.bytes).map_err(|_| DropReason::Malformed),
        }
    }

    /// Takes over what rules have changed.
    pub(super) fn take_rewritten(&mut self) {
        if !self.meta.rewritten.is_empty() {
            let protocol_of = |bytes: &[u8]| bytes.get(9).copied().filter(|_| is_v4(bytes));
            if protocol_of(&self.bytes) != protocol_of(&self.meta.rewritten) {
                // The next hook reads the transport header anew.
                self.layout = None;
            }
            std::mem::swap(&mut self.bytes, &mut self.meta.rewritten);
            self.meta.rewritten.clear();
        }
    }

    /// The packet before NAT.
    pub(super) fn pre_nat_packet(&self) -> Option<Packet<'_>> {
        let sent = if self.pre_nat.is_empty() { &self.bytes } else { &self.pre_nat };
        let packet = Packet::parse(sent).ok()?;
        Some(if self.gso_packet_len.is_some() { packet.checksum_unnecessary() } else { packet })
    }

    #[inline]
    pub(super) fn destination(&self) -> Result<IpAddr, DropReason> {
        Ok(destination_address(&self.packet()?))
    }
}

fn is_v4(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 4)
}

/// The destination address.
pub(super) fn destination_address(packet: &Packet<'_>) -> IpAddr {
    match packet.addresses() {
        Addresses::V4 { destination, .. } => IpAddr::from(destination),
        Addresses::V6 { destination, .. } => IpAddr::from(destination),
    }
}

pub(super) fn parse_packet(bytes: &[u8], layout: Option<Layout>) -> Result<Packet<'_>, DropReason> {
    match layout.and_then(|layout| layout.view(bytes)) {
        Some(packet) => Ok(packet),
        None => Packet::parse(bytes).map_err(|_| DropReason::Malformed),
    }
}
