//! One datagram between its coming and its leaving: its octets, what is known of them, and what goes with it.
use super::drop_reason::DropReason;
use crate::service::BackendChoice;
use keepstate_engine::{Instant, PacketCtx, SynproxyState};
use keepstate_rules::PacketMeta;
use keepstate_wire::reassembly::FragmentInfo;
use keepstate_wire::rewrite::PacketMut;
use keepstate_wire::{Addresses, Layout, Packet};
use std::net::IpAddr;
use std::ops::Range;

/// One datagram on its way.
#[derive(Default)]
pub(crate) struct InFlightPacket {
    pub(crate) bytes: Vec<u8>,
    /// Where its parts stand, while that is known.
    pub(super) layout: Option<Layout>,
    /// As it was before it was translated, if it was: what its sender must be told about.
    pub(super) pre_nat: Vec<u8>,
    pub(super) meta: PacketMeta,
    pub(crate) ctx: Option<PacketCtx>,
    /// What was promised to the client in whose name it is.
    pub(super) synproxy: Option<SynproxyState>,
    /// The longest datagram of those it stands for, if it stands for several.
    pub(super) gso_packet_len: Option<usize>,
    /// What it came in as, if it came in pieces.
    pub(super) fragments: Option<FragmentInfo>,
    /// Where its sender asks for our address, among IPv4's options.
    pub(super) record_route_slots: Vec<Range<usize>>,
    /// The backend its connection was sent to, while that is not confirmed.
    pub(super) backend: Option<BackendChoice>,
    pub(crate) now: Instant,
}

impl InFlightPacket {
    /// The longest datagram by which it came: what is told of a path's MTU is told of that.
    pub(super) fn max_packet_len(&self) -> usize {
        self.fragments.map(|pieces| pieces.max_size).or(self.gso_packet_len).unwrap_or(self.bytes.len())
    }

    /// The datagram as it is now.
    #[inline]
    pub(crate) fn packet(&self) -> Result<Packet<'_>, DropReason> {
        parse_packet(&self.bytes, self.layout)
    }

    /// The datagram, to be changed.
    #[inline]
    pub(super) fn rewrite(&mut self) -> Result<PacketMut<'_>, DropReason> {
        match self.layout {
            Some(layout) if layout.view(&self.bytes).is_some() => {
                PacketMut::from_layout(&mut self.bytes, layout).ok_or(DropReason::Malformed)
            }
            _ => PacketMut::new(&mut self.bytes).map_err(|_| DropReason::Malformed),
        }
    }

    /// The datagram as it was sent.
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

/// Where a packet goes.
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
