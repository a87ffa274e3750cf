//! Frames over a real NATS server: order, acknowledgement, who comes later, who is fenced.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use common::{End, frame, shard};
use keepstate_cluster::{FrameKind, QueueFull, StateTransport, TransportEvent};
use keepstate_test_support::NatsServers;

#[test]
fn frames_come_in_order_and_are_acknowledged() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    active.wait_connected();
    standby.wait_connected();
    active.publish_changes(1, 1..=5_000);
    active.wait_acknowledged(1, 5_000);
    standby.wait_received(1, 5_000);
    standby.assert_received(1, 1..=5_000);
    assert_eq!((active.lost, active.received.len()), (0, 0), "its own frames do not come back");
}

#[test]
fn who_comes_later_gets_the_newest_snapshot_and_what_follows() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let mut active = End::new(&servers, "a");
    active.publish_changes(7, 1..=50);
    let kinds = [FrameKind::Greeting, FrameKind::SnapshotStart, FrameKind::SnapshotPart, FrameKind::SnapshotEnd];
    for (kind, sequence) in kinds.into_iter().zip(51..) {
        active.publish(&frame("a", 7, sequence, kind));
    }
    active.publish_changes(7, 55..=60);
    active.wait_acknowledged(7, 60);
    // What is older goes once the server has heard it; whoever joins before gets it too.
    let first = (0..common::PATIENCE.as_secs() * 5).find_map(|number| {
        let mut late = End::new(&servers, &format!("late-{number}"));
        late.wait_received(7, 60);
        let first = late.received[0].1;
        late.assert_received(7, first..=60);
        (first == 51).then_some(first)
    });
    assert_eq!(first, Some(51));
}

#[test]
fn what_is_told_is_not_kept_and_needs_no_acknowledgement() {
    let Some(mut servers) = NatsServers::start(1, "") else { return };
    // Nobody is there: however fast its thread is, it is not connected.
    servers.kill(0);
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    assert_eq!(active.transport.publish(frame("a", 1, 0, FrameKind::Heartbeat)), Err(QueueFull), "not connected yet");
    servers.restart(0);
    active.wait_connected();
    standby.wait_connected();
    // Whether the other one listens already cannot be known: it is told until it has heard.
    let deadline = std::time::Instant::now() + common::PATIENCE;
    loop {
        active.publish(&frame("a", 1, 0, FrameKind::Heartbeat));
        match standby.next(std::time::Instant::now() + std::time::Duration::from_millis(100)) {
            Some(TransportEvent::Received(frame)) => break assert_eq!(frame.kind, FrameKind::Heartbeat),
            _ => assert!(std::time::Instant::now() < deadline),
        }
    }
    let mut late = End::new(&servers, "c");
    late.wait_connected();
    active.publish_changes(1, 1..=1);
    late.wait_received(1, 1);
    assert_eq!(late.received, [(1, 1)]);
}

/// The one that still believes to decide, after another one has written in a higher epoch, stores nothing more and is told so.
#[test]
fn a_lower_epoch_cannot_write_after_a_higher_one() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut old, mut new, mut third) = (End::new(&servers, "a"), End::new(&servers, "b"), End::new(&servers, "c"));
    old.publish_changes(1, 1..=10);
    old.wait_acknowledged(1, 10);
    new.wait_received(1, 10);
    new.publish_changes(2, 1..=10);
    new.wait_acknowledged(2, 10);
    old.publish_changes(1, 11..=30);
    while old.lost < 20 {
        old.wait("the loss", |event| matches!(event, TransportEvent::Lost { .. }).then_some(()));
    }
    assert_eq!((old.lost, old.acknowledged), (20, (1, 10)));
    // It reads again, and sees why.
    old.wait_received(2, 10);
    new.publish_changes(2, 11..=11);
    third.wait_received(2, 11);
    let stored: Vec<_> = (1..=10).map(|s| (1, s)).chain((1..=11).map(|s| (2, s))).collect();
    assert_eq!(third.received, stored);
}

#[test]
fn a_frame_of_an_unknown_shard_is_told_as_lost() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let mut end = End::new(&servers, "a");
    let mut strange = frame("a", 1, 1, FrameKind::Changes);
    strange.shard = "south".parse().unwrap();
    end.publish(&strange);
    let lost = end.wait("the loss", |event| match event {
        TransportEvent::Lost { shard, frames } => Some((shard.clone(), *frames)),
        _ => None,
    });
    assert_eq!(lost, (strange.shard, 1));
    assert_ne!(lost.0, shard());
}

/// A gateway whose disk was lost hears which epochs it has had, before it writes and while it reads.
#[test]
fn a_new_run_of_a_node_hears_of_its_own_higher_epochs() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let mut before = End::new(&servers, "a");
    before.publish_changes(4, 1..=20);
    before.wait_acknowledged(4, 20);
    drop(before);
    let own_epoch = |event: &TransportEvent| match event {
        TransportEvent::Received(frame) if frame.node.as_str() == "a" => Some(frame.epoch.0),
        _ => None,
    };
    let mut reads = End::new(&servers, "a");
    assert_eq!(reads.wait("its own epoch", own_epoch), 4);
    assert!(reads.received.len() == 1, "once is enough: {:?}", reads.received);
    let mut writes = End::new(&servers, "a");
    writes.publish_changes(2, 1..=1);
    assert_eq!(writes.wait("its own epoch", own_epoch), 4);
}

/// What another version writes, or somebody else, is told once and not for each.
#[test]
fn what_is_no_frame_is_told_once_until_one_is() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    active.publish_changes(1, 1..=1);
    active.wait_acknowledged(1, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut newer = frame("a", 1, 2, FrameKind::Changes).to_bytes();
    newer[4] = 2;
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(servers.url()).await.unwrap());
        for _ in 0..100 {
            let sent = context.publish("keepstate-cluster.test.north.stored", newer.clone().into()).await.unwrap();
            sent.await.unwrap();
        }
    });
    // Behind what is not read, another gateway writes what is.
    let mut other = End::new(&servers, "c");
    other.publish_changes(3, 1..=1);
    let mut undecodable = 0;
    standby.wait("the frame behind them", |event| match event {
        TransportEvent::Undecodable { .. } => {
            undecodable += 1;
            None
        }
        TransportEvent::Received(frame) => (frame.epoch.0 == 3).then_some(()),
        _ => None,
    });
    assert_eq!(undecodable, 1);
}

/// Where a failure comes between a greeting and its snapshot, the greeting stays: without it, who comes later would have to ask for another snapshot.
#[test]
fn a_greeting_is_kept_with_its_snapshot_whatever_comes_between() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let mut active = End::new(&servers, "a");
    active.publish(&frame("a", 1, 1, FrameKind::Greeting));
    active.wait_acknowledged(1, 1);
    // Something that is no frame: the next one is refused at first, and the end of the stream is read anew.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(servers.url()).await.unwrap());
        context.publish("keepstate-cluster.test.north.stored", "x".into()).await.unwrap().await.unwrap();
    });
    active.publish(&frame("a", 1, 2, FrameKind::SnapshotStart));
    active.publish(&frame("a", 1, 3, FrameKind::SnapshotEnd));
    active.wait_acknowledged(1, 3);
    active.publish_changes(1, 4..=50);
    active.wait_acknowledged(1, 50);
    let mut late = End::new(&servers, "b");
    late.wait_received(1, 50);
    late.assert_received(1, 1..=50);
}
