//! Timeouts that become shorter while the table fills, in steps of a thirty-second.
//!
//! The engine's sysctls have the timeouts of the present step, so every packet sets them and nothing else has to know. What has been idle since before is cut too: with each step down, a
//! pass over the table, a bounded piece at each poll, lowers remaining times to the present timeout of their state. A connection whose timeout a rule has chosen, or that an offload holds, keeps it.
use super::{AdaptiveTimeouts, AdmissionState};
use crate::ct_timeout::timeouts_of;
use crate::protocol::stateless::Stateless;
use crate::protocol::{FastPathTimeouts, Tcp, TrackCtx, TrackResult, sctp::Sctp, seconds_to_ticks};
use crate::table::record::HotRecord;
use crate::time::Ticks;
use crate::{Engine, Instant, Status, Sysctl, Sysctls};
use keepstate_types::ipproto;

/// Timeouts are whole at this many steps.
const STEPS: u32 = 32;

/// Where the timeouts are.
#[derive(Clone)]
pub(super) struct AdaptiveState {
    /// Thirty-seconds of the configured timeouts that are in force.
    step: u32,
    /// The step whose pass over the table was the last to be begun.
    passed: u32,
    /// The next slot of the pass that is under way.
    cursor: Option<u32>,
    /// Timeouts have become shorter during the pass: another one is needed.
    again: bool,
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
    fn set_step(&mut self, step: u32) {
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
    fn step(self, count: usize) -> u32 {
        let (start, end) = (u64::from(self.start), u64::from(self.end));
        let count = (count as u64).clamp(start, end.max(start));
        let left = (end - count.min(end)) * u64::from(STEPS);
        let step = left.div_ceil((end - start.min(end)).max(1));
        u32::try_from(step).unwrap_or(STEPS).clamp(1, STEPS)
    }
}

impl AdmissionState {
    /// The sysctls with the timeouts that are in force.
    fn sysctls_in_force(&self) -> Sysctls {
        let mut sysctls = self.configured.clone();
        if self.adaptive.step < STEPS {
            let timeouts = Sysctl::ALL.iter().filter(|sysctl| sysctl.unit() == "seconds");
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

impl Engine {
    /// The timeouts that are set, or their step, have changed.
    pub(crate) fn timeouts_changed(&mut self) {
        if let Some(state) = &self.admission {
            self.sysctls = state.sysctls_in_force();
        }
        self.fast_timeouts = FastPathTimeouts::from(&self.sysctls);
        self.refresh_timeout_policies();
    }

    /// Makes timeouts as short as the number of connections asks for.
    pub(crate) fn adapt_timeouts(&mut self) {
        let count = self.table.count();
        let Some(state) = &mut self.admission else { return };
        let step = state.policy.adaptive_timeouts.map_or(STEPS, |timeouts| timeouts.step(count));
        if step != state.adaptive.step {
            state.adaptive.set_step(step);
            self.timeouts_changed();
        }
    }

    /// Cuts the remaining times of a bounded number of slots, while there is a pass.
    pub(crate) fn cut_timeouts(&mut self, now: Instant, slots: usize) {
        let Some(begin) = self.admission.as_mut().and_then(|state| state.adaptive.cursor.take()) else { return };
        let all = self.table.records.slot_count();
        let end = (begin as usize).saturating_add(slots).min(all) as u32;
        let mut cut = 0;
        for slot in begin..end {
            cut += u64::from(self.cut_timeout(slot, now.tick()));
        }
        if let Some(state) = &mut self.admission {
            state.stats.timeouts_cut += cut;
            state.adaptive.cursor = match (end as usize) < all {
                true => Some(end),
                false => core::mem::take(&mut state.adaptive.again).then_some(0),
            };
        }
    }

    /// Is a pass under way?
    pub(crate) fn cuts_timeouts(&self) -> bool {
        self.admission.as_ref().is_some_and(|state| state.adaptive.cursor.is_some())
    }

    /// Lowers the remaining time of a connection to the timeout of its state, if it is longer.
    fn cut_timeout(&mut self, slot: u32, tick: u32) -> bool {
        let Some(hot) = self.table.records.hot(slot) else { return false };
        let kept = Status::FIXED_TIMEOUT | Status::OFFLOAD;
        if !hot.is_confirmed() || hot.is_expired(tick) || hot.status().intersects(kept) {
            return false;
        }
        let sysctls = timeouts_of(slot, hot, &self.extensions, &self.timeout_policies, &self.sysctls);
        let deadline = tick.wrapping_add(state_timeout(hot, sysctls, tick));
        let is_earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        if is_earlier {
            if let Some(hot) = self.table.records.hot_mut(slot) {
                hot.deadline = deadline;
            }
            self.table.lower_timer_bound(slot, deadline);
        }
        is_earlier
    }
}

/// The timeout, in ticks, that a packet sets which leaves a connection in its state.
fn state_timeout(hot: &HotRecord, sysctls: &Sysctls, tick: u32) -> u32 {
    match hot.protocol() {
        ipproto::TCP => seconds_to_ticks(sysctls[Tcp::load(hot).timeout_sysctl()]),
        ipproto::SCTP => seconds_to_ticks(sysctls[Sctp::load(hot).timeout_sysctl()]),
        _ => {
            let context = TrackCtx {
                sysctls,
                status: hot.status(),
                now: tick,
                remaining_ticks: 0,
                secret: (0, 0),
                ack_offset: 0,
            };
            match Stateless::load(hot).track_packet(&context) {
                TrackResult::Pass { timeout, .. } => timeout,
                _ => u32::MAX >> 1,
            }
        }
    }
}
