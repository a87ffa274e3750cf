//! The state of a program that packets change: counters, limits, quotas, connection limits.
use super::conn_list::ConnList;
use super::rule_trace::DropCounts;
use super::trace::EvalTrace;
use crate::ast::{Limit, StatefulSpec};
use keepstate_engine::{Engine, Instant, PacketCtx};
use keepstate_wire::Packet;

/// All state outside sets.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Packets and bytes.
    pub(super) counters: Vec<(u64, u64)>,
    pub(super) stateful: Vec<StatefulExpr>,
    /// Next value of each `numgen inc`.
    pub(super) numgen_counters: Vec<u32>,
    /// For `numgen random` and `meta random`.
    pub(super) rng_state: u64,
    /// Added to the engine's time, gives nanoseconds since 1970, wall clock time.
    pub(super) wall_clock_offset: i64,
    /// When the timeouts of the ruleset's elements began to run: with the first packet.
    pub(super) started_at: Option<Instant>,
    /// When a packet was last evaluated.
    pub(super) last_seen: Instant,
    /// What the evaluation that goes on has consulted.
    pub(super) trace: EvalTrace,
    /// Packets that rules and policies have dropped.
    pub(super) drops: DropCounts,
}

impl State {
    /// Nanoseconds since 1970, wall clock time.
    pub(super) fn wall_clock_ns(&self, now: Instant) -> u64 {
        now.0.saturating_add_signed(self.wall_clock_offset)
    }

    /// A pseudo-random number; not for anything that must be unpredictable.
    pub(super) fn next_random(&mut self, salt: u64) -> u32 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.rng_state = self.rng_state.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(salt);
        let mut word = self.rng_state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) as u32
    }
}

/// A limit, quota, connection limit or counter with its state.
#[derive(Clone, Debug)]
pub(super) enum StatefulExpr {
    /// Tokens in nanoseconds, and the time of their last update.
    Limit(Limit, u64, Option<Instant>),
    Quota {
        over: bool,
        bytes: u64,
        used: u64,
    },
    ConnLimit {
        over: bool,
        count: u32,
        connections: ConnList,
    },
    Counter(u64, u64),
}

const SECOND: u128 = 1_000_000_000;

impl StatefulExpr {
    pub(super) fn new(spec: &StatefulSpec) -> StatefulExpr {
        match *spec {
            StatefulSpec::Limit(limit) => StatefulExpr::Limit(limit, max_tokens(&limit), None),
            StatefulSpec::Quota { over, bytes, used } => StatefulExpr::Quota { over, bytes, used },
            StatefulSpec::ConnLimit { over, count } => {
                StatefulExpr::ConnLimit { over, count, connections: ConnList::default() }
            }
            StatefulSpec::Counter(packets, bytes) => StatefulExpr::Counter(packets, bytes),
        }
    }

    /// A copy without the connections that it counts.
    pub(super) fn for_listing(&self) -> StatefulExpr {
        match self {
            StatefulExpr::ConnLimit { over, count, .. } => {
                StatefulExpr::ConnLimit { over: *over, count: *count, connections: ConnList::default() }
            }
            other => other.clone(),
        }
    }

    /// Takes from it what another of its kind has counted: counters and quotas; the others have nothing to reset.
    pub(super) fn take(&mut self, counted: &StatefulExpr) {
        match (self, counted) {
            (StatefulExpr::Counter(packets, bytes), StatefulExpr::Counter(less_packets, less_bytes)) => {
                *packets = packets.saturating_sub(*less_packets);
                *bytes = bytes.saturating_sub(*less_bytes);
            }
            (StatefulExpr::Quota { used, .. }, StatefulExpr::Quota { used: less, .. }) => {
                *used = used.saturating_sub(*less);
            }
            _ => (),
        }
    }

    /// Exchanges what was counted so far, if both are of one kind; the limits themselves stay.
    pub(super) fn swap_state(&mut self, other: &mut StatefulExpr) {
        match (self, other) {
            (StatefulExpr::Limit(limit, tokens, last), StatefulExpr::Limit(other, other_tokens, other_last))
                if limit == other =>
            {
                std::mem::swap(tokens, other_tokens);
                std::mem::swap(last, other_last);
            }
            (StatefulExpr::Quota { used, .. }, StatefulExpr::Quota { used: other, .. }) => std::mem::swap(used, other),
            (StatefulExpr::ConnLimit { connections, .. }, StatefulExpr::ConnLimit { connections: other, .. }) => {
                std::mem::swap(connections, other)
            }
            (StatefulExpr::Counter(packets, bytes), StatefulExpr::Counter(other_packets, other_bytes)) => {
                std::mem::swap(packets, other_packets);
                std::mem::swap(bytes, other_bytes);
            }
            _ => (),
        }
    }

    /// Applies one packet: does the rule continue?
    pub(super) fn eval(
        &mut self,
        packet: &Packet<'_>,
        engine: &Engine,
        packet_ctx: Option<&PacketCtx>,
        now: Instant,
    ) -> bool {
        let bytes = packet.total_len() as u64;
        match self {
            StatefulExpr::Counter(packets, all) => {
                *packets += 1;
                *all += bytes;
                true
            }
            StatefulExpr::Limit(limit, tokens, last) => {
                let passed = last.map_or(0, |last| now.0.saturating_sub(last.0));
                *last = Some(now);
                let have = tokens.saturating_add(passed).min(max_tokens(limit));
                let unit = if limit.per_byte { u128::from(bytes) } else { 1 };
                let cost = u64::try_from(u128::from(limit.seconds) * SECOND * unit / u128::from(limit.rate));
                let enough = cost.ok().and_then(|cost| have.checked_sub(cost));
                *tokens = enough.unwrap_or(have);
                enough.is_some() != limit.over
            }
            StatefulExpr::Quota { over, bytes: quota, used } => {
                // As in Linux 6.18: a packet beyond the quota is not counted, one that just fills it is within.
                let beyond = used.saturating_add(bytes) > *quota;
                *used += if beyond { 0 } else { bytes };
                beyond == *over
            }
            StatefulExpr::ConnLimit { over, count, connections } => {
                let limit = *count as usize;
                (connections.update(limit, packet, engine, packet_ctx, now) > limit) == *over
            }
        }
    }
}

/// Maximum number of tokens.
fn max_tokens(limit: &Limit) -> u64 {
    let span = u128::from(limit.seconds) * SECOND;
    let most = match limit.per_byte {
        true => span * (u128::from(limit.rate) + u128::from(limit.burst)) / u128::from(limit.rate),
        false => span / u128::from(limit.rate) * u128::from(limit.burst.max(1)),
    };
    u64::try_from(most).unwrap_or(u64::MAX)
}
