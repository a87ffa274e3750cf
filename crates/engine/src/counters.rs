//! The counters of `conntrack -S`, and the additional ones of `/proc/net/stat/nf_conntrack`.
use core::fmt;

/// The statistics that Linux keeps per CPU, here per engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counters {
    /// Lookups by NAT that found a tuple taken.
    pub found: u64,
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Entries inserted by [`Engine::create`](crate::Engine::create). As in Linux, entries made by packets are not counted here.
    pub insert: u64,
    /// Entries that could not be inserted: an unresolved clash, NAT exhausted, no memory.
    pub insert_failed: u64,
    /// Packets dropped: the table was full, or an insert failed.
    pub drop: u64,
    /// Entries removed early to make room.
    pub early_drop: u64,
    /// ICMP errors and the like that could not be handled.
    pub error: u64,
    /// Lookups restarted because the table was resized; always 0 here.
    pub search_restart: u64,
    /// Clashes resolved.
    pub clash_resolve: u64,
    /// Inserts rejected because a hash chain was too long; always 0 here.
    pub chaintoolong: u64,
    /// Connections that matched an expectation. This and the following counters are not in `conntrack -S`.
    pub expect_new: u64,
    /// Expectations created.
    pub expect_create: u64,
    /// Expectations removed: matched, replaced, or expired.
    pub expect_delete: u64,
}

impl core::ops::Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            found: self.found + other.found,
            invalid: self.invalid + other.invalid,
            insert: self.insert + other.insert,
            insert_failed: self.insert_failed + other.insert_failed,
            drop: self.drop + other.drop,
            early_drop: self.early_drop + other.early_drop,
            error: self.error + other.error,
            search_restart: self.search_restart + other.search_restart,
            clash_resolve: self.clash_resolve + other.clash_resolve,
            chaintoolong: self.chaintoolong + other.chaintoolong,
            expect_new: self.expect_new + other.expect_new,
            expect_create: self.expect_create + other.expect_create,
            expect_delete: self.expect_delete + other.expect_delete,
        }
    }
}

/// As `conntrack -S` prints them: `found=0 invalid=0 insert=0 …`, without the counters of expectations.
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
