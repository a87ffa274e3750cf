//! What threads hand to one another: a bounded queue for each shard, without locks.
//!
//! The queues are crossbeam's. Nothing here waits: a full inbox refuses, a thread that sleeps is woken by whoever has put something there.
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use crossbeam_queue::ArrayQueue;

/// A bounded inbox for each shard. Any thread may [`send`](ShardInboxes::send), in the order of a sender; the thread that has the shard [`take`](ShardInboxes::take)s.
///
/// What is handed over is the driver's: a packet's buffer with what belongs to it, or something to be done with the shard, such as listing it.
pub struct ShardInboxes<T> {
    queues: Arc<[ArrayQueue<T>]>,
}

impl<T> ShardInboxes<T> {
    /// Inboxes of `shards` shards for `capacity` things each, one at least.
    pub fn new(shards: usize, capacity: usize) -> ShardInboxes<T> {
        let queues: Box<[_]> = (0..shards).map(|_| ArrayQueue::new(capacity.max(1))).collect();
        ShardInboxes { queues: queues.into() }
    }

    /// Hands `thing` to a shard.
    ///
    /// # Errors
    /// Its inbox is full, or there is no such shard: here it is again. A packet that is refused is dropped, as a network card drops one for which it has no room.
    pub fn send(&self, shard: usize, thing: T) -> Result<(), T> {
        match self.queues.get(shard) {
            Some(queue) => queue.push(thing),
            None => Err(thing),
        }
    }

    /// Takes the oldest thing handed to a shard.
    pub fn take(&self, shard: usize) -> Option<T> {
        self.queues.get(shard)?.pop()
    }

    /// Is there nothing for this shard?
    pub fn is_empty(&self, shard: usize) -> bool {
        self.queues.get(shard).is_none_or(ArrayQueue::is_empty)
    }
}

impl<T> Clone for ShardInboxes<T> {
    /// The same inboxes, for another thread.
    fn clone(&self) -> ShardInboxes<T> {
        ShardInboxes { queues: Arc::clone(&self.queues) }
    }
}

impl<T> fmt::Debug for ShardInboxes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.queues.iter().map(ArrayQueue::len)).finish()
    }
}
