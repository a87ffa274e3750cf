//! The kinds of conntrack events.

/// What happened to a connection or an expectation, as `conntrack -E` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum EventKind {
    /// It was created: a connection was confirmed, an expectation was set up.
    New,
    /// It changed: a new state, a first reply, assured, a mark.
    Update,
    /// It was removed.
    Destroy,
}
