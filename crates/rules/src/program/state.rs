//! The state of a program that packets change: counters, limits, quotas, connection limits.
#![allow(clippy::disallowed_types, reason = "std's map hashes with SipHash-1-3 and a random key")]
use crate::ast::{Limit, StatefulSpec};
use keepstate_engine::{Engine, Instant, PacketCtx, ProtocolInfo, TcpState, Tuple, Zone};
use std::collections::HashSet;

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
        connections: HashSet<(Tuple, Zone)>,
        /// When closed connections were last removed.
        last_gc: Option<Instant>,
    },
    Counter(u64, u64),
}

const MILLISECOND: u64 = 1_000_000;
const SECOND: u128 = 1_000_000_000;

impl StatefulExpr {
    pub(super) fn new(spec: &StatefulSpec) -> StatefulExpr {
        match *spec {
            StatefulSpec::Limit(limit) => StatefulExpr::Limit(limit, max_tokens(&limit), None),
            StatefulSpec::Quota { over, bytes, used } => StatefulExpr::Quota { over, bytes, used },
            StatefulSpec::ConnLimit { over, count } => {
                StatefulExpr::ConnLimit { over, count, connections: HashSet::new(), last_gc: None }
            }
            StatefulSpec::Counter(packets, bytes) => StatefulExpr::Counter(packets, bytes),
        }
    }

    /// A copy without the connections that it counts.
    pub(super) fn for_listing(&self) -> StatefulExpr {
        match self {
            StatefulExpr::ConnLimit { over, count, .. } => {
                StatefulExpr::ConnLimit { over: *over, count: *count, connections: HashSet::new(), last_gc: None }
            }
            other => other.clone(),
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
            (
                StatefulExpr::ConnLimit { connections, last_gc, .. },
                StatefulExpr::ConnLimit { connections: other, last_gc: other_gc, .. },
            ) => {
                std::mem::swap(connections, other);
                std::mem::swap(last_gc, other_gc);
            }
            (StatefulExpr::Counter(packets, bytes), StatefulExpr::Counter(other_packets, other_bytes)) => {
                std::mem::swap(packets, other_packets);
                std::mem::swap(bytes, other_bytes);
            }
            _ => (),
        }
    }

    /// Applies one packet: does the rule continue?
    pub(super) fn eval(&mut self, bytes: u64, engine: &Engine, packet_ctx: Option<&PacketCtx>, now: Instant) -> bool {
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
            StatefulExpr::ConnLimit { over, count, connections: known, last_gc } => {
                let Some(connection) = packet_ctx.and_then(|packet_ctx| engine.connection(packet_ctx, now)) else {
                    return false;
                };
                let here = (connection.original, connection.zone);
                known.insert(here);
                // Closed connections matter only above the limit. They are removed at most once per millisecond, so that a flood cannot make every
                // packet walk over all of them.
                let stale = last_gc.is_none_or(|last| now.0 >= last.0 + MILLISECOND);
                if known.len() > *count as usize && stale {
                    *last_gc = Some(now);
                    known.retain(|one| *one == here || is_active(engine, one, now));
                }
                (known.len() > *count as usize) == *over
            }
        }
    }
}

/// Does the connection count? TCP connections closed by both ends do not, even while they are in the table.
fn is_active(engine: &Engine, (tuple, zone): &(Tuple, Zone), now: Instant) -> bool {
    let found = engine.find(tuple, *zone, now).and_then(|(handle, _)| engine.entry(handle, now));
    found.is_some_and(|entry| {
        !matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
    })
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
