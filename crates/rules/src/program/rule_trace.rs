//! What rules do with one packet, rule by rule (`meta nftrace`), and how many packets each rule and policy has dropped: the numbers; `rule_drops` has the names.
//!
//! A [`RuleTrace`] is recorded where somebody asks for it, by [`PacketMeta::rule_trace`](super::PacketMeta::rule_trace); without one, nothing is. As with `nft monitor trace`, a rule is noted
//! when all of it has matched, and a chain when its end or its policy decides.

/// Steps of one packet that are kept, at most.
const MAX_STEPS: usize = 1024;

/// The rules and policies on a packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTrace {
    pub(super) steps: Vec<RuleStep>,
    /// A rule has asked for the trace by `meta nftrace set 1`: from which step on.
    pub(super) asked_at: Option<usize>,
}

/// One step: a rule, or without one the end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuleStep {
    pub(super) chain: usize,
    pub(super) rule: Option<usize>,
    pub(super) decision: Decision,
}

/// What a step decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
    /// To a chain; `None`: to one without a name.
    Jump(Option<usize>),
    Goto(Option<usize>),
    Synproxy,
}

impl Decision {
    /// Does the packet end here?
    pub(super) fn is_drop(self) -> bool {
        matches!(self, Decision::Drop | Decision::Reject)
    }
}

impl RuleTrace {
    /// Has a rule asked for it (`meta nftrace set 1`)?
    pub fn is_asked_for(&self) -> bool {
        self.asked_at.is_some()
    }

    /// Notes that a rule asks for the trace, or does not want it any more.
    pub(super) fn ask(&mut self, on: bool) {
        self.asked_at = on.then(|| self.asked_at.unwrap_or(self.steps.len()));
    }

    /// Notes a step.
    pub(super) fn note(&mut self, chain: usize, rule: Option<usize>, decision: Decision) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(RuleStep { chain, rule, decision });
        }
    }
}

/// Packets dropped by rules, by their place among all rules, and by policies, by their chain.
#[derive(Clone, Debug, Default)]
pub(super) struct DropCounts {
    pub(super) rules: Vec<u64>,
    pub(super) policies: Vec<u64>,
}

impl DropCounts {
    pub(super) fn count_rule(&mut self, place: usize) {
        count_at(&mut self.rules, place);
    }

    pub(super) fn count_policy(&mut self, chain: usize) {
        count_at(&mut self.policies, chain);
    }

    pub(super) fn rule(&self, place: usize) -> u64 {
        self.rules.get(place).copied().unwrap_or_default()
    }
}

fn count_at(counts: &mut Vec<u64>, at: usize) {
    let count = counts.get(at).copied().unwrap_or_default();
    set_at(counts, at, count + 1);
}

/// Sets a count.
pub(super) fn set_at(counts: &mut Vec<u64>, at: usize, value: u64) {
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    if let Some(count) = counts.get_mut(at) {
        *count = value;
    }
}
