//! The entries a workload needs, part by part.
use crate::size::demand::{Demand, ObservedLoad, Workload, ceil_u64};
use crate::units::{Count, Seconds};
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// The entries, added up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableLoad {
    /// Under the normal load.
    pub steady: u64,
    /// At peak: normal load and surge.
    pub peak: u64,
    /// The parts.
    pub parts: Vec<LoadComponent>,
}

/// Connections of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadComponent {
    /// Their kind.
    pub name: &'static str,
    /// How many.
    pub connections: u64,
    /// How that was computed.
    pub why: String,
    /// The sysctl of the timeout that holds them.
    pub knob: Option<&'static str>,
    /// Do they exist only in a surge?
    pub surge: bool,
}

/// The load of a workload under these timeouts.
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

/// How long the entry of a connection stays that ended without FIN or RST, and by which timeout. The timeout runs from the last
/// packet; if the other end closes first, its FIN makes it FIN_WAIT.
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
            format!("silent, closed by the other end after {},", Seconds(notice))
        }
        _ => "silent".into(),
    };
    lasting("dead peers", demand.rate * demand.silent, seconds_silent, knob, &of);
    let half_open = seconds(Sysctl::TcpTimeoutSynRecv);
    lasting("half open", demand.half_open_rate, half_open, Sysctl::TcpTimeoutSynRecv, "unfinished handshakes");
    lasting("UDP", demand.udp_rate, seconds(Sysctl::UdpTimeout), Sysctl::UdpTimeout, "queries");
    let surge = ceil_u64(demand.connections as f64 * demand.storm);
    if surge > 0 {
        parts.push(LoadComponent {
            name: "surge",
            connections: surge,
            why: format!(
                "{} % of the clients reconnect from new ports while their old entries still exist (restart, network outage)",
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
            now(doubled, format!("the table is full at {}: twice that, to include dropped connections", Count(max)))
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
            why: format!("it grew by {}/s in the interval: one hour of that, at most 100 %", format_rate(growth)),
            knob: None,
            surge: true,
        });
    }
    parts.push(LoadComponent {
        name: "surge",
        connections: connections.div_ceil(4),
        why: "25 % reconnect from new ports while their old entries still exist (an assumption)".into(),
        knob: None,
        surge: true,
    });
    parts
}

/// A rate for people: large numbers with digit groups, small ones with decimals.
pub(crate) fn format_rate(number: f64) -> String {
    match number {
        _ if number >= 100.0 || number.fract() == 0.0 => Count(number.round() as u64).to_string(),
        _ if number >= 1.0 => format!("{number:.1}"),
        _ => format!("{number:.3}").trim_end_matches('0').to_owned(),
    }
}
