//! What is shown of an entry: all of it in a listing, less in events, as the kernel sends less of it there.
use keepstate_engine::{Accounting, Entry, Event, EventKind, Instant, Status};
use std::time::SystemTime;

/// One entry on its way to a format; it lives for one line.
pub(super) struct View<'a> {
    pub(super) entry: &'a Entry,
    /// The kind and time of the event, if it is one.
    pub(super) event: Option<(EventKind, Instant)>,
    /// When the listing is made; the clock is asked if nobody said.
    pub(super) now: Option<Instant>,
}

impl<'a> View<'a> {
    pub(super) fn of_entry(entry: &'a Entry, now: Option<Instant>) -> Self {
        View { entry, event: None, now }
    }

    pub(super) fn of_event(event: &'a Event) -> Self {
        View { entry: &event.entry, event: Some((event.kind, event.at)), now: None }
    }

    pub(super) fn kind(&self) -> Option<EventKind> {
        self.event.map(|(kind, _)| kind)
    }

    fn is_destroy(&self) -> bool {
        self.kind() == Some(EventKind::Destroy)
    }

    /// Seconds until it expires; an entry that ended because they ran out has none.
    pub(super) fn timeout(&self) -> Option<u32> {
        (!self.is_destroy() || self.entry.timeout != 0).then_some(self.entry.timeout)
    }

    /// Packets and bytes: not while it lives, in events.
    pub(super) fn accounting(&self) -> Option<[Accounting; 2]> {
        self.entry.accounting.filter(|_| self.event.is_none() || self.is_destroy())
    }

    /// The mark; events have it only if it is not zero.
    pub(super) fn mark(&self) -> Option<u32> {
        (self.event.is_none() || self.entry.mark != 0).then_some(self.entry.mark)
    }

    /// Labels, if there are any: in listings and when it is new.
    pub(super) fn labels(&self) -> Option<[u8; 16]> {
        self.entry.labels.filter(|labels| *labels != [0; 16] && matches!(self.kind(), None | Some(EventKind::New)))
    }

    /// When it began and, if so, ended: not while it lives, in events.
    pub(super) fn times(&self) -> Option<(Instant, Option<Instant>)> {
        let start = self.entry.start.filter(|_| self.event.is_none() || self.is_destroy())?;
        Some((start, self.entry.stop))
    }

    /// Whole seconds on the clock between beginning and end (or now, while it lives), as conntrack's lines count them.
    pub(super) fn age(&self) -> Option<u64> {
        const SECOND: u64 = 1_000_000_000;
        let (start, stop) = self.times()?;
        let end = stop.unwrap_or_else(|| self.now.unwrap_or_else(clock));
        Some((end.0 / SECOND).saturating_sub(start.0 / SECOND))
    }

    /// The helper; not when it ended.
    pub(super) fn helper(&self) -> Option<&'static str> {
        self.entry.helper.filter(|_| !self.is_destroy())
    }

    /// References; unknown in events.
    pub(super) fn uses(&self) -> Option<u32> {
        self.event.is_none().then_some(self.entry.uses)
    }

    pub(super) fn has(&self, status: Status) -> bool {
        self.entry.status.has(status)
    }
}

/// The time of day.
fn clock() -> Instant {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}
