//! How shards are shared out while all nodes live: a node that decides fewer asks one that decides at least two more to hand one over, as planned, so that nothing is lost.
//!
//! ```text
//! node with fewer ── HandoverRequest (how many it decides) ──▶ node with most ── demote ──▶ the lease is free ── taken by a node with fewer
//! ```
//! A difference of one is left alone, and each move makes a difference smaller, so moves come to an end. No two follow each other within the interval: a node asks only when nothing has changed for so
//! long, as far as it has heard, and gives no second shard before. Who asks must have the shard's whole table. A [`ShardBalance`] lives as long as its node; it must never move a shard that nobody would take.
use crate::names::NodeName;
use std::collections::BTreeMap;
use std::time::Duration;

/// A move makes a difference smaller from here on.
const LEAST_DIFFERENCE: usize = 2;
/// How long a shard may be on its way, before an operator's wish is told to have failed.
const MOVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two requests for the same move: one may be lost.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What a node knows of a shard at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardHolding {
    /// Who decides it, as far as it was heard lately.
    pub decider: Option<NodeName>,
    /// This node is a standby that misses nothing of it.
    pub in_step: bool,
    /// It is being handed over, or taken, here.
    pub in_motion: bool,
}

/// A shard is to be handed over to whoever takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverRequest {
    /// How many shards the asking node decides.
    pub load: u8,
    /// A person wants it: no interval is waited for.
    pub is_wanted: bool,
}

impl HandoverRequest {
    /// Its bytes in a frame.
    pub fn to_bytes(self) -> Vec<u8> {
        vec![self.load, u8::from(self.is_wanted)]
    }

    /// From such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<HandoverRequest> {
        match bytes {
            [load, wanted @ (0 | 1)] => Some(HandoverRequest { load: *load, is_wanted: *wanted == 1 }),
            _ => None,
        }
    }
}

/// What has become of an operator's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalanceResult {
    /// Nothing is to be done any more; so many shards were taken over.
    Balanced(usize),
    /// Why it did not come to that.
    Failed(String),
}

/// Of one node; see the module.
#[derive(Clone, Debug)]
pub struct ShardBalance {
    /// Between two moves; `None`: only a person moves shards.
    interval: Option<Duration>,
    /// Who decided what when it last changed, and when that was.
    known: Vec<Option<NodeName>>,
    changed: Duration,
    given: Option<Duration>,
    asked: Option<Duration>,
    wish: Option<BalanceWish>,
}

/// A person wants shards to be shared out.
#[derive(Clone, Debug)]
struct BalanceWish {
    /// How many this node decided then, and when the last move ended.
    loads: usize,
    progress: Duration,
}

impl ShardBalance {
    /// At most one move each `interval`; without one, only a person moves shards.
    pub fn new(interval: Option<Duration>, now: Duration) -> ShardBalance {
        ShardBalance { interval, known: Vec::new(), changed: now, given: None, asked: None, wish: None }
    }

    /// A person wants this node to take over what it can; [`ShardBalance::result`] tells how that ends.
    pub fn want(&mut self, me: &NodeName, holdings: &[ShardHolding], now: Duration) {
        self.asked = None;
        self.wish = Some(BalanceWish { loads: load_of(me, holdings), progress: now });
    }

    /// The shard to ask for, and what to say; to be called now and then.
    pub fn poll(
        &mut self,
        me: &NodeName,
        holdings: &[ShardHolding],
        now: Duration,
    ) -> Option<(usize, HandoverRequest)> {
        self.note_changes(holdings, now);
        let is_wanted = self.wish.is_some();
        let interval = if is_wanted { Duration::ZERO } else { self.interval? };
        let rested = now.saturating_sub(self.changed) >= interval
            && self.asked.is_none_or(|asked| now.saturating_sub(asked) >= interval.max(ASK_INTERVAL));
        if !rested {
            return None;
        }
        let (shard, load) = shard_to_ask_for(me, holdings)?;
        self.asked = Some(now);
        Some((shard, HandoverRequest { load: u8::try_from(load).unwrap_or(u8::MAX), is_wanted }))
    }

    /// This node was asked for a shard that it decides: does it hand it over?
    pub fn grants(
        &mut self,
        request: HandoverRequest,
        me: &NodeName,
        holdings: &[ShardHolding],
        now: Duration,
    ) -> bool {
        let interval = if request.is_wanted { Duration::ZERO } else { self.interval.unwrap_or(MOVE_TIMEOUT) };
        let rested = self.given.is_none_or(|given| now.saturating_sub(given) >= interval);
        let moves = holdings.iter().any(|holding| holding.in_motion);
        let grants = rested && !moves && load_of(me, holdings) >= usize::from(request.load) + LEAST_DIFFERENCE;
        if grants {
            self.given = Some(now);
        }
        grants
    }

    /// Of a wish, once it has ended.
    pub fn result(&mut self, me: &NodeName, holdings: &[ShardHolding], now: Duration) -> Option<BalanceResult> {
        let wish = self.wish.as_ref()?;
        let moves = holdings.iter().any(|holding| holding.in_motion);
        let is_known = holdings.iter().all(|holding| holding.decider.is_some());
        let result = if is_known && !moves && busiest(me, holdings).is_none() {
            BalanceResult::Balanced(load_of(me, holdings).saturating_sub(wish.loads))
        } else if now.saturating_sub(wish.progress.max(self.changed)) >= MOVE_TIMEOUT {
            BalanceResult::Failed(failure(me, holdings))
        } else {
            return None;
        };
        self.wish = None;
        Some(result)
    }

    fn note_changes(&mut self, holdings: &[ShardHolding], now: Duration) {
        let is_same = self.known.len() == holdings.len()
            && self.known.iter().zip(holdings).all(|(known, holding)| *known == holding.decider);
        if !is_same || holdings.iter().any(|holding| holding.in_motion) {
            self.known = holdings.iter().map(|holding| holding.decider.clone()).collect();
            self.changed = now;
        }
    }
}

/// How many shards this node decides.
fn load_of(me: &NodeName, holdings: &[ShardHolding]) -> usize {
    holdings.iter().filter(|holding| holding.decider.as_ref() == Some(me)).count()
}

/// The node that decides most, if a move from it to this one makes the difference smaller.
fn busiest<'a>(me: &NodeName, holdings: &'a [ShardHolding]) -> Option<&'a NodeName> {
    let mut loads: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for decider in holdings.iter().filter_map(|holding| holding.decider.as_ref()) {
        *loads.entry(decider).or_default() += 1;
    }
    let most = loads.into_iter().max_by_key(|(_, load)| *load)?;
    (most.1 >= load_of(me, holdings) + LEAST_DIFFERENCE).then_some(most.0)
}

/// The shard that this node should have, and how many it decides. None while one is free or on its way: whoever takes it changes the count.
fn shard_to_ask_for(me: &NodeName, holdings: &[ShardHolding]) -> Option<(usize, usize)> {
    if holdings.iter().any(|holding| holding.in_motion || holding.decider.is_none()) {
        return None;
    }
    let busiest = busiest(me, holdings)?;
    let shard = holdings.iter().position(|holding| holding.decider.as_ref() == Some(busiest) && holding.in_step)?;
    Some((shard, load_of(me, holdings)))
}

/// Why no shard has come.
fn failure(me: &NodeName, holdings: &[ShardHolding]) -> String {
    if holdings.iter().any(|holding| holding.decider.is_none()) {
        return "of a shard no gateway is active: it has to be taken first".into();
    }
    match busiest(me, holdings) {
        None => "a shard is on its way still".into(),
        Some(busiest)
            if !holdings.iter().any(|holding| holding.decider.as_ref() == Some(busiest) && holding.in_step) =>
        {
            format!("this gateway has the whole table of none of {busiest}'s shards yet")
        }
        Some(busiest) => {
            format!("{busiest} was asked for a shard and has not handed one over: is it an older keepstate?")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    /// Shards by their deciders' names; this node misses nothing.
    fn holdings(deciders: &[&str]) -> Vec<ShardHolding> {
        let holding = |decider: &&str| ShardHolding { decider: Some(name(decider)), in_step: true, in_motion: false };
        deciders.iter().map(holding).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn a_difference_of_two_is_asked_for_once_all_is_quiet() {
        let mut balance = ShardBalance::new(Some(INTERVAL), at(0));
        let mut shards = holdings(&["a", "a", "a", "b"]);
        assert_eq!(balance.poll(&name("b"), &shards, at(0)), None);
        assert_eq!(balance.poll(&name("b"), &shards, at(59)), None);
        let request = HandoverRequest { load: 1, is_wanted: false };
        assert_eq!(balance.poll(&name("b"), &shards, at(60)), Some((0, request)));
        assert_eq!(balance.poll(&name("b"), &shards, at(61)), None, "it was asked for");
        shards[0].in_step = false;
        assert_eq!(balance.poll(&name("b"), &shards, at(121)), Some((1, request)));
        shards[3].decider = None;
        assert_eq!(balance.poll(&name("b"), &shards, at(500)), None, "one is free");
        let mut even = ShardBalance::new(Some(INTERVAL), at(0));
        for deciders in [["a", "a", "b"], ["a", "b", "c"], ["b", "b", "a"]] {
            let shards = holdings(&deciders);
            even.poll(&name("b"), &shards, at(0));
            assert_eq!(even.poll(&name("b"), &shards, at(900)), None, "{deciders:?}");
        }
    }

    #[test]
    fn one_shard_is_given_at_a_time_and_only_to_one_with_two_less() {
        let mut balance = ShardBalance::new(Some(INTERVAL), at(0));
        let (me, shards) = (name("a"), holdings(&["a", "a", "a", "b"]));
        let request = |load| HandoverRequest { load, is_wanted: false };
        assert!(!balance.grants(request(2), &me, &shards, at(0)));
        assert!(balance.grants(request(1), &me, &shards, at(0)));
        assert!(!balance.grants(request(0), &me, &shards, at(59)), "within the interval");
        assert!(balance.grants(HandoverRequest { load: 0, is_wanted: true }, &me, &shards, at(59)));
        let mut moving = shards;
        moving[0].in_motion = true;
        assert!(!balance.grants(request(0), &me, &moving, at(900)));
    }

    #[test]
    fn a_wish_needs_no_interval_and_says_how_it_ended() {
        let mut balance = ShardBalance::new(None, at(0));
        let (me, shards) = (name("b"), holdings(&["a", "a"]));
        assert_eq!(balance.poll(&me, &shards, at(500)), None, "nobody wants it");
        balance.want(&me, &shards, at(500));
        assert!(balance.poll(&me, &shards, at(500)).unwrap().1.is_wanted);
        assert_eq!(balance.result(&me, &shards, at(501)), None);
        let even = holdings(&["b", "a"]);
        assert_eq!(balance.result(&me, &even, at(502)), Some(BalanceResult::Balanced(1)));
        assert_eq!(balance.result(&me, &even, at(503)), None, "told once");
        balance.want(&me, &shards, at(600));
        let Some(BalanceResult::Failed(why)) = balance.result(&me, &shards, at(615)) else { panic!() };
        assert!(why.contains("a was asked"), "{why}");
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = HandoverRequest { load: 3, is_wanted: true };
        assert_eq!(HandoverRequest::from_bytes(&request.to_bytes()), Some(request));
        assert_eq!(HandoverRequest::from_bytes(&[1]), None);
        assert_eq!(HandoverRequest::from_bytes(&[1, 2]), None);
    }
}
