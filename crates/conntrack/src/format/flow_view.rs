//! What a format prints: a connection, and the event if it is one.
use keepstate_engine::{TcpSide, UnixTime};
use keepstate_linux::ctnetlink::{CtCounters, CtFlow, EventKind, Status};
use std::time::SystemTime;

/// One connection to print; it lives for one line.
pub(super) struct FlowView<'a> {
    pub(super) flow: &'a CtFlow,
    pub(super) event: Option<EventInfo<'a>>,
    /// The time of the listing; default: the system's clock.
    pub(super) now: Option<UnixTime>,
    /// TCP state that our engine has and ctnetlink does not.
    pub(super) tcp_sides: Option<[TcpSide; 2]>,
    /// Was it deleted by the command that prints it?
    pub(super) deleted: bool,
}

/// What an event adds to a connection.
#[derive(Clone, Copy)]
pub struct EventInfo<'a> {
    /// Its type.
    pub event_type: EventKind,
    /// Its time, since the Unix epoch.
    pub at: UnixTime,
    /// The program that caused it, if any.
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

    /// Labels, if any is set.
    pub(super) fn labels(&self) -> Option<[u8; 16]> {
        self.flow.labels.filter(|labels| *labels != [0; 16])
    }

    /// Start and, if it has ended, stop.
    pub(super) fn timestamps(&self) -> Option<(u64, Option<u64>)> {
        Some((self.flow.start?, self.flow.stop))
    }

    /// Seconds from start to stop (or to now), as conntrack counts them: the difference of whole seconds.
    pub(super) fn delta_time(&self) -> Option<u64> {
        const SECOND: u64 = 1_000_000_000;
        let (start, stop) = self.timestamps()?;
        let end = stop.unwrap_or_else(|| self.now.unwrap_or_else(wall_clock).0);
        Some((end / SECOND).saturating_sub(start / SECOND))
    }

    pub(super) fn has_status(&self, bits: Status) -> bool {
        self.flow.status.unwrap_or_default().contains(bits)
    }

    /// Is it to be marked `[UNREPLIED]`? Not without a status.
    pub(super) fn is_unreplied(&self) -> bool {
        self.flow.status.is_some_and(|bits| !bits.contains(Status::SEEN_REPLY))
    }

    /// Packets and bytes of one direction.
    pub(super) fn counts(&self, direction: usize) -> Option<CtCounters> {
        self.flow.counters.get(direction).copied().flatten()
    }
}

/// The system's clock.
pub(super) fn wall_clock() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}
