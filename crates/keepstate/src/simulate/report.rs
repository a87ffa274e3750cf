//! What a simulation came to: a page for people, CSV and JSON for machines.
use super::{SimulationReport, plot};
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use keepstate_advisor::simulate::Timeseries;
use keepstate_advisor::simulate::summary::format_milliseconds;
use keepstate_advisor::simulate::timeseries::{STATE_COUNT, StateHistogram, TimeseriesSample};
use keepstate_advisor::units::{Bytes, Count};
use keepstate_engine::Sysctl;
use std::io::Write;

/// Where standard output is no terminal, lines are as long as this.
const WIDTH: u16 = 100;

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, told: &SimulationReport<'_>) -> Result<()> {
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    write_paragraph(out, &format_title(told), width)?;
    writeln!(out)?;
    for line in plot::lines(told.timeseries, usize::from(width)) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    for line in &told.summary {
        let mut table = new_table(width);
        table.add_row(["-", line.as_str()]);
        write_table(out, &table)?;
    }
    let (Some(fullest), Some(last)) = (told.timeseries.peak_sample(), told.timeseries.samples.last()) else {
        return Ok(());
    };
    let bold = anstyle::Style::new().bold();
    writeln!(out, "\n{bold}By state{bold:#}")?;
    write_table(out, &state_table(told.timeseries, fullest, last, width))
}

fn format_title(told: &SimulationReport<'_>) -> String {
    let what = match told.model {
        None => "a capture".to_owned(),
        Some(model) => {
            let who = model.clients.map_or_else(
                || format!("{} connections a second", model.arrival),
                |clients| format!("{} clients, {} a second", Count(clients.into()), model.arrival),
            );
            let name = model.profile.map_or("", |profile| profile.name());
            let keepalive = if model.keepalive > 0 {
                format!(", keepalive {}", format_milliseconds(model.keepalive))
            } else {
                String::new()
            };
            format!("{name}: {who}{keepalive}, for {}", format_milliseconds(model.duration))
        }
    };
    let cpus = told.cpus.map(|cpus| format!("; {cpus} processors (they change nothing: defaults follow memory)"));
    let limit = if told.limit() == 0 { "no limit".to_owned() } else { Count(told.limit()).to_string() };
    format!(
        "{what}; max {limit}, {} buckets, established {} s (defaults for {}){}",
        Count(told.knobs[Sysctl::Buckets].into()),
        told.knobs[Sysctl::TcpTimeoutEstablished],
        Bytes(told.memory),
        cpus.unwrap_or_default()
    )
}

/// A line for each state there ever was a sample of, or that something left in.
fn state_table(record: &Timeseries, fullest: &TimeseriesSample, last: &TimeseriesSample, width: u16) -> Table {
    let mut table = new_table(width);
    let head = [
        "state".to_owned(),
        format!("fullest ({})", format_milliseconds(fullest.at)),
        format!("end ({})", format_milliseconds(last.at)),
        "pushed out".to_owned(),
        "expired".to_owned(),
    ];
    table.set_header(head);
    for kind in states_present(record) {
        let columns = [&fullest.by_state, &last.by_state, &record.early_dropped, &record.expired];
        let mut cells = vec![Cell::new(StateHistogram::name(kind))];
        cells.extend(columns.map(|histogram| right(histogram.0.get(kind).copied().unwrap_or(0))));
        table.add_row(cells);
    }
    let sums = [fullest.connections, last.connections, record.early_dropped.sum(), record.expired.sum()];
    table.add_row([vec![Cell::new("all")], sums.map(right).to_vec()].concat());
    table
}

fn right(count: u64) -> Cell {
    Cell::new(Count(count)).set_alignment(CellAlignment::Right)
}

/// The kinds that ever were.
fn states_present(record: &Timeseries) -> Vec<usize> {
    let of = |histogram: &StateHistogram, kind: usize| histogram.0.get(kind).is_some_and(|count| *count > 0);
    let ever = |kind: &usize| {
        record.samples.iter().any(|sample| of(&sample.by_state, *kind))
            || of(&record.early_dropped, *kind)
            || of(&record.expired, *kind)
    };
    (0..STATE_COUNT).filter(ever).collect()
}

/// A line a sample.
///
/// # Errors
/// Those of `out`.
pub fn csv(out: &mut impl Write, record: &Timeseries) -> Result<()> {
    let kinds = states_present(record);
    let names: Vec<String> = kinds.iter().map(|kind| StateHistogram::name(*kind)).collect();
    let comma = if names.is_empty() { "" } else { "," };
    writeln!(out, "seconds,connections,assured,dropped,early_dropped{comma}{}", names.join(","))?;
    for sample in &record.samples {
        let TimeseriesSample { at, connections, assured, dropped, early_dropped: early, .. } = sample;
        write!(out, "{},{connections},{assured},{dropped},{early}", *at as f64 / 1e3)?;
        for kind in &kinds {
            write!(out, ",{}", sample.by_state.0.get(*kind).copied().unwrap_or(0))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What a script reads.
pub fn json_document(told: &SimulationReport<'_>) -> serde_json::Value {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    let record = told.timeseries;
    serde_json::json!({
        "schema": "keepstate.simulate/1",
        "model": told.model,
        "duration": seconds(told.duration),
        "memory": told.memory,
        "cpus": told.cpus,
        "nf_conntrack_max": told.knobs[Sysctl::Max],
        "nf_conntrack_buckets": told.knobs[Sysctl::Buckets],
        "nf_conntrack_tcp_timeout_established": told.knobs[Sysctl::TcpTimeoutEstablished],
        "peak": { "connections": record.peak.0, "seconds": seconds(record.peak.1) },
        "full_after": record.full_at.map(seconds),
        "first_drop_after": record.first_drop.map(seconds),
        "pushed_out": record.early_dropped,
        "expired": record.expired,
        "clients": told.stats,
        "story": told.summary,
        "interval": seconds(record.interval()),
        "samples": record.samples,
    })
}

fn new_table(width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table
}

fn write_paragraph(out: &mut impl Write, text: &str, width: u16) -> Result<()> {
    let mut table = new_table(width);
    table.add_row([text]);
    write_table(out, &table)
}

fn write_table(out: &mut impl Write, table: &Table) -> Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
