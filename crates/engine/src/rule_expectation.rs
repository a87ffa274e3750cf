//! Expectations that a rule makes (`ct expectation set`): of the packet's new connection, and into the table with it.
use crate::expectation::{ExpectFlags, ExpectMask, ExpectResult, Expectation, ExpectationPolicy};
use crate::helper::ExpectLimits;
use crate::protocol::seconds_to_ticks;
use crate::run_helper::full_address_mask;
use crate::time::{Ticks, millis_to_ticks};
use crate::{ConnId, Engine, Helper, Instant, PacketCtx, Sysctl, Tuple, Unconfirmed};

/// The master of an expectation that waits for its confirmation.
const NOBODY: ConnId = ConnId { slot: u32::MAX, generation: u32::MAX };

impl Engine {
    /// Applies a policy to the packet's connection, which must be new (`nft_ct_expect_obj_eval`).
    pub fn expect_by_policy(&mut self, ctx: &mut PacketCtx, policy: &ExpectationPolicy, now: Instant) -> ExpectResult {
        let Some(fresh) = ctx.unconfirmed() else { return ExpectResult::NotApplicable };
        let helper = fresh.extension.as_ref().and_then(|extension| Some(extension.helper_state?.helper()));
        let pending = fresh.expected.get_or_insert_default();
        if pending.0.len() >= usize::from(policy.size) {
            return ExpectResult::NotApplicable;
        }
        let (tuple, zone) = (fresh.reply.tuple(), fresh.zone.id);
        if tuple.source.is_ipv6() != policy.v6 {
            return ExpectResult::Expected;
        }
        let one = Expectation {
            master: NOBODY,
            tuple: Tuple { protocol: policy.protocol, source_key: 0, destination_key: policy.port, ..tuple },
            mask: ExpectMask { source: full_address_mask(tuple.source), source_key: 0 },
            zone,
            class: 0,
            helper,
            flags: ExpectFlags::default(),
            nat: None,
            deadline: now.after_ticks(match helper {
                Some(helper) => seconds_to_ticks(helper.expect_timeout_seconds()),
                None => millis_to_ticks(u64::from(policy.timeout_millis)),
            }),
        };
        let limits = self.expect_limits(helper);
        let before = self.expectations.len() + pending.0.len();
        if self.expectations.overlaps_any(&one, now) {
            return ExpectResult::Refused;
        }
        pending.0.retain(|known| !known.is_same(&one));
        if pending.0.len() >= limits.max_per_class {
            pending.0.remove(0);
        }
        if before >= limits.max_total {
            self.log_expectations_full(now);
            return ExpectResult::Refused;
        }
        pending.0.push(one);
        ExpectResult::Expected
    }

    /// Enters the expectations of a connection that is confirmed.
    #[cold]
    pub(crate) fn insert_expectations(&mut self, fresh: &Unconfirmed, master: ConnId, now: Instant) {
        for one in fresh.expected.iter().flat_map(|pending| &pending.0) {
            // Another packet may have been faster: then its connection is the one that expects.
            let _ = self.add_expectation(Expectation { master, ..*one }, now);
        }
    }

    /// The limits for a master with this helper, or without one.
    pub(crate) fn expect_limits(&self, helper: Option<Helper>) -> ExpectLimits {
        helper.map_or_else(
            || ExpectLimits { max_per_class: usize::MAX, max_total: self.sysctls[Sysctl::ExpectMax] as usize },
            |helper| helper.expect_limits(&self.sysctls),
        )
    }
}
