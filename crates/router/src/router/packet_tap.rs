//! What a watcher of the router's packets sees: each packet as it came, what left for it, and why it was dropped; rule by rule if it wants that.
//!
//! A tap is called on the thread that routes, so it copies what it wants and returns; whoever is slow behind it is its own matter. Without a tap nothing is copied or recorded. The packets of
//! connections that a tap wants do not go to a faster data path while it is there.
use super::drop_reason::DropReason;
use super::egress::{Egress, MarkedEgress};
use crate::fib::FibTable;
use keepstate_engine::{Entry, Instant, Tuple, UnixTime};
use keepstate_rules::{Program, RuleTrace};

/// A packet that the router has dealt with.
pub struct TappedPacket<'a> {
    /// The packet as it came, from its IP header on.
    pub received: &'a [u8],
    /// The interface that it came in by; `None` if the machine itself sends it.
    pub iif: Option<u32>,
    /// The interface that the machine itself was about to send it by.
    pub sent_by: Option<u32>,
    /// Its connection, as it is after the packet; `None` if it has none, or was dropped before it began one.
    pub entry: Option<Entry>,
    /// Its own tuple, if it has one.
    pub tuple: Option<Tuple>,
    /// Why it was dropped.
    pub dropped: Option<DropReason>,
    /// What rules did with it, if a tap wants that.
    pub rules: Option<&'a RuleTrace>,
    /// Those rules.
    pub program: &'a Program,
    /// The machine's interfaces.
    pub fib: &'a FibTable,
    /// When it came.
    pub now: Instant,
    /// The same by the wall clock.
    pub time: UnixTime,
    pub(super) outputs: &'a [MarkedEgress],
    pub(super) more_outputs: &'a [MarkedEgress],
}

impl TappedPacket<'_> {
    /// What is sent for it: the packet itself in one or more pieces, copies of it, or answers.
    pub fn outputs(&self) -> impl Iterator<Item = &Egress> {
        self.outputs.iter().chain(self.more_outputs).map(|marked| &marked.egress)
    }
}

/// Watches the packets of a router.
pub trait PacketTap: Send {
    /// Does nobody listen any more? Then it is removed.
    fn is_closed(&self) -> bool;

    /// Are the steps of rules to be recorded?
    fn wants_rules(&self) -> bool;

    /// Is it to see every packet of this connection?
    fn wants_connection(&self, entry: &Entry) -> bool;

    /// A packet has been dealt with. Must be quick: all packets wait meanwhile.
    fn see(&mut self, packet: &TappedPacket<'_>);
}

/// The taps of a router.
#[derive(Default)]
pub(super) struct PacketTaps(pub(super) Vec<Box<dyn PacketTap>>);

impl PacketTaps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn want_rules(&self) -> bool {
        self.0.iter().any(|tap| tap.wants_rules())
    }

    pub(super) fn want_connection(&self, entry: &Entry) -> bool {
        self.0.iter().any(|tap| !tap.is_closed() && tap.wants_connection(entry))
    }
}
