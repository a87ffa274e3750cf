//! The screen as a function of state and fleet. It fits 80 columns and 24 rows.
use super::state::{FleetPane, FleetState, NodeOrder};
use crate::paint::Paint;
use crate::text::{fit, grouped, printable, short};
use keepstate_live::{FleetView, NodeVerdict, NodeView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

/// Letters of a name that are shown.
const NAME_WIDTH: usize = 16;
/// From so many columns on rates are shown too.
const WIDE: usize = 100;

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut FleetState, fleet: &FleetView) {
    let [head, note, heading, main, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    state.rows = usize::from(main.height);
    let rows = match state.pane {
        FleetPane::Nodes => fleet.nodes.len(),
        FleetPane::Shards => fleet.shards().len(),
        FleetPane::Node(_) | FleetPane::Help => 0,
    };
    // Nodes may have gone, or the terminal become smaller.
    state.select(state.selected, rows);
    let paint = Paint::new(state.has_colour);
    let width = usize::from(main.width);
    frame.render_widget(Paragraph::new(head_line(fleet, paint)), head);
    frame.render_widget(Paragraph::new(note_line(state, fleet, paint)), note);
    frame.render_widget(Paragraph::new(heading_line(state, fleet, width)).style(paint.heading()), heading);
    let lines = match &state.pane {
        FleetPane::Nodes => rows_of(state, node_lines(state, fleet, width, paint), paint),
        FleetPane::Shards => rows_of(state, shard_lines(fleet, width, paint), paint),
        FleetPane::Node(name) => {
            let text = Paragraph::new(details(fleet, name, paint)).wrap(Wrap { trim: false });
            frame.render_widget(text, main);
            Vec::new()
        }
        FleetPane::Help => HELP.lines().map(Line::from).collect(),
    };
    if !lines.is_empty() {
        frame.render_widget(Paragraph::new(lines), main);
    }
    frame.render_widget(Paragraph::new("q quit  Enter one node  d who decides  s sort  space freeze  ? help"), foot);
}

/// The page of rows; the selected one is marked.
fn rows_of<'a>(state: &FleetState, lines: Vec<Line<'a>>, paint: Paint) -> Vec<Line<'a>> {
    let page = lines.into_iter().enumerate().skip(state.offset).take(state.rows);
    page.map(|(at, line)| if at == state.selected { line.style(paint.selected()) } else { line }).collect()
}

fn verdict_style(verdict: NodeVerdict, paint: Paint) -> Style {
    match verdict {
        NodeVerdict::Ok => Style::new(),
        NodeVerdict::Warning => paint.warning(),
        NodeVerdict::Unknown => paint.coloured(Color::Magenta),
        NodeVerdict::Critical => paint.bad(),
    }
}

fn head_line(fleet: &FleetView, paint: Paint) -> Line<'_> {
    let verdict = if fleet.is_asked { fleet.verdict() } else { NodeVerdict::Unknown };
    let word = if fleet.is_asked { verdict.name().to_uppercase() } else { "asking".into() };
    let nodes = fleet.nodes.len();
    let silent = match fleet.silent() {
        0 => String::new(),
        1 => ", 1 does not answer".into(),
        silent => format!(", {silent} do not answer"),
    };
    let plural = if nodes == 1 { "" } else { "s" };
    Line::from(vec![
        Span::styled(
            format!("fleet {}", printable(&fleet.name)),
            Style::new().add_modifier(ratatui::style::Modifier::BOLD),
        ),
        Span::raw("  "),
        Span::styled(word, verdict_style(verdict, paint)),
        Span::raw(format!("  {nodes} node{plural}{silent}")),
    ])
}

/// What the user must know first: why the rest is old, or which shard is in trouble.
fn note_line<'a>(state: &FleetState, fleet: &FleetView, paint: Paint) -> Line<'a> {
    let (text, style) = if let Some(error) = &fleet.error {
        (format!("no new data: {error}"), paint.bad())
    } else if fleet.is_asked && fleet.nodes.is_empty() {
        ("no node is registered: keepstate serve --fleet at each one registers it".into(), paint.warning())
    } else if let Some((verdict, problem)) = fleet.shard_problems().into_iter().next() {
        (format!("shard {problem}"), verdict_style(verdict, paint))
    } else {
        (String::new(), Style::new())
    };
    let frozen = if state.is_frozen { "FROZEN (space goes on)  " } else { "" };
    Line::from(vec![Span::styled(frozen, paint.bad()), Span::styled(printable(&text), style)])
}

fn heading_line(state: &FleetState, fleet: &FleetView, width: usize) -> String {
    match &state.pane {
        FleetPane::Nodes => {
            let order = match state.order {
                NodeOrder::Worst => "worst first",
                NodeOrder::Name => "by name",
                NodeOrder::Fullest => "fullest first",
            };
            let name = name_width(fleet);
            let rate = if width < WIDE { String::new() } else { format!("{:>7}", "new/s") };
            format!("{:<name$} {:<8} {:>9} {:>6}{rate}  {order}", "node", "verdict", "entries", "full")
        }
        FleetPane::Node(name) => format!("node {}", printable(name)),
        FleetPane::Shards => {
            let width = shard_width(fleet);
            format!("{:<width$} {:<14} {:>5} {:>6}  who could take over", "shard", "active", "epoch", "lag")
        }
        FleetPane::Help => "keys".into(),
    }
}

fn name_width(fleet: &FleetView) -> usize {
    fleet.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0).clamp(4, NAME_WIDTH)
}

fn shard_width(fleet: &FleetView) -> usize {
    let widest = fleet.shards().iter().map(|duty| duty.cluster.chars().count() + duty.shard.chars().count() + 1).max();
    widest.unwrap_or(0).clamp(5, NAME_WIDTH)
}

fn node_lines<'a>(state: &FleetState, fleet: &FleetView, width: usize, paint: Paint) -> Vec<Line<'a>> {
    let name_width = name_width(fleet);
    let line = |node: &NodeView| {
        let (name, entries) = (fit(&node.name, name_width), node.entries.map_or("?".to_owned(), grouped));
        let percent = node.percent().map_or(String::new(), |percent| format!("{percent:.0} %"));
        let rate = match node.entries {
            _ if width < WIDE => String::new(),
            Some(_) => format!("{:>7}", short(node.new_per_second)),
            None => format!("{:>7}", "?"),
        };
        let rest = width.saturating_sub(name_width + 28 + rate.len());
        Line::from(vec![
            Span::raw(format!("{name:<name_width$} ")),
            Span::styled(format!("{:<8}", node.verdict.name()), verdict_style(node.verdict, paint)),
            Span::raw(format!(" {entries:>9} {percent:>6}{rate}  {}", fit(&node.summary(), rest))),
        ])
    };
    state.nodes(fleet).into_iter().map(line).collect()
}

fn shard_lines<'a>(fleet: &FleetView, width: usize, paint: Paint) -> Vec<Line<'a>> {
    let shard_width = shard_width(fleet);
    let all_answer = fleet.silent() == 0;
    let shards = fleet.shards();
    if shards.is_empty() {
        return vec![Line::from("no node tells of a shard: none is a gateway with [cluster] in its gateway.toml")];
    }
    let line = |duty: &keepstate_live::ShardDuty| {
        let name = fit(&format!("{}/{}", duty.cluster, duty.shard), shard_width);
        let active = if duty.active.is_empty() { "nobody".to_owned() } else { duty.active.join(" ") };
        let ready = match (duty.ready.as_slice(), duty.behind.as_slice()) {
            ([], []) => "nobody".to_owned(),
            (ready, []) => ready.join(" "),
            ([], behind) => format!("not yet: {}", behind.join(" ")),
            (ready, behind) => format!("{}; not yet: {}", ready.join(" "), behind.join(" ")),
        };
        let problem = duty.problem(all_answer);
        let style = problem.map_or(Style::new(), |(verdict, _)| verdict_style(verdict, paint));
        let left = width.saturating_sub(shard_width + 30);
        Line::from(vec![
            Span::raw(format!("{name:<shard_width$} ")),
            Span::styled(format!("{:<14}", fit(&active, 14)), style),
            Span::raw(format!(" {:>5} {:>6}  {}", duty.epoch, short(duty.lag as f64), fit(&ready, left))),
        ])
    };
    shards.iter().map(line).collect()
}

fn details<'a>(fleet: &FleetView, name: &str, paint: Paint) -> Vec<Line<'a>> {
    let Some(node) = fleet.nodes.iter().find(|node| node.name == name) else {
        return vec![
            Line::from("It is not registered any more: it was stopped."),
            Line::default(),
            Line::from("Esc: back"),
        ];
    };
    let mut lines = vec![
        Line::from(format!("kind        {}, keepstate {}", printable(&node.kind), printable(&node.version))),
        Line::from(vec![
            Span::raw("verdict     "),
            Span::styled(node.verdict.name(), verdict_style(node.verdict, paint)),
        ]),
    ];
    if let Some(trouble) = &node.trouble {
        lines.push(Line::from(format!("            {}", printable(trouble))));
    }
    if let Some(entries) = node.entries {
        let limit = node.limit.filter(|limit| *limit > 0).map_or("no limit".to_owned(), grouped);
        lines.push(Line::from(format!(
            "connections {} of {limit}, {}",
            grouped(entries),
            printable(&node.time_to_full)
        )));
        let (new, ended) = (short(node.new_per_second), short(node.ended_per_second));
        lines.push(Line::from(format!("rates       new {new}/s, ended {ended}/s")));
    }
    for shard in &node.shards {
        let state = match (shard.is_connected, shard.is_in_step) {
            (false, _) => "does not reach the cluster",
            (true, true) => "in step",
            (true, false) => "not in step",
        };
        lines.push(Line::from(printable(&format!(
            "shard       {}/{}: {} in epoch {}, decided by {}, {state}, {} messages behind, {} ms old",
            shard.cluster, shard.shard, shard.role, shard.epoch, shard.decided_by, shard.lag, shard.age_ms
        ))));
    }
    lines.push(Line::default());
    for finding in &node.findings {
        let (word, style) = if finding.is_critical { ("CRITICAL", paint.bad()) } else { ("warning ", paint.warning()) };
        lines.push(Line::from(vec![
            Span::styled(word, style),
            Span::raw(format!("  {}: {}", printable(&finding.name), printable(&finding.title))),
        ]));
    }
    if node.findings.is_empty() && node.trouble.is_none() {
        let text = match node.verdict {
            NodeVerdict::Unknown => "its doctor has not run yet",
            _ => "its doctor finds nothing",
        };
        lines.push(Line::from(text));
    }
    lines.push(Line::default());
    lines.push(Line::from("Evidence and remedies: keepstate doctor there, or doctor --fleet.  Esc: back"));
    lines
}

const HELP: &str = "\
q, Ctrl-C      quit                        space    freeze the screen, go on
up, down       select; also j, k           Ctrl-Z   suspend; fg continues
PgUp, PgDn     a page; Home, End           Esc, n   the nodes
Enter          one node: its numbers, its shards, what its doctor finds
d              shards: who decides, who could take over, how far behind
s              sort: worst first, by name, fullest first

Nodes are asked every two seconds. One that does not answer within three is
unknown, with the reason; its doctor runs as often as its serve --doctor says.";
