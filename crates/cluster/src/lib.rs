//! Gateways that share their state: what one tells the others, who decides, and when a gateway must stop.
//!
//! ```text
//! active   changed connections ▶ records ▶ StateFrame (epoch, sequence) ▶ StateTransport ─┐
//! standby  the living table    ◀ records ◀ checked, in order       ◀ StateTransport ◀┘
//! ```
//! A *shard* is what one gateway decides at a time: a set of outside addresses. Its active gateway has an [`Epoch`] that nobody had before it; a frame of a lower epoch is refused.
//! The crate is sans-IO: times are arguments, bytes go in and out, and whoever carries them implements [`StateTransport`].
mod balance;
mod epoch_share;
mod frame;
mod greeting;
mod inbox;
mod lease;
mod names;
mod outbox;
pub mod records;
mod role;
mod shard;
mod transport;

pub use balance::{BalanceResult, HandoverRequest, ShardBalance, ShardHolding};
pub use epoch_share::EpochShare;
pub use frame::{Epoch, FrameDecodeError, FrameKind, MAX_PAYLOAD_LEN, Sequence, StateFrame};
pub use greeting::{ConfigDigest, Greeting, GreetingDifference};
pub use inbox::{InboxCounters, TableChange};
pub use names::{InvalidName, NodeInstance, NodeName, ShardName};
pub use role::{Decider, RoleChangeError, ShardAction, ShardRole, ShardStatus};
pub use shard::Shard;
pub use transport::{LeaseAction, LeaseRequest, QueueFull, StateTransport, TransportEvent};
