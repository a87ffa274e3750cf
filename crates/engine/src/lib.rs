//! Connection tracking, faithful to Linux packet for packet; bytes and `now` in, outcome out.
//!
//! The story is in [`Engine`]: a packet is looked up by its tuple, judged by its protocol, and confirmed into the table, where the
//! connection stands twice, by its original and by its reply tuple. A [`Helper`] hears what a control channel announces; what is announced is
//! an [`Expectation`], and what then comes is RELATED. There is no clock, no randomness and no IO in this crate.
#![no_std]

extern crate alloc;

mod admin;
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
mod expectation;
mod expire;
mod export;
mod extension;
mod fast_path;
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
mod run_helper;
mod secret;
mod synproxy;
mod sysctl;
pub mod sysctl_conf;
mod table;
mod time;
mod track;
mod tuple;
mod update;

pub use conn_id::ConnId;
pub use connection::Connection;
pub use counters::Counters;
pub use ct_timeout::TimeoutPolicyId;
pub use direction::Direction;
pub use engine::Engine;
pub use entry::{Accounting, Entry, ProtocolInfo, TcpSide};
pub use event::{Event, EventMask};
pub use expectation::ExpectationEntry;
pub use export::{ConnSnapshot, ImportError, SnapshotDecodeError, WindowTrust};
pub use helper::Helper;
pub use keepstate_types::{EventKind, SctpState, Status, TcpState, ipproto};
pub use nat::{
    DeterministicNat, ExhaustionKey, ExhaustionStats, FilteringBehaviour, Manip, MappingBehaviour, NatPolicy, NatRange,
    NatResult, NatRewrite, PortBlockEvent, PortSelection,
};
pub use offload::{FlowStats, OffloadError, OffloadedFlow};
pub use outcome::{CtInfo, CtVerdict, Outcome};
pub use packet_ctx::{PacketCtx, Unconfirmed};
pub use reason::Reason;
pub use secret::Secret;
pub use synproxy::SynproxyState;
pub use sysctl::{KernelVersion, Sysctl, SysctlError, Sysctls};
pub use time::Instant;
pub use tuple::{Tuple, Zone, ZoneDirection};
pub use update::{ConnUpdate, Family, NewConnection, ProtocolUpdate, UpdateError};
