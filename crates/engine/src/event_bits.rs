//! What has happened to a connection, as bits (`enum ip_conntrack_events`), and which of it is told: nftables' `ct event set`.
//!
//! By default everything is. A connection with a mask of its own is told of if one bit of what has happened is in the mask; what is not told is forgotten.
/// Bits of events, with the kernel's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventBits(pub u16);

impl EventBits {
    /// A new connection.
    pub const NEW: EventBits = EventBits(1);
    /// A new connection that was expected.
    pub const RELATED: EventBits = EventBits(1 << 1);
    /// It ends.
    pub const DESTROY: EventBits = EventBits(1 << 2);
    /// The first reply.
    pub const REPLY: EventBits = EventBits(1 << 3);
    /// It became assured.
    pub const ASSURED: EventBits = EventBits(1 << 4);
    /// The state of its protocol has changed.
    pub const PROTOINFO: EventBits = EventBits(1 << 5);
    /// It has a helper.
    pub const HELPER: EventBits = EventBits(1 << 6);
    /// Its mark has changed.
    pub const MARK: EventBits = EventBits(1 << 7);
    /// Its labels have changed.
    pub const LABEL: EventBits = EventBits(1 << 10);
    /// A request has changed it: what that may have changed.
    pub(crate) const REQUEST: EventBits = EventBits(0x0df8);

    /// Both.
    pub const fn union(self, other: EventBits) -> EventBits {
        EventBits(self.0 | other.0)
    }

    /// These if `on`, else none.
    pub(crate) const fn when(self, on: bool) -> EventBits {
        if on { self } else { EventBits(0) }
    }

    pub(crate) const fn intersects(self, other: EventBits) -> bool {
        self.0 & other.0 != 0
    }
}
