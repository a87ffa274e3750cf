//! Clients: connections opened, used, closed, and what must hold of their outside ports.
use super::{World, share_of};
use keepstate_cluster::{Decider, Epoch};
use std::time::Duration;

/// How long the two ends of a connection that the gateways have lost still live.
const LINGER: Duration = Duration::from_secs(20);
/// Connections at a time: fewer than a part of the ports has.
const MAX_FLOWS: usize = 40;

/// A connection as its two ends see it.
pub(super) struct Flow {
    pub(super) shard: usize,
    pub(super) port: u16,
    pub(super) epoch: Epoch,
    /// Who gave it.
    pub(super) by: usize,
    pub(super) opened: Duration,
    pub(super) lost: Option<Duration>,
    pub(super) closes: Duration,
    /// The machines that were seen to have it, in step with the active one.
    pub(super) known_to: [bool; 3],
}

impl World {
    pub(super) fn clients(&mut self) {
        let at = self.at;
        let nodes: Vec<usize> = (0..self.machines.len())
            .filter(|index| self.machines[*index].node.is_some() && self.machines[*index].stopped_until <= at)
            .collect();
        if nodes.is_empty() {
            return;
        }
        let node_at = nodes[usize::try_from(self.rng.below(nodes.len() as u64)).unwrap()];
        if self.flows.values().filter(|flow| flow.lost.is_none()).count() < MAX_FLOWS && self.rng.one_in(3) {
            self.open(node_at);
        }
        if let Some(client) = self.some_client() {
            self.send(client, node_at);
        }
        self.flows.retain(|_, flow| flow.lost.is_none_or(|lost| at.saturating_sub(lost) < LINGER));
    }

    fn some_client(&mut self) -> Option<u16> {
        let count = self.flows.len() as u64;
        if count == 0 {
            return None;
        }
        let at = usize::try_from(self.rng.below(count)).ok()?;
        self.flows.keys().nth(at).copied()
    }

    fn open(&mut self, index: usize) {
        let (at, client, decider) = (self.at, self.next_client, self.decider);
        self.next_client = self.next_client.wrapping_add(1).max(1024);
        let parts = u64::from(share_of(decider, index, self.machines.len()).parts());
        let Some(node) = &mut self.machines[index].node else { return };
        let Some((shard, port)) = node.open(client, at) else { return };
        let epoch = node.shard(shard).status().epoch;
        // By a lease there are four parts of the ports: after so many takeovers within the life of a lost connection a port may come again, and by one that still believes after so many.
        // By hand each machine has four of its own, so no other one ever gives its ports, however many were promoted without hearing of each other.
        let is_others = |flow: &Flow| decider == Decider::Hand && flow.by != index;
        let same = |flow: &Flow| flow.shard == shard && flow.port == port;
        let twice = |flow: &Flow| same(flow) && (epoch.0.abs_diff(flow.epoch.0) < parts || is_others(flow));
        let twice = self.flows.iter().find(|(_, flow)| twice(flow));
        if let Some((other, flow)) = twice {
            panic!(
                "outside port {port} was given to client {client} by {} in epoch {epoch}, and to {other} in epoch {} at {:?}, lost {:?}; now {at:?}",
                node.name, flow.epoch, flow.opened, flow.lost
            );
        }
        self.opened += 1;
        let closes = at + self.rng.millis(500, 20_000);
        self.flows.insert(
            client,
            Flow { shard, port, epoch, by: index, opened: at, lost: None, closes, known_to: [false; 3] },
        );
    }

    fn send(&mut self, client: u16, index: usize) {
        let at = self.at;
        let machine = &mut self.machines[index];
        let (Some(node), Some(flow)) = (&mut machine.node, self.flows.get_mut(&client)) else { return };
        // Answers nothing unless active.
        if !node.may_create(flow.shard, at) || flow.lost.is_some() {
            return;
        }
        match node.send(client, at) {
            Some(port) => {
                assert_eq!(port, flow.port, "client {client} leaves with another port after a takeover");
                self.survived += u64::from(node.shard(flow.shard).status().epoch > flow.epoch);
                if flow.closes <= at {
                    node.close(client, at);
                    self.flows.remove(&client);
                }
            }
            None => {
                self.lost += 1;
                flow.lost = Some(at);
            }
        }
    }
}
