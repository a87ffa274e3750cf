//! What packets change of a program: counters, limits, quotas, numbers of connections.
use crate::ast::{Limit, StatefulSpec};
use keepstate_engine::{Engine, Instant, PacketCtx, ProtocolInfo, TcpState, Tuple, Zone};
use std::collections::HashSet;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Packets and octets.
    pub(super) counters: Vec<(u64, u64)>,
    pub(super) stateful: Vec<StatefulExpr>,
    /// Where `numgen inc` stands.
    pub(super) numgen_counters: Vec<u32>,
    /// For `numgen random` and `meta random`.
    pub(super) rng_state: u64,
    /// Added to the engine's time, it gives nanoseconds since 1970 by the clock on the wall.
    pub(super) wall_clock_offset: i64,
    /// The first packet has come.
    pub(super) timeouts_started: bool,
}

impl State {
    /// Nanoseconds since 1970 by the clock on the wall.
    pub(super) fn wall_clock_ns(&self, now: Instant) -> u64 {
        now.0.saturating_add_signed(self.wall_clock_offset)
    }

    /// A number that looks random; who needs an unguessable one asks the engine.
    pub(super) fn next_random(&mut self, salt: u64) -> u32 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.rng_state = self.rng_state.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(salt);
        let mut word = self.rng_state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) as u32
    }
}

/// Something that measures.
#[derive(Debug)]
pub(super) enum StatefulExpr {
    /// Nanoseconds' worth of tokens, and when they were counted.
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
        /// When those that are over were last thrown out.
        last_gc: Option<Instant>,
    },
    Counter(u64, u64),
}

const MILLISECOND: u64 = 1_000_000;
const SECOND: u128 = 1_000_000_000;

impl StatefulExpr {
    pub(super) fn new(measure: &StatefulSpec) -> StatefulExpr {
        match *measure {
            StatefulSpec::Limit(limit) => StatefulExpr::Limit(limit, max_tokens(&limit), None),
            StatefulSpec::Quota { over, bytes: octets } => StatefulExpr::Quota { over, bytes: octets, used: 0 },
            StatefulSpec::ConnLimit { over, count } => {
                StatefulExpr::ConnLimit { over, count, connections: HashSet::new(), last_gc: None }
            }
            StatefulSpec::Counter => StatefulExpr::Counter(0, 0),
        }
    }

    /// Measures one packet: does the rule go on?
    pub(super) fn eval(&mut self, octets: u64, engine: &Engine, passage: Option<&PacketCtx>, now: Instant) -> bool {
        match self {
            StatefulExpr::Counter(packets, all) => {
                *packets += 1;
                *all += octets;
                true
            }
            StatefulExpr::Limit(limit, tokens, last) => {
                let passed = last.map_or(0, |last| now.0.saturating_sub(last.0));
                *last = Some(now);
                let have = tokens.saturating_add(passed).min(max_tokens(limit));
                let unit = if limit.per_byte { u128::from(octets) } else { 1 };
                let cost = u64::try_from(u128::from(limit.seconds) * SECOND * unit / u128::from(limit.rate));
                let enough = cost.ok().and_then(|cost| have.checked_sub(cost));
                *tokens = enough.unwrap_or(have);
                enough.is_some() != limit.over
            }
            StatefulExpr::Quota { over, bytes: quota, used } => {
                // As Linux 6.18 has it: what goes beyond it is not counted, and what just fills it is within.
                let beyond = used.saturating_add(octets) > *quota;
                *used += if beyond { 0 } else { octets };
                beyond == *over
            }
            StatefulExpr::ConnLimit { over, count, connections: known, last_gc: swept } => {
                let Some(connection) = passage.and_then(|passage| engine.connection(passage, now)) else {
                    return false;
                };
                let here = (connection.original, connection.zone);
                known.insert(here);
                // Those that are over matter only once there seem to be too many. They are looked for once in a millisecond, so that a flood cannot make
                // each of its packets a walk over all of them.
                let stale = swept.is_none_or(|last| now.0 >= last.0 + MILLISECOND);
                if known.len() > *count as usize && stale {
                    *swept = Some(now);
                    known.retain(|one| *one == here || is_active(engine, one, now));
                }
                (known.len() > *count as usize) == *over
            }
        }
    }
}

/// Is it a connection that somebody still uses? One of TCP that both ends have closed is not, though it stands in the table.
fn is_active(engine: &Engine, (tuple, zone): &(Tuple, Zone), now: Instant) -> bool {
    let found = engine.find(tuple, *zone, now).and_then(|(handle, _)| engine.entry(handle, now));
    found.is_some_and(|entry| {
        !matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
    })
}

/// As many tokens as can be saved up.
fn max_tokens(limit: &Limit) -> u64 {
    let span = u128::from(limit.seconds) * SECOND;
    let most = match limit.per_byte {
        true => span * (u128::from(limit.rate) + u128::from(limit.burst)) / u128::from(limit.rate),
        false => span / u128::from(limit.rate) * u128::from(limit.burst.max(1)),
    };
    u64::try_from(most).unwrap_or(u64::MAX)
}
