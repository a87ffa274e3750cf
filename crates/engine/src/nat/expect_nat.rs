//! Announced connections of a translated one: they go where the announcement meant, and come from where it was sent to.
//!
//! A [`Follow`] is made with the expectation and kept in it; when the connection comes, both its ends are decided by it before any rule is asked
//! (Linux's `nf_nat_follow_master`).
use super::{Manip, NatRange};
use crate::{Engine, Instant, PacketCtx};
use core::net::IpAddr;

/// How a connection that was announced through a translation is itself translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectNat {
    /// Whom it comes from, as its target is to see it: the end that the announcement was sent to.
    pub(crate) source: IpAddr,
    /// Who announced it, by his own address …
    pub(crate) destination: IpAddr,
    /// … and the port he really has.
    pub(crate) port: u16,
}

impl Engine {
    /// Translates a connection that was just begun as its announcement said.
    #[cold]
    pub(crate) fn follow_master(&mut self, passage: &mut PacketCtx, follow: &ExpectNat, now: Instant) {
        self.translate(passage, Manip::Source, &NatRange::to(follow.source), now);
        self.translate(passage, Manip::Destination, &NatRange::to_port(follow.destination, follow.port), now);
    }
}
