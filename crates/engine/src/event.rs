//! Conntrack events: changes of the table, queued for the driver.
use crate::event_bits::EventBits;
use crate::{Entry, EventKind};
use alloc::collections::VecDeque;

/// Which kinds of event to queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EventMask {
    /// Queue [`EventKind::New`].
    pub new: bool,
    /// Queue [`EventKind::Update`].
    pub update: bool,
    /// Queue [`EventKind::Destroy`].
    pub destroy: bool,
}

impl EventMask {
    /// All kinds.
    pub const ALL: EventMask = EventMask { new: true, update: true, destroy: true };
}

/// One event, with a copy of the connection at that moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The connection. In an update without a change of protocol state, `protocol` is [`crate::ProtocolInfo::Stateless`].
    pub entry: Entry,
    /// When it happened, by the wall clock.
    pub at: crate::UnixTime,
    /// Another node has decided it and has told it here ([`Engine::set_replicated`](crate::Engine::set_replicated)).
    pub is_replicated: bool,
}

#[allow(clippy::disallowed_types, reason = "keyed by slot, which no peer chooses")]
type BitsBySlot = hashbrown::HashMap<u32, EventBits>;

/// A bounded queue of events. When it is full, new events are discarded and counted in `lost`.
#[derive(Clone, Default)]
pub(crate) struct EventQueue {
    events: VecDeque<Event>,
    mask: EventMask,
    capacity: usize,
    lost: u64,
    /// Changes that packets made and that no event has told yet, by slot. An event is sent when the packet has
    /// passed the last rule; if it is dropped, when a later packet of the connection has (`nf_ct_deliver_cached_events`).
    undelivered: BitsBySlot,
    /// The connections of which rules have chosen what is told, by slot.
    chosen: BitsBySlot,
    /// Events are of changes that another node has decided.
    pub(crate) is_replicated: bool,
}

impl EventQueue {
    pub(crate) fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.mask = mask;
        self.capacity = capacity;
    }

    /// Is `kind` in the subscribed mask?
    #[inline(always)]
    pub(crate) fn is_subscribed(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::New => self.mask.new,
            EventKind::Update => self.mask.update,
            EventKind::Destroy => self.mask.destroy,
        }
    }

    /// Notes a change of a connection, for the next delivery.
    pub(crate) fn note_change(&mut self, slot: u32, changed: EventBits) {
        let known = self.undelivered.entry(slot).or_default();
        *known = known.union(changed);
    }

    /// From now on only these are told of a connection.
    pub(crate) fn choose(&mut self, slot: u32, told: EventBits) {
        self.chosen.insert(slot, told);
    }

    /// What is told of a connection, if a rule has chosen it.
    pub(crate) fn chosen(&self, slot: u32) -> Option<EventBits> {
        self.chosen.get(&slot).copied()
    }

    /// Is something of this told of a connection?
    pub(crate) fn tells(&self, slot: u32, what: EventBits) -> bool {
        self.chosen.is_empty() || self.chosen(slot).is_none_or(|told| told.intersects(what))
    }

    /// A connection has ended: its slot may have another one next.
    pub(crate) fn forget(&mut self, slot: u32) {
        if !self.undelivered.is_empty() {
            self.undelivered.remove(&slot);
        }
        if !self.chosen.is_empty() {
            self.chosen.remove(&slot);
        }
    }

    /// Has any connection a change that was not delivered?
    #[inline(always)]
    pub(crate) fn has_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// Has this connection a change that was not delivered?
    #[inline(always)]
    pub(crate) fn has_change_of(&self, slot: u32) -> bool {
        self.has_undelivered() && self.undelivered.contains_key(&slot)
    }

    /// Takes the change of a connection.
    pub(crate) fn take_change(&mut self, slot: u32) -> Option<EventBits> {
        self.undelivered.remove(&slot)
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
