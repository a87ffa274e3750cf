//! How many places a need takes, part by part.
use crate::size::demand::{Demand, ObservedLoad, Workload, ceil_u64};
use crate::units::{Count, Seconds};
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// The places, added up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableLoad {
    /// What there is on an ordinary day.
    pub steady: u64,
    /// What there is on the worst: ordinary, and the surge.
    pub peak: u64,
    /// What they are made of.
    pub parts: Vec<LoadComponent>,
}

/// Connections of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadComponent {
    /// What they are.
    pub name: &'static str,
    /// How many.
    pub connections: u64,
    /// How that was computed.
    pub why: String,
    /// The timeout that holds them, by its knob's name.
    pub knob: Option<&'static str>,
    /// Are they there only in a surge?
    pub surge: bool,
}

/// The load of a need under these timeouts.
pub fn estimate(need: &Workload, knobs: &Sysctls) -> TableLoad {
    let parts = match need {
        Workload::Demand(demand) => demand_components(demand, knobs),
        Workload::Observed(seen) => observed_components(seen),
    };
    let sum = |surge: bool| {
        let of_kind = parts.iter().filter(|part| part.surge == surge);
        of_kind.map(|part| part.connections).fold(0, u64::saturating_add)
    };
    let steady = sum(false);
    TableLoad { steady, peak: steady.saturating_add(sum(true)), parts }
}

/// How long the entry of a connection stands that ended without a word, and whose timeout it is. The entry's own deadline runs from the last
/// word; where the other end notices first, its FIN makes it one that is closing.
pub(crate) fn dead_peer_entry_lifetime(demand: &Demand, knobs: &Sysctls) -> (u64, Sysctl) {
    let established = u64::from(knobs[Sysctl::TcpTimeoutEstablished]);
    match demand.notice.filter(|notice| *notice < established) {
        Some(notice) => (notice.saturating_add(u64::from(knobs[Sysctl::TcpTimeoutFinWait])), Sysctl::TcpTimeoutFinWait),
        None => (established, Sysctl::TcpTimeoutEstablished),
    }
}

fn demand_components(demand: &Demand, knobs: &Sysctls) -> Vec<LoadComponent> {
    let mut parts = vec![LoadComponent {
        name: "living",
        connections: demand.connections,
        why: format!("{}/s × {} (Little's law)", format_rate(demand.rate), Seconds(ceil_u64(demand.lifetime))),
        knob: None,
        surge: false,
    }];
    let mut lasting = |name, a_second: f64, seconds: u64, knob: Sysctl, of: &str| {
        let connections = ceil_u64(a_second * seconds as f64);
        if connections > 0 {
            let why = format!("{}/s {of} × {}", format_rate(a_second), Seconds(seconds));
            parts.push(LoadComponent { name, connections, why, knob: Some(knob.name()), surge: false });
        }
    };
    let seconds = |knob: Sysctl| u64::from(knobs[knob]);
    let closed = demand.rate * (1.0 - demand.silent);
    lasting("TIME_WAIT", closed, seconds(Sysctl::TcpTimeoutTimeWait), Sysctl::TcpTimeoutTimeWait, "closed");
    let (seconds_silent, knob) = dead_peer_entry_lifetime(demand, knobs);
    let of = match (knob, demand.notice) {
        (Sysctl::TcpTimeoutFinWait, Some(notice)) => {
            format!("gone silently, closed by the other end after {},", Seconds(notice))
        }
        _ => "gone silently".into(),
    };
    lasting("dead peers", demand.rate * demand.silent, seconds_silent, knob, &of);
    let half_open = seconds(Sysctl::TcpTimeoutSynRecv);
    lasting("half open", demand.half_open_rate, half_open, Sysctl::TcpTimeoutSynRecv, "answered, never finished");
    lasting("UDP", demand.udp_rate, seconds(Sysctl::UdpTimeout), Sysctl::UdpTimeout, "questions");
    let surge = ceil_u64(demand.connections as f64 * demand.storm);
    if surge > 0 {
        parts.push(LoadComponent {
            name: "surge",
            connections: surge,
            why: format!(
                "{} % of the living come again from new ports while their old entries stand (a restart, a network that was away)",
                format_rate(demand.storm * 100.0)
            ),
            knob: None,
            surge: true,
        });
    }
    parts
}

fn observed_components(seen: &ObservedLoad) -> Vec<LoadComponent> {
    let now = |connections, why| LoadComponent { name: "now", connections, why, knob: None, surge: false };
    let full = seen.is_full();
    let base = match (full, seen.max) {
        (true, Some(max)) => {
            let doubled = max.max(seen.connections).saturating_mul(2);
            now(doubled, format!("the table is full at {}: twice that, for what did not get in", Count(max)))
        }
        _ => now(seen.connections, "counted now".into()),
    };
    let connections = base.connections;
    let mut parts = vec![base];
    if let Some(growth) = seen.growth.filter(|growth| *growth > 0.0 && !full) {
        let hour = ceil_u64(growth * 3600.0).min(connections);
        parts.push(LoadComponent {
            name: "growth",
            connections: hour,
            why: format!(
                "it grew by {}/s while it was watched: an hour of that, at most as much again",
                format_rate(growth)
            ),
            knob: None,
            surge: true,
        });
    }
    parts.push(LoadComponent {
        name: "surge",
        connections: connections.div_ceil(4),
        why: "a quarter come again from new ports while their old entries stand: of one look, no more is known".into(),
        knob: None,
        surge: true,
    });
    parts
}

/// A rate for people: whole numbers with groups, small ones with what matters of their fraction.
pub(crate) fn format_rate(number: f64) -> String {
    match number {
        _ if number >= 100.0 || number.fract() == 0.0 => Count(number.round() as u64).to_string(),
        _ if number >= 1.0 => format!("{number:.1}"),
        _ => format!("{number:.3}").trim_end_matches('0').to_owned(),
    }
}
