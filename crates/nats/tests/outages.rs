//! NATS servers that stop, die and come back while frames are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use common::{End, PATIENCE};
use keepstate_cluster::{LeaseAction, StateTransport};
use keepstate_test_support::NatsServers;
use std::time::Instant;

/// Writes until the queue is full; the number of the last frame that was taken.
fn fill(end: &mut End, epoch: u64, from: u64) -> u64 {
    let node = end.node.to_string();
    let mut next = from;
    while end.transport.publish(common::frame(&node, epoch, next, keepstate_cluster::FrameKind::Changes)).is_ok() {
        next += 1;
    }
    next - 1
}

#[test]
fn a_server_that_stops_and_goes_on_loses_nothing() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    active.publish_changes(1, 1..=500);
    standby.wait_received(1, 500);
    active.publish_changes(1, 501..=700);
    servers.pause(0);
    // The caller is told at once that there is no room, and after some seconds why.
    let last = fill(&mut active, 1, 701);
    assert!(last < 700 + 2_000, "bounded: {last}");
    active.wait_disconnected();
    servers.resume(0);
    active.wait_acknowledged(1, last);
    active.publish_changes(1, last + 1..=last + 100);
    standby.wait_received(1, last + 100);
    standby.assert_received(1, 1..=last + 100);
    assert_eq!((active.lost, standby.lost), (0, 0));
}

/// What a killed server had in memory is gone: that is told, with the number of frames, and what follows is carried again.
#[test]
fn a_server_that_dies_with_what_it_had_in_memory_is_told_as_a_loss() {
    let Some(mut servers) = NatsServers::start(1, "") else { return };
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    active.publish_changes(1, 1..=300);
    active.wait_acknowledged(1, 300);
    standby.wait_received(1, 300);
    servers.kill(0);
    active.wait_disconnected();
    standby.wait_disconnected();
    active.publish_changes(1, 301..=320);
    servers.restart(0);
    active.wait_acknowledged(1, 320);
    standby.wait_received(1, 320);
    standby.assert_received(1, 1..=320);
    assert_eq!(active.lost, 300);
}

/// Three servers, the leader of the shard's stream killed with -9 while frames are written: everything arrives, in order, once there is a new leader; leases go on too.
#[test]
fn the_leader_of_three_is_killed_and_everything_arrives() {
    let Some(mut servers) = NatsServers::start(3, "") else { return };
    let (mut active, mut standby) = (End::new(&servers, "a"), End::new(&servers, "b"));
    let epoch = loop {
        // Until the three have settled, nobody may answer.
        if let Ok(epoch) = active.lease(LeaseAction::Acquire, 1) {
            break epoch;
        }
    };
    active.publish_changes(epoch, 1..=1_000);
    standby.wait_received(epoch, 1_000);
    let leader = servers.index_of(&stream_leader(&servers)).unwrap();
    active.publish_changes(epoch, 1_001..=1_200);
    servers.kill(leader);
    let begun = Instant::now();
    active.publish_changes(epoch, 1_201..=3_000);
    active.wait_acknowledged(epoch, 3_000);
    eprintln!("acknowledged again {:?} after the kill", begun.elapsed());
    standby.wait_received(epoch, 3_000);
    standby.assert_received(epoch, 1..=3_000);
    assert_eq!(active.lost, 0);
    let again = loop {
        match active.lease(LeaseAction::Acquire, epoch + 1) {
            Ok(again) => break again,
            Err(_) => assert!(begun.elapsed() < PATIENCE),
        }
    };
    assert!(again > epoch);
    servers.restart(leader);
    active.publish_changes(epoch, 3_001..=3_100);
    standby.wait_received(epoch, 3_100);
    standby.assert_received(epoch, 1..=3_100);
}

fn stream_leader(servers: &NatsServers) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(servers.urls()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("KEEPSTATE_test_north").await.unwrap();
        stream.cached_info().cluster.clone().unwrap().leader.unwrap()
    })
}
