//! Timeouts that become shorter while the table fills, in steps of a thirty-second.
//!
//! The engine's sysctls have the timeouts of the present step, so every packet sets them and nothing else has to know. What has been idle since before is cut too: with each step down, a
//! pass over the table, a bounded piece at each poll, lowers remaining times to the present timeout of their state. A connection whose timeout a rule has chosen, or that an offload holds, keeps it.
use super::state::STEPS;
use crate::ct_timeout::timeouts_of;
use crate::offload::is_protected_by_offload;
use crate::protocol::stateless::Stateless;
use crate::protocol::{FastPathTimeouts, Tcp, TrackCtx, TrackResult, sctp::Sctp, seconds_to_ticks};
use crate::table::record::HotRecord;
use crate::time::Ticks;
use crate::{Engine, Instant, Status, Sysctls};
use keepstate_types::ipproto;

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
        let count = self.entries_in_use();
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
        let is_kept = hot.status().contains(Status::FIXED_TIMEOUT) || is_protected_by_offload(hot);
        let is_held = self.held.remaining(slot).is_some();
        if !hot.is_confirmed() || is_held || hot.is_expired(tick) || is_kept {
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
