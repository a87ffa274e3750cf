//! The screen as a function of state and snapshot. It fits 80 columns and 24 rows; columns are left out rather than cut off.
use crate::paint::Paint;
use crate::snapshot::TopSnapshot;
use crate::state::{TopPane, TopPrompt, TopState};
use crate::text::{fit, grouped, printable, short};
use keepstate_conntrack::format::{FlowWriter, OutputOptions, protocol_name};
use keepstate_live::{FlowRow, GroupBy, TimeToFull, duration_text as duration};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};
use std::time::Duration;

/// Rows of the curve.
const CURVE_ROWS: u16 = 3;

/// Draws it; notes in the state how many rows the main part has.
pub fn draw(frame: &mut Frame<'_>, state: &mut TopState, shown: &TopSnapshot) {
    let [head, rates, curve, note, heading, main, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(CURVE_ROWS),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    state.rows = usize::from(main.height);
    let paint = Paint::new(state.has_colour);
    frame.render_widget(Paragraph::new(head_line(shown, paint, usize::from(frame.area().width))), head);
    frame.render_widget(Paragraph::new(rate_line(shown, usize::from(rates.width))), rates);
    draw_curve(frame, shown, paint, curve);
    frame.render_widget(Paragraph::new(note_line(state, shown, paint)), note);
    frame.render_widget(
        Paragraph::new(heading_line(state, shown, usize::from(heading.width))).style(paint.heading()),
        heading,
    );
    draw_pane(frame, state, shown, main);
    frame.render_widget(Paragraph::new(foot_line(state, paint, usize::from(foot.width))), foot);
}

/// Name, size, time to full. What does not fit is said in fewer words, and the name is cut last: the numbers stay.
fn head_line(shown: &TopSnapshot, paint: Paint, width: usize) -> Line<'static> {
    let name = printable(&shown.name);
    let line = head_line_with(shown, paint, &name, " connections");
    if line.width() <= width {
        return line;
    }
    let line = head_line_with(shown, paint, &name, "");
    let over = line.width().saturating_sub(width);
    if over == 0 {
        return line;
    }
    let kept = fit(&name, name.chars().count().saturating_sub(over));
    head_line_with(shown, paint, &kept, "")
}

fn head_line_with(shown: &TopSnapshot, paint: Paint, name: &str, noun: &str) -> Line<'static> {
    let mut spans = vec![Span::styled(name.to_owned(), Style::new().add_modifier(Modifier::BOLD)), Span::raw("  ")];
    match shown.latest {
        None if shown.feed.error.is_some() => spans.push(Span::styled("cannot be read", paint.bad())),
        None => spans.push(Span::raw("reading the table")),
        Some(latest) => {
            spans.push(Span::raw(format!("{}{noun}", grouped(latest.entries))));
            if let Some(limit) = latest.limit.filter(|limit| *limit > 0) {
                let percent = latest.entries as f64 * 100.0 / limit as f64;
                let style = match percent {
                    95.0.. => paint.bad(),
                    80.0.. => paint.warning(),
                    _ => Style::new(),
                };
                spans.push(Span::raw(format!(" of {} ", grouped(limit))));
                spans.push(Span::styled(format!("({percent:.1} %)"), style));
            }
            let style = match shown.time_to_full {
                TimeToFull::Full => paint.bad(),
                TimeToFull::In(_) => paint.warning(),
                _ => Style::new(),
            };
            spans.push(Span::raw("  "));
            spans.push(Span::styled(shown.time_to_full.to_string(), style));
        }
    }
    Line::from(spans)
}

fn rate_line(shown: &TopSnapshot, width: usize) -> String {
    let rates = format!("new {}/s  ended {}/s", short(shown.rates.new_per_second), short(shown.rates.ended_per_second));
    let no_bytes = format!("  no bytes: {}", shown.switch_on.accounting);
    let has_room = rates.len() + no_bytes.len() <= width;
    if shown.settings.accounting == Some(false) && has_room { rates + &no_bytes } else { rates }
}

fn draw_curve(frame: &mut Frame<'_>, shown: &TopSnapshot, paint: Paint, area: Rect) {
    let width = usize::from(area.width).max(1);
    // The newest is at the right; several seconds share a column when there are more of them than columns.
    let per_column = shown.history.len().div_ceil(width).max(1);
    let columns: Vec<u64> =
        shown.history.rchunks(per_column).rev().map(|part| part.iter().copied().max().unwrap_or(0)).collect();
    let peak = columns.iter().copied().max().unwrap_or(0);
    let limit = shown.latest.and_then(|latest| latest.limit).unwrap_or(u64::MAX);
    // Up to the limit if it is near, else so that the curve can be seen.
    let top = if peak.saturating_mul(4) > limit { limit } else { peak.saturating_mul(2) };
    frame.render_widget(Sparkline::default().data(&columns).max(top.max(1)).style(paint.coloured(Color::Cyan)), area);
}

/// What the user must know to read the rest.
fn note_line<'a>(state: &TopState, shown: &TopSnapshot, paint: Paint) -> Line<'a> {
    let feed = &shown.feed;
    let (text, style) = if let Some(error) = &feed.error {
        (format!("no new data: {error}"), paint.bad())
    } else if let (Some(dumped), false) = (feed.dumped, feed.is_complete) {
        let all = shown.latest.map(|latest| latest.entries).filter(|all| *all >= dumped);
        let all = all.map(|all| format!(" of {}", grouped(all))).unwrap_or_default();
        (format!("reading the table: {}{all} connections so far", grouped(dumped)), paint.warning())
    } else if !feed.is_complete && feed.overruns > 0 {
        ("events were lost: the table is read again".to_owned(), paint.warning())
    } else if feed.left_out > 0 {
        (format!("{} connections are counted only: no room (--connections)", grouped(feed.left_out)), paint.warning())
    } else if shown.settings.events == Some(false) {
        (format!("changes are seen late: {}", shown.switch_on.events), paint.warning())
    } else {
        (findings_note(shown), paint.warning())
    };
    let frozen = if state.is_frozen { "FROZEN (space goes on)  " } else { "" };
    Line::from(vec![Span::styled(frozen, paint.bad()), Span::styled(printable(&text), style)])
}

fn findings_note(shown: &TopSnapshot) -> String {
    match shown.findings.as_deref() {
        Some([first]) => format!("doctor: {} (d)", first.title),
        Some([first, rest @ ..]) => format!("doctor: {} and {} more (d)", first.title, rest.len()),
        _ => String::new(),
    }
}

fn heading_line(state: &TopState, shown: &TopSnapshot, width: usize) -> String {
    let range = |count: usize, all: u64| {
        let first = if count == 0 { 0 } else { state.offset + 1 };
        format!("{first}-{} of {}", state.offset + count, grouped(all))
    };
    match state.pane {
        TopPane::Connections => {
            let filter =
                if state.filter_words.is_empty() { String::new() } else { format!("  [{}]", state.filter_words) };
            format!("connections {} by {}{filter}", range(shown.page.rows.len(), shown.page.matched), state.sort.name())
        }
        TopPane::Groups(by) => {
            let all = u64::try_from(shown.group_count).unwrap_or(u64::MAX);
            let title = format!("by {} {}", by.name(), range(shown.groups.len(), all));
            let columns = GroupColumns::new(shown, width);
            columns.line(&title, ["entries", "new/s", "bytes/s"].map(str::to_owned))
        }
        TopPane::Reasons => format!("{:<24} {:>10} {:>13}", "counters and reasons", "total", "per second"),
        TopPane::Findings => "what keepstate doctor finds".into(),
        TopPane::Details(_) => "one connection".into(),
        TopPane::Help => "keys".into(),
    }
}

fn draw_pane(frame: &mut Frame<'_>, state: &TopState, shown: &TopSnapshot, area: Rect) {
    let paint = Paint::new(state.has_colour);
    let width = usize::from(area.width);
    if let Some(text) = nothing_to_show(state, shown) {
        return frame.render_widget(Paragraph::new(text), area);
    }
    let lines: Vec<String> = match state.pane {
        TopPane::Connections => connection_lines(&shown.page.rows, width),
        TopPane::Groups(_) => {
            let columns = GroupColumns::new(shown, width);
            shown.groups.iter().map(|group| columns.group(group)).collect()
        }
        TopPane::Reasons => {
            let shown = shown.counters.iter().skip(state.offset);
            shown
                .map(|counter| {
                    format!(
                        "{:<24} {:>10} {:>13}",
                        printable(&counter.name),
                        grouped(counter.total),
                        short(counter.per_second)
                    )
                })
                .collect()
        }
        TopPane::Findings | TopPane::Details(_) | TopPane::Help => {
            let text = match state.pane {
                TopPane::Findings => finding_lines(shown, paint),
                TopPane::Details(_) => details_lines(shown),
                _ => HELP.lines().map(Line::from).collect(),
            };
            return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
        }
    };
    let rows = usize::from(area.height);
    let styled = lines.into_iter().take(rows).enumerate().map(|(at, line)| {
        let style = if at == state.selected { paint.selected() } else { Style::new() };
        Line::styled(format!("{line:<width$}"), style)
    });
    frame.render_widget(Paragraph::new(styled.collect::<Vec<_>>()), area);
}

/// What is said instead of a pane that is empty.
fn nothing_to_show(state: &TopState, shown: &TopSnapshot) -> Option<&'static str> {
    let is_read = shown.feed.dumps > 0;
    match state.pane {
        TopPane::Connections if shown.page.matched > 0 || !is_read => None,
        TopPane::Connections if state.filter.is_some() => Some("no connection matches (/ another filter, Esc none)"),
        TopPane::Connections => Some("no connections"),
        TopPane::Groups(_) if shown.group_count > 0 || !shown.groups.is_empty() => None,
        TopPane::Groups(by) if by.is_owner() => Some("the sockets and namespaces of this machine are being read"),
        TopPane::Groups(GroupBy::Outside) if is_read => Some("no source is translated"),
        TopPane::Groups(_) => is_read.then_some("no connections"),
        TopPane::Reasons => shown.counters.is_empty().then_some("nothing has been counted"),
        TopPane::Findings | TopPane::Details(_) | TopPane::Help => None,
    }
}

/// A row for each connection. Columns that do not fit are left out: the rate first, then the age, then the state.
fn connection_lines(rows: &[FlowRow], width: usize) -> Vec<String> {
    let parts: Vec<[String; 5]> = rows.iter().map(columns).collect();
    let widest = |column: usize| {
        parts.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(widest);
    let [protocol, state, age, rate, path] = widths;
    let mut shown = [true, true, true, rate > 0, true];
    for (column, less) in [(3, rate), (2, age), (1, state)] {
        let total: usize = widths.iter().zip(shown).filter(|(_, shown)| *shown).map(|(width, _)| width + 1).sum();
        if total > width + 1 && less > 0 {
            shown[column] = false;
        }
    }
    let fits = protocol + 1 + path <= width;
    let line = |row: &[String; 5]| {
        let mut line = String::new();
        for (column, ((text, width), shown)) in row.iter().zip(widths).zip(shown).enumerate() {
            if !shown {
                continue;
            }
            let padded = match column {
                2 | 3 => format!("{text:>width$} "),
                4 => text.clone(),
                _ => format!("{text:<width$} "),
            };
            line.push_str(&padded);
        }
        if !fits && line.chars().count() > width {
            line = line.chars().take(width.saturating_sub(1)).chain(['…']).collect();
        }
        line
    };
    parts.iter().map(line).collect()
}

/// Protocol, state, age, rate, path.
fn columns(row: &FlowRow) -> [String; 5] {
    let protocol = protocol_name(row.key.protocol).map_or_else(|| row.key.protocol.to_string(), str::to_owned);
    let rate = match row.bytes {
        Some(_) => format!("{}B/s", short(row.bytes_per_second as f64)),
        None => String::new(),
    };
    let path = match &row.nat {
        Some(nat) => nat.to_string(),
        None => format!("{} → {}", row.key.source_text(), row.key.destination_text()),
    };
    [protocol, row.state.name().to_owned(), duration(Duration::from_secs(row.age.into())).replace(' ', ""), rate, path]
}

/// The columns of groups: a label as wide as there is room, and numbers. Bytes only where they are counted.
struct GroupColumns {
    label: usize,
    has_bytes: bool,
}

impl GroupColumns {
    fn new(shown: &TopSnapshot, width: usize) -> GroupColumns {
        let has_bytes = shown.settings.accounting != Some(false);
        let numbers = if has_bytes { 28 } else { 18 };
        GroupColumns { label: width.saturating_sub(numbers).clamp(8, 60), has_bytes }
    }

    fn line(&self, label: &str, [entries, new, bytes]: [String; 3]) -> String {
        let label = fit(label, self.label);
        let line = format!("{label:<width$} {entries:>9} {new:>7}", width = self.label);
        if self.has_bytes { format!("{line} {bytes:>9}") } else { line }
    }

    fn group(&self, group: &keepstate_live::GroupRow) -> String {
        let bytes = if group.bytes_per_second > 0 { short(group.bytes_per_second as f64) } else { "-".into() };
        self.line(&group.label, [grouped(group.entries), short(group.new_per_second), bytes])
    }
}

fn finding_lines<'a>(shown: &TopSnapshot, paint: Paint) -> Vec<Line<'a>> {
    match &shown.findings {
        None => vec![Line::from("doctor has not run yet (with --doctor 0 it never does)")],
        Some(findings) if findings.is_empty() => vec![Line::from("nothing is wrong, as far as doctor sees")],
        Some(findings) => findings
            .iter()
            .map(|finding| {
                let (word, style) =
                    if finding.is_critical { ("CRITICAL", paint.bad()) } else { ("warning ", paint.warning()) };
                Line::from(vec![
                    Span::styled(word, style),
                    Span::raw(format!("  {}: {}", finding.name, printable(&finding.title))),
                ])
            })
            .chain([Line::default(), Line::from("`keepstate doctor` has the evidence and the remedy.")])
            .collect(),
    }
}

fn details_lines<'a>(shown: &TopSnapshot) -> Vec<Line<'a>> {
    let Some(row) = &shown.details else {
        return vec![Line::from("This connection has ended."), Line::default(), Line::from("Esc: back")];
    };
    let mut lines = vec![
        format!("state      {}", row.state.name()),
        format!("from       {}", row.key.source_text()),
        format!("to         {}", row.key.destination_text()),
    ];
    if let Some(nat) = &row.nat {
        lines.push(format!("NAT        {} (inside → outside → peer)", nat));
    }
    lines.push(format!("first seen {} ago", duration(Duration::from_secs(row.age.into()))));
    lines.push(format!("expires    in {} s, unless packets come", row.flow.timeout.unwrap_or(0)));
    if let Some(bytes) = row.bytes {
        let rate = short(row.bytes_per_second as f64);
        lines.push(format!(
            "traffic    {} bytes, {rate} bytes/s, {} packets/s",
            grouped(bytes),
            row.packets_per_second
        ));
    }
    lines.push(String::new());
    let mut writer = FlowWriter::new(Vec::new(), OutputOptions { id: true, ..OutputOptions::default() });
    // Writing to memory does not fail.
    if writer.write_flow(&row.flow).and_then(|()| writer.finish()).is_ok() {
        lines.push(String::from_utf8_lossy(writer.beneath()).trim_end().to_owned());
    }
    lines.push(String::new());
    lines.push("x: delete    Esc: back".to_owned());
    lines.into_iter().map(Line::from).collect()
}

fn foot_line<'a>(state: &TopState, paint: Paint, width: usize) -> Line<'a> {
    match (&state.prompt, &state.message) {
        (Some(TopPrompt::Filter(words)), None) => Line::from(format!("filter, as conntrack -L has it: {words}_")),
        (Some(TopPrompt::Filter(words)), Some(error)) => {
            Line::from(vec![Span::raw(format!("filter: {words}_  ")), Span::styled(printable(error), paint.bad())])
        }
        (Some(TopPrompt::Delete(key)), _) => {
            let question =
                format!("Delete {} → {}? y: yes, any other key: no", key.source_text(), key.destination_text());
            Line::styled(question, paint.bad())
        }
        (None, Some(message)) => Line::styled(printable(message), paint.warning()),
        (None, None) => Line::from(keys_line(width)),
    }
}

/// The most important keys; where they do not fit, the last but one is left out first: `?` has them all.
fn keys_line(width: usize) -> String {
    let mut keys = vec!["q quit", "/ filter", "s sort", "g group", "r reasons", "d doctor", "Enter more", "? help"];
    while keys.len() > 2 && keys.join("  ").len() > width {
        keys.remove(keys.len() - 2);
    }
    keys.join("  ")
}

const HELP: &str = "\
q, Ctrl-C      quit                        space    freeze the screen, go on
up, down       select; also j, k           Ctrl-Z   suspend; fg continues
PgUp, PgDn     a page; Home, End           Ctrl-L   order rows anew
Enter          a connection's details; of a group: its connections
/              filter in the words of conntrack -L: -p tcp --dport 443
Esc            back; in the connections: no filter
s              sort: newest, oldest, rate, bytes, source, destination, timeout
g              group: source, service, state, zone, NAT, namespace, container
c  r  d        connections, counters and reasons, findings of doctor
x, Delete      delete the selected connection, after a question

A row keeps its place as long as its connection is on the page.
NAT is shown as inside → outside → peer; behind ⇒ is what the server sees.";
