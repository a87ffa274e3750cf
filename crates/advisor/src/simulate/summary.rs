//! A simulation in words: when it filled, who was refused, and why.
use crate::simulate::stats::ClientStats;
use crate::simulate::timeseries::Timeseries;
use crate::units::{Count, Seconds};

/// The sentences, most important first. `tally` is there where clients were simulated; a capture has none.
pub fn summarize(record: &Timeseries, tally: Option<&ClientStats>, duration: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let limit = record.limit();
    let (peak, peak_at) = record.peak;
    match record.full_at {
        Some(at) => lines.push(format!(
            "after {} the table is full: {} connections (nf_conntrack_max)",
            format_milliseconds(at),
            Count(limit)
        )),
        None => {
            let share = (u128::from(peak) * 100).checked_div(u128::from(limit));
            let share =
                share.map_or(String::from("there is no limit"), |share| format!("{share} % of nf_conntrack_max"));
            lines.push(format!(
                "the table never fills: at most {} connections, after {} ({share})",
                Count(peak),
                format_milliseconds(peak_at)
            ));
        }
    }
    let assured = record.peak_sample().map_or(0, |sample| {
        (u128::from(sample.assured) * 100).checked_div(u128::from(sample.connections)).unwrap_or(0)
    });
    if let Some(at) = record.first_drop {
        lines.push(format!(
            "no new connections after {}: from {} on, a first packet that finds no room is dropped (`nf_conntrack: table full, dropping packet`); {assured} % of the entries are ASSURED, and those are never pushed out",
            Count(limit),
            format_milliseconds(at)
        ));
    } else if record.early_dropped.sum() > 0 {
        lines.push("nothing was dropped: connections that are not assured made room".into());
    }
    if let Some(tally) = tally {
        lines.extend(client_lines(tally, duration));
    }
    if record.early_dropped.sum() > 0 {
        lines.push(format!("pushed out to make room: {}", format_counts(&record.early_dropped.nonzero())));
    }
    lines
}

fn client_lines(tally: &ClientStats, duration: u64) -> Vec<String> {
    let mut lines = vec![format!(
        "{} connections opened in {}; {} open at the end",
        Count(tally.opened),
        format_milliseconds(duration),
        Count(tally.connected)
    )];
    let mut say = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{} {what}", Count(count)));
        }
    };
    say(tally.clients_refused, "clients were refused at least once");
    say(tally.refused, "attempts to connect came to nothing");
    say(tally.syns_dropped, "SYNs of clients were dropped");
    say(tally.waiting, "clients wait at the end: between two connections, or refused and to try again");
    say(tally.questions_dropped, "UDP questions were dropped");
    say(tally.half_open_dropped, "SYNs of handshakes that nobody would have finished were dropped");
    say(
        tally.picked_up,
        "times a living connection had been forgotten and was picked up again by its next packet; behind NAT it would be lost: the established timeout is too short for this keepalive",
    );
    say(
        tally.invalid,
        "times a living connection had been forgotten and its packet was INVALID: where a rule drops those, it hangs",
    );
    say(
        tally.broken,
        "connections broke, half open or living: their entry was gone, and there was no room to enter them again",
    );
    lines
}

/// `ESTABLISHED 65,000, TIME_WAIT 12`.
pub fn format_counts(present: &[(String, u64)]) -> String {
    let items: Vec<String> = present.iter().map(|(name, count)| format!("{name} {}", Count(*count))).collect();
    items.join(", ")
}

/// Milliseconds for people.
pub fn format_milliseconds(milliseconds: u64) -> String {
    if milliseconds < 1000 { format!("{milliseconds} ms") } else { Seconds(milliseconds / 1000).to_string() }
}
