//! What a policy needs to know of the table: the connections of each reserve and source, and how short timeouts are. Without an engine.
use super::policy::{AdaptiveTimeouts, AdmissionPolicy, AdmissionStats};
use super::sources::SourceTable;
use crate::{Instant, Sysctl, Sysctls, Tuple};
use alloc::vec::Vec;

/// What a policy needs to know of the table.
#[derive(Clone)]
pub(crate) struct AdmissionState {
    pub(super) policy: AdmissionPolicy,
    /// The sysctls as they were set; those of the engine have the timeouts that are in force.
    pub(crate) configured: Sysctls,
    /// Connections that count for each reserve.
    pub(super) reserve_counts: Vec<u32>,
    pub(super) sources: SourceTable,
    pub(super) adaptive: AdaptiveState,
    pub(super) stats: AdmissionStats,
}

impl AdmissionState {
    pub(super) fn reserve_of(&self, tuple: &Tuple) -> Option<usize> {
        self.policy.reserves.iter().position(|reserve| reserve.selector.matches(tuple))
    }

    /// The connections of a reserve, and its entries.
    fn fill_of(&self, reserve: Option<usize>) -> Option<(u32, u32)> {
        let at = reserve?;
        Some((*self.reserve_counts.get(at)?, self.policy.reserves.get(at)?.entries))
    }

    /// Would one more connection of this reserve be within it?
    fn is_within(&self, reserve: Option<usize>) -> bool {
        self.fill_of(reserve).is_some_and(|(count, entries)| count < entries)
    }

    /// Would the table have one more entry for others if a connection of this reserve ended?
    pub(super) fn frees_common(&self, reserve: Option<usize>) -> bool {
        self.fill_of(reserve).is_none_or(|(count, entries)| count > entries)
    }

    /// The entries that are for all, and those of them in use, in a table of `limit` entries with `count` in use.
    pub(super) fn common(&self, limit: usize, count: usize) -> (usize, usize) {
        let each = self.policy.reserves.iter().zip(&self.reserve_counts);
        let (mut reserved, mut used) = (0, 0);
        for (reserve, count) in each {
            reserved += reserve.entries as usize;
            used += reserve.entries.min(*count) as usize;
        }
        (limit.saturating_sub(reserved), count.saturating_sub(used))
    }

    pub(super) fn has_room(&self, reserve: Option<usize>, limit: usize, count: usize) -> bool {
        if limit == 0 || count >= limit {
            return limit == 0;
        }
        let (common, used) = self.common(limit, count);
        self.is_within(reserve) || used < common
    }

    pub(super) fn add(&mut self, tuple: &Tuple, is_new: bool, now: Instant) {
        if let Some(count) = self.reserve_of(tuple).and_then(|at| self.reserve_counts.get_mut(at)) {
            *count += 1;
        }
        self.sources.add(&self.policy, tuple, is_new, now);
    }

    pub(super) fn remove(&mut self, tuple: &Tuple, now: Instant) {
        if let Some(count) = self.reserve_of(tuple).and_then(|at| self.reserve_counts.get_mut(at)) {
            *count = count.saturating_sub(1);
        }
        self.sources.remove(&self.policy, tuple, now);
    }
}

/// Timeouts are whole at this many steps.
pub(super) const STEPS: u32 = 32;

/// Where the timeouts are.
#[derive(Clone)]
pub(super) struct AdaptiveState {
    /// Thirty-seconds of the configured timeouts that are in force.
    pub(super) step: u32,
    /// The step whose pass over the table was the last to be begun.
    passed: u32,
    /// The next slot of the pass that is under way.
    pub(super) cursor: Option<u32>,
    /// Timeouts have become shorter during the pass: another one is needed.
    pub(super) again: bool,
}

impl Default for AdaptiveState {
    fn default() -> AdaptiveState {
        AdaptiveState { step: STEPS, passed: STEPS, cursor: None, again: false }
    }
}

impl AdaptiveState {
    pub(super) const fn percent(&self) -> u32 {
        self.step * 100 / STEPS
    }

    /// Goes to `step`.
    pub(super) fn set_step(&mut self, step: u32) {
        self.step = step;
        if step < self.passed {
            self.passed = step;
            self.again = self.cursor.is_some();
            self.cursor.get_or_insert(0);
        } else if step > self.passed + 1 {
            // A table that swings about the border of two steps is not read each time.
            self.passed = step;
        }
    }
}

impl AdaptiveTimeouts {
    /// The step for `count` connections: all of them up to the start, the last one from the end on.
    pub(super) fn step(self, count: usize) -> u32 {
        let (start, end) = (u64::from(self.start), u64::from(self.end));
        let count = (count as u64).clamp(start, end.max(start));
        let left = (end - count.min(end)) * u64::from(STEPS);
        let step = left.div_ceil((end - start.min(end)).max(1));
        u32::try_from(step).unwrap_or(STEPS).clamp(1, STEPS)
    }
}

impl AdmissionState {
    /// The sysctls with the timeouts that are in force.
    pub(super) fn sysctls_in_force(&self) -> Sysctls {
        let mut sysctls = self.configured.clone();
        if self.adaptive.step < STEPS {
            let timeouts = Sysctl::EVERY.iter().filter(|sysctl| sysctl.unit() == "seconds");
            for sysctl in timeouts.filter(|sysctl| **sysctl != Sysctl::Frag6Timeout) {
                let whole = u64::from(self.configured[*sysctl]);
                let shorter = (whole * u64::from(self.adaptive.step) / u64::from(STEPS)).max(whole.min(1));
                // It is not larger than a value that was accepted.
                let _ = sysctls.set(*sysctl, shorter);
            }
        }
        sysctls
    }
}
