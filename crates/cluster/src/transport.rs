//! Who carries frames and asks for leases: implemented over NATS, over memory and sockets in tests.
use crate::frame::{Epoch, FrameDecodeError, Sequence, StateFrame};
use crate::names::{NodeName, ShardName};
use std::os::fd::BorrowedFd;

/// Carries the frames of this node's shards and asks for their leases. No method ever blocks; all work is done elsewhere, usually by a thread, behind bounded queues.
///
/// - **Order**: stored frames ([`FrameKind::is_stored`](crate::FrameKind::is_stored)) of a shard and epoch are delivered to the other nodes in order of their sequence. A repeated, late or missing
///   one does no harm: it is recognised.
/// - **Coming later**: a node that joins gets the shard's stored frames from the newest complete snapshot on (its greeting, its start, its parts, all that followed), then those that come.
///   What is older than the start of the newest complete snapshot may be deleted.
/// - **While the cluster cannot be reached**: frames that were taken are kept and sent once it is reached again, as far as the queue holds; then `publish` refuses. The caller keeps changes in the table
///   itself, coalesced, so a small queue is enough. What was taken and cannot be sent any more is told as [`TransportEvent::Lost`].
/// - A node's own frames may come back; they are ignored. Heartbeats under a node's own name should come: another process may have that name by mistake, which is known by them alone.
pub trait StateTransport: Send {
    /// Takes a frame to be sent to the other nodes.
    ///
    /// # Errors
    /// There is no room: the frame was not taken, and a later one must not be taken before it.
    fn publish(&mut self, frame: StateFrame) -> Result<(), QueueFull>;

    /// Asks for a lease, its renewal or its end. The answer is an event; a request that is not answered has failed.
    fn request_lease(&mut self, request: LeaseRequest);

    /// What has happened, the oldest first; `None` if nothing more.
    fn poll(&mut self) -> Option<TransportEvent>;

    /// Readable when [`StateTransport::poll`] has something. `None`: poll at intervals.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// The transport's queue is full, or it is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue to the cluster is full")]
pub struct QueueFull;

/// What is wanted of a shard's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Whose.
    pub shard: ShardName,
    /// What.
    pub action: LeaseAction,
    /// The asker's epoch; to acquire: the one that it will have, higher than any it knows. If the lease's store knows a higher one, the answer has that one's next.
    pub epoch: Epoch,
    /// The request's number, which its answer repeats.
    pub number: u64,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseAction {
    /// Take it, if nobody has it. Answer: `Lease` with this node as holder, or `LeaseRefused`.
    Acquire,
    /// Keep it. Answer: as above.
    Renew,
    /// Give it up. Answer: `Lease` without a holder, or none.
    Release,
}

/// What has happened at a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// A frame of another node (or our own).
    Received(StateFrame),
    /// All stored frames of our epoch up to this one are stored by the cluster (over NATS: acknowledged by the stream).
    Acknowledged {
        /// Whose.
        shard: ShardName,
        /// In which epoch.
        epoch: Epoch,
        /// Up to which.
        sequence: Sequence,
    },
    /// Who holds a lease, told after a change and as the answer to a request that was granted.
    Lease {
        /// Whose.
        shard: ShardName,
        /// `None`: nobody.
        holder: Option<NodeName>,
        /// The holder's epoch; without a holder, the highest that is known.
        epoch: Epoch,
        /// The number of the request that this answers; `None`: somebody else's doing, or a change seen. How long a lease holds counts from when the answered request was made.
        answers: Option<u64>,
    },
    /// A request that was not granted: somebody else holds the lease, or it is not ours any more.
    LeaseRefused {
        /// Whose.
        shard: ShardName,
        /// What was asked.
        action: LeaseAction,
        /// The request's number.
        answers: u64,
        /// The highest epoch known.
        epoch: Epoch,
    },
    /// A request could not be asked, or was not answered: it is not known what came of it. Whoever wants the lease asks again.
    LeaseFailed {
        /// Whose.
        shard: ShardName,
        /// Why, and what to do.
        reason: String,
    },
    /// Something came that is no frame of this version. Told when it begins, not for each.
    Undecodable {
        /// Where it came.
        shard: ShardName,
        /// Why.
        error: FrameDecodeError,
    },
    /// The cluster is reached.
    Connected,
    /// It is not reached; the transport tries again by itself.
    Disconnected {
        /// Why, for the log.
        reason: String,
    },
    /// Frames that were taken are lost.
    Lost {
        /// Whose.
        shard: ShardName,
        /// How many.
        frames: u64,
    },
}
