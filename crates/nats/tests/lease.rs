//! Leases over a real NATS server: one holder at a time, one epoch each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use common::{End, PATIENCE};
use keepstate_cluster::{Epoch, LeaseAction, LeaseRequest, NodeInstance, StateTransport, TransportEvent};
use keepstate_nats::ClusterOptions;
use keepstate_test_support::NatsServers;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[test]
fn a_lease_has_one_holder_and_is_given_on() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut first, mut second) = (End::new(&servers, "a"), End::new(&servers, "b"));
    first.wait_connected();
    second.wait_connected();
    assert_eq!(first.lease(LeaseAction::Renew, 1), Err(1), "it was never taken");
    assert_eq!(first.lease(LeaseAction::Acquire, 5), Ok(5), "the asker knows of higher epochs than the server");
    // Renewed often enough, it stays; the other one is told who has it.
    let begun = Instant::now();
    let holder = (Some("a".to_owned()), 5);
    while begun.elapsed() < Duration::from_secs(3) || !second.holders.contains(&holder) {
        assert_eq!(first.lease(LeaseAction::Renew, 5), Ok(5));
        assert_eq!(second.lease(LeaseAction::Acquire, 1), Err(5));
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(first.lease(LeaseAction::Release, 5), Ok(5));
    assert_eq!(second.lease(LeaseAction::Acquire, 1), Ok(6), "a lower epoch is never given again");
    assert_eq!(first.lease(LeaseAction::Renew, 5), Err(5), "it has been given up");
}

#[test]
fn a_dead_holders_lease_is_free_after_its_time() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut first, mut second) = (End::new(&servers, "a"), End::new(&servers, "b"));
    first.wait_connected();
    second.wait_connected();
    let before = Instant::now();
    assert_eq!(first.lease(LeaseAction::Acquire, 1), Ok(1));
    drop(first);
    let epoch = loop {
        match second.lease(LeaseAction::Acquire, 1) {
            Ok(epoch) => break epoch,
            Err(epoch) => assert_eq!(epoch, 1),
        }
        assert!(before.elapsed() < PATIENCE);
    };
    assert_eq!(epoch, 2);
    assert!(before.elapsed() >= Duration::from_millis(950), "taken after {:?}", before.elapsed());
}

/// Two machines with one name: what the one holds the other one does not take for its own, whatever its name.
#[test]
fn a_lease_of_another_process_with_our_name_is_not_ours() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut first, mut second) = (End::new(&servers, "a"), End::new(&servers, "a"));
    first.wait_connected();
    second.wait_connected();
    assert_eq!(first.lease(LeaseAction::Acquire, 1), Ok(1));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(second.lease(LeaseAction::Acquire, 9), Err(1));
        assert_eq!(first.lease(LeaseAction::Renew, 1), Ok(1));
    }
    assert_eq!(first.lease(LeaseAction::Release, 1), Ok(1));
    assert!(second.lease(LeaseAction::Acquire, 2).is_ok_and(|epoch| epoch >= 2));
}

/// A renewal that was written while its answer was lost changes the lease's revision: the lease is ours still.
#[test]
fn a_renewal_whose_answer_was_lost_does_not_cost_the_lease() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    // One process by its instance, over two connections: what the second one writes, the first one does not hear of.
    let options = || {
        let options = ClusterOptions::new("test".parse().unwrap(), "a".parse().unwrap(), vec![common::shard()], 1);
        ClusterOptions { instance: NodeInstance(5), ..options }
    };
    let end = || End::with_options("a", &servers.urls(), options(), |_| {});
    let (mut heard, mut unheard) = (end(), end());
    heard.wait_connected();
    unheard.wait_connected();
    assert_eq!(heard.lease(LeaseAction::Acquire, 1), Ok(1));
    let asked = Instant::now();
    let renewed = unheard.lease(LeaseAction::Acquire, 1);
    if asked.elapsed() < Duration::from_millis(900) {
        assert_eq!(renewed, Ok(1));
        assert_eq!(heard.lease(LeaseAction::Renew, 1), Ok(1));
    }
}

/// A request that waits while the one before it is granted gets the same epoch: a higher one would be seen by others, who then take no frame of the one that is used.
#[test]
fn two_requests_of_one_node_get_one_epoch() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (mut first, mut second) = (End::new(&servers, "a"), End::new(&servers, "b"));
    first.wait_connected();
    second.wait_connected();
    let asked = Instant::now();
    for number in [1, 2] {
        let (shard, action) = (common::shard(), LeaseAction::Acquire);
        first.transport.request_lease(LeaseRequest { shard, action, epoch: Epoch(4), number });
    }
    let mut answer = || {
        first.wait("an answer", |event| match event {
            TransportEvent::Lease { holder: Some(_), epoch, answers, .. } => Some((epoch.0, *answers)),
            _ => None,
        })
    };
    assert_eq!(answer(), (4, Some(1)));
    let second_answer = answer();
    if asked.elapsed() < Duration::from_millis(900) {
        assert_eq!(second_answer, (4, Some(2)));
        assert_eq!(second.lease(LeaseAction::Acquire, 5), Err(4));
    }
    // Who asks for more gets it: it has used the one before.
    assert!(first.lease(LeaseAction::Acquire, 5).is_ok_and(|epoch| epoch >= 5));
}

/// Three that all want it, hold it for some renewals or just let it run out: no epoch has two holders, and the times that each believes to hold it do not overlap.
#[test]
fn no_epoch_ever_has_two_holders() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let mut ends: Vec<End> = ["a", "b", "c"].map(|node| End::new(&servers, node)).into();
    ends.iter_mut().for_each(End::wait_connected);
    let mut held: BTreeMap<u64, usize> = BTreeMap::new();
    let begun = Instant::now();
    while held.len() < 12 {
        assert!(begun.elapsed() < PATIENCE, "only {} takeovers", held.len());
        // All ask at once.
        for end in &mut ends {
            let epoch = Epoch(held.last_key_value().map_or(1, |(epoch, _)| epoch + 1));
            let request = LeaseRequest { shard: common::shard(), action: LeaseAction::Acquire, epoch, number: 1 };
            end.transport.request_lease(request);
        }
        let mut winners = Vec::new();
        for (index, end) in ends.iter_mut().enumerate() {
            let node = end.node.clone();
            let won = end.wait("an answer", |event| match event {
                TransportEvent::Lease { holder: Some(holder), epoch, .. } if *holder == node => Some(Some(epoch.0)),
                TransportEvent::LeaseRefused { .. } => Some(None),
                _ => None,
            });
            winners.extend(won.map(|epoch| (index, epoch)));
        }
        for (index, epoch) in &winners {
            assert_eq!(held.insert(*epoch, *index), None, "epoch {epoch} had two holders");
        }
        assert!(winners.len() <= 1, "at once: {winners:?}");
        if let Some((index, epoch)) = winners.first()
            && epoch % 3 != 0
        {
            assert_eq!(ends[*index].lease(LeaseAction::Renew, *epoch), Ok(*epoch));
            assert_eq!(ends[*index].lease(LeaseAction::Release, *epoch), Ok(*epoch));
        }
    }
}
