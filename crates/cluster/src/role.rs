//! The roles of a shard, what its owner has to do, and what an operator wants to know.
use crate::frame::{Epoch, Sequence};
use crate::greeting::GreetingDifference;
use crate::inbox::{InboxCounters, TableChange};
use crate::names::NodeName;
use crate::transport::LeaseRequest;
use std::time::Duration;

/// Who decides which node is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// A lease that ends by itself after this time.
    Lease(Duration),
    /// Somebody calls [`Shard::promote`](crate::Shard::promote) and [`Shard::demote`](crate::Shard::demote): keepalived, BGP, a person.
    Hand,
}

/// What a node is for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShardRole {
    /// Holds the table of another one; answers nothing.
    Standby,
    /// Decides: forwards, and creates translations.
    Active,
    /// Was active, and hands over: forwards what it knows, until all of it is acknowledged.
    Demoting,
    /// Was active, and may not be any more: creates nothing.
    Fenced,
}

impl ShardRole {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            ShardRole::Standby => "standby",
            ShardRole::Active => "active",
            ShardRole::Demoting => "demoting",
            ShardRole::Fenced => "fenced",
        }
    }
}

/// What the owner has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardAction {
    /// Write the epoch to this machine's disk, then call [`Shard::epoch_stored`](crate::Shard::epoch_stored).
    StoreEpoch(Epoch),
    /// Give it to the transport.
    RequestLease(LeaseRequest),
    /// Change the table.
    Table(TableChange),
    /// Tell the packet path, at once.
    Role(ShardRole, Epoch),
    /// Tell the operator.
    Note(String),
}

/// Why a shard is not promoted or demoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleChangeError {
    /// Nothing to hand over.
    #[error("it is not active here, but {0}")]
    NotActive(&'static str),
    /// Both at once.
    #[error("it is being demoted: try again when that is done")]
    Demoting,
    /// Two would decide under one name.
    #[error("another gateway calls itself {0} too, and is active: give each gateway a node name of its own")]
    NameTaken(NodeName),
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The role.
    pub role: ShardRole,
    /// The highest epoch known; of an active node, its own.
    pub epoch: Epoch,
    /// Whose frames are followed.
    pub sender: Option<NodeName>,
    /// Standby: the table is complete and nothing is missing. Active: all is acknowledged.
    pub in_step: bool,
    /// The last stored frame sent, or followed.
    pub sequence: Sequence,
    /// Standby: frames that it knows to be behind.
    pub lag: u64,
    /// Active: frames that are not acknowledged.
    pub unacknowledged: u64,
    /// Frames that the transport has lost.
    pub lost: u64,
    /// Is the transport connected?
    pub connected: bool,
    /// Another process with this node's name is active.
    pub name_taken: bool,
    /// Why its lease could not be asked for.
    pub lease_error: Option<String>,
    /// In what the sender runs something else.
    pub differences: Vec<GreetingDifference>,
    /// What was received.
    pub counters: InboxCounters,
}

impl ShardStatus {
    /// What is wrong beside the connection, in sentences; `node` is this one's name.
    pub fn warnings(&self, node: &str) -> Vec<String> {
        let sender = self.sender.as_ref().map_or("the active node", |sender| sender.as_str());
        let name_taken = self.name_taken.then(|| {
            format!("another gateway calls itself {node} too, and is active: give each gateway a node name of its own")
        });
        let lease_error = self.lease_error.as_ref().map(|reason| format!("its lease cannot be asked for: {reason}"));
        let differences =
            self.differences.iter().map(|difference| format!("{sender} does not run the same: {difference}"));
        name_taken.into_iter().chain(lease_error).chain(differences).collect()
    }
}
