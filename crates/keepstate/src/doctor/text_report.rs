//! The report as text: the status first, then each finding with evidence and remedies, then missing inputs.
use super::changes::{self, FindingChange};
use super::report::DoctorReport;
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};
use keepstate_advisor::doctor::{Finding, HealthStatus, ObservedNamespace, RemedyStep, Severity, StepLocation};
use keepstate_advisor::units::Count;
use std::io::{self, Write};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Limit on namespaces in the table; the fullest are shown.
const MAX_NAMESPACE_ROWS: usize = 12;

/// Writes the report.
///
/// # Errors
/// Of the output.
pub fn write(out: &mut impl Write, report: &DoctorReport, last: Option<&DoctorReport>) -> io::Result<()> {
    let findings = &report.report.findings;
    write_headline(out, report)?;
    let here = if report.from.is_some() { "on that machine" } else { "here" };
    let before = last.map(|last| last.report.findings.as_slice());
    for (at, finding) in findings.iter().enumerate() {
        writeln!(out)?;
        write_finding(out, at + 1, finding, before.map(|before| changes::compare_finding(finding, before)), here)?;
    }
    for gone in before.into_iter().flat_map(|before| changes::gone_findings(findings, before)) {
        writeln!(out, "\n{BOLD}gone{BOLD:#} {}{}", gone.name, namespace_suffix(gone))?;
    }
    if report.observations.namespaces.iter().any(|space| space.count.is_some()) {
        writeln!(out)?;
        write_namespaces(out, &report.observations.namespaces)?;
    }
    write_missing_inputs(out, report)?;
    if last.is_some() || !findings.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn write_headline(out: &mut impl Write, report: &DoctorReport) -> io::Result<()> {
    let verdict = report.report.status;
    let (word, style) = match verdict {
        HealthStatus::Ok => ("OK", Style::new().bold().fg_color(Some(AnsiColor::Green.into()))),
        HealthStatus::Warning => ("WARNING", style(Severity::Warning)),
        HealthStatus::Critical => ("CRITICAL", style(Severity::Critical)),
        HealthStatus::Unknown => ("UNKNOWN", Style::new().bold().fg_color(Some(AnsiColor::Magenta.into()))),
    };
    let summary = match (report.report.findings.first(), verdict) {
        (Some(first), _) => format!("{}{}", first.title, namespace_suffix(first)),
        (None, HealthStatus::Unknown) => "too little could be read".into(),
        (None, _) if report.observations.namespaces.iter().all(|space| space.count.is_none()) => {
            "connection tracking is not in use".into()
        }
        (None, _) if report.observations.missing_inputs.is_empty() => "no problem found".into(),
        (None, _) => "no problem found in what could be read: some inputs are missing".into(),
    };
    writeln!(out, "{style}{word}{style:#} {summary}")
}

fn style(severity: Severity) -> Style {
    let color = match severity {
        Severity::Warning => AnsiColor::Yellow,
        Severity::Critical => AnsiColor::Red,
    };
    Style::new().bold().fg_color(Some(color.into()))
}

fn namespace_suffix(finding: &Finding) -> String {
    match finding.namespace.as_deref() {
        None | Some("this namespace" | "that machine") => String::new(),
        Some(name) => format!(" (in {name})"),
    }
}

fn write_finding(
    out: &mut impl Write,
    number: usize,
    finding: &Finding,
    change: Option<FindingChange>,
    here: &str,
) -> io::Result<()> {
    let style = style(finding.severity);
    let word = match finding.severity {
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let certainty = format!("{:?}", finding.certainty).to_lowercase();
    let change = change.map_or(String::new(), |change| format!(", {change}"));
    writeln!(
        out,
        "{BOLD}{number}. {}{BOLD:#}{}: {style}{word}{style:#}, {certainty}{change}",
        finding.name,
        namespace_suffix(finding)
    )?;
    write_wrapped(out, "   ", &format!("{}.", capitalize(finding.title)))?;
    writeln!(out, "   {BOLD}evidence{BOLD:#}")?;
    for seen in &finding.evidence {
        write_wrapped(out, "     ", &format!("{}: {} [{}]", seen.what, seen.value, seen.source))?;
    }
    writeln!(out, "   {BOLD}meaning{BOLD:#}")?;
    write_wrapped(out, "     ", &finding.meaning)?;
    write_steps(out, "now", &finding.now, here)?;
    write_steps(out, "permanently", &finding.for_good, here)?;
    if !finding.explains.is_empty() {
        write_wrapped(out, "   ", &format!("Hidden consequences of this: {}.", finding.explains.join(", ")))?;
    }
    Ok(())
}

fn write_steps(out: &mut impl Write, when: &str, steps: &[RemedyStep], here: &str) -> io::Result<()> {
    let mut last: Option<&StepLocation> = None;
    for step in steps {
        if last != Some(&step.at) {
            writeln!(out, "   {BOLD}{when}{BOLD:#}, {}", location(&step.at, here))?;
            last = Some(&step.at);
        }
        match &step.command {
            // A command is never wrapped, so that it can be copied.
            Some(command) => {
                writeln!(out, "     {command}")?;
                write_dimmed(out, "       # ", &step.why)?;
            }
            None => write_wrapped(out, "     - ", &step.why)?,
        }
    }
    Ok(())
}

fn location(place: &StepLocation, here: &str) -> String {
    match place {
        StepLocation::Here => here.to_owned(),
        StepLocation::Host => "on the host, in its initial network namespace".into(),
        StepLocation::Inside(name) if name.starts_with("process ") => {
            let process = name.split(' ').nth(1).unwrap_or_default();
            format!("inside its namespace (nsenter -n -t {process} …)")
        }
        StepLocation::Inside(name) => format!("inside {name} (ip netns exec {name} …)"),
        StepLocation::Elsewhere(what) => format!("in {what}"),
    }
}

fn write_namespaces(out: &mut impl Write, all: &[ObservedNamespace]) -> io::Result<()> {
    let mut spaces: Vec<&ObservedNamespace> = all.iter().filter(|space| space.count.is_some()).collect();
    spaces.sort_by_key(|space| std::cmp::Reverse(space.fill_percent()));
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width());
    table.set_header(["namespace", "entries", "limit", "used", "dropped", "evicted", "invalid", "failed"]);
    for column in 1..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| Count(number).to_string());
    for space in spaces.iter().take(MAX_NAMESPACE_ROWS) {
        let counters = space.counters.as_ref().map(|counters| counters.value);
        table.add_row([
            space.name.clone(),
            number(space.count.as_ref().map(|count| count.value)),
            number(space.max()),
            space.fill_percent().map_or("?".into(), |share| format!("{share} %")),
            number(counters.map(|counters| counters.drop)),
            number(counters.map(|counters| counters.early_drop)),
            number(counters.map(|counters| counters.invalid)),
            number(counters.map(|counters| counters.insert_failed)),
        ]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    write_dimmed(
        out,
        "  ",
        "dropped, evicted, invalid and failed count since boot, or since the namespace was created",
    )?;
    if spaces.len() > MAX_NAMESPACE_ROWS {
        writeln!(out, "  and {} more, less full", spaces.len() - MAX_NAMESPACE_ROWS)?;
    }
    Ok(())
}

fn write_missing_inputs(out: &mut impl Write, report: &DoctorReport) -> io::Result<()> {
    let mut listed: Vec<(&str, &str, &str)> = Vec::new();
    for unseen in &report.observations.missing_inputs {
        let one = (unseen.what.as_str(), unseen.why.as_str(), unseen.how.as_str());
        if !listed.contains(&one) {
            listed.push(one);
        }
    }
    if listed.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{BOLD}missing inputs{BOLD:#}")?;
    for (what, why, how) in listed {
        write_wrapped(out, "  - ", &format!("{what}: {why}. To fix: {how}"))?;
    }
    Ok(())
}

/// Columns of the terminal, or 80.
fn width() -> u16 {
    terminal_size::terminal_size().map_or(80, |(width, _)| width.0.clamp(60, 120))
}

fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

fn write_dimmed(out: &mut impl Write, indent: &str, text: &str) -> io::Result<()> {
    write!(out, "{DIM}")?;
    write_wrapped(out, indent, text)?;
    write!(out, "{DIM:#}")
}

/// Wraps text; following lines have the same indentation.
fn write_wrapped(out: &mut impl Write, indent: &str, text: &str) -> io::Result<()> {
    let room = usize::from(width()).saturating_sub(indent.len()).max(20);
    let hanging = if indent.contains('#') { indent.to_owned() } else { " ".repeat(indent.len()) };
    let mut line = String::new();
    let mut lead = indent;
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            writeln!(out, "{lead}{line}")?;
            lead = &hanging;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{lead}{line}")
}
