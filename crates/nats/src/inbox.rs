//! Events on their way to the caller: bounded, with a file descriptor that is readable while there are some.
use crate::quota::frame_cost;
use keepstate_cluster::{StateFrame, TransportEvent};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Frames that wait for the caller take at most this much; then the stream waits.
const MAX_BYTES: usize = 8 << 20;

/// The queue from NATS' thread to the caller.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    space: Notify,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<TransportEvent>,
    bytes: usize,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Inbox> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Inbox { queue: Mutex::default(), space: Notify::new(), wake })
    }

    /// Adds something other than a frame. What says no more than what waits already takes its place.
    pub(crate) fn push(&self, event: TransportEvent) {
        let mut queue = self.lock();
        if !queue.events.back_mut().is_some_and(|last| merge(last, &event)) {
            self.append(&mut queue, event);
        }
    }

    /// Adds a frame once there is room.
    pub(crate) async fn push_frame(&self, frame: StateFrame) {
        loop {
            let space = self.space.notified();
            {
                let mut queue = self.lock();
                if queue.bytes < MAX_BYTES {
                    queue.bytes += frame_cost(&frame);
                    self.append(&mut queue, TransportEvent::Received(frame));
                    return;
                }
            }
            space.await;
        }
    }

    /// The oldest event.
    pub(crate) fn pop(&self) -> Option<TransportEvent> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        if queue.events.is_empty() {
            let mut count = [0; 8];
            // It has something to read, since there was an event.
            let _ = rustix::io::read(&self.wake, &mut count);
        }
        if let TransportEvent::Received(frame) = &event {
            queue.bytes = queue.bytes.saturating_sub(frame_cost(frame));
            drop(queue);
            self.space.notify_waiters();
        }
        Some(event)
    }

    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn append(&self, queue: &mut Queue, event: TransportEvent) {
        if queue.events.is_empty() {
            // A counter of 1 is never full.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        queue.events.push_back(event);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts `event` into `last`, if one event can say both.
fn merge(last: &mut TransportEvent, event: &TransportEvent) -> bool {
    use TransportEvent::{Acknowledged, Disconnected, LeaseFailed, Lost};
    match (last, event) {
        (
            Acknowledged { shard, epoch, sequence },
            Acknowledged { shard: other_shard, epoch: other_epoch, sequence: later },
        ) if shard == other_shard && epoch == other_epoch => *sequence = *later,
        (Disconnected { reason }, Disconnected { reason: later }) => reason.clone_from(later),
        (LeaseFailed { shard, reason }, LeaseFailed { shard: other_shard, reason: later }) if shard == other_shard => {
            reason.clone_from(later);
        }
        (Lost { shard, frames }, Lost { shard: other_shard, frames: more }) if shard == other_shard => *frames += more,
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_cluster::{Epoch, Sequence};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(inbox: &Inbox) -> bool {
        poll(&mut [PollFd::new(&inbox.wake_fd(), PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn acknowledgements_are_told_once_and_the_descriptor_says_whether_there_is_something() {
        let inbox = Inbox::new().unwrap();
        let acknowledged = |sequence| TransportEvent::Acknowledged {
            shard: "a".parse().unwrap(),
            epoch: Epoch(1),
            sequence: Sequence(sequence),
        };
        assert!(!is_readable(&inbox));
        (1..1_000).for_each(|sequence| inbox.push(acknowledged(sequence)));
        inbox.push(TransportEvent::Connected);
        assert!(is_readable(&inbox));
        assert_eq!(inbox.pop(), Some(acknowledged(999)));
        assert!(is_readable(&inbox));
        assert_eq!(inbox.pop(), Some(TransportEvent::Connected));
        assert!(!is_readable(&inbox));
        assert_eq!(inbox.pop(), None);
    }
}
