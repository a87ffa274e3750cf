//! A chain as it is evaluated.
use super::instr::CompiledRule;
use super::rule_run::RuleRun;

#[derive(Clone, Debug)]
pub(super) struct CompiledChain {
    /// Its number among the chains that have a name.
    pub(super) number: Option<usize>,
    /// The place of its first rule among the rules of those.
    pub(super) first_rule: usize,
    pub(super) rules: Vec<CompiledRule>,
    /// Runs of rules that are found by lookup, in order.
    pub(super) runs: Vec<RuleRun>,
}
