//! A table that fails by choice: reserves, limits by source, shorter timeouts and a growing limit, each of them only if a user asks for it.
//!
//! The state exists only with a policy; without one the engine does what Linux does and pays one test a new connection. What a connection counts for (its reserve, its source)
//! follows from its original tuple and the policy, so nothing is kept with it: it is computed again when the connection ends. Every insertion and every removal must be
//! counted here; [`Engine::check_invariants`] counts again. Nothing here removes a connection: timeouts are cut, and early drop chooses as the reserves allow.
mod adaptive;
mod policy;
mod sources;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod text;

pub use policy::{
    AdaptiveTimeouts, AddressPrefix, AdmissionPolicy, AdmissionPolicyError, AdmissionStats, SourceLimit, TableReserve,
    TupleSelector,
};

use crate::table::key::TupleKey;
use crate::table::{LookupKey, TupleRef};
use crate::{Direction, Engine, Instant, Reason, Sysctl};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use keepstate_wire::keyed_hash::SipKey;
use sources::SourceTable;
use state::{AdaptiveState, AdmissionState};

impl Engine {
    /// Chooses how the table fails; the default policy is Linux's behaviour. It reads every connection once: call it before the first packet.
    ///
    /// ```
    /// use keepstate_engine::{AdmissionPolicy, Engine, Instant, Secret, Sysctls};
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let policy = AdmissionPolicy {
    ///     reserves: vec!["1000 for tcp 22 from 10.0.0.0/8".parse().unwrap()],
    ///     source_limits: vec!["100 connections 20 new/s".parse().unwrap()],
    ///     adaptive_timeouts: Some("200000-280000".parse().unwrap()),
    ///     grow_to: Some(1_000_000),
    /// };
    /// engine.set_admission(policy, Instant(0)).unwrap();
    /// ```
    ///
    /// # Errors
    /// It does not fit the table. Then nothing has changed.
    pub fn set_admission(&mut self, policy: AdmissionPolicy, now: Instant) -> Result<(), AdmissionPolicyError> {
        policy.check(self.sysctls[Sysctl::Max])?;
        let before = self.admission.take();
        if let Some(before) = &before {
            self.sysctls = before.configured.clone();
        }
        if policy != AdmissionPolicy::default() {
            let (first, second) = self.secret;
            let mut state = AdmissionState {
                configured: self.sysctls.clone(),
                reserve_counts: policy.reserves.iter().map(|_| 0).collect(),
                sources: SourceTable::new(SipKey::new(first, second).derive(6)),
                adaptive: AdaptiveState::default(),
                stats: before.map_or_else(AdmissionStats::default, |before| before.stats),
                policy,
            };
            for slot in self.table.used_slots() {
                if let Some(key) = self.table.records.key(TupleRef::new(slot, Direction::Original)) {
                    state.add(&key.tuple(), false, now);
                }
            }
            self.admission = Some(Box::new(state));
        }
        self.timeouts_changed();
        self.adapt_timeouts();
        Ok(())
    }

    /// How the table fails.
    pub fn admission(&self) -> Option<&AdmissionPolicy> {
        self.admission.as_ref().map(|state| &state.policy)
    }

    /// What the choices of [`Engine::set_admission`] have done.
    pub fn admission_stats(&self) -> AdmissionStats {
        let plain = AdmissionStats { timeout_percent: 100, ..AdmissionStats::default() };
        self.admission.as_ref().map_or(plain, |state| AdmissionStats {
            timeout_percent: state.adaptive.percent(),
            sources: state.sources.length(),
            ..state.stats
        })
    }

    /// Each reserve, and how many connections count for it; there may be more than it has entries.
    pub fn reserve_counts(&self) -> impl Iterator<Item = (&TableReserve, u32)> {
        let state = self.admission.as_ref();
        state.into_iter().flat_map(|state| state.policy.reserves.iter().zip(state.reserve_counts.iter().copied()))
    }

    /// May a connection with this tuple begin, as far as its source is concerned?
    #[inline(always)]
    pub(crate) fn check_source(&self, key: &TupleKey, now: Instant) -> Result<(), Reason> {
        match &self.admission {
            None => Ok(()),
            Some(state) => state.sources.check(&state.policy, &key.tuple(), now),
        }
    }

    /// Is there room for a connection with this tuple, as the table is?
    #[inline(always)]
    pub(crate) fn has_room(&self, key: &TupleKey) -> bool {
        let (limit, count) = (self.sysctls[Sysctl::Max] as usize, self.entries_in_use());
        match &self.admission {
            // As in Linux, zero means no limit.
            None => limit == 0 || count < limit,
            Some(state) => state.has_room(state.reserve_of(&key.tuple()), limit, count),
        }
    }

    /// Doubles the limit, if the policy allows it. True if there is room now.
    #[cold]
    pub(crate) fn grow_limit(&mut self, probe: &LookupKey, now: Instant) -> bool {
        let Some(state) = &mut self.admission else { return false };
        let before = self.sysctls[Sysctl::Max];
        let Some(ceiling) = state.policy.grow_to.filter(|ceiling| *ceiling > before) else { return false };
        let after = u64::from(before.saturating_mul(2).min(ceiling));
        if self.sysctls.set(Sysctl::Max, after).is_err() || state.configured.set(Sysctl::Max, after).is_err() {
            return false;
        }
        state.stats.limit_raised += 1;
        self.log.push_ratelimited(now, || {
            format!("keepstate: table full, nf_conntrack_max raised from {before} to {after}")
        });
        self.has_room(&probe.key)
    }

    /// Why a connection has no room: the table is full, or full but for what is reserved.
    pub(crate) fn no_room_reason(&self) -> Reason {
        let limit = self.sysctls[Sysctl::Max] as usize;
        match self.admission.is_some() && self.entries_in_use() < limit {
            true => Reason::TableReserved,
            false => Reason::TableFull,
        }
    }

    /// The connections that may be in the entries for all, and those that are: the whole table without reserves.
    pub(crate) fn common_entries(&self) -> (usize, usize) {
        let (limit, count) = (self.sysctls[Sysctl::Max] as usize, self.entries_in_use());
        self.admission.as_ref().map_or((limit, count), |state| state.common(limit, count))
    }

    /// May the connection in `slot` be dropped early for one with this tuple, or for any (`None`)? Not one that would only free a reserved entry, nor one that is held.
    pub(crate) fn may_make_room(&self, slot: u32, newcomer: Option<&TupleKey>) -> bool {
        if self.held.remaining(slot).is_some() {
            return false;
        }
        let Some(state) = &self.admission else { return true };
        if state.policy.reserves.is_empty() {
            return true;
        }
        let Some(key) = self.table.records.key(TupleRef::new(slot, Direction::Original)) else { return true };
        let reserve = state.reserve_of(&key.tuple());
        state.frees_common(reserve) || newcomer.is_some_and(|key| state.reserve_of(&key.tuple()) == reserve)
    }

    /// A connection was inserted. One that is restored (`is_new` false) takes nothing of its source's allowance.
    #[inline(always)]
    pub(crate) fn admission_added(&mut self, key: &TupleKey, is_new: bool, now: Instant) {
        if let Some(state) = &mut self.admission {
            state.add(&key.tuple(), is_new, now);
            self.adapt_timeouts();
        }
    }

    /// The connection in `slot` is about to be removed.
    #[inline(always)]
    pub(crate) fn admission_removed(&mut self, slot: u32, now: Instant) {
        if let Some(state) = &mut self.admission
            && let Some(key) = self.table.records.key(TupleRef::new(slot, Direction::Original))
        {
            state.remove(&key.tuple(), now);
        }
    }

    /// Checks that every connection is counted once.
    pub(crate) fn check_admission(&self) -> Result<(), String> {
        let Some(state) = &self.admission else { return Ok(()) };
        let mut reserves: Vec<u32> = state.policy.reserves.iter().map(|_| 0).collect();
        let mut sources = BTreeMap::new();
        for slot in self.table.used_slots() {
            let Some(key) = self.table.records.key(TupleRef::new(slot, Direction::Original)) else { continue };
            let tuple = key.tuple();
            if let Some(count) = state.reserve_of(&tuple).and_then(|at| reserves.get_mut(at)) {
                *count += 1;
            }
            if let Some(key) = SourceTable::counted_under(&state.policy, &tuple) {
                *sources.entry(key).or_insert(0) += 1;
            }
        }
        if reserves != state.reserve_counts {
            return Err(format!("reserves have {reserves:?} connections, {:?} counted", state.reserve_counts));
        }
        let counted: BTreeMap<_, u32> = state.sources.counts().collect();
        if counted != sources {
            return Err(format!("{} sources have connections, {} counted, or others", sources.len(), counted.len()));
        }
        Ok(())
    }
}
