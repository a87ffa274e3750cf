//! What packets change of a program: counters, limits, quotas, numbers of connections.
use crate::tree::Limit;
use keepstate_engine::{Engine, Instant, Passage, Tuple, Zone};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Packets and octets.
    pub(super) counters: Vec<(u64, u64)>,
    pub(super) meters: Vec<Meter>,
    /// Where `numgen inc` stands.
    pub(super) numbers: Vec<u32>,
    /// For `numgen random` and `meta random`.
    pub(super) draws: u64,
}

/// Something that is measured, before it has measured anything.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    Limit(Limit),
    Quota { over: bool, octets: u64 },
    Connections { over: bool, count: u32 },
    Counter,
}

/// Something that measures.
#[derive(Debug)]
pub(super) enum Meter {
    /// Nanoseconds' worth of tokens, and when they were counted.
    Limit(Limit, u64, Option<Instant>),
    Quota {
        over: bool,
        octets: u64,
        used: u64,
    },
    Connections {
        over: bool,
        count: u32,
        known: Vec<(Tuple, Zone)>,
    },
    Counter(u64, u64),
}

const SECOND: u128 = 1_000_000_000;

impl Meter {
    pub(super) fn new(measure: &Measure) -> Meter {
        match *measure {
            Measure::Limit(limit) => Meter::Limit(limit, most_tokens(&limit), None),
            Measure::Quota { over, octets } => Meter::Quota { over, octets, used: 0 },
            Measure::Connections { over, count } => Meter::Connections { over, count, known: Vec::new() },
            Measure::Counter => Meter::Counter(0, 0),
        }
    }

    /// Measures one packet: does the rule go on?
    pub(super) fn goes_on(&mut self, octets: u64, engine: &Engine, passage: Option<&Passage>, now: Instant) -> bool {
        match self {
            Meter::Counter(packets, all) => {
                *packets += 1;
                *all += octets;
                true
            }
            Meter::Limit(limit, tokens, last) => {
                let passed = last.map_or(0, |last| now.0.saturating_sub(last.0));
                *last = Some(now);
                let have = tokens.saturating_add(passed).min(most_tokens(limit));
                let unit = if limit.octets { u128::from(octets) } else { 1 };
                let cost = u64::try_from(u128::from(limit.seconds) * SECOND * unit / u128::from(limit.rate));
                let enough = cost.ok().and_then(|cost| have.checked_sub(cost));
                *tokens = enough.unwrap_or(have);
                enough.is_some() != limit.over
            }
            Meter::Quota { over, octets: quota, used } => {
                // As Linux 6.18 has it: what goes beyond it is not counted, and what just fills it is within.
                let beyond = used.saturating_add(octets) > *quota;
                *used += if beyond { 0 } else { octets };
                beyond == *over
            }
            Meter::Connections { over, count, known } => {
                let Some(connection) = passage.and_then(|passage| engine.connection(passage, now)) else {
                    return false;
                };
                let here = (connection.original, connection.zone);
                known.retain(|(tuple, zone)| *tuple == here.0 || engine.find(tuple, *zone, now).is_some());
                if !known.contains(&here) {
                    known.push(here);
                }
                (known.len() > *count as usize) == *over
            }
        }
    }
}

/// As many tokens as can be saved up.
fn most_tokens(limit: &Limit) -> u64 {
    let span = u128::from(limit.seconds) * SECOND;
    let most = match limit.octets {
        true => span * (u128::from(limit.rate) + u128::from(limit.burst)) / u128::from(limit.rate),
        false => span / u128::from(limit.rate) * u128::from(limit.burst.max(1)),
    };
    u64::try_from(most).unwrap_or(u64::MAX)
}
