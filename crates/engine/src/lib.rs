//! Connection tracking, faithful to Linux packet for packet; bytes and `now` in, outcome out.
//!
//! The story is in [`Engine`]: a packet is looked up by its tuple, judged by its protocol, and confirmed into the table, where the
//! connection stands twice, by its original and by its reply tuple. A [`Helper`] hears what a control channel announces; what is announced is
//! an [`Expectation`], and what then comes is RELATED. There is no clock, no randomness and no IO in this crate.
#![no_std]

extern crate alloc;

mod classify;
mod confirm;
mod connection;
mod counters;
mod ct_timeout;
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
mod master;
mod nat;
mod offload;
mod outcome;
mod packet_ctx;
mod protocol;
mod reason;
mod synproxy;
mod sysctl;
pub mod sysctl_conf;
mod table;
mod time;
mod track;
mod tuple;
mod update;

pub use connection::Connection;
pub use counters::Counters;
pub use ct_timeout::TimeoutPolicyId;
pub use engine::{ConnId, Engine, Secret};
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
pub use outcome::{CtInfo, CtVerdict, Direction, Outcome};
pub use packet_ctx::{PacketCtx, Unconfirmed};
pub use reason::Reason;
pub use synproxy::SynproxyState;
pub use sysctl::{KernelVersion, Sysctl, SysctlError, Sysctls};
pub use time::Instant;
pub use tuple::{Tuple, Zone, ZoneDirection};
pub use update::{ConnUpdate, Family, NewConnection, ProtocolUpdate, UpdateError};
