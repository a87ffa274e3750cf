//! What is shown: a connection as far as it is told, and what happened to it if it is an event.
use keepstate_engine::{Instant, TcpSide};
use keepstate_linux::ctnetlink::{CtCounters, CtFlow, EventKind, Status};
use std::time::SystemTime;

/// One connection on its way to a format; it lives for one line.
pub(super) struct FlowView<'a> {
    pub(super) flow: &'a CtFlow,
    pub(super) event: Option<EventInfo<'a>>,
    /// When the listing is made; the clock is asked if nobody said.
    pub(super) now: Option<Instant>,
    /// What our own engine knows of TCP beyond what Linux tells.
    pub(super) tcp_sides: Option<[TcpSide; 2]>,
    /// Was it just deleted by the command that shows it?
    pub(super) deleted: bool,
}

/// What an event adds to a connection.
#[derive(Clone, Copy)]
pub struct EventInfo<'a> {
    /// What happened.
    pub event_type: EventKind,
    /// When; the epoch is that of Unix.
    pub at: Instant,
    /// The program that caused it, if one did.
    pub origin: Option<EventOrigin<'a>>,
}

/// A program that caused an event.
#[derive(Clone, Copy)]
pub struct EventOrigin<'a> {
    /// Its netlink port: the process id of its first socket.
    pub portid: u32,
    /// Its name, if it still runs.
    pub program: Option<&'a str>,
}

impl FlowView<'_> {
    pub(super) fn event_type(&self) -> Option<EventKind> {
        self.event.map(|occasion| occasion.event_type)
    }

    /// The transport protocol's number.
    pub(super) fn protocol(&self) -> u8 {
        self.flow.original.protocol.unwrap_or(0)
    }

    /// Labels, if there are any: in listings and when it is new.
    pub(super) fn labels(&self) -> Option<[u8; 16]> {
        self.flow.labels.filter(|labels| *labels != [0; 16])
    }

    /// When it began and, if so, ended.
    pub(super) fn timestamps(&self) -> Option<(u64, Option<u64>)> {
        Some((self.flow.start?, self.flow.stop))
    }

    /// Whole seconds on the clock between beginning and end (or now, while it lives), as conntrack's lines count them.
    pub(super) fn delta_time(&self) -> Option<u64> {
        const SECOND: u64 = 1_000_000_000;
        let (start, stop) = self.timestamps()?;
        let end = stop.unwrap_or_else(|| self.now.unwrap_or_else(wall_clock).0);
        Some((end / SECOND).saturating_sub(start / SECOND))
    }

    pub(super) fn has_status(&self, bits: Status) -> bool {
        self.flow.status.unwrap_or_default().contains(bits)
    }

    /// Is it to be marked as not answered? Not where nobody told of its status.
    pub(super) fn is_unreplied(&self) -> bool {
        self.flow.status.is_some_and(|told| !told.contains(Status::SEEN_REPLY))
    }

    /// Packets and bytes of one direction.
    pub(super) fn counts(&self, direction: usize) -> Option<CtCounters> {
        self.flow.counters.get(direction).copied().flatten()
    }
}

/// The time of day.
pub(super) fn wall_clock() -> Instant {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}
