//! The ruleset of a router: read, replaced, changed between two packets.
use super::Router;
use crate::known_flow::FlowTracker;
use keepstate_engine::{Instant, Sysctl};
use keepstate_rules::ast::{Hook, Query};
use keepstate_rules::{AppliedUpdate, ListedCounts, Program, RulesetSnapshot, RulesetUpdate, RulesetUpdateError};

impl Router {
    /// The ruleset in use.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// May rules translate what the machine itself sends?
    pub fn translates_own_output(&self) -> bool {
        self.program.has_nat_chain_at(Hook::Output)
    }

    /// Replaces the ruleset; connections live on. Returns the old one: a large one takes a while to drop.
    pub fn replace_program(&mut self, program: Program) -> Program {
        // Offloaded flows were decided by the old rules.
        self.revoke_flows();
        self.flows.iter_mut().for_each(FlowTracker::forget_rule_counters);
        let old = std::mem::replace(&mut self.program, program);
        self.enable_accounting();
        self.program.set_wall_clock_offset(self.wall_clock.local_offset);
        old
    }

    /// Changes the ruleset between two packets; connections live on. Returns the program that was replaced, to be dropped where that delays nobody.
    ///
    /// # Errors
    /// The ruleset has changed since the update was prepared, or an element exists or does not exist: nothing has changed.
    pub fn update_program(
        &mut self,
        update: RulesetUpdate,
        now: Instant,
    ) -> Result<Option<Box<Program>>, RulesetUpdateError> {
        let AppliedUpdate { replaced, scope, moved_counters } = self.program.apply(update, now)?;
        self.revoke_flows_by(scope);
        if let Some(moved) = moved_counters {
            self.flows.iter_mut().for_each(|flows| flows.move_rule_counters(&moved));
        }
        if replaced.is_some() {
            self.enable_accounting();
        }
        Ok(replaced)
    }

    /// Takes from the counters and quotas that queries reset what a complete copy has of them; nothing if the ruleset has changed since.
    pub fn take_counts(&mut self, queries: &[Query], copy: &RulesetSnapshot) {
        self.program.take_counts(queries, copy);
    }

    /// The same for at most `count` elements of sets. True when none is left.
    pub fn take_element_counts(&mut self, listed: &mut ListedCounts, count: usize) -> bool {
        self.program.take_element_counts(listed, count)
    }

    /// Counts packets and bytes of connections from now on, if a rule reads them. As in Linux, counting is not switched off again.
    pub(super) fn enable_accounting(&mut self) {
        if self.program.needs_accounting() {
            // 1 is in the range of the sysctl.
            let _ = self.engine.set_sysctl(Sysctl::Acct, 1);
        }
    }
}
