//! Nodes with several shards share them: whoever has more waits longer for a free one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_cluster::{
    Decider, Epoch, Greeting, LeaseAction, Shard, ShardAction, ShardName, ShardRole, TransportEvent,
};
use std::collections::BTreeMap;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// Nodes with the same shards, and a store that grants each lease to the first that asks.
struct Nodes {
    nodes: Vec<Vec<Shard>>,
    holders: BTreeMap<ShardName, usize>,
    now: Duration,
}

fn node_name(index: usize) -> keepstate_cluster::NodeName {
    format!("n{index}").parse().unwrap()
}

impl Nodes {
    fn new(nodes: usize, shards: usize) -> Nodes {
        let now = Duration::from_secs(100);
        let shard = |node: usize, shard: usize| {
            let names = (format!("s{shard}").parse().unwrap(), node_name(node));
            let mut shard = Shard::new(names, Decider::Lease(TTL), Greeting::default(), Epoch(0), now);
            shard.handle_event(TransportEvent::Connected, now);
            shard
        };
        let nodes = (0..nodes).map(|node| (0..shards).map(|at| shard(node, at)).collect()).collect();
        Nodes { nodes, holders: BTreeMap::new(), now }
    }

    /// Lets time pass; answers to lease requests come with the next step.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut answers: Vec<(usize, TransportEvent)> = Vec::new();
        while self.now < until {
            self.now += STEP;
            for (node, event) in std::mem::take(&mut answers) {
                self.nodes[node]
                    .iter_mut()
                    .for_each(|shard: &mut Shard| shard.handle_event(TransportEvent::clone(&event), self.now));
            }
            for (node, shards) in self.nodes.iter_mut().enumerate() {
                for at in 0..shards.len() {
                    let load =
                        shards.iter().enumerate().filter(|(other, shard)| *other != at && shard.is_load(self.now));
                    let load = u32::try_from(load.count()).unwrap();
                    shards[at].set_load(load);
                    shards[at].handle_time(self.now);
                    while let Some(action) = shards[at].poll_action() {
                        match action {
                            ShardAction::StoreEpoch(epoch) => shards[at].epoch_stored(epoch, self.now),
                            ShardAction::RequestLease(request) => {
                                let shard = request.shard;
                                let granted = request.action != LeaseAction::Release
                                    && *self.holders.entry(shard.clone()).or_insert(node) == node;
                                let (epoch, answers_to) = (request.epoch, request.number);
                                let event = if granted {
                                    TransportEvent::Lease {
                                        shard,
                                        holder: Some(node_name(node)),
                                        epoch,
                                        answers: Some(answers_to),
                                    }
                                } else {
                                    TransportEvent::LeaseRefused {
                                        shard,
                                        action: request.action,
                                        epoch,
                                        answers: answers_to,
                                    }
                                };
                                answers.push((node, event));
                            }
                            _ => (),
                        }
                    }
                }
            }
        }
    }

    fn active(&self) -> Vec<usize> {
        self.nodes
            .iter()
            .map(|shards| shards.iter().filter(|shard| shard.role() == ShardRole::Active).count())
            .collect()
    }
}

#[test]
fn shards_that_nobody_has_are_shared() {
    let mut nodes = Nodes::new(2, 2);
    nodes.pass(TTL * 4);
    assert_eq!(nodes.active(), [1, 1]);
    let mut nodes = Nodes::new(3, 6);
    nodes.pass(TTL * 6);
    let active = nodes.active();
    assert_eq!(active.iter().sum::<usize>(), 6, "{active:?}");
    assert!(active.iter().all(|count| (1..=3).contains(count)), "{active:?}");
}

#[test]
fn a_node_alone_takes_all_of_them_and_each_a_little_later() {
    let mut nodes = Nodes::new(1, 6);
    nodes.pass(TTL * 2 + TTL / 8);
    assert_eq!(nodes.active(), [1], "the others are left to others for a while");
    nodes.pass(TTL * 2);
    assert_eq!(nodes.active(), [6]);
}

#[test]
fn the_one_with_fewer_takes_the_shards_of_one_that_died() {
    // Three have one each, the fourth has none: it is the spare.
    let mut nodes = Nodes::new(3, 3);
    nodes.pass(TTL * 4);
    assert_eq!(nodes.active(), [1, 1, 1]);
    let dead = (0..3).find(|shard| nodes.nodes[0][*shard].role() == ShardRole::Active).unwrap();
    nodes.nodes.push(Nodes::new(1, 3).nodes.remove(0));
    let spare: Vec<Shard> = (0..3)
        .map(|shard| {
            let names = (format!("s{shard}").parse().unwrap(), node_name(3));
            let mut shard = Shard::new(names, Decider::Lease(TTL), Greeting::default(), Epoch(1), nodes.now);
            shard.handle_event(TransportEvent::Connected, nodes.now);
            shard
        })
        .collect();
    nodes.nodes[3] = spare;
    nodes.nodes[0].clear();
    nodes.holders.remove(&format!("s{dead}").parse().unwrap());
    // The others have not heard of the dead one since they were made either.
    for node in 1..3 {
        let names = (format!("s{dead}").parse().unwrap(), node_name(node));
        nodes.nodes[node][dead] = Shard::new(names, Decider::Lease(TTL), Greeting::default(), Epoch(1), nodes.now);
        nodes.nodes[node][dead].handle_event(TransportEvent::Connected, nodes.now);
    }
    nodes.pass(TTL * 4);
    assert_eq!(nodes.active(), [0, 1, 1, 1]);
}
