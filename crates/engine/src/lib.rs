#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

mod admin;
mod admission;
mod classify;
mod confirm;
mod conn_id;
mod connection;
mod counters;
mod ct_expr;
mod ct_timeout;
mod direction;
mod dump;
mod early_drop;
mod engine;
mod entry;
mod event;
mod event_bits;
mod event_choice;
mod expectation;
mod expire;
mod export;
mod extension;
mod fast_path;
mod held;
mod helper;
mod helper_packet;
mod icmp_error;
mod log;
mod lookup;
mod master;
mod nat;
mod offload;
mod outcome;
mod packet_ctx;
mod poll;
mod protocol;
mod query;
mod reason;
mod rule_expectation;
mod run_helper;
mod secret;
#[cfg(feature = "serde")]
mod serde_impls;
mod sharded;
mod synproxy;
mod sysctl;
pub mod sysctl_conf;
mod table;
mod time;
mod track;
mod tuple;
mod update;

pub use admission::{
    AdaptiveTimeouts, AddressPrefix, AdmissionPolicy, AdmissionPolicyError, AdmissionStats, SourceLimit, TableReserve,
    TupleSelector,
};
pub use classify::packet_tuple;
pub use conn_id::{ConnId, ConnIdMap};
pub use connection::Connection;
pub use counters::Counters;
pub use ct_timeout::TimeoutPolicyId;
pub use direction::Direction;
pub use engine::Engine;
pub use entry::{Accounting, Entry, ProtocolInfo, TcpSide};
pub use event::{Event, EventMask};
pub use event_bits::EventBits;
pub use expectation::{ExpectResult, ExpectationEntry, ExpectationPolicy};
pub use export::{ConnSnapshot, DirtySlots, ImportError, SnapshotAge, SnapshotDecodeError, WindowTrust};
pub use helper::Helper;
pub use keepstate_types::{EventKind, SctpState, Status, TcpState, ipproto};
/// The crate with the packet types, checksums and rewrites that this API uses.
pub use keepstate_wire as wire;
pub use nat::{
    DeterministicNat, ExhaustionKey, ExhaustionStats, FilteringBehaviour, Manip, MappingBehaviour, NatPolicy, NatRange,
    NatResult, NatRewrite, OwnSources, PartUse, PortBlockEvent, PortPart, PortSelection,
};
pub use offload::{FlowStats, OffloadError, OffloadedFlow};
pub use outcome::{CtInfo, CtVerdict, Outcome};
pub use packet_ctx::{PacketCtx, Unconfirmed};
pub use reason::Reason;
pub use secret::Secret;
pub use sharded::{ShardConnId, ShardInboxes, ShardMap, ShardedEngine};
pub use synproxy::SynproxyState;
pub use sysctl::{KernelVersion, Sysctl, SysctlError, Sysctls};
pub use time::{Instant, UnixTime};
pub use tuple::{Tuple, Zone, ZoneDirection};
pub use update::{ConnUpdate, Family, NewConnection, ProtocolUpdate, UpdateError};
