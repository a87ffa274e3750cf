//! The result of a simulation: text, CSV and JSON.
use super::plot;
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use keepstate_advisor::simulate::summary::format_milliseconds;
use keepstate_advisor::simulate::timeseries::{STATE_COUNT, StateHistogram, TimeseriesSample};
use keepstate_advisor::simulate::{ClientStats, Timeseries, TrafficModel};
use keepstate_advisor::units::{Bytes, Count};
use keepstate_engine::{Sysctl, Sysctls};
use std::io::Write;

/// A finished simulation, ready to print.
pub struct SimulationReport<'a> {
    pub model: Option<&'a TrafficModel>,
    pub knobs: &'a Sysctls,
    pub cpus: Option<u64>,
    pub memory: u64,
    pub timeseries: &'a Timeseries,
    pub stats: Option<&'a ClientStats>,
    pub summary: Vec<String>,
    pub duration: u64,
}

impl SimulationReport<'_> {
    /// The limit.
    fn limit(&self) -> u64 {
        u64::from(self.knobs[Sysctl::Max])
    }
}

/// Line length if standard output is not a terminal.
const WIDTH: u16 = 100;

/// Writes the text.
///
/// # Errors
/// Write errors.
pub fn write(out: &mut impl Write, report: &SimulationReport<'_>) -> Result<()> {
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    write_paragraph(out, &format_title(report), width)?;
    writeln!(out)?;
    for line in plot::lines(report.timeseries, usize::from(width)) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    for line in &report.summary {
        let mut table = new_table(width);
        table.add_row(["-", line.as_str()]);
        write_table(out, &table)?;
    }
    let (Some(peak), Some(last)) = (report.timeseries.peak_sample(), report.timeseries.samples.last()) else {
        return Ok(());
    };
    let bold = anstyle::Style::new().bold();
    writeln!(out, "\n{bold}By state{bold:#}")?;
    write_table(out, &state_table(report.timeseries, peak, last, width))
}

fn format_title(report: &SimulationReport<'_>) -> String {
    let what = match report.model {
        None => "a capture".to_owned(),
        Some(model) => {
            let load = model.clients.map_or_else(
                || format!("{} new connections/s", model.arrival),
                |clients| format!("{} clients, {}/s", Count(clients.into()), model.arrival),
            );
            let name = model.profile.map_or("", |profile| profile.name());
            let keepalive = if model.keepalive > 0 {
                format!(", keepalive {}", format_milliseconds(model.keepalive))
            } else {
                String::new()
            };
            format!("{name}: {load}{keepalive}, for {}", format_milliseconds(model.duration))
        }
    };
    let cpus = report.cpus.map(|cpus| format!("; {cpus} CPUs (without effect: defaults depend on memory)"));
    let limit = if report.limit() == 0 { "no limit".to_owned() } else { Count(report.limit()).to_string() };
    format!(
        "{what}; limit {limit}, {} buckets, established timeout {} s (defaults for {}){}",
        Count(report.knobs[Sysctl::Buckets].into()),
        report.knobs[Sysctl::TcpTimeoutEstablished],
        Bytes(report.memory),
        cpus.unwrap_or_default()
    )
}

/// One row per state that occurred.
fn state_table(record: &Timeseries, peak: &TimeseriesSample, last: &TimeseriesSample, width: u16) -> Table {
    let mut table = new_table(width);
    let head = [
        "state".to_owned(),
        format!("peak ({})", format_milliseconds(peak.at)),
        format!("end ({})", format_milliseconds(last.at)),
        "evicted".to_owned(),
        "expired".to_owned(),
    ];
    table.set_header(head);
    for kind in states_present(record) {
        let columns = [&peak.by_state, &last.by_state, &record.early_dropped, &record.expired];
        let mut cells = vec![Cell::new(StateHistogram::name(kind))];
        cells.extend(columns.map(|histogram| right(histogram.0.get(kind).copied().unwrap_or(0))));
        table.add_row(cells);
    }
    let sums = [peak.connections, last.connections, record.early_dropped.sum(), record.expired.sum()];
    table.add_row([vec![Cell::new("all")], sums.map(right).to_vec()].concat());
    table
}

fn right(count: u64) -> Cell {
    Cell::new(Count(count)).set_alignment(CellAlignment::Right)
}

/// The states that occurred.
fn states_present(record: &Timeseries) -> Vec<usize> {
    let of = |histogram: &StateHistogram, kind: usize| histogram.0.get(kind).is_some_and(|count| *count > 0);
    let ever = |kind: &usize| {
        record.samples.iter().any(|sample| of(&sample.by_state, *kind))
            || of(&record.early_dropped, *kind)
            || of(&record.expired, *kind)
    };
    (0..STATE_COUNT).filter(ever).collect()
}

/// Writes one CSV line per sample.
///
/// # Errors
/// Write errors.
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

/// The JSON document.
pub fn json_document(report: &SimulationReport<'_>) -> serde_json::Value {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    let record = report.timeseries;
    serde_json::json!({
        "schema": "keepstate.simulate/1",
        "model": report.model,
        "duration": seconds(report.duration),
        "memory": report.memory,
        "cpus": report.cpus,
        "nf_conntrack_max": report.knobs[Sysctl::Max],
        "nf_conntrack_buckets": report.knobs[Sysctl::Buckets],
        "nf_conntrack_tcp_timeout_established": report.knobs[Sysctl::TcpTimeoutEstablished],
        "peak": { "connections": record.peak.0, "seconds": seconds(record.peak.1) },
        "full_after": record.full_at.map(seconds),
        "first_drop_after": record.first_drop.map(seconds),
        "pushed_out": record.early_dropped,
        "expired": record.expired,
        "clients": report.stats,
        "story": report.summary,
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
