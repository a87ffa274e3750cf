//! The counters of `conntrack -S`, and what `/proc/net/stat/nf_conntrack` has beside them.
use core::fmt;

/// What Linux counts on one processor; here, in one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
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
    /// Connections that were expected; not in `conntrack -S`, like those that follow.
    pub expect_new: u64,
    /// Expectations made.
    pub expect_create: u64,
    /// Expectations gone: met, replaced, or over.
    pub expect_delete: u64,
}

/// As `conntrack -S` prints them: `found=0 invalid=0 insert=0 …`; the counters of expectations are left out.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "found={} invalid={} insert={} insert_failed={} drop={} early_drop={} error={} search_restart={} \
             clash_resolve={} chaintoolong={}",
            self.found,
            self.invalid,
            self.insert,
            self.insert_failed,
            self.drop,
            self.early_drop,
            self.error,
            self.search_restart,
            self.clash_resolve,
            self.chaintoolong
        )
    }
}
