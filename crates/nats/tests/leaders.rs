//! The holder of a lease has a server of its own machine not lead the group that keeps the leases: should that machine die, nobody waits for an election.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use async_nats::jetstream;
use common::{End, PATIENCE};
use keepstate_cluster::LeaseAction;
use keepstate_test_support::NatsServers;
use std::time::Instant;
use tokio::runtime::Runtime;

const BUCKET: &str = "KV_keepstate_test_leases";

/// The server that leads the bucket's group.
fn leader(runtime: &Runtime, client: &async_nats::Client) -> Option<String> {
    runtime.block_on(async {
        let stream = jetstream::new(client.clone()).get_stream(BUCKET).await.ok()?;
        stream.cached_info().cluster.clone()?.leader
    })
}

#[test]
fn a_leader_on_the_holders_machine_steps_down_and_the_lease_goes_on() {
    let Some(servers) = NatsServers::start(3, "") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(servers.urls())).unwrap();
    // All are on this machine: the first one is used.
    let mut holder = End::new(&servers, "a");
    let deadline = Instant::now() + PATIENCE;
    let mut epoch = 0;
    let mut renew = |holder: &mut End| {
        // While leaders change nobody may answer, and the lease may have to be taken anew.
        let action = if epoch == 0 { LeaseAction::Acquire } else { LeaseAction::Renew };
        epoch = holder.lease(action, epoch.max(1)).unwrap_or(0);
        assert!(Instant::now() < deadline, "the leader stays on n0");
        epoch
    };
    while renew(&mut holder) == 0 {}
    // Somebody makes the first one lead.
    while leader(&runtime, &client).as_deref() != Some("n0") {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{BUCKET}");
        let _ = runtime.block_on(client.request(subject, "".into()));
        renew(&mut holder);
    }
    while leader(&runtime, &client).is_none_or(|leader| leader == "n0") {
        renew(&mut holder);
    }
    while renew(&mut holder) == 0 {}
}

/// A cluster that began with one server: once its gateways know three, the state and the leases are kept on three.
#[test]
fn more_servers_keep_what_one_has_kept() {
    let Some(servers) = NatsServers::start(3, "") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(servers.urls())).unwrap();
    let replicas = |name: &str| {
        runtime.block_on(async {
            let stream = jetstream::new(client.clone()).get_stream(name).await.ok()?;
            Some(stream.cached_info().config.num_replicas)
        })
    };
    let begin = |urls: &[String]| {
        let mut end = End::with("a", urls, |_| {});
        while end.lease(LeaseAction::Acquire, 1).is_err() {}
        end.publish_changes(1, 1..=1);
        end
    };
    let mut one = begin(&servers.urls()[..1]);
    one.wait_acknowledged(1, 1);
    let names = ["KEEPSTATE_test_north", BUCKET, "KV_keepstate_test_epochs"];
    assert_eq!(names.map(replicas), [Some(1); 3]);
    drop(one);
    let three = begin(&servers.urls());
    let deadline = Instant::now() + PATIENCE;
    while names.map(replicas) != [Some(3); 3] {
        assert!(Instant::now() < deadline, "{:?}", names.map(replicas));
    }
    drop(three);
    // Another gateway's list is an older one: nothing is taken away.
    let mut one = End::with("b", &servers.urls()[1..2], |_| {});
    while one.lease(LeaseAction::Acquire, 1).is_err() {}
    assert_eq!(names.map(replicas), [Some(3); 3]);
}
