//! What changed in the table, for whoever listens.
use crate::Entry;

/// The kind of an event, as `conntrack -E` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A connection was confirmed.
    New,
    /// One changed: a new state, a first answer, assured, a mark.
    Update,
    /// One left the table.
    Destroy,
}

/// Which kinds to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which connection.
    pub entry: Entry,
    /// When.
    pub at: crate::Instant,
}
