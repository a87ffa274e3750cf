//! How many places a need takes, part by part.
use crate::quantity::{Count, Span};
use crate::size::demand::{Demand, Need, Observed, up};
use keepstate_engine::{Knob, Knobs};
use serde::Serialize;

/// The places, added up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// What there is on an ordinary day.
    pub steady: u64,
    /// What there is on the worst: ordinary, and the surge.
    pub peak: u64,
    /// What they are made of.
    pub parts: Vec<Part>,
}

/// Connections of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
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
pub fn of(need: &Need, knobs: &Knobs) -> Load {
    let parts = match need {
        Need::Demand(demand) => described(demand, knobs),
        Need::Observed(seen) => observed(seen),
    };
    let sum = |surge: bool| {
        let of_kind = parts.iter().filter(|part| part.surge == surge);
        of_kind.map(|part| part.connections).fold(0, u64::saturating_add)
    };
    let steady = sum(false);
    Load { steady, peak: steady.saturating_add(sum(true)), parts }
}

/// How long the entry of a connection stands that ended without a word, and whose timeout it is. The entry's own deadline runs from the last
/// word; where the other end notices first, its FIN makes it one that is closing.
pub(crate) fn linger(demand: &Demand, knobs: &Knobs) -> (u64, Knob) {
    let established = u64::from(knobs[Knob::TcpTimeoutEstablished]);
    match demand.notice.filter(|notice| *notice < established) {
        Some(notice) => (notice.saturating_add(u64::from(knobs[Knob::TcpTimeoutFinWait])), Knob::TcpTimeoutFinWait),
        None => (established, Knob::TcpTimeoutEstablished),
    }
}

fn described(demand: &Demand, knobs: &Knobs) -> Vec<Part> {
    let mut parts = vec![Part {
        name: "living",
        connections: demand.connections,
        why: format!("{}/s × {} (Little's law)", rate(demand.rate), Span(up(demand.lifetime))),
        knob: None,
        surge: false,
    }];
    let mut lasting = |name, a_second: f64, seconds: u64, knob: Knob, of: &str| {
        let connections = up(a_second * seconds as f64);
        if connections > 0 {
            let why = format!("{}/s {of} × {}", rate(a_second), Span(seconds));
            parts.push(Part { name, connections, why, knob: Some(knob.name()), surge: false });
        }
    };
    let seconds = |knob: Knob| u64::from(knobs[knob]);
    let closed = demand.rate * (1.0 - demand.silent);
    lasting("TIME_WAIT", closed, seconds(Knob::TcpTimeoutTimeWait), Knob::TcpTimeoutTimeWait, "closed");
    let (seconds_silent, knob) = linger(demand, knobs);
    let of = match (knob, demand.notice) {
        (Knob::TcpTimeoutFinWait, Some(notice)) => {
            format!("gone silently, closed by the other end after {},", Span(notice))
        }
        _ => "gone silently".into(),
    };
    lasting("dead peers", demand.rate * demand.silent, seconds_silent, knob, &of);
    let half_open = seconds(Knob::TcpTimeoutSynRecv);
    lasting("half open", demand.half_open_rate, half_open, Knob::TcpTimeoutSynRecv, "answered, never finished");
    lasting("UDP", demand.udp_rate, seconds(Knob::UdpTimeout), Knob::UdpTimeout, "questions");
    let surge = up(demand.connections as f64 * demand.storm);
    if surge > 0 {
        parts.push(Part {
            name: "surge",
            connections: surge,
            why: format!(
                "{} % of the living come again from new ports while their old entries stand (a restart, a network that was away)",
                rate(demand.storm * 100.0)
            ),
            knob: None,
            surge: true,
        });
    }
    parts
}

fn observed(seen: &Observed) -> Vec<Part> {
    let now = |connections, why| Part { name: "now", connections, why, knob: None, surge: false };
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
        let hour = up(growth * 3600.0).min(connections);
        parts.push(Part {
            name: "growth",
            connections: hour,
            why: format!("it grew by {}/s while it was watched: an hour of that, at most as much again", rate(growth)),
            knob: None,
            surge: true,
        });
    }
    parts.push(Part {
        name: "surge",
        connections: connections.div_ceil(4),
        why: "a quarter come again from new ports while their old entries stand: of one look, no more is known".into(),
        knob: None,
        surge: true,
    });
    parts
}

/// A rate for people: whole numbers with groups, small ones with what matters of their fraction.
pub(crate) fn rate(number: f64) -> String {
    match number {
        _ if number >= 100.0 || number.fract() == 0.0 => Count(number.round() as u64).to_string(),
        _ if number >= 1.0 => format!("{number:.1}"),
        _ => format!("{number:.3}").trim_end_matches('0').to_owned(),
    }
}
