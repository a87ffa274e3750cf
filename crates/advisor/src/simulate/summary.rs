//! A simulation in sentences: when the table filled, what was dropped, and why.
use crate::simulate::stats::ClientStats;
use crate::simulate::timeseries::Timeseries;
use crate::units::{Count, Seconds};

/// The sentences, most important first. `stats` exists if clients were simulated; a capture has none.
pub fn summarize(timeseries: &Timeseries, stats: Option<&ClientStats>, duration: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let limit = timeseries.limit();
    let (peak, peak_at) = timeseries.peak;
    match timeseries.full_at {
        Some(at) => lines.push(format!(
            "the table is full after {}: {} connections (nf_conntrack_max)",
            format_milliseconds(at),
            Count(limit)
        )),
        None => {
            let share = (u128::from(peak) * 100).checked_div(u128::from(limit));
            let share = share.map_or(String::from("no limit"), |share| format!("{share} % of nf_conntrack_max"));
            lines.push(format!(
                "the table never fills: peak {} connections after {} ({share})",
                Count(peak),
                format_milliseconds(peak_at)
            ));
        }
    }
    let assured = timeseries.peak_sample().map_or(0, |sample| {
        (u128::from(sample.assured) * 100).checked_div(u128::from(sample.connections)).unwrap_or(0)
    });
    if let Some(at) = timeseries.first_drop {
        lines.push(format!(
            "no new connections after {}: from {} on first packets are dropped (`nf_conntrack: table full, dropping packet`); {assured} % of the entries are ASSURED and never evicted",
            Count(limit),
            format_milliseconds(at)
        ));
    } else if timeseries.early_dropped.sum() > 0 {
        lines.push("nothing was dropped: entries that are not ASSURED were evicted".into());
    }
    if let Some(stats) = stats {
        lines.extend(client_lines(stats, duration));
    }
    if timeseries.early_dropped.sum() > 0 {
        lines.push(format!("evicted: {}", format_counts(&timeseries.early_dropped.nonzero())));
    }
    lines
}

fn client_lines(stats: &ClientStats, duration: u64) -> Vec<String> {
    let mut lines = vec![format!(
        "{} connections opened in {}; {} open at the end",
        Count(stats.opened),
        format_milliseconds(duration),
        Count(stats.connected)
    )];
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{} {what}", Count(count)));
        }
    };
    add(stats.clients_refused, "clients were refused at least once");
    add(stats.refused, "connection attempts failed");
    add(stats.syns_dropped, "SYNs of clients were dropped");
    add(stats.waiting, "clients not connected at the end: between two connections, or waiting to retry");
    add(stats.questions_dropped, "UDP queries were dropped");
    add(stats.half_open_dropped, "SYNs of unfinished handshakes were dropped");
    add(stats.scan_dropped, "SYNs of the scan were dropped");
    add(stats.logins_dropped, "logins of the operator were dropped");
    add(
        stats.picked_up,
        "times the entry of an open connection expired and was picked up again by the next packet; behind NAT the connection would break: the established timeout is too short for this keepalive",
    );
    add(
        stats.invalid,
        "times the entry of an open connection expired and its next packet was INVALID: if a rule drops those, the connection hangs",
    );
    add(stats.broken, "connections broke: their entry was gone and the table was full");
    lines
}

/// `ESTABLISHED 65,000, TIME_WAIT 12`.
pub fn format_counts(present: &[(String, u64)]) -> String {
    let items: Vec<String> = present.iter().map(|(name, count)| format!("{name} {}", Count(*count))).collect();
    items.join(", ")
}

/// A duration for people.
pub fn format_milliseconds(milliseconds: u64) -> String {
    if milliseconds < 1000 { format!("{milliseconds} ms") } else { Seconds(milliseconds / 1000).to_string() }
}
