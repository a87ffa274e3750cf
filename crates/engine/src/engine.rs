//! The engine: one packet's way, from the table and back into it.
//!
//! ```text
//! handle = track, then confirm
//!   track     identify (a tuple, or why not) ▶ find ─ known ▶ its protocol rules ▶ apply
//!                                                  └ none  ▶ expected? ▶ begin: Unconfirmed, owned by the passage
//!   confirm   Unconfirmed is moved into the table, both directions or neither; a helper hears what its connection says
//! poll      what has expired leaves the table; the index grows a step
//! ```
//! The engine lives as long as its driver; it has no clock and does no IO. It never drops a packet: it reports, except where Linux itself drops
//! (the table is full; a clash; an announcement that a helper cannot read or keep).
use crate::ct_timeout::policy::TimeoutPolicy;
use crate::early_drop::gc_state::GcState;
use crate::event::EventQueue;
use crate::expectation::ExpectationTable;
use crate::export::DirtySlots;
use crate::extension::Extensions;
use crate::log::KernelLog;
use crate::nat::state::NatState;
use crate::offload::state::OffloadState;
use crate::protocol::FastPathTimeouts;
use crate::table::Table;
use crate::table::key::HashKeys;
use crate::{Counters, Helper, Instant, Reason, Secret, Sysctl, Sysctls};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Tracks connections. See the example at [`Engine::handle`].
pub struct Engine {
    pub(crate) sysctls: Sysctls,
    pub(crate) tcp_fast_timeouts: FastPathTimeouts,
    pub(crate) table: Table,
    pub(crate) extensions: Extensions,
    pub(crate) expectations: ExpectationTable,
    /// Which new connections get a helper: protocol, destination port.
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
    /// Some connection was begun in its client's name.
    pub(crate) synproxy_in_use: bool,
    /// Folds what peers send: see `Tcp`.
    pub(crate) secret: (u64, u64),
    /// Makes ids unpredictable.
    pub(crate) id_keys: HashKeys,
}

impl Engine {
    /// An engine without connections. `secret` must be unknown to whoever sends packets.
    pub fn new(sysctls: Sysctls, secret: Secret, _now: Instant) -> Engine {
        let connections = sysctls[Sysctl::Buckets] as usize;
        Engine {
            table: Table::new(HashKeys::derive(&secret, 0), connections),
            id_keys: HashKeys::derive(&secret, 1),
            secret: HashKeys::derive(&secret, 2).words(),
            tcp_fast_timeouts: FastPathTimeouts::from(&sysctls),
            sysctls,
            extensions: Extensions::new(),
            expectations: ExpectationTable::new(HashKeys::derive(&secret, 3).words()),
            auto_helpers: Vec::new(),
            gc_state: GcState::default(),
            nat: NatState::new(&secret),
            timeout_policies: Vec::new(),
            offload: OffloadState::default(),
            counters: Counters::default(),
            reason_counts: Box::new([0; Reason::COUNT]),
            events: EventQueue::default(),
            log: KernelLog::default(),
            dirty: DirtySlots::default(),
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
