//! Gateways' ends of a transport over real NATS servers.
#![allow(dead_code, reason = "each test file uses its own part of this")]
use keepstate_cluster::{
    Epoch, FrameKind, LeaseAction, LeaseRequest, NodeName, Sequence, ShardName, StateFrame, StateTransport,
    TransportEvent,
};
use keepstate_nats::{ClusterOptions, NatsOptions, NatsTransport};
use keepstate_test_support::NatsServers;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

/// A test that has waited for this long has failed, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn shard() -> ShardName {
    "north".parse().unwrap()
}

pub fn frame(node: &str, epoch: u64, sequence: u64, kind: FrameKind) -> StateFrame {
    let payload = vec![u8::try_from(sequence % 251).unwrap(); 1_400];
    StateFrame {
        shard: shard(),
        node: node.parse().unwrap(),
        epoch: Epoch(epoch),
        sequence: Sequence(sequence),
        kind,
        payload,
    }
}

/// So long an event is waited for before it is seen whether there is room.
const ROOM_CHECK: Duration = Duration::from_millis(50);

/// One gateway's end.
pub struct End {
    pub transport: NatsTransport,
    pub node: NodeName,
    /// The numbers of the stored frames that have come, in order.
    pub received: Vec<(u64, u64)>,
    pub acknowledged: (u64, u64),
    pub lost: u64,
    /// Who was said to hold the lease, one after the other.
    pub holders: Vec<(Option<String>, u64)>,
}

impl End {
    pub fn new(servers: &NatsServers, node: &str) -> End {
        End::with(node, &servers.urls(), |_| {})
    }

    pub fn with(node: &str, urls: &[String], change: impl FnOnce(&mut NatsOptions)) -> End {
        let options = ClusterOptions::new("test".parse().unwrap(), node.parse().unwrap(), vec![shard()], urls.len());
        End::with_options(node, urls, options, change)
    }

    pub fn with_options(
        node: &str,
        urls: &[String],
        options: ClusterOptions,
        change: impl FnOnce(&mut NatsOptions),
    ) -> End {
        let name: NodeName = node.parse().unwrap();
        let mut nats = NatsOptions { servers: urls.to_vec(), client_name: node.into(), ..NatsOptions::default() };
        change(&mut nats);
        let transport = NatsTransport::start(nats, options).unwrap();
        End { transport, node: name, received: Vec::new(), acknowledged: (0, 0), lost: 0, holders: Vec::new() }
    }

    /// Waits for the next event.
    pub fn next(&mut self, deadline: Instant) -> Option<TransportEvent> {
        loop {
            if let Some(event) = self.transport.poll() {
                match &event {
                    TransportEvent::Received(frame) if frame.kind.is_stored() => {
                        self.received.push((frame.epoch.0, frame.sequence.0));
                    }
                    TransportEvent::Acknowledged { epoch, sequence, .. } => self.acknowledged = (epoch.0, sequence.0),
                    TransportEvent::Lease { holder, epoch, .. } => {
                        self.holders.push((holder.as_ref().map(ToString::to_string), epoch.0));
                    }
                    TransportEvent::Lost { frames, .. } => self.lost += frames,
                    _ => {}
                }
                return Some(event);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let left = Timespec::try_from(left.min(Duration::from_millis(200))).unwrap();
            let wake = self.transport.wake_fd().unwrap();
            poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&left)).unwrap();
        }
    }

    /// Waits until `wanted` has something to say of an event.
    pub fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&TransportEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Some(event) = self.next(deadline) {
            if let Some(found) = wanted(&event) {
                return found;
            }
            if !matches!(event, TransportEvent::Received(_) | TransportEvent::Acknowledged { .. }) {
                seen.push(event);
            }
        }
        panic!(
            "{}: {what} has not come; {seen:?}, acknowledged {:?}, received {}",
            self.node,
            self.acknowledged,
            self.received.len()
        );
    }

    pub fn wait_connected(&mut self) {
        self.wait("the connection", |event| (*event == TransportEvent::Connected).then_some(()));
    }

    pub fn wait_disconnected(&mut self) -> String {
        self.wait("a lost connection", |event| match event {
            TransportEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        })
    }

    pub fn wait_acknowledged(&mut self, epoch: u64, sequence: u64) {
        if self.acknowledged != (epoch, sequence) {
            self.wait(&format!("the acknowledgement of {sequence}"), |event| match event {
                TransportEvent::Acknowledged { epoch: e, sequence: s, .. } => {
                    ((e.0, s.0) == (epoch, sequence)).then_some(())
                }
                _ => None,
            });
        }
    }

    pub fn wait_received(&mut self, epoch: u64, sequence: u64) {
        if self.received.last() != Some(&(epoch, sequence)) {
            self.wait(&format!("frame {sequence}"), |event| match event {
                TransportEvent::Received(frame) => {
                    ((frame.epoch.0, frame.sequence.0) == (epoch, sequence)).then_some(())
                }
                _ => None,
            });
        }
    }

    /// Publishes; while there is no room, events are taken. That there is room again is not always an event: what is told and not stored frees its room without one.
    pub fn publish(&mut self, frame: &StateFrame) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while self.transport.publish(frame.clone()).is_err() {
            assert!(Instant::now() < deadline, "{}: no room for {:?}; {seen:?}", self.node, frame.kind);
            let event = self.next(Instant::now() + ROOM_CHECK);
            seen.extend(event.filter(|event| !matches!(event, TransportEvent::Received(_))));
        }
    }

    /// Publishes changes with these numbers.
    pub fn publish_changes(&mut self, epoch: u64, sequences: std::ops::RangeInclusive<u64>) {
        let node = self.node.to_string();
        for sequence in sequences {
            self.publish(&frame(&node, epoch, sequence, FrameKind::Changes));
        }
    }

    /// Asks for a lease, again and again until there is an answer to this action.
    pub fn lease(&mut self, action: LeaseAction, epoch: u64) -> Result<u64, u64> {
        let deadline = Instant::now() + PATIENCE;
        let node = self.node.clone();
        loop {
            self.transport.request_lease(LeaseRequest { shard: shard(), action, epoch: Epoch(epoch), number: 1 });
            let again = Instant::now() + Duration::from_secs(3);
            while let Some(event) = self.next(again) {
                match event {
                    TransportEvent::Lease { holder, epoch, .. }
                        if (holder.as_ref() == Some(&node)) == (action != LeaseAction::Release) =>
                    {
                        return Ok(epoch.0);
                    }
                    TransportEvent::LeaseRefused { action: refused, epoch, .. } if refused == action => {
                        return Err(epoch.0);
                    }
                    _ => {}
                }
            }
            assert!(Instant::now() < deadline, "no answer to {action:?}");
        }
    }

    /// All numbers of `epoch` that have come, each once and in order.
    pub fn assert_received(&self, epoch: u64, sequences: std::ops::RangeInclusive<u64>) {
        let ours = self.received.iter().filter(|(e, _)| *e == epoch).map(|(_, sequence)| *sequence);
        let ours: Vec<u64> = ours.collect();
        let first_wrong = ours.iter().zip(sequences.clone()).find(|(got, wanted)| **got != *wanted);
        assert_eq!(first_wrong, None, "of {} frames", ours.len());
        assert_eq!(ours.len() as u64, sequences.end() - sequences.start() + 1);
    }
}
