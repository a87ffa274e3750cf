//! The advice as text: each number with its reason.
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};
use keepstate_advisor::size::hash_chains::ChainLengths;
use keepstate_advisor::size::{SizeAdvice, SizingMachine, Workload, kernel_defaults};
use keepstate_advisor::units::{Bytes, Count};
use std::io::Write;

/// Line length if standard output is not a terminal.
const WIDTH: u16 = 100;

/// Writes the text.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, need: &Workload, machine: &SizingMachine, size: &SizeAdvice) -> Result<()> {
    writeln!(out, "{}", format_title(need, machine))?;
    writeln!(out)?;
    write_settings(out, machine, size)?;
    write_heading(out, "Load")?;
    let mut table = new_table();
    for part in &size.load.parts {
        add_row(&mut table, [part.name.into(), Count(part.connections).to_string(), part.why.clone()]);
    }
    add_row(&mut table, ["normal".into(), Count(size.load.steady).to_string(), "without the surge".into()]);
    add_row(&mut table, ["peak".into(), Count(size.load.peak).to_string(), "with the surge".into()]);
    write_table(out, table)?;
    write_memory(out, size)?;
    write_hash_chains(out, size)?;
    write_timeouts(out, size)?;
    write_kernel_defaults(out, machine, size)?;
    if !size.warnings.is_empty() {
        write_heading(out, "Warnings")?;
        for warning in &size.warnings {
            let mut table = new_table();
            table.add_row(["!", warning.as_str()]);
            write_table(out, table)?;
        }
    }
    write_commands(out, machine, size)
}

fn format_title(need: &Workload, machine: &SizingMachine) -> String {
    let memory = Bytes(machine.memory);
    let kernel = machine.release.as_ref().map_or_else(
        || format!("defaults of Linux {}", kernel_defaults::kernel_range(machine.kernel_version)),
        |release| format!("Linux {release}"),
    );
    let cpus = machine.cpus.map(|cpus| format!(", {cpus} CPU{}", if cpus == 1 { "" } else { "s" }));
    let what = match need {
        Workload::Demand(demand) => {
            let profile = demand.profile.map_or("", |profile| profile.name());
            let comma = if profile.is_empty() { "" } else { ": " };
            format!("{profile}{comma}{} connections", Count(demand.connections))
        }
        Workload::Observed(seen) => format!("{} connections now", Count(seen.connections)),
    };
    format!("{what}; {kernel}, {memory}{}", cpus.unwrap_or_default())
}

fn write_settings(out: &mut impl Write, machine: &SizingMachine, size: &SizeAdvice) -> Result<()> {
    let mut table = new_table();
    let now = |value: Option<u64>| value.map_or(String::new(), |value| format!(" Now: {}.", Count(value)));
    let max = format!("{}.{}", size.max.why, now(machine.max));
    add_row(&mut table, ["nf_conntrack_max".into(), size.max.value.to_string(), max]);
    let buckets = format!("{}.{}", size.buckets.why, now(machine.buckets));
    add_row(&mut table, ["nf_conntrack_buckets".into(), size.buckets.value.to_string(), buckets]);
    let hashsize = "the buckets as module option (modprobe.d: options nf_conntrack hashsize=); alone it sets the limit to 8 × the buckets, so set nf_conntrack_max too".into();
    add_row(&mut table, ["hashsize=".into(), size.buckets.value.to_string(), hashsize]);
    add_row(&mut table, ["headroom".into(), Count(size.headroom.value).to_string(), size.headroom.why.clone()]);
    if let Some(unchanged) = &size.max_with_present_timeouts {
        let why = format!("the limit if no timeout is changed: {}", unchanged.why);
        add_row(&mut table, ["(unchanged)".into(), unchanged.value.to_string(), why]);
    }
    write_table(out, table)
}

fn write_memory(out: &mut impl Write, size: &SizeAdvice) -> Result<()> {
    let cost = &size.memory;
    write_heading(out, "Memory")?;
    let mut table = new_table();
    add_row(&mut table, ["connections".into(), Bytes(cost.objects).to_string(), cost.why.clone()]);
    add_row(&mut table, ["extensions".into(), Bytes(cost.extensions).to_string(), String::new()]);
    add_row(&mut table, ["buckets".into(), Bytes(cost.buckets).to_string(), "allocated at once".into()]);
    add_row(
        &mut table,
        [
            "full table".into(),
            Bytes(cost.full).to_string(),
            "kernel memory: not swapped, charged to no container".into(),
        ],
    );
    add_row(
        &mut table,
        ["normal load".into(), Bytes(cost.steady).to_string(), "unused entries cost only their bucket".into()],
    );
    write_table(out, table)
}

fn write_hash_chains(out: &mut impl Write, size: &SizeAdvice) -> Result<()> {
    write_heading(out, "Hash chains (entries per bucket)")?;
    let [least, most] = size.lists.limit;
    let mut table = new_table();
    let line =
        |of: ChainLengths| format!("a lookup walks {:.2} entries; longest expected chain: {}", of.walked, of.worst);
    let average = |of: ChainLengths| format!("{:.2}", of.average);
    add_row(&mut table, ["normal".into(), average(size.lists.steady), line(size.lists.steady)]);
    add_row(&mut table, ["full".into(), average(size.lists.full), line(size.lists.full)]);
    add_row(
        &mut table,
        [
            "limit".into(),
            format!("{least}..{most}"),
            "above a random length in this range the kernel refuses inserts (chaintoolong)".into(),
        ],
    );
    write_table(out, table)?;
    let mut table = new_table();
    table.add_row([size.lists.formula]);
    write_table(out, table)
}

fn write_timeouts(out: &mut impl Write, size: &SizeAdvice) -> Result<()> {
    if size.timeouts.is_empty() {
        return Ok(());
    }
    write_heading(out, "Timeouts")?;
    let mut table = new_table();
    for timeout in &size.timeouts {
        let value = match timeout.advised == timeout.present {
            true => format!("{} (keep)", timeout.present),
            false => format!("{} → {}", timeout.present, timeout.advised),
        };
        let why = format!(
            "holds {} entries; {}.\nshorter: {}\nlonger: {}",
            Count(timeout.holds),
            timeout.why,
            timeout.shorter,
            timeout.longer
        );
        let name = timeout.knob.trim_start_matches("nf_conntrack_").to_owned();
        add_row(&mut table, [name, value, why]);
    }
    write_table(out, table)
}

fn write_kernel_defaults(out: &mut impl Write, machine: &SizingMachine, size: &SizeAdvice) -> Result<()> {
    write_heading(out, &format!("Kernel defaults with {} of memory", Bytes(machine.memory)))?;
    let mut table = new_table();
    table.set_header(["kernel", "max", "buckets", "average", "worst", "this load"]);
    for one in &size.defaults {
        let carries = match (one.carries, one.carries_surge) {
            (true, true) => "fits",
            (true, false) => "fits without the surge",
            (false, _) => "does not fit",
        };
        let numbers = [
            Count(one.max).to_string(),
            Count(one.buckets).to_string(),
            format!("{:.2}", one.lists.average),
            one.lists.worst.to_string(),
        ];
        let mut cells = vec![Cell::new(one.kernels)];
        cells.extend(numbers.into_iter().map(|number| Cell::new(number).set_alignment(CellAlignment::Right)));
        cells.push(Cell::new(format!("{carries} ({})", one.why)));
        table.add_row(cells);
    }
    write_table(out, table)
}

/// Nothing is ever lowered: unused entries cost no memory.
fn write_commands(out: &mut impl Write, machine: &SizingMachine, size: &SizeAdvice) -> Result<()> {
    // Buckets first: chains stay short while the limit grows.
    let sizes = [
        ("nf_conntrack_buckets", machine.buckets, size.buckets.value),
        ("nf_conntrack_max", machine.max, size.max.value),
    ];
    let raised = sizes.into_iter().filter(|(_, now, wanted)| now.is_none_or(|now| now < *wanted));
    let timeouts = size.timeouts.iter().filter(|timeout| timeout.advised != timeout.present);
    let settings: Vec<(&str, u64)> = raised
        .map(|(knob, _, wanted)| (knob, wanted))
        .chain(timeouts.map(|timeout| (timeout.knob, timeout.advised)))
        .collect();
    if settings.is_empty() {
        return write_heading(out, "The current values are large enough: nothing to change");
    }
    write_heading(out, "To set it now, until the next boot (persistent: keepstate tune apply --persist)")?;
    for (knob, value) in settings {
        writeln!(out, "  sysctl -w net.netfilter.{knob}={value}")?;
    }
    Ok(())
}

fn write_heading(out: &mut impl Write, text: &str) -> Result<()> {
    let bold = anstyle::Style::new().bold();
    Ok(writeln!(out, "\n{bold}{text}{bold:#}")?)
}

/// A table without borders, as wide as the terminal.
fn new_table() -> Table {
    let mut table = Table::new();
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table
}

fn add_row(table: &mut Table, [name, number, why]: [String; 3]) {
    table.add_row([Cell::new(name), Cell::new(number).set_alignment(CellAlignment::Right), Cell::new(why)]);
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(12)));
    }
}

fn write_table(out: &mut impl Write, table: Table) -> Result<()> {
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}
