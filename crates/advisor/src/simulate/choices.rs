//! Ways in which a table can fail, to be simulated side by side, and what each has done.
use crate::simulate::{ClientStats, Simulation, TrafficModel};
use keepstate_engine::{AdaptiveTimeouts, AdmissionPolicy, Reason, SourceLimit, Sysctl, TableReserve};
use serde::Serialize;

/// One way to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChoice {
    /// Its name.
    pub name: &'static str,
    /// How it is written in `gateway.toml`; empty for Linux's behaviour.
    pub setting: String,
    /// What the engine is told.
    pub policy: AdmissionPolicy,
}

/// What a choice has done to a table and its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChoiceOutcome {
    /// The most connections at one time.
    pub peak: u64,
    /// `nf_conntrack_max` at the end.
    pub limit: u64,
    /// Entries dropped early for others.
    pub early_dropped: u64,
    /// Packets dropped, by reason: those that a choice or a full table has caused.
    pub dropped: Vec<(&'static str, u64)>,
    /// Connections whose remaining time was cut.
    pub timeouts_cut: u64,
    /// What the clients experienced.
    pub clients: ClientStats,
}

/// Logins of an operator, on the port that the usual reserve is for.
pub const OPERATOR_PORT: u16 = 22;

impl TableChoice {
    /// Linux's behaviour.
    pub fn linux() -> TableChoice {
        TableChoice { name: "linux", setting: String::new(), policy: AdmissionPolicy::default() }
    }

    /// Entries for some connections.
    pub fn reserve(setting: &str, reserve: TableReserve) -> TableChoice {
        let policy = AdmissionPolicy { reserves: vec![reserve], ..AdmissionPolicy::default() };
        TableChoice { name: "reserve", setting: setting.to_owned(), policy }
    }

    /// A limit for each source.
    pub fn source_limit(setting: &str, limit: SourceLimit) -> TableChoice {
        let policy = AdmissionPolicy { source_limits: vec![limit], ..AdmissionPolicy::default() };
        TableChoice { name: "source-limit", setting: setting.to_owned(), policy }
    }

    /// Shorter timeouts.
    pub fn adaptive(timeouts: AdaptiveTimeouts) -> TableChoice {
        let policy = AdmissionPolicy { adaptive_timeouts: Some(timeouts), ..AdmissionPolicy::default() };
        let setting = format!("{}-{}", timeouts.start, timeouts.end);
        TableChoice { name: "adaptive-timeouts", setting, policy }
    }

    /// A limit that grows.
    pub fn grow_to(ceiling: u32) -> TableChoice {
        let policy = AdmissionPolicy { grow_to: Some(ceiling), ..AdmissionPolicy::default() };
        TableChoice { name: "grow-to", setting: ceiling.to_string(), policy }
    }

    /// Linux's behaviour and each of the choices, with usual values for a table of `limit` connections.
    pub fn usual(limit: u32) -> Vec<TableChoice> {
        let reserve = format!("{} for tcp {OPERATOR_PORT}", (limit / 100).clamp(1, 1000));
        let of_source = "200 connections 50 new/s";
        let (start, end) = (u64::from(limit) * 6 / 10, u64::from(limit) * 12 / 10);
        let within = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut choices = vec![TableChoice::linux()];
        choices.extend(reserve.parse().ok().map(|parsed| TableChoice::reserve(&reserve, parsed)));
        choices.extend(of_source.parse().ok().map(|parsed| TableChoice::source_limit(of_source, parsed)));
        // pf's own defaults: 60 % and 120 % of the limit.
        choices.push(TableChoice::adaptive(AdaptiveTimeouts { start: within(start), end: within(end.max(start + 1)) }));
        choices.push(TableChoice::grow_to(limit.saturating_mul(4)));
        choices
    }
}

impl ChoiceOutcome {
    /// What a finished simulation shows.
    pub fn of(simulation: &Simulation) -> ChoiceOutcome {
        let engine = simulation.engine();
        let reasons = [
            Reason::TableFull,
            Reason::TableReserved,
            Reason::SourceConnections,
            Reason::SourceRate,
            Reason::SourceTableFull,
        ];
        let dropped = engine.reason_counts().filter(|(reason, count)| *count > 0 && reasons.contains(reason));
        ChoiceOutcome {
            peak: simulation.timeseries().peak.0,
            limit: engine.sysctls()[Sysctl::Max].into(),
            early_dropped: engine.counters().early_drop,
            dropped: dropped.map(|(reason, count)| (reason.name(), count)).collect(),
            timeouts_cut: engine.admission_stats().timeouts_cut,
            clients: *simulation.stats(),
        }
    }
}

impl TrafficModel {
    /// The model with an operator who logs in each minute, if it has none: to see whether the machine can still be reached.
    #[must_use]
    pub fn with_operator(self) -> TrafficModel {
        TrafficModel { operator_every: self.operator_every.or(Some(60_000)), ..self }
    }
}

#[cfg(test)]
mod tests;
