//! Announced connections of a translated one: they go where the announcement meant, and come from where it was sent to.
//!
//! A [`ExpectNat`] is made with the expectation and kept in it; when the connection comes, both its ends are decided by it before any rule is asked
//! (Linux's `nf_nat_follow_master`).
use super::range::{Manip, NatRange};
use crate::expectation::ExpectNat;
use crate::{Engine, Instant, PacketCtx};

impl Engine {
    /// Translates a connection that was just begun as its announcement said.
    #[cold]
    pub(crate) fn follow_master(&mut self, ctx: &mut PacketCtx, follow: &ExpectNat, now: Instant) {
        self.translate(ctx, Manip::Source, &NatRange::to(follow.source), now);
        self.translate(ctx, Manip::Destination, &NatRange::to_port(follow.destination, follow.port), now);
    }
}
