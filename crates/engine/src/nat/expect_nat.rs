//! NAT of expected connections whose master is translated: the destination is the announcing end, the source is the end that the announcement was sent to.
//!
//! An [`ExpectNat`] is created with its expectation and stored in it. When the connection arrives, both its ends are translated accordingly before any rule is evaluated
//! (Linux's `nf_nat_follow_master`).
use super::range::{Manip, NatRange};
use crate::expectation::ExpectNat;
use crate::{Engine, Instant, PacketCtx};

impl Engine {
    /// Translates a new connection as its expectation says.
    #[cold]
    pub(crate) fn follow_master(&mut self, ctx: &mut PacketCtx, follow: &ExpectNat, now: Instant) {
        self.translate(ctx, Manip::Source, &NatRange::to(follow.source), now);
        self.translate(ctx, Manip::Destination, &NatRange::to_port(follow.destination, follow.port), now);
    }
}
