//! Many segments of one stream through the router as one datagram, for drivers that can send them so.
use keepstate_engine::Instant;
use keepstate_linux::offload::Offload;
use keepstate_router::{Loss, Out, Router};
use keepstate_wire::edit;
use keepstate_wire::segment::Train;

/// Octets of the longest.
pub(super) const LONGEST: usize = 65_536;

/// Routes a train whose checksum is open; one segment after another, where they must be cut further. What leaves is put into `out`, its octets taken from `bytes`.
pub(super) fn route(
    router: &mut Router,
    train: &Train,
    bytes: &mut Vec<u8>,
    device: u32,
    now: Instant,
    out: &mut Vec<Out>,
) {
    let before = out.len();
    // A loss is counted, and told to whom it must be.
    let taken = router.handle_train(bytes, train.longest(), device, now, out);
    if taken == Err(Loss::TooBig) && out.len() == before {
        for segment in train.segments(bytes) {
            let _ = router.handle(&segment, device, now, out);
        }
    }
}

/// What is left to be done to a datagram that leaves, if it is one of those trains still: its checksum is opened anew, as its ends may be others now.
pub(super) fn offload(train: Option<&Train>, bytes: &mut [u8]) -> Offload {
    let Some(train) = train.filter(|train| bytes.len() > train.longest()) else { return Offload::default() };
    let open = edit::open(bytes).and_then(|(from, at)| Some((u16::try_from(from).ok()?, u16::try_from(at).ok()?)));
    Offload { checksum: open, segment: open.map(|_| train.size()) }
}
