//! What changed in the table, for whoever listens.
use crate::{Entry, EventKind};
use alloc::collections::VecDeque;

/// Which kinds to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EventMask {
    /// Keep [`EventKind::New`].
    pub new: bool,
    /// Keep [`EventKind::Update`].
    pub update: bool,
    /// Keep [`EventKind::Destroy`].
    pub destroy: bool,
}

impl EventMask {
    /// All kinds.
    pub const ALL: EventMask = EventMask { new: true, update: true, destroy: true };
}

/// One event, with the connection as it was then.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which connection. In an update that leaves the protocol's state as it was, `protocol` is [`crate::ProtocolInfo::Stateless`].
    pub entry: Entry,
    /// When.
    pub at: crate::Instant,
}

/// Events on their way to whoever listens: so many wait, later ones are lost and counted.
#[derive(Default)]
pub(crate) struct EventQueue {
    events: VecDeque<Event>,
    mask: EventMask,
    capacity: usize,
    lost: u64,
}

impl EventQueue {
    pub(crate) fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.mask = mask;
        self.capacity = capacity;
    }

    /// Does anybody want events of this kind?
    #[inline(always)]
    pub(crate) fn is_subscribed(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::New => self.mask.new,
            EventKind::Update => self.mask.update,
            EventKind::Destroy => self.mask.destroy,
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() < self.capacity {
            self.events.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
