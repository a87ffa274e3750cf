//! GSO packets (many segments of one stream as one packet) through the router, for drivers that can send them.
use keepstate_engine::Instant;
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_router::{DropReason, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;

/// The longest GSO packet, in bytes.
pub(super) const MAX_GSO_LEN: usize = 65_536;

/// Routes a GSO packet with a partial checksum; segment by segment, where the segments are too big for the outgoing MTU. The packet is taken out of `bytes`.
pub(super) fn route_gso(router: &mut Router, gso: &GsoPacket, bytes: &mut Vec<u8>, ifindex: u32, now: Instant) {
    let before = router.output_len();
    // Drops are counted and answered by the router.
    let result = router.handle_gso(bytes, gso.max_segment_len(), ifindex, now);
    if result == Err(DropReason::PacketTooBig) && router.output_len() == before {
        for segment in gso.segments(bytes) {
            let _ = router.handle(&segment, ifindex, now);
        }
    }
}

/// The offload header of a packet that leaves, if it is still a GSO packet: the partial checksum is computed again, since the addresses may have changed.
pub(super) fn tx_offload(gso: Option<&GsoPacket>, bytes: &mut [u8]) -> VirtioNetHdr {
    let Some(gso) = gso.filter(|gso| bytes.len() > gso.max_segment_len()) else {
        return VirtioNetHdr::default();
    };
    let needs_csum = rewrite::set_partial_checksum(bytes)
        .and_then(|(from, at)| Some((u16::try_from(from).ok()?, u16::try_from(at).ok()?)));
    VirtioNetHdr { needs_csum, gso_size: needs_csum.map(|_| gso.gso_size()) }
}
