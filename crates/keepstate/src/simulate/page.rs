//! What a simulation came to: a page for people, CSV and JSON for machines.
use super::{Told, plot};
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use keepstate_advisor::quantity::{Bytes, Count};
use keepstate_advisor::simulate::Record;
use keepstate_advisor::simulate::record::{Histogram, KINDS, Sample};
use keepstate_advisor::simulate::story::time;
use keepstate_engine::Knob;
use std::io::Write;

/// Where standard output is no terminal, lines are as long as this.
const WIDTH: u16 = 100;

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, told: &Told<'_>) -> Result<()> {
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    paragraph(out, &title(told), width)?;
    writeln!(out)?;
    for line in plot::lines(told.record, usize::from(width)) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    for line in &told.story {
        let mut table = table(width);
        table.add_row(["-", line.as_str()]);
        print(out, &table)?;
    }
    let (Some(fullest), Some(last)) = (told.record.fullest(), told.record.samples.last()) else { return Ok(()) };
    let bold = anstyle::Style::new().bold();
    writeln!(out, "\n{bold}By state{bold:#}")?;
    print(out, &states(told.record, fullest, last, width))
}

fn title(told: &Told<'_>) -> String {
    let what = match told.model {
        None => "a capture".to_owned(),
        Some(model) => {
            let who = model.clients.map_or_else(
                || format!("{} connections a second", model.arrival),
                |clients| format!("{} clients, {} a second", Count(clients.into()), model.arrival),
            );
            let name = model.profile.map_or("", |profile| profile.name());
            let keepalive =
                if model.keepalive > 0 { format!(", keepalive {}", time(model.keepalive)) } else { String::new() };
            format!("{name}: {who}{keepalive}, for {}", time(model.duration))
        }
    };
    let cpus = told.cpus.map(|cpus| format!("; {cpus} processors (they change nothing: defaults follow memory)"));
    let limit = if told.limit() == 0 { "no limit".to_owned() } else { Count(told.limit()).to_string() };
    format!(
        "{what}; max {limit}, {} buckets, established {} s (defaults for {}){}",
        Count(told.knobs[Knob::Buckets].into()),
        told.knobs[Knob::TcpTimeoutEstablished],
        Bytes(told.memory),
        cpus.unwrap_or_default()
    )
}

/// A line for each state there ever was a sample of, or that something left in.
fn states(record: &Record, fullest: &Sample, last: &Sample, width: u16) -> Table {
    let mut table = table(width);
    let head = [
        "state".to_owned(),
        format!("fullest ({})", time(fullest.at)),
        format!("end ({})", time(last.at)),
        "pushed out".to_owned(),
        "expired".to_owned(),
    ];
    table.set_header(head);
    for kind in present(record) {
        let columns = [&fullest.kinds, &last.kinds, &record.pushed_out, &record.expired];
        let mut cells = vec![Cell::new(Histogram::name(kind))];
        cells.extend(columns.map(|histogram| right(histogram.0.get(kind).copied().unwrap_or(0))));
        table.add_row(cells);
    }
    let sums = [fullest.connections, last.connections, record.pushed_out.sum(), record.expired.sum()];
    table.add_row([vec![Cell::new("all")], sums.map(right).to_vec()].concat());
    table
}

fn right(count: u64) -> Cell {
    Cell::new(Count(count)).set_alignment(CellAlignment::Right)
}

/// The kinds that ever were.
fn present(record: &Record) -> Vec<usize> {
    let of = |histogram: &Histogram, kind: usize| histogram.0.get(kind).is_some_and(|count| *count > 0);
    let ever = |kind: &usize| {
        record.samples.iter().any(|sample| of(&sample.kinds, *kind))
            || of(&record.pushed_out, *kind)
            || of(&record.expired, *kind)
    };
    (0..KINDS).filter(ever).collect()
}

/// A line a sample.
///
/// # Errors
/// Those of `out`.
pub fn csv(out: &mut impl Write, record: &Record) -> Result<()> {
    let kinds = present(record);
    let names: Vec<String> = kinds.iter().map(|kind| Histogram::name(*kind)).collect();
    let comma = if names.is_empty() { "" } else { "," };
    writeln!(out, "seconds,connections,assured,dropped,early_dropped{comma}{}", names.join(","))?;
    for sample in &record.samples {
        let Sample { at, connections, assured, dropped, early, .. } = sample;
        write!(out, "{},{connections},{assured},{dropped},{early}", *at as f64 / 1e3)?;
        for kind in &kinds {
            write!(out, ",{}", sample.kinds.0.get(*kind).copied().unwrap_or(0))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What a script reads.
pub fn document(told: &Told<'_>) -> serde_json::Value {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    let record = told.record;
    serde_json::json!({
        "schema": "keepstate.simulate/1",
        "model": told.model,
        "duration": seconds(told.duration),
        "memory": told.memory,
        "cpus": told.cpus,
        "nf_conntrack_max": told.knobs[Knob::Max],
        "nf_conntrack_buckets": told.knobs[Knob::Buckets],
        "nf_conntrack_tcp_timeout_established": told.knobs[Knob::TcpTimeoutEstablished],
        "peak": { "connections": record.peak.0, "seconds": seconds(record.peak.1) },
        "full_after": record.filled.map(seconds),
        "first_drop_after": record.first_drop.map(seconds),
        "pushed_out": record.pushed_out,
        "expired": record.expired,
        "clients": told.tally,
        "story": told.story,
        "interval": seconds(record.interval()),
        "samples": record.samples,
    })
}

fn table(width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table
}

fn paragraph(out: &mut impl Write, text: &str, width: u16) -> Result<()> {
    let mut table = table(width);
    table.add_row([text]);
    print(out, &table)
}

fn print(out: &mut impl Write, table: &Table) -> Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
