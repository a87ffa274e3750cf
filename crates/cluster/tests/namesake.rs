//! Two machines with one node name, by a copied configuration: the one that is not active says so and stays so, instead of taking the lease from the other one again and again. And a table that a node cannot use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_cluster::{
    Decider, Epoch, FrameDecodeError, FrameKind, Greeting, LeaseAction, NodeInstance, RoleChangeError, Sequence, Shard,
    ShardAction, ShardRole, StateFrame, TransportEvent,
};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
const OURS: NodeInstance = NodeInstance(7);

fn shard(decider: Decider, instance: NodeInstance, now: Duration) -> Shard {
    let names = ("main".parse().unwrap(), "a".parse().unwrap());
    let mut shard = Shard::new(names, decider, Greeting::default(), Epoch(0), now).with_instance(instance);
    shard.handle_event(TransportEvent::Connected, now);
    shard
}

/// A heartbeat under our own name.
fn heartbeat(instance: NodeInstance, epoch: u64) -> TransportEvent {
    let payload = instance.0.to_le_bytes().to_vec();
    frame("a", epoch, 0, FrameKind::Heartbeat, payload)
}

fn frame(node: &str, epoch: u64, sequence: u64, kind: FrameKind, payload: Vec<u8>) -> TransportEvent {
    let (shard, node) = ("main".parse().unwrap(), node.parse().unwrap());
    let (epoch, sequence) = (Epoch(epoch), Sequence(sequence));
    TransportEvent::Received(StateFrame { shard, node, epoch, sequence, kind, payload })
}

/// What a shard wanted, and what it said.
#[derive(Default)]
struct Wanted {
    leases: Vec<LeaseAction>,
    notes: Vec<String>,
    changes: usize,
}

/// Lets time pass, with this event at each step.
fn pass(shard: &mut Shard, now: &mut Duration, steps: u32, event: Option<&TransportEvent>) -> Wanted {
    let mut wanted = Wanted::default();
    for _ in 0..steps {
        *now += STEP;
        event.into_iter().for_each(|event| shard.handle_event(event.clone(), *now));
        shard.handle_time(*now);
        while let Some(action) = shard.poll_action() {
            match action {
                ShardAction::RequestLease(request) => wanted.leases.push(request.action),
                ShardAction::StoreEpoch(epoch) => shard.epoch_stored(epoch, *now),
                ShardAction::Note(text) => wanted.notes.push(text),
                ShardAction::Table(_) => wanted.changes += 1,
                ShardAction::Role(..) => {}
            }
        }
    }
    wanted
}

#[test]
fn who_hears_its_own_name_says_so_and_leaves_the_lease_until_it_hears_it_no_more() {
    let mut now = Duration::from_secs(100);
    let mut shard = shard(Decider::Lease(TTL), OURS, now);
    let heard = pass(&mut shard, &mut now, 100, Some(&heartbeat(NodeInstance(8), 5)));
    assert_eq!(heard.leases, []);
    assert!(heard.notes.len() == 1 && heard.notes[0].contains("calls itself a too"), "{:?}", heard.notes);
    assert!(shard.status().name_taken);
    assert!(shard.status().warnings("a").iter().any(|line| line.contains("a node name of its own")));
    // The other one has ended, or has another name now.
    let wanted = pass(&mut shard, &mut now, 150, None);
    assert!(wanted.leases.contains(&LeaseAction::Acquire) && !shard.status().name_taken);
}

#[test]
fn its_own_heartbeats_that_come_back_are_nobody_elses() {
    let mut now = Duration::from_secs(100);
    let mut shard = shard(Decider::Hand, OURS, now);
    shard.promote(now).unwrap();
    let heard = pass(&mut shard, &mut now, 20, Some(&heartbeat(OURS, 1)));
    assert_eq!((shard.role(), heard.notes.len(), shard.status().name_taken), (ShardRole::Active, 0, false));
    // An older gateway tells no instance.
    let heard = pass(&mut shard, &mut now, 20, Some(&frame("a", 1, 0, FrameKind::Heartbeat, Vec::new())));
    assert_eq!((shard.role(), heard.notes.len()), (ShardRole::Active, 0));
}

#[test]
fn by_hand_two_of_one_name_are_not_active_at_once() {
    let mut now = Duration::from_secs(100);
    let mut standby = shard(Decider::Hand, OURS, now);
    pass(&mut standby, &mut now, 1, Some(&heartbeat(NodeInstance(8), 1)));
    assert_eq!(standby.promote(now), Err(RoleChangeError::NameTaken("a".parse().unwrap())));
    // Both were promoted before they heard of each other: by hand both take epoch 1.
    let mut both = [shard(Decider::Hand, OURS, now), shard(Decider::Hand, NodeInstance(8), now)];
    for shard in &mut both {
        shard.promote(now).unwrap();
        pass(shard, &mut now, 1, None);
        assert_eq!(shard.role(), ShardRole::Active);
    }
    let [first, second] = &mut both;
    pass(first, &mut now, 1, Some(&heartbeat(NodeInstance(8), 1)));
    pass(second, &mut now, 1, Some(&heartbeat(OURS, 1)));
    assert_eq!([first.role(), second.role()], [ShardRole::Active, ShardRole::Fenced]);
    // A higher epoch goes on, as with other names.
    pass(first, &mut now, 1, Some(&heartbeat(NodeInstance(8), 2)));
    assert_eq!(first.role(), ShardRole::Standby);
}

/// A gateway whose disk was lost, promoted by hand before it has read that it has had higher epochs: the others would refuse all that it sends.
#[test]
fn an_epoch_that_the_disk_has_lost_is_learnt_from_the_stream() {
    let mut now = Duration::from_secs(100);
    let past = frame("a", 9, 3, FrameKind::Changes, Vec::new());
    let mut before = shard(Decider::Hand, OURS, now);
    pass(&mut before, &mut now, 1, Some(&past));
    before.promote(now).unwrap();
    pass(&mut before, &mut now, 1, None);
    assert_eq!((before.role(), before.status().epoch), (ShardRole::Active, Epoch(10)));
    let mut late = shard(Decider::Hand, OURS, now);
    late.promote(now).unwrap();
    pass(&mut late, &mut now, 1, None);
    assert_eq!((late.role(), late.status().epoch), (ShardRole::Active, Epoch(1)));
    pass(&mut late, &mut now, 1, Some(&past));
    assert_eq!((late.role(), late.status().epoch), (ShardRole::Active, Epoch(10)));
}

#[test]
fn a_lease_that_cannot_be_asked_for_is_said_once_and_cleared() {
    let mut now = Duration::from_secs(100);
    let mut shard = shard(Decider::Lease(TTL), OURS, now);
    let failed = TransportEvent::LeaseFailed { shard: "main".parse().unwrap(), reason: "no streams left".into() };
    let said = pass(&mut shard, &mut now, 50, Some(&failed));
    assert_eq!(said.notes, ["shard main: its lease cannot be asked for: no streams left"]);
    assert_eq!(shard.status().warnings("a"), ["its lease cannot be asked for: no streams left"]);
    let (holder, answers) = (Some("b".parse().unwrap()), None);
    shard.handle_event(TransportEvent::Lease { shard: "main".parse().unwrap(), holder, epoch: Epoch(3), answers }, now);
    assert_eq!(shard.status().lease_error, None);
}

/// While gateways are updated one after the other their frames may differ: said, and the shard can be taken over nevertheless.
#[test]
fn frames_of_another_format_are_said_and_leave_the_standby_incomplete() {
    let mut now = Duration::from_secs(100);
    let mut shard = shard(Decider::Hand, OURS, now);
    let undecodable =
        TransportEvent::Undecodable { shard: "main".parse().unwrap(), error: FrameDecodeError::Version(2) };
    shard.handle_event(undecodable, now);
    let said = pass(&mut shard, &mut now, 1, None);
    assert!(said.notes.len() == 1 && said.notes[0].contains("frame format 2"), "{:?}", said.notes);
    assert!(shard.status().warnings("a").iter().any(|line| line.contains("cannot be taken over")));
    assert!(!shard.status().in_step);
    shard.promote(now).unwrap();
    pass(&mut shard, &mut now, 1, None);
    assert_eq!(shard.role(), ShardRole::Active);
}

#[test]
fn a_table_of_linux_is_not_entered_into_a_gateway() {
    let mut now = Duration::from_secs(100);
    let mut shard = shard(Decider::Hand, OURS, now);
    let greeting = Greeting::of_linux_table("0.1.0").to_bytes();
    let frames = [
        (FrameKind::Greeting, greeting),
        (FrameKind::SnapshotStart, Vec::new()),
        (FrameKind::SnapshotPart, vec![1]),
        (FrameKind::SnapshotEnd, Vec::new()),
    ];
    for (sequence, (kind, payload)) in (1..).zip(frames) {
        shard.handle_event(frame("b", 1, sequence, kind, payload), now);
    }
    let taken = pass(&mut shard, &mut now, 50, None);
    assert_eq!((taken.changes, shard.status().in_step), (0, false));
    assert!(
        taken.notes.iter().any(|note| note.contains("give keepstate sync another shard name")),
        "{:?}",
        taken.notes
    );
    assert!(std::iter::from_fn(|| shard.poll_frame()).next().is_none(), "a snapshot would be of no use");
}
