//! The [`Engine`]: the connection table and everything that belongs to it, and the order in which a packet uses them.
//!
//! ```text
//! handle = track, then confirm
//!   track     classify (a tuple, or a Reason) ▶ find ─ known ▶ protocol tracker ▶ apply its result
//!                                                    └ none  ▶ expected? ▶ init_conntrack: Unconfirmed, owned by the PacketCtx
//!   confirm   inserts the Unconfirmed under both tuples or neither; runs the helper on the packet's payload
//! poll      removes expired connections; grows the index by a few steps
//! ```
//! The engine lives as long as its driver; it has no clock and does no IO. It never drops a packet, it only reports an [`Outcome`](crate::Outcome).
//! The exceptions are those of nf_conntrack itself: a full table, a clash, a helper command that cannot be parsed or expected.
use crate::admission::state::AdmissionState;
use crate::ct_timeout::policy::TimeoutPolicy;
use crate::early_drop::gc_state::GcState;
use crate::event::EventQueue;
use crate::expectation::ExpectationTable;
use crate::export::DirtySlots;
use crate::extension::Extensions;
use crate::fast_path::hash_memo::HashMemo;
use crate::held::held_timers::HeldTimers;
use crate::log::KernelLog;
use crate::nat::state::NatState;
use crate::offload::state::OffloadState;
use crate::protocol::FastPathTimeouts;
use crate::sharded::shard_place::ShardSlot;
use crate::table::Table;
use crate::table::key::HashKeys;
use crate::{Counters, Helper, Reason, Secret, Sysctl, Sysctls};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Tracks connections. See the example at [`Engine::handle`].
///
/// A clone is an engine of its own with the same connections: for a snapshot, or to try what a packet would do. It costs a copy of the whole table.
#[derive(Clone)]
pub struct Engine {
    pub(crate) sysctls: Sysctls,
    /// Which of several engines it is, if it is one of them.
    pub(crate) shard: ShardSlot,
    /// How the table fails, if not as Linux's does.
    pub(crate) admission: Option<Box<AdmissionState>>,
    pub(crate) fast_timeouts: FastPathTimeouts,
    /// What [`Engine::prefetch`] has hashed, once it was called.
    pub(crate) hash_memo: Option<HashMemo>,
    pub(crate) table: Table,
    pub(crate) extensions: Extensions,
    pub(crate) expectations: ExpectationTable,
    /// Helpers attached to new connections by protocol and destination port.
    pub(crate) auto_helpers: Vec<(u8, u16, Helper)>,
    pub(crate) gc_state: GcState,
    pub(crate) nat: NatState,
    pub(crate) timeout_policies: Vec<TimeoutPolicy>,
    pub(crate) offload: OffloadState,
    pub(crate) counters: Counters,
    pub(crate) reason_counts: Box<[u64; Reason::COUNT]>,
    pub(crate) events: EventQueue,
    pub(crate) log: KernelLog,
    pub(crate) dirty: DirtySlots,
    /// Connections whose timers stand still.
    pub(crate) held: HeldTimers,
    /// The wall clock minus the driver's clock, in nanoseconds.
    pub(crate) wall_clock_offset: i64,
    /// True once any connection has a [`SynproxyState`](crate::SynproxyState); until then lookups of it are skipped.
    pub(crate) synproxy_in_use: bool,
    /// Keys the hashes of values taken from packets: see `Tcp`.
    pub(crate) secret: (u64, u64),
    /// Keys the hash that makes connection ids unpredictable.
    pub(crate) id_keys: HashKeys,
}

impl Engine {
    /// Creates an engine without connections. `secret` must be unknown to the senders of packets.
    pub fn new(sysctls: Sysctls, secret: Secret) -> Engine {
        let connections = sysctls[Sysctl::Buckets] as usize;
        Engine::with_index_for(sysctls, secret, connections)
    }

    /// As [`Engine::new`], with an index of another size.
    pub(crate) fn with_index_for(sysctls: Sysctls, secret: Secret, connections: usize) -> Engine {
        Engine {
            table: Table::new(HashKeys::derive(&secret, 0), connections),
            id_keys: HashKeys::derive(&secret, 1),
            secret: HashKeys::derive(&secret, 2).words(),
            fast_timeouts: FastPathTimeouts::from(&sysctls),
            sysctls,
            shard: ShardSlot::default(),
            admission: None,
            hash_memo: None,
            extensions: Extensions::new(),
            expectations: ExpectationTable::new(HashKeys::derive(&secret, 3).sip_key()),
            auto_helpers: Vec::new(),
            gc_state: GcState::default(),
            nat: NatState::new(&secret, connections),
            timeout_policies: Vec::new(),
            offload: OffloadState::default(),
            counters: Counters::default(),
            reason_counts: Box::new([0; Reason::COUNT]),
            events: EventQueue::default(),
            log: KernelLog::default(),
            dirty: DirtySlots::default(),
            held: HeldTimers::default(),
            wall_clock_offset: 0,
            synproxy_in_use: false,
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("connections", &self.table.count())
            .field("max", &self.sysctls[Sysctl::Max])
            .field("expectations", &self.expectations.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
