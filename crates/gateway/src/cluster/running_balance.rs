//! Several shards shared out among gateways that live: this gateway asks for one, or is asked, and tells whoever wants to know how it ends.
use super::config::ClusterConfig;
use super::handle::ClusterReply;
use super::running_shard::{RunningShard, SharedParts, monotonic};
use keepstate_cluster::{BalanceResult, Decider, ShardBalance, ShardHolding};
use std::time::Duration;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct RunningBalance {
    balance: ShardBalance,
    looked: Duration,
    waiting: Vec<ClusterReply>,
}

impl RunningBalance {
    pub(super) fn new(config: &ClusterConfig, now: Duration) -> RunningBalance {
        RunningBalance { balance: ShardBalance::new(config.balance, now), looked: now, waiting: Vec::new() }
    }

    /// A person wants it; the answer comes when it is done.
    pub(super) fn want(&mut self, reply: ClusterReply, shards: &[RunningShard], parts: &SharedParts<'_>) {
        let refusal = match (parts.config.decider, shards) {
            (_, [_]) => Some("this cluster has one shard: keepstate control demote hands it over"),
            (Decider::Hand, _) => {
                Some("lease = \"manual\": who decides each shard is chosen by promote and demote, here as well")
            }
            (Decider::Lease(_), _) => None,
        };
        if let Some(refusal) = refusal {
            // A client may have hung up.
            return drop(reply.send(Err(refusal.into())));
        }
        let now = monotonic();
        self.balance.want(&parts.config.node, &holdings(shards, now), now);
        self.waiting.push(reply);
    }

    /// What is due.
    pub(super) fn poll(&mut self, shards: &mut [RunningShard], parts: &mut SharedParts<'_>) {
        let now = monotonic();
        if shards.len() < 2 || parts.config.decider == Decider::Hand || now.saturating_sub(self.looked) < LOOK_INTERVAL
        {
            return;
        }
        self.looked = now;
        let node = parts.config.node.clone();
        for at in 0..shards.len() {
            let request = shards.get_mut(at).and_then(|shard| shard.shard.take_handover_request());
            // After each: the one before may have begun to move.
            let grants =
                |balance: &mut ShardBalance, request| balance.grants(request, &node, &holdings(shards, now), now);
            if request.is_some_and(|request| grants(&mut self.balance, request))
                && let Some(shard) = shards.get_mut(at)
            {
                shard.give_away(parts);
            }
        }
        let known = holdings(shards, now);
        if let Some((at, request)) = self.balance.poll(&node, &known, now)
            && let Some(shard) = shards.get_mut(at)
        {
            let name = shard.shard.name();
            let decider = known.get(at).and_then(|holding| holding.decider.as_ref());
            tracing::info!("shard {name}: asking {} for it", decider.map_or("its gateway", |node| node.as_str()));
            shard.shard.ask_for_handover(request);
        }
        if let Some(result) = self.balance.result(&node, &known, now) {
            let answer = match result {
                BalanceResult::Balanced(taken) => Ok(format!("{}: {} taken over\n", shares(&known), count(taken))),
                BalanceResult::Failed(why) => Err(format!("{}: {why}", shares(&known))),
            };
            self.waiting.drain(..).for_each(|reply| drop(reply.send(answer.clone())));
        }
    }
}

fn holdings(shards: &[RunningShard], now: Duration) -> Vec<ShardHolding> {
    shards.iter().map(|shard| shard.shard.holding(now)).collect()
}

fn count(shards: usize) -> String {
    if shards == 1 { "1 shard".into() } else { format!("{shards} shards") }
}

/// `gw1 2, gw2 1`: how many each decides.
fn shares(holdings: &[ShardHolding]) -> String {
    let mut names: Vec<&str> =
        holdings.iter().map(|holding| holding.decider.as_ref().map_or("nobody", |node| node.as_str())).collect();
    names.sort_unstable();
    let shares = names.chunk_by(|a, b| a == b).filter_map(|same| Some(format!("{} {}", same.first()?, same.len())));
    shares.collect::<Vec<_>>().join(", ")
}
