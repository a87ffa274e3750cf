//! One datagram between its coming and its leaving: its octets, what is known of them, and what goes with it.
use super::Loss;
use crate::service::Pick;
use keepstate_engine::{Instant, Passage, Promise};
use keepstate_rules::Way;
use keepstate_wire::edit::Rewrite;
use keepstate_wire::reassembly::Pieces;
use keepstate_wire::{Addresses, Layout, Packet};
use std::net::IpAddr;
use std::ops::Range;

/// One datagram on its way.
#[derive(Default)]
pub(crate) struct Trip {
    pub(crate) bytes: Vec<u8>,
    /// Where its parts stand, while that is known.
    pub(super) layout: Option<Layout>,
    /// As it was before it was translated, if it was: what its sender must be told about.
    pub(super) sent: Vec<u8>,
    pub(super) way: Way,
    pub(crate) passage: Option<Passage>,
    /// What was promised to the client in whose name it is.
    pub(super) promise: Option<Promise>,
    /// The longest datagram of those it stands for, if it stands for several.
    pub(super) longest: Option<usize>,
    /// What it came in as, if it came in pieces.
    pub(super) pieces: Option<Pieces>,
    /// Where its sender asks for our address, among IPv4's options.
    pub(super) asked: Vec<Range<usize>>,
    /// The backend its connection was sent to, while that is not confirmed.
    pub(super) pick: Option<Pick>,
    pub(crate) now: Instant,
}

impl Trip {
    /// The longest datagram by which it came: what is told of a path's MTU is told of that.
    pub(super) fn longest(&self) -> usize {
        self.pieces.map(|pieces| pieces.longest).or(self.longest).unwrap_or(self.bytes.len())
    }

    /// The datagram as it is now.
    #[inline]
    pub(crate) fn packet(&self) -> Result<Packet<'_>, Loss> {
        view(&self.bytes, self.layout)
    }

    /// The datagram, to be changed.
    #[inline]
    pub(super) fn rewrite(&mut self) -> Result<Rewrite<'_>, Loss> {
        match self.layout {
            Some(layout) if layout.of(&self.bytes).is_some() => {
                Rewrite::with(&mut self.bytes, layout).ok_or(Loss::Malformed)
            }
            _ => Rewrite::new(&mut self.bytes).map_err(|_| Loss::Malformed),
        }
    }

    /// The datagram as it was sent.
    pub(super) fn sent(&self) -> Option<Packet<'_>> {
        let sent = if self.sent.is_empty() { &self.bytes } else { &self.sent };
        let packet = Packet::parse(sent).ok()?;
        Some(if self.longest.is_some() { packet.vouched() } else { packet })
    }

    #[inline]
    pub(super) fn destination(&self) -> Result<IpAddr, Loss> {
        Ok(end(&self.packet()?))
    }
}

/// Where a packet goes.
pub(super) fn end(packet: &Packet<'_>) -> IpAddr {
    match packet.addresses() {
        Addresses::V4 { destination, .. } => IpAddr::from(destination),
        Addresses::V6 { destination, .. } => IpAddr::from(destination),
    }
}

pub(super) fn view(bytes: &[u8], layout: Option<Layout>) -> Result<Packet<'_>, Loss> {
    match layout.and_then(|layout| layout.of(bytes)) {
        Some(packet) => Ok(packet),
        None => Packet::parse(bytes).map_err(|_| Loss::Malformed),
    }
}
