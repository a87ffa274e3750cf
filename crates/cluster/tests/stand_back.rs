//! After a planned change the lease is left to others, but no longer than until one has it: if that one dies, the shard is taken back at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_cluster::{
    Decider, Epoch, FrameKind, Greeting, LeaseAction, Sequence, Shard, ShardAction, ShardRole, StateFrame,
    TransportEvent,
};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// Lets time pass; the lease requests made meanwhile.
fn pass(shard: &mut Shard, now: &mut Duration, time: Duration) -> Vec<(LeaseAction, u64)> {
    let until = *now + time;
    let mut requests = Vec::new();
    while *now < until {
        *now += STEP;
        shard.handle_time(*now);
        while let Some(action) = shard.poll_action() {
            match action {
                ShardAction::RequestLease(request) => requests.push((request.action, request.number)),
                ShardAction::StoreEpoch(epoch) => shard.epoch_stored(epoch, *now),
                _ => (),
            }
        }
    }
    requests
}

/// Active in epoch 1 and demoted again.
fn demoted(now: &mut Duration) -> Shard {
    let names = ("main".parse().unwrap(), "a".parse().unwrap());
    let mut shard = Shard::new(names, Decider::Lease(TTL), Greeting::default(), Epoch(0), *now);
    shard.handle_event(TransportEvent::Connected, *now);
    let (action, number) = *pass(&mut shard, now, TTL * 2 + STEP).last().unwrap();
    assert_eq!(action, LeaseAction::Acquire);
    let holder = Some("a".parse().unwrap());
    let granted =
        TransportEvent::Lease { shard: "main".parse().unwrap(), holder, epoch: Epoch(1), answers: Some(number) };
    shard.handle_event(granted, *now);
    pass(&mut shard, now, STEP);
    assert_eq!(shard.role(), ShardRole::Active);
    shard.demote(*now).unwrap();
    shard.table_flushed(*now);
    assert_eq!(shard.role(), ShardRole::Standby);
    shard
}

#[test]
fn it_is_left_to_others_while_nobody_has_taken_it() {
    let mut now = Duration::from_secs(100);
    let mut shard = demoted(&mut now);
    let requests = pass(&mut shard, &mut now, TTL * 9);
    assert!(requests.iter().all(|(action, _)| *action == LeaseAction::Release), "{requests:?}");
    let requests = pass(&mut shard, &mut now, TTL * 2);
    assert!(requests.iter().any(|(action, _)| *action == LeaseAction::Acquire), "{requests:?}");
}

#[test]
fn whoever_took_it_and_dies_is_followed_at_once() {
    let mut now = Duration::from_secs(100);
    let mut shard = demoted(&mut now);
    pass(&mut shard, &mut now, TTL);
    let frame = StateFrame {
        shard: "main".parse().unwrap(),
        node: "b".parse().unwrap(),
        epoch: Epoch(2),
        sequence: Sequence(1),
        kind: FrameKind::Greeting,
        payload: Greeting::default().to_bytes(),
    };
    shard.handle_event(TransportEvent::Received(frame), now);
    // Nothing more is heard of it.
    let requests = pass(&mut shard, &mut now, TTL * 2 + TTL / 2);
    assert!(requests.iter().any(|(action, _)| *action == LeaseAction::Acquire), "{requests:?}");
}
