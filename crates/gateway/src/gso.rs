//! Many segments of one stream through the router as one datagram, for drivers that can send them so.
use keepstate_engine::Instant;
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_router::{DropReason, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;

/// Octets of the longest.
pub(super) const MAX_GSO_LEN: usize = 65_536;

/// Routes a train whose checksum is open; one segment after another, where they must be cut further. The packet is taken out of `bytes`.
pub(super) fn route_gso(router: &mut Router, train: &GsoPacket, bytes: &mut Vec<u8>, device: u32, now: Instant) {
    let before = router.output_len();
    // A loss is counted, and told to whom it must be.
    let taken = router.handle_gso(bytes, train.max_segment_len(), device, now);
    if taken == Err(DropReason::PacketTooBig) && router.output_len() == before {
        for segment in train.segments(bytes) {
            let _ = router.handle(&segment, device, now);
        }
    }
}

/// What is left to be done to a datagram that leaves, if it is one of those trains still: its checksum is opened anew, as its ends may be others now.
pub(super) fn tx_offload(train: Option<&GsoPacket>, bytes: &mut [u8]) -> VirtioNetHdr {
    let Some(train) = train.filter(|train| bytes.len() > train.max_segment_len()) else {
        return VirtioNetHdr::default();
    };
    let open = rewrite::set_partial_checksum(bytes)
        .and_then(|(from, at)| Some((u16::try_from(from).ok()?, u16::try_from(at).ok()?)));
    VirtioNetHdr { needs_csum: open, gso_size: open.map(|_| train.gso_size()) }
}
