//! A frame that is lost while nothing follows it: heartbeats say that there was one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_cluster::{
    Decider, Epoch, FrameKind, Greeting, Sequence, Shard, ShardAction, StateFrame, TransportEvent,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn frame(kind: FrameKind, sequence: u64) -> TransportEvent {
    let payload = if kind == FrameKind::Greeting { Greeting::default().to_bytes() } else { Vec::new() };
    let (shard, node) = ("main".parse().unwrap(), "b".parse().unwrap());
    TransportEvent::Received(StateFrame { shard, node, epoch: Epoch(1), sequence: Sequence(sequence), kind, payload })
}

/// Heartbeats of a sender that has stored so many, for a while; what is asked for meanwhile.
fn hear(shard: &mut Shard, now: &mut Duration, seconds: u32, stored: u64) -> Vec<FrameKind> {
    for _ in 0..seconds {
        *now += SECOND;
        shard.handle_event(frame(FrameKind::Heartbeat, stored), *now);
        shard.handle_time(*now);
    }
    while let Some(action) = shard.poll_action() {
        assert!(!matches!(action, ShardAction::Role(..)));
    }
    std::iter::from_fn(|| shard.poll_frame()).map(|frame| frame.kind).collect()
}

#[test]
fn what_does_not_come_is_asked_for_and_what_is_slow_is_waited_for() {
    let mut now = SECOND * 100;
    let names = ("main".parse().unwrap(), "a".parse().unwrap());
    let mut shard = Shard::new(names, Decider::Hand, Greeting::default(), Epoch(0), now);
    shard.handle_event(TransportEvent::Connected, now);
    let kinds = [FrameKind::Greeting, FrameKind::SnapshotStart, FrameKind::SnapshotEnd];
    kinds.into_iter().zip(1..).for_each(|(kind, sequence)| shard.handle_event(frame(kind, sequence), now));
    assert_eq!(hear(&mut shard, &mut now, 60, 3), [], "nothing is missing");
    // One each five seconds: slow, and coming.
    for sequence in 4..8 {
        assert_eq!(hear(&mut shard, &mut now, 5, 8), []);
        shard.handle_event(frame(FrameKind::Changes, sequence), now);
    }
    assert!(shard.status().in_step && shard.status().lag == 1);
    assert_eq!(hear(&mut shard, &mut now, 9, 8), []);
    assert_eq!(hear(&mut shard, &mut now, 2, 8), [FrameKind::SnapshotRequest]);
    assert!(!shard.status().in_step);
    let kinds = [FrameKind::Greeting, FrameKind::SnapshotStart, FrameKind::SnapshotEnd];
    kinds.into_iter().zip(9..).for_each(|(kind, sequence)| shard.handle_event(frame(kind, sequence), now));
    assert!(shard.status().in_step && shard.status().lag == 0);
}
