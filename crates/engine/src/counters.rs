//! The counters of `conntrack -S`.

/// What `conntrack -S` prints of one processor; here, of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups by NAT that found a tuple taken.
    pub found: u64,
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Entries inserted by request (not by packets, as in Linux).
    pub insert: u64,
    /// Entries that could not be inserted: a clash not resolved.
    pub insert_failed: u64,
    /// Packets dropped: the table was full, or a clash.
    pub drop: u64,
    /// Entries removed early to make room.
    pub early_drop: u64,
    /// ICMP errors and the like that could not be handled.
    pub error: u64,
    /// Lookups begun again because the table moved; always 0 here.
    pub search_restart: u64,
    /// Clashes settled.
    pub clash_resolve: u64,
    /// Inserts refused because a bucket was too long; always 0 here.
    pub chaintoolong: u64,
}
